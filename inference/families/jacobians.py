"""What a density of parameters becomes in the unconstrained coordinates that NumPyro gives them.

With θ(u) NumPyro's bijection, log p(u) = log p(θ(u)) + log |dθ/du|. A mode depends on the
coordinates in which it is one: a Beta(0.1, 0.9) has none in θ, and one in the log-odds of θ.
Source: MacKay (1998), "Choice of basis for Laplace approximation".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import biject_to, transforms
from numpyro.distributions.constraints import Constraint

from emjax.families.limits import Limits, entry_constraint, entry_limits, is_simplex, limits_of
from emjax.numerics.guards import safe_log

# of numbers between bounds: themselves, their logarithms, their log-odds
ELEMENTARY = (transforms.IdentityTransform, transforms.ExpTransform, transforms.SigmoidTransform)


class Jacobian(NamedTuple):
    """log |dv/du| of values v of a shape of conjugacy, linear in their features.

    - `constraint`: that of the values.
    - `along(features)`: one number for each entry, in nats, up to a constant.
    """

    constraint: Constraint
    along: Callable


def is_elementary(constraint: Constraint) -> bool:
    """Whether numbers between bounds have the coordinates that these have as a rule.

    Another scale, such as that of a softplus, has derivatives of its own.
    """
    if limits_of(constraint) is None:
        return False
    steps = [biject_to(constraint)]
    while isinstance(steps[0], transforms.IndependentTransform):
        steps = [steps[0].base_transform]
    if isinstance(steps[0], transforms.ComposeTransform):
        steps = list(steps[0].parts)
    are_affine = all(type(step) is transforms.AffineTransform for step in steps[1:])
    return type(steps[0]) in ELEMENTARY and len(steps) <= 2 and are_affine


def is_unconstrained(constraint: Constraint) -> bool:
    """Whether values are their own coordinates."""
    limits = limits_of(constraint)
    return limits is not None and limits.is_unbounded


def inside(constraint: Constraint, value: Array) -> Array:
    """Return a value with its entries at a bound, which has no coordinates, next to it."""
    low, high = entry_limits(constraint, value.shape)
    info = jnp.finfo(value.dtype)
    # infinite less infinite is no number, and is not used
    with np.errstate(invalid="ignore"):
        # zero has smaller neighbors than any other number
        above = low + np.where(low == 0, info.tiny, info.eps * np.abs(low))
        below = high - np.where(high == 0, info.tiny, info.eps * np.abs(high))
    lowest = np.where(np.isfinite(low), above, low)
    highest = np.where(np.isfinite(high), below, high)
    return jnp.clip(value, jnp.asarray(lowest, value.dtype), jnp.asarray(highest, value.dtype))


def allowed(constraint: Constraint, value: Array) -> Array:
    """Return a value with entries next to a bound in place of those at one that is excluded."""
    if not is_elementary(constraint):
        return value
    return jnp.where(entry_constraint(constraint)(value), value, inside(constraint, value))


def log_jacobian(constraint: Constraint, value: Array, event_dim: int) -> Array:
    """Return log |dθ/du| in nats: of the shape of `value` but for its last `event_dim` axes.

    It is `LOG_ZERO` at a bound. Errors: `NotImplementedError` where NumPyro has no bijection.
    """
    over_event = tuple(range(value.ndim - event_dim, value.ndim))
    if is_elementary(constraint):
        return _between(value, limits_of(constraint)).sum(over_event)
    # of the breaks of a stick NumPyro's is the same
    if is_simplex(constraint):
        return safe_log(value).sum(-1)
    bijection = biject_to(entry_constraint(constraint))
    jacobian = bijection.log_abs_det_jacobian(bijection.inv(value), value)
    is_event = tuple(range(value.ndim - event_dim, jnp.ndim(jacobian)))
    return jnp.asarray(jacobian).sum(is_event)


def _between(value: Array, limits: Limits) -> Array:
    """Return that of numbers between bounds, entry by entry."""
    low, high = limits.low, limits.high
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    below = jnp.where(has_low, safe_log(jnp.where(has_low, value - low, 1)), 0)
    above = jnp.where(has_high, safe_log(jnp.where(has_high, high - value, 1)), 0)
    width = np.where(has_low & has_high, high, 1) - np.where(has_low & has_high, low, 0)
    return below + above - np.log(width)
