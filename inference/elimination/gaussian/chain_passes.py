"""Steps of a Gaussian chain integrated out, with a reverse pass that is written out.

It goes forward in time: given the state before it and all data, what a step draws is Gaussian and
linear in that state, and so the moments of each state follow from those of the state before. The
derivative with respect to an exponent's tables is moments. Source: Rauch, Tung & Striebel (1965),
for the smoother; in this form, ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from emjax.elimination.flags import merged, split
from emjax.elimination.gaussian.chain_sequential import Integrated
from emjax.elimination.gaussian.chain_states import (
    Moments,
    moved_on,
    summed_to,
    with_both,
    with_drawn,
)
from emjax.elimination.gaussian.chain_steps import Message, Steps, step_integrated


class Passes(NamedTuple):
    """How steps are gone through: one after the other, in segments, or in rounds.

    - `messages(after, steps, length, outside)`: backward in time.
    - `moments(before, drawn, length, outside)`: forward in time.
    """

    messages: Callable
    moments: Callable


def integrated_steps(
    passes: Passes, length: int, outside: int, after: Message, steps: Steps
) -> Message:
    """Return the message on the state before some steps, of the one on the state after them.

    - `length`: how many steps there are.
    - `outside`: the number of coordinates of a state that do not vary in time.
    - `steps`: (time, batch, *discrete, …).
    """
    return _integrated(passes, length, outside, after, steps)


def _before(passes: Passes, length: int, outside: int, after: Message, steps: Steps) -> Message:
    return passes.messages(after, steps, length, outside).before


def _forward(passes: Passes, length: int, outside: int, after: Message, steps: Steps):
    integrated = passes.messages(after, steps, length, outside)
    return integrated.before, (after, steps, integrated)


def _backward(passes: Passes, length: int, outside: int, saved, cotangents: Message):
    after, steps, integrated = saved
    second = -(cotangents.quadratic + cotangents.quadratic.mT)
    before = Moments(cotangents.constant, cotangents.linear, second)
    last, first, second = passes.moments(before, integrated.drawn, length, outside)
    of_after = Message(last.weight, last.first, -last.second / 2)
    # a message may vary less than what comes before it
    of_after = jax.tree.map(lambda array, own: summed_to(array, own.shape), of_after, after)
    in_time = Moments(before.weight[None], first, second)
    return of_after, _derivatives(steps, integrated, in_time, outside)


def _derivatives(steps: Steps, integrated: Integrated, before: Moments, outside: int) -> Steps:
    """Return the derivatives with respect to all tables, of the moments before each step."""
    first, cross, second = moved_on(before, integrated.drawn)
    linear = with_drawn(before.first, first, outside)
    # sums over time go first: tables that do not vary in time get blocks, not steps, put together
    lead = steps.quadratic.shape[:-2]

    def over_time(block):
        return summed_to(block, (*lead, *block.shape[-2:]))

    quadratic = with_both(over_time(before.second), over_time(cross), over_time(second), outside)

    def message(mean, coefficients, scale):
        drawn_from = steps._replace(mean=mean, coefficients=coefficients, scale=scale)
        zero = jnp.zeros((1,) * before.weight.ndim, before.weight.dtype)
        behind = Message(zero, integrated.linear, integrated.quadratic)
        return step_integrated(behind, drawn_from, outside)[0]

    of_step, pull = jax.vjp(message, steps.mean, steps.coefficients, steps.scale)
    constant = jnp.broadcast_to(before.weight, of_step.constant.shape)
    of_drawn = pull(Message(constant, before.first, -before.second / 2))
    return Steps(summed_to(linear, steps.linear.shape), -quadratic / 2, *of_drawn)


_integrated: Any = jax.custom_vjp(_before, nondiff_argnums=(0, 1, 2))
_integrated.defvjp(_forward, _backward)


def integrated_in_stretches(
    passes: Passes, length: int, outside: int, after: Message, steps: Steps
) -> Message:
    """Return the same as `integrated_steps`, for which memory holds √T steps in place of T.

    Over stretches of √T steps, of which the reverse pass keeps the message on the state after them,
    and computes all else again.
    """
    rows = math.isqrt(length)
    count, rest = length // rows, length % rows
    moves = [array.shape[0] != 1 for array in steps]
    moving, constant = split(list(steps), moves)
    inside = [array[rest:].reshape(count, rows, *array.shape[1:]) for array in moving]

    @jax.checkpoint
    def stretch(message, now):
        of_stretch = Steps(*merged(now, constant, moves))
        return integrated_steps(passes, rows, outside, message, of_stretch)

    def body(message, now):
        return stretch(message, now), None

    message, _ = jax.lax.scan(body, after, inside, length=count, reverse=True)
    # the steps that are left over, fewer than a stretch, come first in time
    if rest:
        left = Steps(*merged([array[:rest] for array in moving], constant, moves))
        message = integrated_steps(passes, rest, outside, message, left)
    return message
