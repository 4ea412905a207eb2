"""Newton's method for a smooth function of few unknowns, to machine precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from emjax.m_step.promise import negligible_gain

# the shortest part of a step that is tried
LEAST = 1e-30
# how far a step may go without leaping, in units of 1 + |x|: it doubles a coordinate at most, or
# changes it by one
REACH = 1.0


def newton(
    objective: Callable,
    start: Array,
    max_steps: int = 50,
    reach: float = math.inf,
    by_differences: bool = False,
) -> tuple[Array, Array]:
    """Return where damped Newton steps lead from `start`, and whether they got stuck on the way.

    They are stuck where a step that promises a gain gains nothing, however short, or there is none.
    `reach`: how far a step goes along each axis of the Hessian, in units of 1 + |x|, entry by
    entry; far from a maximum the curvature of a logit is next to nothing, and a whole step would
    leap to a probability of zero or one. `by_differences`: a Hessian that is not finite (a clamp
    has an infinite one next to zero) is taken from differences of the gradient.

    No step goes down. Curvature of the wrong sign is reflected, so that a step always points up;
    where there is none, a slope that promises a gain is followed as far as the reach. Near the
    maximum steps are taken whole, since the objective's rounding says nothing there any more; the
    error of the last one is quadratic in its length. Source: Nocedal & Wright (2006), sections 3.4
    and 4.1; Boyd & Vandenberghe (2004), section 9.5.
    """
    if start.size == 0:
        return start, jnp.zeros((), bool)
    eps = jnp.finfo(start.dtype).eps
    ascent_direction = _direction(objective, start, reach, by_differences)

    def is_unfinished(carry):
        _, _, k, done, _ = carry
        return ~done & (k < max_steps)

    def iterate(carry):
        x, value, k, _, _ = carry
        gradient, step = ascent_direction(x, value)
        gain = gradient @ step
        negligible = gain <= negligible_gain(value)

        # Armijo's rule, but not where the gain is rounding: there it would halve for nothing
        def is_too_long(carry):
            t, reached = carry
            # true of NaN, too: a step that is not finite has no shorter one
            is_lost = ~(t * jnp.abs(step).max() > eps * (1 + jnp.abs(x).max())) | (t < LEAST)
            is_untried = t > 1
            return is_untried | ~((reached >= value + 1e-4 * t * gain) | is_lost | negligible)

        def halve(carry):
            t, _ = carry
            return t / 2, objective(x + t / 2 * step)

        untried = 2 * jnp.ones((), x.dtype), jnp.full((), -jnp.inf, value.dtype)
        t, reached = jax.lax.while_loop(is_too_long, halve, untried)
        within_rounding = reached >= value - 100 * eps * (1 + jnp.abs(value))
        accept = (reached >= value) | (negligible & within_rounding)
        # a Hessian that is not finite has no direction to offer
        accept &= jnp.isfinite(step).all()
        is_short = jnp.abs(t * step).max() <= jnp.sqrt(eps) * (1 + jnp.abs(x).max())
        after = jnp.where(accept, x + t * step, x)
        # a whole step leads to the maximum, a halved one that is short leads nowhere
        is_stuck = ~negligible & (~accept | (is_short & (t < 1)))
        return after, jnp.where(accept, reached, value), k + 1, ~accept | is_short, is_stuck

    carry = start, objective(start), 0, jnp.zeros((), bool), jnp.zeros((), bool)
    end, _, _, _, is_stuck = jax.lax.while_loop(is_unfinished, iterate, carry)
    return end, is_stuck


def _direction(objective: Callable, start: Array, reach: float, by_differences: bool) -> Callable:
    """Return the function (x, objective(x)) → gradient, step upward."""
    eps = jnp.finfo(start.dtype).eps
    # one gradient for all that asks for it: each would be compiled apart
    gradient_of = jax.jit(jax.grad(objective))
    directions = jnp.eye(start.size, dtype=start.dtype)

    def direction(x, value):
        gradient, curvature_along = jax.linearize(gradient_of, x)
        hessian = jax.vmap(curvature_along)(directions)
        if by_differences:
            hessian = _or_differences(hessian, gradient_of, x)
        unit = 1 + jnp.abs(x)
        values, vectors = jnp.linalg.eigh(-hessian * unit * unit[:, None])
        size, along = jnp.abs(values), vectors.T @ (gradient * unit)
        # directions in which the Hessian is zero but for rounding: an endless step, if it gains
        flat = size <= 10 * start.size * eps * size.max()
        longest = min(reach, REACH)
        is_slope = jnp.abs(along) * longest > negligible_gain(value)
        endless = jnp.where(is_slope, jnp.sign(along) * longest, 0)
        steps = jnp.where(flat, endless, along / jnp.where(flat, 1, size))
        return gradient, unit * (vectors @ jnp.clip(steps, -reach, reach))

    return direction


def _or_differences(hessian: Array, gradient_of: Callable, x: Array) -> Array:
    """Return the Hessian, by central differences of the gradient where it is not finite."""
    widths = jnp.cbrt(jnp.finfo(x.dtype).eps) * (1 + jnp.abs(x))

    # a loop without a turn, and not a branch: runs side by side would all take both branches
    def is_unfinished(carry):
        turn, _ = carry
        return turn < 2 * x.size

    def differ(carry):
        turn, columns = carry
        # up and down in turn, since the gradient is compiled where it is called
        number, shift = turn // 2, jnp.where(turn % 2, -1, 1) * widths[turn // 2]
        slope = gradient_of(x.at[number].add(shift)) / (2 * shift)
        return turn + 1, columns.at[number].add(slope)

    is_finite = jnp.isfinite(hessian).all()
    first = jnp.where(is_finite, 2 * x.size, 0), jnp.where(is_finite, hessian, 0)
    _, columns = jax.lax.while_loop(is_unfinished, differ, first)
    return (columns + columns.T) / 2
