"""Steps of an optax optimizer up an objective, none of which goes down."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def ascend(solver, state, objective, start, num_steps: int):
    """Take some steps of an optax optimizer up the objective; a step that would go down is halved,
    or not taken.
    """
    solver = optax.with_extra_args_support(solver)

    def loss(x):
        return -objective(x)

    def step(_, carry):
        x, state, value = carry
        slope = jax.grad(loss)(x)
        change, state = solver.update(slope, state, x, value=value, grad=slope, value_fn=loss)
        x_new, value_new = _shortened(loss, x, change, value)
        return x_new, state, value_new

    x, state, _ = jax.lax.fori_loop(0, num_steps, step, (start, state, loss(start)))
    return x, state


def _shortened(loss, x, change, value, halvings: int = 30):
    """Return x + change / 2ᵏ for the least k that does not raise the loss (x itself if none does),
    and its loss.
    """

    def worse(carry):
        k, _, candidate = carry
        return ~(candidate <= value) & (k < halvings)

    def halve(carry):
        k, change, _ = carry
        return k + 1, change / 2, loss(x + change / 2)

    _, change, candidate = jax.lax.while_loop(worse, halve, (0, change, loss(x + change)))
    better = candidate <= value
    return jnp.where(better, x + change, x), jnp.where(better, candidate, value)
