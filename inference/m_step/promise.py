"""What a function promises to gain from where a maximizer has left it, and what is rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def negligible_gain(value: Array) -> Array:
    """Return the gain of an objective below which maximizers stop, where it has a value."""
    part = 1e-9 if value.dtype == jnp.float64 else 1e-4
    return part * (1 + jnp.abs(value))


def promise(objective: Callable, x: Array, value: Array) -> tuple[Array, Array]:
    """Return the norm of a function's derivative at x, and the gain that a step along it promises.

    The gain is that of a parabola with the curvature there, infinite where that is not negative.
    Both are NaN where there is no derivative. `value`: the function's at x.
    """
    if x.size == 0:
        return jnp.zeros((), value.dtype), jnp.zeros((), value.dtype)
    gradient_of = jax.grad(objective)
    length = 1 + jnp.abs(x).max()
    width = math.sqrt(jnp.finfo(x.dtype).eps) * length

    # at x, and a little further up; a loop, since the gradient is compiled where it is called
    def look(further, carry):
        _, first, direction = carry
        gradient = gradient_of(x + width * direction)
        first = jnp.where(further, first, gradient)
        slope = jnp.linalg.norm(first)
        return gradient, first, first / jnp.where(slope > 0, slope, 1)

    nowhere = jnp.zeros_like(x)
    try:
        last, gradient, direction = jax.lax.fori_loop(0, 2, look, (nowhere, nowhere, nowhere))
    # JAX's, of a loop without a reverse mode
    except (TypeError, ValueError):
        return jnp.full((), jnp.nan), jnp.full((), jnp.nan)
    slope = jnp.linalg.norm(gradient)
    curvature = (gradient - last) @ direction / width
    bends = curvature > 0
    gain = jnp.where(bends, slope**2 / (2 * jnp.where(bends, curvature, 1)), jnp.inf)
    # false of NaN
    is_level = slope * length <= negligible_gain(value)
    return slope, jnp.where(is_level, 0, jnp.where(jnp.isnan(slope), jnp.nan, gain))
