"""Steps of a Gaussian chain on many processors at once: log₂ T steps, then log₂ T rounds.

The steps are cut into stretches of log₂ T, which go on side by side. Each stretch's steps are
integrated out as one, with nothing behind it; in rounds of twice the reach, each stretch is joined
with those behind it; and from the messages at their ends, all stretches go on side by side again.
The moments of states go the same way, forward. Source: Hillis & Steele (1986), for rounds; for what
is joined, see `chain_states`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.gaussian.chain_sequential import (
    Integrated,
    messages_in_sequence,
    moments_in_sequence,
)
from emjax.elimination.gaussian.chain_states import (
    Moments,
    after_steps,
    met,
    of_state,
    one_after_another,
)
from emjax.elimination.gaussian.chain_steps import (
    Message,
    Steps,
    Transition,
    no_message,
    step_integrated,
)


def messages_in_parallel(after: Message, steps: Steps, length: int, outside: int) -> Integrated:
    """Return steps (time, …) integrated out; `after` is the message on the state after them."""
    stretches, rows, rest = _cut(length)
    inside = _side_by_side(_between(steps, rest, length), stretches)
    ends = _messages_at_ends(after, _each_as_one(inside, rows, outside), stretches)
    of_stretches, *of_steps = messages_in_sequence(ends, inside, rows, outside)
    constant = after.constant + of_stretches.constant.sum(0)
    before = Message(constant, of_stretches.linear[0], of_stretches.quadratic[0])
    of_steps = _in_time(of_steps, rows * stretches)
    # the steps that are left over come first in time, so that nothing comes after the stretches
    if rest:
        before, *left = messages_in_sequence(before, _between(steps, 0, rest), rest, outside)
        of_steps = jax.tree.map(_joined, left, of_steps)
    return Integrated(before, *of_steps)


def moments_in_parallel(
    before: Moments, drawn: Transition, length: int, outside: int
) -> tuple[Moments, Array, Array]:
    """Return the moments of the state after some steps, and of those before each, (time, …)."""
    stretches, rows, rest = _cut(length)
    left: Any = None
    if rest:
        before, *left = moments_in_sequence(before, _between(drawn, 0, rest), rest, outside)
    inside = _side_by_side(_between(drawn, rest, length), stretches)

    def one_more(state, now):
        return one_after_another(state, of_state(now, outside)), None

    start = of_state(_first(inside), outside)
    states, _ = jax.lax.scan(one_more, start, jax.tree.map(lambda array: array[1:], inside))
    # joined with those before it, in the order of time turned around
    states = jax.tree.map(lambda array: jnp.flip(array, 0), states)
    states = _in_rounds(lambda later, earlier: one_after_another(earlier, later), states)
    states = jax.tree.map(lambda array: jnp.flip(array, 0), states)
    # none of the moments is a sum over stretches
    each = jax.tree.map(lambda array: jnp.broadcast_to(array, (stretches, *array.shape)), before)
    ends = after_steps(each, states)
    after = _last(ends)
    starts = jax.tree.map(
        lambda first, array: jnp.concatenate([first[None], array[:-1]]), before, ends
    )
    _, *of_steps = moments_in_sequence(starts, inside, rows, outside)
    of_steps = _in_time(of_steps, rows * stretches)
    if rest:
        of_steps = jax.tree.map(_joined, left, of_steps)
    return after, *of_steps


def _cut(length: int) -> tuple[int, int, int]:
    """Return how many stretches there are, of how many steps, and how many steps are left over."""
    rows = max(math.ceil(math.log2(length)), 1)
    return length // rows, rows, length % rows


def _each_as_one(inside: Steps, rows: int, outside: int) -> tuple[Message, Transition]:
    """Return each stretch (stretch, …) with its steps integrated out, nothing coming after it."""
    last = _between(inside, rows - 1, rows)
    start = step_integrated(no_message(_first(last)), _first(last), outside)
    start = start[0], of_state(start[1], outside)

    def one_more(stretch, number):
        behind, state = stretch
        step = Steps(*(array[number if array.shape[0] > 1 else 0] for array in inside))
        message, drawn = step_integrated(behind, step, outside)
        return (message, one_after_another(of_state(drawn, outside), state)), None

    stretch, _ = jax.lax.scan(one_more, start, jnp.arange(rows - 1), reverse=True)
    return stretch


def _messages_at_ends(after: Message, each: tuple[Message, Transition], stretches: int) -> Message:
    """Return the messages on the states after each stretch, (stretch, …)."""
    # what comes after all steps is one more, at the end, of which no state is asked for
    own, state = each
    own = jax.tree.map(lambda array, last: _with_last(array, last, stretches), own, after)
    state = jax.tree.map(lambda array: _with_last(array, 0 * array[0], stretches), state)

    def joined(earlier, later):
        (message, state), (behind, after) = earlier, later
        seen, through = met(state, behind)
        linear, quadratic = message.linear + seen.linear, message.quadratic + seen.quadratic
        return Message(message.constant, linear, quadratic), one_after_another(through, after)

    behind, _ = _in_rounds(joined, (own, state))
    behind = jax.tree.map(lambda array: array[1:], behind)
    return behind._replace(constant=jnp.zeros_like(behind.constant))


def _in_rounds(joined: Callable, tree: Any) -> Any:
    """Return what each of many stretches is, joined with all behind it; arrays (stretch, …)."""
    count = jax.tree.leaves(tree)[0].shape[0]
    rounds = math.ceil(math.log2(count)) if count > 1 else 0
    reaches = 2 ** jnp.arange(rounds)
    where = jnp.arange(count)

    def further(stretches, reach):
        behind = jax.tree.map(lambda array: jnp.roll(array, -reach, 0), stretches)
        both = joined(stretches, behind)

        def chosen(array, own):
            is_there = (where + reach < count).reshape(-1, *(1,) * (array.ndim - 1))
            return jnp.where(is_there, array, own)

        return jax.tree.map(chosen, both, stretches), None

    return jax.lax.scan(further, tree, reaches)[0]


def _with_last(array: Array, last: Array, count: int) -> Array:
    """Return an array (stretch, …) for each stretch, and one entry more."""
    shape = jnp.broadcast_shapes(array.shape[1:], last.shape)
    array = jnp.broadcast_to(array, (count, *shape))
    return jnp.concatenate([array, jnp.broadcast_to(last, (1, *shape))])


def _between(tree: Any, start: int, stop: int) -> Any:
    """Return steps start … stop − 1 of arrays (time, …), of length 1 where constant."""
    return jax.tree.map(lambda array: array if array.shape[0] == 1 else array[start:stop], tree)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda array: array[0], tree)


def _last(tree: Any) -> Any:
    return jax.tree.map(lambda array: array[-1], tree)


def _joined(first: Array, later: Array) -> Array:
    return jnp.concatenate([first, later])


def _side_by_side(tree: Any, stretches: int) -> Any:
    """Return arrays (time, …) as (step, stretch, …)."""

    def cut(array):
        if array.shape[0] == 1:
            return array[:, None]
        return jnp.swapaxes(array.reshape(stretches, -1, *array.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree)


def _in_time(tree: Any, length: int) -> Any:
    """Return arrays (step, stretch, …) as (time, …): the inverse of `_side_by_side`."""

    def put_together(array):
        # what is the same in all stretches
        rows = array.shape[0]
        array = jnp.broadcast_to(array, (rows, length // rows, *array.shape[2:]))
        return jnp.swapaxes(array, 0, 1).reshape(length, *array.shape[2:])

    return jax.tree.map(put_together, tree)
