"""Standard errors from the spread of refits, and what has to be known of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Array

from emjax.answers.relabeling import Symmetry, with_labels_of_estimate
from emjax.certificates.bases import bases_at, turned_at
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.certificates.tangent_space import TangentSpace
from emjax.refits.bootstrap import Refits
from emjax.refits.standard_errors import StandardErrors, record_of
from emjax.refits.survey_design import SurveyDesign
from emjax.run import verdicts
from emjax.run.findings import Finding
from emjax.run.state import Status


def latents_of(exchanges: Sequence[Symmetry]) -> tuple[str, ...]:
    """Return the latents whose values can be exchanged."""
    latents: list[str] = []
    for symmetry in exchanges:
        latents += symmetry.latents
    return tuple(latents)


def from_refits(
    estimate: Estimate,
    method: str,
    what: str,
    exchanges: Sequence[Symmetry],
    refitted: Refits,
) -> StandardErrors:
    """Return standard errors from the standard deviation of refits to data drawn again."""
    draws = _good_draws(refitted, exchanges)
    found = _from_spread(estimate, method, what, exchanges, refitted, draws, _from_mean)
    return replace(
        found,
        draws=draws,
        num_failed=int(refitted.has_failed.sum()),
        num_unconverged=refitted.num_unconverged,
    )


def from_jackknife(
    estimate: Estimate,
    what: str,
    exchanges: Sequence[Symmetry],
    refitted: Refits,
    design: SurveyDesign,
) -> StandardErrors:
    """Return standard errors from refits without each of a survey's clusters.

    Errors: `ValueError` if one of them failed: each is a part of the variance.
    """
    has_failed = refitted.has_failed & (design.sizes[design.stratum] > 1)
    if has_failed.any():
        number = int(np.argmax(has_failed))
        raise ValueError(
            f"Without cluster {design.clusters[number]!r} there is no estimate: its objective "
            "became infinite or decreased, or a component collapsed. Use method='linearization', "
            "state a floor or a prior, or use fewer values of the latent."
        )
    draws = with_labels_of_estimate(exchanges, refitted.draws, refitted.agreement)
    found = _from_spread(
        estimate, "jackknife", what, exchanges, refitted, draws, design.jackknife_deviations
    )
    return replace(found, num_unconverged=refitted.num_unconverged)


def _from_mean(draws: np.ndarray) -> np.ndarray:
    """Return deviations whose squares add up to the variance of draws."""
    return (draws - draws.mean(0)) / np.sqrt(len(draws) - 1)


def _from_spread(
    estimate: Estimate,
    method: str,
    what: str,
    exchanges: Sequence[Symmetry],
    refitted: Refits,
    draws: Mapping[str, np.ndarray],
    deviations: Callable[[np.ndarray], np.ndarray],
) -> StandardErrors:
    """Return standard errors from refits.

    `draws`: {site: (draw, …)}; `deviations`: of draws, those whose squares add up to the variance.
    """
    chart, latents = estimate.chart, latents_of(exchanges)
    # what never moved has no standard error, rather than one of zero
    errors, unmoved = {}, []
    for name, value in draws.items():
        error = np.sqrt((deviations(np.asarray(value, float)) ** 2).sum(0))
        is_known = chart.on_boundary[name] | (name in chart.held)
        if ((error == 0) & ~is_known).any():
            unmoved.append(name)
        errors[name] = np.where(is_known | (error == 0), np.nan, error)
    bases, turned = bases_at(estimate), {}
    if bases.count:
        # refits turn as they happen to, and their spread says nothing
        turned = turned_at(bases, TangentSpace.of(estimate).directions(estimate.params))
        for name, is_turned in turned.items():
            errors[name] = np.where(is_turned, np.nan, errors[name])
        what += f"; {verdicts.without_basis(bases.latents, bases.count)}"
    # where the program treats its values unequally, a latent's labels mean the same in each refit
    others = tuple(name for name in estimate.graph.latents if name not in latents)
    return record_of(
        estimate,
        method=method,
        standard_error=errors,
        covariance=_covariance(estimate, draws, deviations),
        what="; ".join([what, *map(str, _caveats(refitted, latents, others, unmoved))]),
        aligned=latents,
        not_aligned=others,
        turned=turned,
    )


def _good_draws(refitted: Refits, exchanges: Sequence[Symmetry]) -> dict[str, np.ndarray]:
    """Return the draws that did not fail, with the labels of the estimate: {site: (draw, …)}.

    Errors: `ValueError` if fewer than two are left.
    """
    is_good = ~refitted.has_failed
    if is_good.sum() < 2:
        raise ValueError(
            f"{int((~is_good).sum())} of {len(is_good)} refits failed: "
            "their objective became infinite or decreased, or a component collapsed. "
            "State a floor or a prior, "
            "or use fewer values of the latent."
        )
    draws = with_labels_of_estimate(exchanges, refitted.draws, refitted.agreement)
    return {name: value[is_good] for name, value in draws.items()}


def _caveats(
    refitted: Refits, aligned: Sequence[str], not_aligned: Sequence[str], unmoved: Sequence[str]
) -> list[Finding]:
    """Return what has to be known of refits to judge their spread."""
    caveats = []
    num_failed = int(refitted.has_failed.sum())
    if num_failed:
        caveats.append(verdicts.failed_refits(num_failed))
    if refitted.num_unconverged:
        caveats.append(verdicts.unconverged_refits(refitted.num_unconverged))
    at_resolution = int((refitted.status == Status.AT_RESOLUTION).sum())
    if at_resolution:
        caveats.append(verdicts.refits_at_resolution(at_resolution))
    if aligned:
        caveats.append(verdicts.labels_aligned(aligned))
    if not_aligned:
        caveats.append(verdicts.labels_not_aligned(not_aligned))
    if unmoved:
        caveats.append(verdicts.never_moved(unmoved))
    return caveats


def _covariance(estimate: Estimate, draws: Mapping, deviations: Callable) -> np.ndarray:
    """Return the covariance of draws in unconstrained coordinates.

    It is NaN for a coordinate that is infinite in some draw.
    """
    # an entry that a draw has on the boundary has no finite coordinate there
    flattened = estimate.function("coordinates of draws", _coordinates_of)
    vectors = np.asarray(flattened(dict(draws)), float)
    is_finite = np.asarray(np.isfinite(vectors).all(0))
    from_center = deviations(np.where(is_finite, vectors, 0))
    covariance = from_center.T @ from_center
    return np.where(is_finite[:, None] & is_finite, covariance, np.nan)


def _coordinates_of(around: Neighborhood, draws: Mapping) -> Array:
    return jax.vmap(around.chart.flatten)(draws)
