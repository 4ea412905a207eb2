"""Acceleration: from EM's own steps to a point further along, taken if the objective rises.

With F the EM map on unconstrained coordinates u, both extrapolate the residuals r = F(u) − u, which
EM shrinks by a constant factor in each direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

# how many differences Anderson acceleration mixes: more of them are older, and less alike
WINDOW = 5
# by how much SQUAREM's longest step grows when it binds, and shrinks when a leap is rejected
LIMIT_FACTOR = 4.0


class Accelerator(NamedTuple):
    """How to leap ahead from EM's own steps: pure functions, as those of an optax optimizer are.

    With u the unconstrained coordinates of the parameters, one vector, and F(u) those after an EM
    step:

    - `init(u)`: the accelerator's first state.
    - `propose(state, u, F(u))`: (its next state, a point, whether to try that point instead of
      F(u)). EM takes the point only if the objective does not decrease there.
    - `rejected(state)`: the state after the objective decreased at the last point proposed; EM goes
      on from F(u).
    - `cycle`: EM has converged when so many steps together gain nothing. Between two leaps a single
      step may gain little.

    ```python
    def leap(state, u, image):                      # twice as far as every EM step goes
        return state, u + 2 * (image - u), jnp.asarray(True)

    doubled = Accelerator(lambda u: (), leap, lambda state: state, cycle=2)
    EM(coins, acceleration=doubled).run(jax.random.key(0), heads)
    ```
    """

    init: Callable
    propose: Callable
    rejected: Callable
    cycle: int = 4


def squarem() -> Accelerator:
    """Return SQUAREM: two plain steps, a leap, one plain step, and again.

    With r the residual of the first step and v = Δr what it changed by in the second, the leap is
    to u − 2αr + α²v, α = −‖r‖ / ‖v‖. −α is at most a limit that grows fourfold when it binds, and
    is a quarter of a step that was rejected.
    Source: Varadhan & Roland (2008), Scandinavian Journal of Statistics 35(2), scheme S3.
    """

    def init(u):
        one = jnp.asarray(1.0, u.dtype)
        return {
            "phase": jnp.zeros((), jnp.int32),
            "start": u,
            "residual": jnp.zeros_like(u),
            "step": one,
            "limit": one,
        }

    def propose(state, u, image):
        is_first, is_second = state["phase"] == 0, state["phase"] == 1
        start, residual, limit = state["start"], state["residual"], state["limit"]
        v = image - u - residual
        length, curvature = jnp.linalg.norm(residual), jnp.linalg.norm(v)
        # at a fixed point the residual no longer changes, and there is no curvature to divide by
        step = jnp.clip(length / jnp.where(curvature > 0, curvature, 1), 1, limit)
        point = start + 2 * step * residual + step**2 * v
        binds = is_second & (step == limit)
        after = {
            "phase": (state["phase"] + 1) % 3,
            "start": jnp.where(is_first, u, start),
            "residual": jnp.where(is_first, image - u, residual),
            "step": jnp.where(is_second, step, state["step"]),
            "limit": jnp.where(binds, LIMIT_FACTOR * step, limit),
        }
        return after, point, is_second

    def rejected(state):
        return {
            **state,
            "phase": jnp.zeros((), jnp.int32),
            # a step of 1 is EM's own second step: a shorter one would fall behind it
            "limit": jnp.maximum(state["step"] / LIMIT_FACTOR, 1),
        }

    return Accelerator(init, propose, rejected)


def anderson() -> Accelerator:
    """Return Anderson acceleration: a mixture of the last images, whose mixed residual is least.

    With ΔU, ΔR the last differences of u and r, γ minimizes ‖r − ΔR γ‖, and the point is
    u + r − (ΔU + ΔR) γ; where that leads back, against r, its mirror image in u.
    Source: Walker & Ni (2011), SIAM Journal on Numerical Analysis 49(4); safeguarded for EM:
    Henderson & Varadhan (2019); the mirror: ours.
    """

    def init(u):
        # more differences than coordinates would not determine the mixture
        rows = jnp.zeros((min(WINDOW, u.size) + 1, u.size), u.dtype)
        return {"u": rows, "residual": rows, "count": jnp.zeros((), jnp.int32)}

    def propose(state, u, image):
        residual, count = image - u, state["count"]
        points = jnp.roll(state["u"], 1, 0).at[0].set(u)
        residuals = jnp.roll(state["residual"], 1, 0).at[0].set(residual)
        num_differences = len(points) - 1
        is_known = (jnp.arange(num_differences) < count)[:, None]
        moves = jnp.where(is_known, points[:-1] - points[1:], 0)
        changes = jnp.where(is_known, residuals[:-1] - residuals[1:], 0)
        weights = jnp.linalg.lstsq(changes.T, residual)[0]
        leap = residual - weights @ (moves + changes)
        # where steps grow, by a saddle, the differences point back to it: go as far the other way
        point = u + jnp.where(leap @ residual < 0, -leap, leap)
        after = {
            "u": points,
            "residual": residuals,
            "count": jnp.minimum(count + 1, num_differences),
        }
        return after, point, count > 0

    def rejected(state):
        # the differences led astray: a new window begins
        return {**state, "count": jnp.zeros((), jnp.int32)}

    return Accelerator(init, propose, rejected)


ACCELERATORS = {"squarem": squarem, "anderson": anderson}
