"""Steps of an optax optimizer up an objective, none of which goes down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.m_step.promise import negligible_gain, promise


def ascend(
    solver: Any,
    state: Any,
    objective: Callable,
    start: Array,
    num_steps: int,
) -> tuple[Array, Array, Any]:
    """Return where steps of an optax optimizer lead, the objective there, and its state then.

    A step that would go down is halved, or not taken. `solver`: an `optax.GradientTransformation`.
    """
    # most programs have no use for it, and do not wait for the import
    import optax

    # L-BFGS searches along its step by `value_fn`; others take no such arguments
    extended = optax.with_extra_args_support(solver)

    def loss(x):
        return -objective(x)

    def step(_, carry):
        x, state, value = carry
        slope = jax.grad(loss)(x)
        change, state = extended.update(slope, state, x, value=value, grad=slope, value_fn=loss)
        x_new, value_new = _shortened(loss, x, change, value)
        return x_new, state, value_new

    x, state, value = jax.lax.fori_loop(0, num_steps, step, (start, state, loss(start)))
    return x, -value, state


def lbfgs(objective: Callable, start: Array, num_steps: int) -> tuple[Array, Array]:
    """Return where steps of L-BFGS lead, none of which goes down, and whether they got stuck.

    They are stuck where they gained nothing though a step along the derivative promises a gain.
    """
    # as above
    import optax

    solver = optax.lbfgs()
    end, value, _ = ascend(solver, solver.init(start), objective, start, num_steps)
    _, promised = promise(objective, end, value)
    # true of NaN, too
    is_promising = ~(promised <= negligible_gain(value))
    return end, is_promising & ~(value - objective(start) > negligible_gain(value))


def _shortened(loss, x, change, value, halvings: int = 30):
    """Return x + change / 2ᵏ for the least k that does not raise the loss, and its loss.

    It is x itself if none does.
    """

    def is_worse(carry):
        k, _, candidate = carry
        # true of NaN, too
        return ~(candidate <= value) & (k < halvings)

    def halve(carry):
        k, change, _ = carry
        return k + 1, change / 2, loss(x + change / 2)

    _, change, candidate = jax.lax.while_loop(is_worse, halve, (0, change, loss(x + change)))
    is_better = candidate <= value
    return jnp.where(is_better, x + change, x), jnp.where(is_better, candidate, value)
