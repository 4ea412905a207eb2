"""Acceleration: from EM's own steps to a point further along, taken where the objective is no lower.

With F the EM map on unconstrained coordinates u, both extrapolate the residuals r = F(u) − u, which
EM shrinks by a constant factor in each direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

WINDOW = 5
LIMIT_FACTOR = 4.0


class Accelerator(NamedTuple):
    """How to leap ahead from EM's own steps: pure functions, as those of an optax optimizer are.

    With u the unconstrained coordinates of the parameters, one vector, and F(u) those after an EM
    step:

    - `init(u)`: the accelerator's first state.
    - `propose(state, u, F(u))`: (its next state, a point, whether to try that point instead of
      F(u)). EM takes the point only if the objective does not decrease there.
    - `rejected(state)`: the state after the objective decreased at the point that was proposed last;
      EM goes on from F(u).
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
    """Return SQUAREM: after two steps r, then v = Δr, the point u − 2αr + α²v with α = −‖r‖ / ‖v‖;
    one plain step follows.

    −α is at most a limit that grows fourfold when it binds, and is a quarter of a step that was
    rejected. Source: Varadhan & Roland (2008), Scandinavian Journal of Statistics 35(2), scheme S3.
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
        first, second = state["phase"] == 0, state["phase"] == 1
        v = image - u - state["residual"]
        length, curvature = jnp.linalg.norm(state["residual"]), jnp.linalg.norm(v)
        step = jnp.clip(length / jnp.where(curvature > 0, curvature, 1), 1, state["limit"])
        point = state["start"] + 2 * step * state["residual"] + step**2 * v
        after = {
            "phase": (state["phase"] + 1) % 3,
            "start": jnp.where(first, u, state["start"]),
            "residual": jnp.where(first, image - u, state["residual"]),
            "step": jnp.where(second, step, state["step"]),
            "limit": jnp.where(
                second & (step == state["limit"]), LIMIT_FACTOR * step, state["limit"]
            ),
        }
        return after, point, second

    def rejected(state):
        return {
            **state,
            "phase": jnp.zeros((), jnp.int32),
            "limit": jnp.maximum(state["step"] / LIMIT_FACTOR, 1),
        }

    return Accelerator(init, propose, rejected)


def anderson() -> Accelerator:
    """Return Anderson acceleration: the mixture of the last images whose residuals, mixed likewise,
    are least.

    With ΔU, ΔR the last differences of u and r, γ minimizes ‖r − ΔR γ‖, and the point is u + r −
    (ΔU + ΔR) γ; where that leads back, against r, its mirror image in u. Source: Walker & Ni
    (2011), SIAM Journal on Numerical Analysis 49(4); safeguarded for EM: Henderson & Varadhan
    (2019); the mirror: ours.
    """

    def init(u):
        rows = jnp.zeros((min(WINDOW, u.size) + 1, u.size), u.dtype)
        return {"u": rows, "residual": rows, "count": jnp.zeros((), jnp.int32)}

    def propose(state, u, image):
        us, residuals = (
            jnp.roll(state[name], 1, 0).at[0].set(new)
            for name, new in (("u", u), ("residual", image - u))
        )
        is_kept = (jnp.arange(len(us) - 1) < state["count"])[:, None]
        moves, changes = (jnp.where(is_kept, rows[:-1] - rows[1:], 0) for rows in (us, residuals))
        weights = jnp.linalg.lstsq(changes.T, residuals[0])[0]
        leap = residuals[0] - weights @ (moves + changes)
        # where steps grow, by a saddle, the differences point back to it: go as far the other way
        point = u + jnp.where(leap @ residuals[0] < 0, -leap, leap)
        return (
            {"u": us, "residual": residuals, "count": jnp.minimum(state["count"] + 1, len(us) - 1)},
            point,
            state["count"] > 0,
        )

    def rejected(state):
        return {**state, "count": jnp.zeros((), jnp.int32)}

    return Accelerator(init, propose, rejected)


ACCELERATORS = {"squarem": squarem, "anderson": anderson}
