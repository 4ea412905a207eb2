"""Steps of an optax optimizer up an objective, none of which goes down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def ascend(
    solver: Any,
    state: Any,
    objective: Callable,
    start: Array,
    num_steps: int,
) -> tuple[Array, Any]:
    """Return where steps of an optax optimizer lead, and its state then.

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

    x, state, _ = jax.lax.fori_loop(0, num_steps, step, (start, state, loss(start)))
    return x, state


def lbfgs(objective: Callable, start: Array, num_steps: int) -> Array:
    """Return where steps of L-BFGS lead, none of which goes down."""
    # as above
    import optax

    solver = optax.lbfgs()
    return ascend(solver, solver.init(start), objective, start, num_steps)[0]


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
