"""Which entries on the boundary the objective would increase from, were they moved inward.

EM never moves a probability of zero, whatever the data say of it. The entries are moved by a
millionth, and the slope is taken there: the logarithm of zero has none. Source: Karush, Kuhn &
Tucker; Nocedal & Wright (2006), section 12.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.families.limits import NEAR

# A slope counts where it is a thousandth of what the other entries of its simplex have, or a
# thousandth of a nat across an interval.
LEAST_SLOPE = 1e-3


def increases_inward(estimate: Estimate) -> dict[str, np.ndarray]:
    """Return {site: which entries on the boundary the objective increases from, moved inward}."""
    chart = estimate.chart
    # most estimates lie inside: their slopes need not be computed
    if not any(where.any() for where in chart.on_boundary.values()):
        return {name: np.zeros(where.shape, bool) for name, where in chart.on_boundary.items()}
    moved = _moved_inward(estimate)
    slopes = _slopes(estimate, moved)
    inward = {}
    for name, where in chart.on_boundary.items():
        value, slope = np.asarray(moved[name]), np.asarray(slopes[name])
        if chart.is_simplex[name]:
            is_inward = _increases_in_simplex(value, slope)
        else:
            is_inward = _increases_in_interval(value, slope, *chart.limits[name])
        inward[name] = np.asarray(where & is_inward)
    return inward


def _moved_inward(estimate: Estimate) -> dict[str, Any]:
    """Return the parameters, the entries on the boundary a millionth within."""
    chart, moved = estimate.chart, {}
    for name, value in estimate.params.items():
        moved[name] = value
        where = chart.on_boundary[name]
        if not where.any():
            continue
        if chart.is_simplex[name]:
            inside = _into_simplex(np.asarray(value))
        else:
            inside = _into_interval(np.asarray(value), where, *chart.limits[name])
        # in the precision of the parameter: another would be compiled anew
        moved[name] = np.asarray(inside, value.dtype)
    return moved


def _slopes(estimate: Estimate, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the derivatives of the objective by the constrained parameters themselves."""

    def slopes(around: Neighborhood, params):
        return jax.grad(around.objective)(params)

    return jax.device_get(estimate.function("slopes", slopes)(params))


def _into_simplex(value: np.ndarray) -> Any:
    is_zero = value <= NEAR
    return np.where(is_zero, NEAR, value * (1 - NEAR * is_zero.sum(-1, keepdims=True)))


def _increases_in_simplex(value: np.ndarray, slope: np.ndarray) -> Any:
    # along the simplex an entry can grow only at the cost of the others
    relative = slope - (value * slope).sum(-1, keepdims=True)
    size = (value * np.abs(slope)).sum(-1, keepdims=True)
    return (value <= NEAR) & (relative > LEAST_SLOPE * size)


def _into_interval(value: np.ndarray, where: np.ndarray, low: Any, high: Any) -> Any:
    width, is_low = _width(value, low, high), value - low < high - value
    inside = np.where(is_low, low + NEAR * width, high - NEAR * width)
    return np.where(where, inside, value)


def _increases_in_interval(value: np.ndarray, slope: np.ndarray, low: Any, high: Any) -> Any:
    inward = np.where(value - low < high - value, slope, -slope)
    return inward * _width(value, low, high) > LEAST_SLOPE


def _width(value: np.ndarray, low: Any, high: Any) -> Any:
    """Return the widths of intervals; of one that has no end, the size of the value within."""
    width = high - low
    return np.where(np.isfinite(width), width, np.maximum(1, np.abs(value)))
