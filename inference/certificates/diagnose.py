"""What EM arrived at: all that is computed at an estimate, and what is made of it."""

from __future__ import annotations

from functools import partial

import numpy as np

from emjax.certificates.boundary import increases_inward
from emjax.certificates.diagnosis import Diagnosis
from emjax.certificates.estimate import Estimate
from emjax.certificates.evaluation import Derivatives, Expectations, derivatives_at
from emjax.certificates.verdict import Verdict, from_matrices, from_products
from emjax.e_step.occupancy import duplicates, empty_values
from emjax.run import verdicts
from emjax.run.annotations import Params
from emjax.run.bound import Bound
from emjax.run.findings import Finding
from emjax.run.resolution import moves_of
from emjax.run.unbounded import unbounded_priors


def diagnose(bound: Bound, result: Params) -> Diagnosis:
    """Return what EM arrived at in a result, with all that says so.

    Up to 200 coordinates the matrices of second derivatives are formed; beyond, the eigenvalues are
    those of Lanczos's method and power iteration. Errors: `ValueError` for an E-step that is not
    soft (the maximum over the latents has no second derivatives), or an objective or a derivative
    that is not finite.
    """
    estimate = Estimate.of(bound, result)
    if bound.compiler.settings.temperature != 1:
        raise ValueError(
            "Certificates are about the likelihood, and a hard or tempered E-step climbs another "
            "objective, the hard one without second derivatives. Diagnose with the soft E-step: "
            "EM(model).diagnose(result, ...)."
        )
    at = derivatives_at(estimate)
    if not np.isfinite(at.expected.objective):
        raise ValueError(
            "The objective is not finite at these parameters: some datum is impossible there, "
            "or a density is infinite. Pass the result of a run that ended well, "
            "or state a floor or a prior."
        )
    chart = estimate.chart
    degenerate = _degenerate(estimate, at.expected)
    verdict = _verdict(estimate, at, degenerate)
    finding = verdicts.degenerate(degenerate) if degenerate else verdict.finding
    counts = {name: np.asarray(value, float) for name, value in at.expected.counts.items()}
    return Diagnosis(
        objective=float(at.expected.objective),
        gradient_norm=_largest(at.gradient),
        is_dense=at.second is not None,
        coordinates=chart.names,
        fisher_residual=_largest(at.gradient - at.gradient_of_q),
        counts=counts,
        empty=empty_values(counts),
        duplicates=duplicates(estimate.graph, at.expected.tables, at.expected.statistics, counts),
        on_boundary=dict(chart.on_boundary),
        entries=estimate.entries,
        inward=increases_inward(estimate),
        verdict=finding.kind,
        reason=str(finding),
        distance=verdict.distance,
        rate=_rate_of_em(estimate, verdict.rate),
        eigenvalues=verdict.eigenvalues,
        undetermined=verdict.undetermined,
    )


def _degenerate(estimate: Estimate, expected: Expectations) -> list[Finding]:
    """Return what has collapsed, and the priors without a finite mode."""
    bound = estimate.bound
    falls = partial(bound.compiled.falls, estimate.params, bound.data, moves_of(bound.data))
    collapsed = bound.compiled.watch.collapsed(expected.sharpness, falls)
    here = estimate.params
    return [*collapsed, *unbounded_priors(bound.compiled, here, here, bound.data)]


def _verdict(estimate: Estimate, at: Derivatives, degenerate: list[Finding]) -> Verdict:
    """Return what second derivatives say; of what is degenerate they need not exist."""
    if at.second is None:
        return from_products(estimate, at.gradient.dtype)
    is_finite = np.isfinite(at.second.hessian).all() and np.isfinite(at.gradient).all()
    if degenerate and not is_finite:
        unknown = np.full(estimate.chart.size, np.nan)
        return Verdict(verdicts.degenerate(degenerate), np.nan, np.nan, unknown, {})
    return from_matrices(estimate, at)


def _largest(vector) -> float:
    return float(np.max(np.abs(vector), initial=0.0))


def _rate_of_em(estimate: Estimate, rate: float) -> float:
    """Return the rate of EM, given that of EM with whole M-steps; NaN where one is partial."""
    # how far a single step of an optimizer goes is not known from the derivatives of Q
    is_partial = any(maximizer.is_partial for maximizer in estimate.bound.compiled.maximizers)
    return float("nan") if is_partial else rate
