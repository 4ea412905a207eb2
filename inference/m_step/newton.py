"""Newton's method for a smooth function of few unknowns, to machine precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def newton(objective, start, max_steps: int = 50):
    """Return a maximizer of `objective`, reached from `start` by damped Newton steps that never go
    down.

    Curvature of the wrong sign is reflected, and directions without curvature are left alone, so
    that a step always points up. Near the maximum steps are taken whole, since the objective's
    rounding says nothing there any more; the error of the last one is quadratic in its length.
    Source: Nocedal & Wright (2006), section 3.4; Boyd & Vandenberghe (2004), section 9.5.
    """
    if start.size == 0:
        return start
    eps = jnp.finfo(start.dtype).eps
    slope, curvature = jax.grad(objective), jax.hessian(objective)

    def direction(x):
        gradient = slope(x)
        values, vectors = jnp.linalg.eigh(-curvature(x))
        size = jnp.abs(values)
        flat = size <= 10 * start.size * eps * size.max()
        step = vectors @ jnp.where(flat, 0, (vectors.T @ gradient) / jnp.where(flat, 1, size))
        return gradient, step

    def unfinished(carry):
        _, _, k, done = carry
        return ~done & (k < max_steps)

    def iterate(carry):
        x, value, k, _ = carry
        gradient, step = direction(x)
        gain = gradient @ step
        negligible = (
            gain <= 1e-9 * (1 + jnp.abs(value))
            if start.dtype == jnp.float64
            else gain <= 1e-4 * (1 + jnp.abs(value))
        )

        def halve(carry):
            t, _ = carry
            return t / 2, objective(x + t / 2 * step)

        t, reached = jax.lax.while_loop(
            lambda c: ~(c[1] >= value + 1e-4 * c[0] * gain) & (c[0] > 1e-9) & ~negligible,
            halve,
            (jnp.ones((), x.dtype), objective(x + step)),
        )
        accept = (reached >= value) | (
            negligible & (reached >= value - 100 * eps * (1 + jnp.abs(value)))
        )
        accept &= jnp.isfinite(step).all()
        done = ~accept | (jnp.abs(t * step).max() <= jnp.sqrt(eps) * (1 + jnp.abs(x).max()))
        return jnp.where(accept, x + t * step, x), jnp.where(accept, reached, value), k + 1, done

    return jax.lax.while_loop(
        unfinished, iterate, (start, objective(start), 0, jnp.zeros((), bool))
    )[0]
