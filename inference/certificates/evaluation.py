"""What a diagnosis evaluates at an estimate, by one compiled function."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from emjax.certificates.derivatives import em_slopes_along
from emjax.certificates.differences import SecondDerivatives, by_differences
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.certificates.tangent_space import TangentSpace
from emjax.e_step.e_step import e_step
from emjax.e_step.occupancy import expected_counts

# coordinates up to which matrices of second derivatives are formed; beyond, products with them are
# all that is taken
LARGEST_DENSE = 200


class Expectations(eqx.Module):
    """What the E-step that is run expects at the estimate.

    **Attributes:**

    - `objective`: log p(x | θ) + log p(θ) in nats.
    - `counts`: {latent: the expected number of elements of each value}.
    - `tables`, `statistics`: the natural-parameter tables, and their expected statistics.
    - `sharpness`: how sharp densities are, and which of their data are constant (`run.collapse`).
    """

    objective: Any
    counts: dict
    tables: list
    statistics: list
    sharpness: list


class Derivatives(NamedTuple):
    """All that a diagnosis reads at the estimate.

    - `expected`: what the E-step expects.
    - `gradient`, `gradient_of_q`: of the objective and of Q in the free coordinates.
    - `second`: the second derivatives; None where there are too many.
    """

    expected: Expectations
    gradient: np.ndarray
    gradient_of_q: np.ndarray
    second: SecondDerivatives | None


def derivatives_at(estimate: Estimate) -> Derivatives:
    """Return all that a diagnosis reads, computed by one compiled function."""
    if estimate.chart.size > LARGEST_DENSE:
        found = jax.device_get(estimate.function("gradients", _gradients)())
        expectations, gradient, gradient_of_q = found
        return Derivatives(expectations, gradient, gradient_of_q, None)
    space = TangentSpace.of(estimate)
    directions = space.directions(estimate.params)
    along = estimate.function("diagnosis", _along_all)
    expectations, (gradient, gradient_of_q), slopes = jax.device_get(along(directions))
    first = slopes.objective.first
    second = SecondDerivatives(
        hessian=space.second(slopes.objective.change, first),
        hessian_of_q=space.second(slopes.of_q, first),
        derivative_of_em=slopes.of_em,
    )
    gradient, gradient_of_q = space.gradient(gradient), space.gradient(gradient_of_q)
    if np.isfinite(gradient).all() and not np.isfinite(second.hessian).all():
        second = by_differences(estimate)
    return Derivatives(expectations, gradient, gradient_of_q, second)


def _along_all(around: Neighborhood, directions) -> tuple:
    """Return what is expected, the derivatives of the objective and of Q, and how they change."""
    return *_expectations(around), em_slopes_along(around, directions)


def _gradients(around: Neighborhood) -> tuple:
    """Return what is expected, and the gradients of the objective and of Q."""
    expectations, slopes = _expectations(around)
    _, back = jax.vjp(around.at, around.vector)
    return expectations, *(back(each)[0] for each in slopes)


def _expectations(around: Neighborhood) -> tuple[Expectations, tuple]:
    """Return what the E-step that is run expects, and the derivatives of the objective and of Q."""
    graph, here = around.pure.graph, around.estimated
    arrays = graph.arrays(around.params, around.constants)
    # it may take fast forms, as the objective whose derivatives are taken does not
    expected = e_step(graph, arrays)
    expectations = Expectations(
        objective=expected.log_partition,
        counts=expected_counts(graph, arrays, expected.statistics),
        tables=around.tables(here),
        statistics=expected.statistics,
        sharpness=around.pure.watch.sharpness(around.params, around.params, around.constants),
    )
    slopes_of_q = around.slopes_of_q(here, expected.statistics)
    return expectations, (jax.grad(around.objective)(here), slopes_of_q)
