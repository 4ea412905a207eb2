"""Newton's method for a smooth function of few unknowns, to machine precision."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def newton(objective: Callable, start: Array, max_steps: int = 50) -> Array:
    """Return a maximizer of `objective`, reached from `start` by damped Newton steps.

    None goes down: curvature of the wrong sign is reflected, and directions without curvature are
    left alone, so that a step always points up. Near the maximum steps are taken whole, since the
    objective's rounding says nothing there any more; the error of the last one is quadratic in its
    length. Source: Nocedal & Wright (2006), section 3.4; Boyd & Vandenberghe (2004), section 9.5.
    """
    if start.size == 0:
        return start
    eps = jnp.finfo(start.dtype).eps
    # a gain below this part of the objective is rounding
    negligible_gain = 1e-9 if start.dtype == jnp.float64 else 1e-4
    directions = jnp.eye(start.size, dtype=start.dtype)

    def direction(x):
        gradient, curvature_along = jax.linearize(jax.grad(objective), x)
        values, vectors = jnp.linalg.eigh(-jax.vmap(curvature_along)(directions))
        size = jnp.abs(values)
        # directions in which the Hessian is zero but for rounding
        flat = size <= 10 * start.size * eps * size.max()
        step = vectors @ jnp.where(flat, 0, (vectors.T @ gradient) / jnp.where(flat, 1, size))
        return gradient, step

    def is_unfinished(carry):
        _, _, k, done = carry
        return ~done & (k < max_steps)

    def iterate(carry):
        x, value, k, _ = carry
        gradient, step = direction(x)
        gain = gradient @ step
        negligible = gain <= negligible_gain * (1 + jnp.abs(value))

        # Armijo's rule, but not where the gain is rounding: there it would halve for nothing
        def is_too_long(carry):
            t, reached = carry
            return ~(reached >= value + 1e-4 * t * gain) & (t > 1e-9) & ~negligible

        def halve(carry):
            t, _ = carry
            return t / 2, objective(x + t / 2 * step)

        first = jnp.ones((), x.dtype), objective(x + step)
        t, reached = jax.lax.while_loop(is_too_long, halve, first)
        within_rounding = reached >= value - 100 * eps * (1 + jnp.abs(value))
        accept = (reached >= value) | (negligible & within_rounding)
        # a Hessian that is not finite has no direction to offer
        accept &= jnp.isfinite(step).all()
        is_short = jnp.abs(t * step).max() <= jnp.sqrt(eps) * (1 + jnp.abs(x).max())
        after = jnp.where(accept, x + t * step, x)
        return after, jnp.where(accept, reached, value), k + 1, ~accept | is_short

    carry = start, objective(start), 0, jnp.zeros((), bool)
    return jax.lax.while_loop(is_unfinished, iterate, carry)[0]
