"""Steps of a Gaussian chain one after the other: the latest first, then the moments of states."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array

from emjax.elimination.flags import merged, split
from emjax.elimination.gaussian.chain_states import Moments, after_step
from emjax.elimination.gaussian.chain_steps import Message, Steps, Transition, step_integrated


class Integrated(NamedTuple):
    """Steps integrated out.

    - `before`: the message on the state before all of them.
    - `linear`, `quadratic`: those on the state after each, h (time, …, s) and J (time, …, s, s).
    - `drawn`: what each draws given the state before it and all data, (time, …).
    """

    before: Message
    linear: Array
    quadratic: Array
    drawn: Transition


def messages_in_sequence(after: Message, steps: Steps, length: int, outside: int) -> Integrated:
    """Return steps (time, …) integrated out; `after` is the message on the state after them."""
    moves = [array.shape[0] != 1 for array in steps]
    moving, constant = split(list(steps), moves)
    constant = [array[0] for array in constant]

    def body(message, now):
        step = Steps(*merged(now, constant, moves))
        before, drawn = step_integrated(message, step, outside)
        return before, (message.linear, message.quadratic, drawn)

    before, of_steps = jax.lax.scan(body, after, moving, length=length, reverse=True)
    return Integrated(before, *of_steps)


def message_of_one(after: Message, steps: Steps, length: int, outside: int) -> Integrated:
    """Return a single step (1, …) integrated out, without a loop."""
    del length
    step = Steps(*(array[0] for array in steps))
    before, drawn = step_integrated(after, step, outside)
    of_step = after.linear, after.quadratic, drawn
    return Integrated(before, *jax.tree.map(lambda array: array[None], of_step))


def moments_of_one(
    before: Moments, drawn: Transition, length: int, outside: int
) -> tuple[Moments, Array, Array]:
    """Return the moments of the state after a single step, and of that before it, (1, …)."""
    del length
    after = after_step(before, jax.tree.map(lambda array: array[0], drawn), outside)
    return after, before.first[None], before.second[None]


def moments_in_sequence(
    before: Moments, drawn: Transition, length: int, outside: int
) -> tuple[Moments, Array, Array]:
    """Return the moments of the state after some steps, and of those before each, (time, …)."""

    def body(moments, now):
        after = after_step(moments, now, outside)
        return after, (moments.first, moments.second)

    after, (first, second) = jax.lax.scan(body, before, drawn, length=length)
    return after, first, second
