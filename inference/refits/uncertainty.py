"""Standard errors of an estimate.

They come from second derivatives of the log-likelihood, robust ones from single scores, or from
refits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from emjax.answers.relabeling import Symmetry, symmetries, with_labels_of_estimate
from emjax.answers.reweighted import plates_of
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.refits.bootstrap import Refits, redrawn, resampled
from emjax.refits.information import from_information, from_sandwich
from emjax.refits.sample_counts import SampleCounts
from emjax.refits.scores import independent
from emjax.refits.standard_errors import StandardErrors, record_of
from emjax.run import endings, verdicts
from emjax.run.annotations import ParamsOrNone, Whole
from emjax.run.bound import checked_key
from emjax.run.findings import Finding
from emjax.run.precision import in_double
from emjax.run.result import EMResult
from emjax.run.state import Status, has_failed

METHODS = ("information", "sandwich", "bootstrap", "parametric bootstrap")


@of_a_fit
@in_double
def standard_errors(
    em: EM | Fit,
    params: ParamsOrNone = None,
    *args: Any,
    method: str = "information",
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    num_draws: Whole = 200,
    rng_key: Any = None,
    **kwargs: Any,
) -> StandardErrors:
    """Return standard errors of an estimate; they print as a table.

    `params`: the estimate, or the result of a run; `args`, `kwargs`: the model's own. `method`:

    - "information": √diag of I⁻¹, where I = −∇² log p(x | θ) is the observed information, by exact
      second derivatives with every latent summed out. Where the program states priors, of log p(x |
      θ) + log p(θ): the standard deviations of Laplace's approximation of the posterior. Source:
      Efron & Hinkley (1978).
    - "sandwich": I⁻¹ (Σ_n s_n s_nᵀ) I⁻¹ with s_n the scores of the elements of a plate, which are
      right for data from outside the model. Source: White (1982).
    - "bootstrap": the standard deviation over refits to the elements of a plate, drawn with
      replacement. Source: Efron (1979).
    - "parametric bootstrap": over refits to data that the program draws at `params`. What it takes
      as arguments other than observations stays as it is.

    Derivatives are in unconstrained coordinates, the standard errors of the constrained entries
    follow by the delta method. Refits start at `params`, are compiled together, and their labels
    are brought to those of the estimate. `plate`: whose elements are independent (the only
    outermost one, if not given); `rows`: {another plate: which element of `plate` each of its
    elements belongs to}, for long-form data: `plate="items", rows={"labels": item}`. `num_draws`,
    `rng_key`: for a bootstrap.

    Errors: `ValueError` for params that are no maximum (a direction of increase, or one that is not
    determined, is named), too far from one, or on which nothing depends smoothly (hard E-step); for
    a plate that does not hold all data; for elements with multiplicities in a sandwich or
    bootstrap.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}.")
    # parameters alone do not say how they were found
    if isinstance(params, EMResult) and has_failed(params.status):
        why = endings.why_it_stopped(params.status.name, params.findings)
        raise ValueError(f"There is no estimate to judge: {why}.")
    estimate = Estimate.of(asked_of(em, params, args, kwargs), params)
    if method == "information":
        return from_information(estimate)
    if method == "sandwich":
        return from_sandwich(estimate, plate, rows)
    keys = _keys_of_draws(num_draws, rng_key)
    if method == "bootstrap":
        return _from_resampling(estimate, plate, rows, keys)
    return _from_simulation(estimate, keys)


# ── refits ────────────────────────────────────────────────────────────────────────────────────────


def _keys_of_draws(num_draws: Any, rng_key: Any) -> Array:
    """Return a random key for each draw. Errors: `ValueError` for no number, or no key."""
    # True is a whole number to Python, and one draw has no spread
    is_whole = isinstance(num_draws, int | np.integer) and not isinstance(num_draws, bool)
    if not is_whole or num_draws < 2:
        raise ValueError(f"num_draws must be a whole number of at least 2, not {num_draws!r}.")
    if rng_key is None:
        raise ValueError("A bootstrap draws at random: pass rng_key=jax.random.key(0).")
    call = "emjax.standard_errors(em, result, ..., rng_key=jax.random.key(0))"
    key = checked_key(rng_key, f"rng_key is a random key: {call}.")
    return jax.random.split(key, int(num_draws))


def _from_resampling(
    estimate: Estimate, plate: str | None, rows: Mapping[str, Any] | None, keys: Array
) -> StandardErrors:
    exchanges = symmetries(estimate)
    weighted = independent(estimate.bound, plate, rows)
    # refits maximize the sum over units, and would have no part of what is outside
    weighted.check_sum(estimate.params)
    unit = plates_of(estimate.bound).plates[weighted.units.plate]
    has_data = SampleCounts.of(estimate.bound, unit).has_data
    refitted = resampled(weighted, estimate, keys, _latents(exchanges), has_data)
    what = (
        f"standard errors from {len(keys)} refits to the elements of {weighted.units}, drawn with "
        "replacement"
    )
    return _from_refits(estimate, "bootstrap", what, exchanges, refitted)


def _from_simulation(estimate: Estimate, keys: Array) -> StandardErrors:
    exchanges = symmetries(estimate)
    refitted = redrawn(estimate, keys, _latents(exchanges))
    what = f"standard errors from {len(keys)} refits to data drawn by the program at the estimate"
    return _from_refits(estimate, "parametric bootstrap", what, exchanges, refitted)


def _latents(exchanges: Sequence[Symmetry]) -> tuple[str, ...]:
    """Return the latents whose values can be exchanged."""
    latents: list[str] = []
    for symmetry in exchanges:
        latents += symmetry.latents
    return tuple(latents)


def _from_refits(
    estimate: Estimate,
    method: str,
    what: str,
    exchanges: Sequence[Symmetry],
    refitted: Refits,
) -> StandardErrors:
    chart, latents = estimate.chart, _latents(exchanges)
    draws = _good_draws(refitted, exchanges)
    # what never moved has no standard error, rather than one of zero
    errors, unmoved = {}, []
    for name, value in draws.items():
        error = np.std(value, axis=0, ddof=1)
        is_known = chart.on_boundary[name] | (name in chart.held)
        if ((error == 0) & ~is_known).any():
            unmoved.append(name)
        errors[name] = np.where(is_known | (error == 0), np.nan, error)
    # where the program treats its values unequally, a latent's labels mean the same in each refit
    others = tuple(name for name in estimate.graph.latents if name not in latents)
    return record_of(
        estimate,
        method=method,
        standard_error=errors,
        covariance=_sample_covariance(estimate, draws),
        what="; ".join([what, *map(str, _caveats(refitted, latents, others, unmoved))]),
        draws=draws,
        num_failed=int(refitted.has_failed.sum()),
        num_unconverged=refitted.num_unconverged,
        aligned=latents,
        not_aligned=others,
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


def _sample_covariance(estimate: Estimate, draws: Mapping) -> np.ndarray:
    """Return the covariance of draws in unconstrained coordinates.

    It is NaN for a coordinate that is infinite in some draw.
    """
    # an entry that a draw has on the boundary has no finite coordinate there
    flattened = estimate.function("coordinates of draws", _coordinates_of)
    vectors = np.asarray(flattened(dict(draws)), float)
    is_finite = np.asarray(np.isfinite(vectors).all(0))
    covariance = np.cov(np.where(is_finite, vectors, 0), rowvar=False)
    covariance = covariance.reshape(estimate.chart.size, estimate.chart.size)
    return np.where(is_finite[:, None] & is_finite, covariance, np.nan)


def _coordinates_of(around: Neighborhood, draws: Mapping) -> Array:
    return jax.vmap(around.chart.flatten)(draws)
