"""A search for a larger value of a function, by its values alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# turns for each coordinate: from steps of 1 to steps lost in rounding take some 60
TURNS = 300


def search(objective: Callable, start: Array, is_wanted: Any = True) -> tuple[Array, Array]:
    """Return where steps along the coordinates in turn lead, none of which goes down; its value.

    A step that gains is taken and the next one along its coordinate is longer; one that does not
    turns about and is halved, until all are lost in rounding. It asks for no derivative, so that it
    is for a function that has none: at a kink, or where the derivative is not finite. `is_wanted`:
    whether to search; `start` is returned if not. Source: Rosenbrock (1960).
    """
    if start.size == 0:
        return start, objective(start)
    least = jnp.sqrt(jnp.finfo(start.dtype).eps)

    def is_unfinished(carry):
        turn, x, _, steps = carry
        return (turn < TURNS * start.size) & (jnp.abs(steps) > least * (1 + jnp.abs(x))).any()

    def take_turn(carry):
        turn, x, value, steps = carry
        number = turn % start.size
        candidate = x.at[number].add(steps[number])
        reached = objective(candidate)
        # false of NaN, too
        is_better = reached > value
        x, value = jnp.where(is_better, candidate, x), jnp.where(is_better, reached, value)
        return turn + 1, x, value, steps.at[number].multiply(jnp.where(is_better, 2, -0.5))

    value = objective(start)
    value = jnp.where(jnp.isnan(value), -jnp.inf, value)
    steps = jnp.where(is_wanted, jnp.ones_like(start), 0)
    _, end, value, _ = jax.lax.while_loop(is_unfinished, take_turn, (0, start, value, steps))
    return end, value
