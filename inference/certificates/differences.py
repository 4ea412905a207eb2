"""Second derivatives by differences of first ones, where automatic differentiation has none.

A clamp at its bound, or a density that is flat at the smallest of numbers, has derivatives of its
own that are zero, and a rule by which they are infinity times zero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.m_step.m_step import m_step


class SecondDerivatives(NamedTuple):
    """Matrices over the free coordinates.

    - `hessian`: of the objective.
    - `hessian_of_q`: of Q, the expected statistics held.
    - `derivative_of_em`: of the map of an EM step, its argument first.
    """

    hessian: np.ndarray
    hessian_of_q: np.ndarray
    derivative_of_em: np.ndarray


def by_differences(estimate: Estimate) -> SecondDerivatives:
    """Return the second derivatives at an estimate, right to half of the digits or more."""
    found = jax.device_get(estimate.function("differences", _differences)())
    return SecondDerivatives(*(np.asarray(matrix, float) for matrix in found))


def _differences(around: Neighborhood) -> tuple:
    """Return how the gradients of the objective and of Q, and an EM step, change with each
    coordinate.
    """
    chart, center = around.chart, around.vector
    statistics = around.statistics(around.tables(around.estimated))

    def objective(vector):
        return around.objective(around.at(vector))

    def of_q(vector):
        return around.expected_log_likelihood(around.at(vector), statistics)

    def em_step(vector):
        params = {**around.params, **around.at(vector)}
        expected = around.statistics(around.tables(around.at(vector)))
        maximizers = around.pure.maximizers
        states = [maximizer.init(params) for maximizer in maximizers]
        after, _ = m_step(maximizers, params, states, around.constants, expected)
        return chart.flatten(after)

    def at(vector):
        return jax.grad(objective)(vector), jax.grad(of_q)(vector), em_step(vector)

    # the error of a central difference is least there: its own, and that of rounding
    step = float(jnp.finfo(center.dtype).eps) ** (1 / 3)

    def along(direction):
        ahead, behind = at(center + step * direction), at(center - step * direction)
        return jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)

    return jax.lax.map(along, jnp.eye(chart.size, dtype=center.dtype))
