"""What a NumPyro constraint allows: the constraint on one entry, and the bounds on its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint

# An entry is on the boundary if it is nearer to a bound than this part of the interval's width (of
# the bound itself, if there is one only). A probability that n data determine is either zero or at
# least of the order of 1/n: no data set that is summed out exactly is so large that a millionth is
# neither.
NEAR = 1e-6


def entry_constraint(constraint: Constraint) -> Constraint:
    """Return the constraint on one entry, without the `independent` around it."""
    while (inner := getattr(constraint, "base_constraint", None)) is not None:
        constraint = inner
    return constraint


@dataclass(frozen=True)
class Limits:
    """The lowest and the highest value that a constraint on single numbers allows.

    - `low`, `high`: a number each, or an array along the last axes of the value.
    """

    low: np.ndarray
    high: np.ndarray

    def equal(self, low: ArrayLike, high: ArrayLike) -> bool:
        """Whether the bounds are these numbers."""
        return bool((self.low == low).all() and (self.high == high).all())

    @property
    def is_unbounded(self) -> bool:
        """Whether every number is allowed."""
        return self.equal(-math.inf, math.inf)

    def clipped(self, value: Array) -> Array:
        """Return the nearest value that the bounds allow."""
        # most parameters are: a clip at infinity would be compiled all the same
        if self.is_unbounded:
            return value
        return jnp.clip(
            value, jnp.asarray(self.low, value.dtype), jnp.asarray(self.high, value.dtype)
        )

    def __str__(self) -> str:
        return f"[{_number(self.low)}, {_number(self.high)}]"


def _number(bound: np.ndarray) -> str:
    if bound.ndim == 0:
        return f"{bound:g}"
    return np.array2string(bound, precision=4, threshold=8)


def entry_limits(constraint: Constraint, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of single entries, each of a shape; infinite where there are none."""
    bounds = limits_of(constraint)
    low, high = -math.inf, math.inf
    if is_simplex(constraint):
        low, high = 0.0, 1.0
    elif bounds is not None:
        low, high = bounds.low, bounds.high
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def is_simplex(constraint: Constraint) -> bool:
    """Whether a constraint makes simplices of rows."""
    return type(entry_constraint(constraint)) is type(constraints.simplex)


def near_limits(
    value: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries are as good as equal to their lower limit, and to their upper one."""
    # infinity less infinity is no width, and is not used below
    with np.errstate(invalid="ignore"):
        width = high - low
    # one bound alone: only zero itself is near zero, whatever the unit of measurement
    size_of_bound = np.abs(np.where(np.isfinite(low), low, high))
    near = NEAR * np.where(np.isfinite(width), width, size_of_bound)
    is_low = np.isfinite(low) & (value - low <= near)
    is_high = np.isfinite(high) & (high - value <= near)
    # of single numbers NumPy makes no arrays
    return np.asarray(is_low), np.asarray(is_high)


def limits_of(constraint: Constraint) -> Limits | None:
    """Return the bounds of a constraint on single numbers, or None if it is of another kind."""
    constraint = entry_constraint(constraint)
    low = getattr(constraint, "lower_bound", None)
    high = getattr(constraint, "upper_bound", None)
    # `real` states no bounds, since it has none; others that state none tie entries together
    is_real = type(constraint) is type(constraints.real)
    if low is None and high is None and not is_real:
        return None
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    return Limits(np.asarray(low, float), np.asarray(high, float))
