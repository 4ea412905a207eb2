"""What EM arrived at: all that is computed at an estimate, and what is made of it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np

from emjax.certificates.boundary import increases_inward
from emjax.certificates.curvature import rows_of_derivative
from emjax.certificates.diagnosis import Diagnosis
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.certificates.occupancy import duplicates, empty_values, expected_counts
from emjax.certificates.verdict import from_matrices, from_products
from emjax.e_step.e_step import e_step
from emjax.e_step.instance import instance_of
from emjax.run import findings
from emjax.run.annotations import Params
from emjax.run.bound import Bound
from emjax.run.findings import Finding

# coordinates up to which matrices of second derivatives are formed; beyond, products with them are
# all that is taken
LARGEST_DENSE = 200


class SecondDerivatives(eqx.Module):
    """Matrices over the free coordinates.

    **Attributes:**

    - `hessian`: of the objective.
    - `hessian_of_q`: of Q, the expected statistics held.
    - `derivative_of_em`: of the map of an EM step, its argument first.
    """

    hessian: Any
    hessian_of_q: Any
    derivative_of_em: Any


class Derivatives(eqx.Module):
    """All that a diagnosis reads at the estimate.

    **Attributes:**

    - `objective`: log p(x | θ) + log p(θ) in nats.
    - `counts`: {latent: the expected number of elements of each value}.
    - `tables`, `statistics`: the natural-parameter tables, and their expected statistics.
    - `gradient`, `gradient_of_q`: of the objective and of Q in the free coordinates.
    - `second`: the second derivatives; None where there are too many.
    """

    objective: Any
    counts: dict
    tables: list
    statistics: list
    gradient: Any
    gradient_of_q: Any
    second: SecondDerivatives | None


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
    if not np.isfinite(at.objective):
        raise ValueError(
            "The objective is not finite at these parameters: some datum is impossible there, "
            "or a density is infinite. Pass the result of a run that ended well, "
            "or state a floor or a prior."
        )
    chart = estimate.chart
    if at.second is not None:
        verdict = from_matrices(chart, at.gradient, at.second)
    else:
        verdict = from_products(estimate, at.gradient.dtype)
    # where a scale has collapsed, no derivative says anything
    collapsed = _collapsed(estimate)
    finding = findings.degenerate(collapsed) if collapsed else verdict.finding
    counts = {name: np.asarray(value, float) for name, value in at.counts.items()}
    return Diagnosis(
        objective=float(at.objective),
        gradient_norm=_largest(at.gradient),
        is_dense=at.second is not None,
        coordinates=chart.names,
        fisher_residual=_largest(at.gradient - at.gradient_of_q),
        counts=counts,
        empty=empty_values(counts),
        duplicates=duplicates(estimate.graph, at.tables, at.statistics, counts),
        on_boundary=dict(chart.on_boundary),
        inward=increases_inward(estimate),
        verdict=finding.kind,
        reason=str(finding),
        distance=verdict.distance,
        rate=_rate_of_em(estimate, verdict.rate),
        eigenvalues=verdict.eigenvalues,
    )


def _collapsed(estimate: Estimate) -> list[Finding]:
    """Return the scales that have collapsed: that ends in no maximum, whatever derivatives say."""
    compiled = estimate.bound.compiled
    variances = compiled.variances(estimate.params, estimate.constants)
    return compiled.watch.collapsed(jax.device_get(variances))


def _largest(vector) -> float:
    return float(np.max(np.abs(vector), initial=0.0))


def _rate_of_em(estimate: Estimate, rate: float) -> float:
    """Return the rate of EM, given that of EM with whole M-steps; NaN where one is partial."""
    # how far a single step of an optimizer goes is not known from the derivatives of Q
    is_partial = any(maximizer.is_partial for maximizer in estimate.bound.compiled.maximizers)
    return float("nan") if is_partial else rate


def derivatives_at(estimate: Estimate) -> Derivatives:
    """Return all that a diagnosis reads, computed by one compiled function."""
    # part of the key: what is computed depends on it
    is_dense = estimate.chart.size <= LARGEST_DENSE
    return jax.device_get(estimate.function(("diagnosis", is_dense), _derivatives)())


def _derivatives(around: Neighborhood) -> Derivatives:
    graph, vector = around.pure.graph, around.vector
    arrays = graph.arrays(around.params, around.constants)
    expected = e_step(graph, arrays)
    slope_of_q = jax.grad(around.expected_log_likelihood)
    is_dense = around.chart.size <= LARGEST_DENSE
    return Derivatives(
        objective=expected.log_partition,
        counts=expected_counts(graph, arrays, expected.statistics),
        tables=instance_of(graph, arrays).tables,
        statistics=expected.statistics,
        gradient=jax.grad(around.objective)(vector),
        gradient_of_q=slope_of_q(vector, expected.statistics),
        second=_second_derivatives(around, slope_of_q) if is_dense else None,
    )


def _second_derivatives(around: Neighborhood, slope_of_q) -> SecondDerivatives:
    """Return the second derivatives.

    The gradient along u is ∇₁Q(u; T(u)) (Fisher's identity), so that its derivative, the Hessian,
    and that of EM share the derivative of the E-step, dT.
    """
    vector = around.vector
    statistics, changes = jax.linearize(around.statistics, vector)

    def along(direction) -> SecondDerivatives:
        point, both = (vector, statistics), (direction, changes(direction))
        with_statistics_held = jax.jvp(
            lambda vector: slope_of_q(vector, statistics), (vector,), (direction,)
        )
        return SecondDerivatives(
            hessian=jax.jvp(slope_of_q, point, both)[1],
            hessian_of_q=with_statistics_held[1],
            derivative_of_em=jax.jvp(around.m_step, point, both)[1],
        )

    return rows_of_derivative(along, vector.size, vector.dtype)
