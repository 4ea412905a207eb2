"""A long chain of few states, summed out in segments side by side.

Where a step is little work, a loop over all steps is all overhead. Here the steps are cut into
segments, and the segments are elements of one batch:

1. the table of every segment: what each state at its start becomes (K times the work, in one loop
  over the steps of a segment);
2. the messages at the ends of segments, and the reverse ones, by these tables;
3. the chain itself, all segments at once, each from the message at its start.

Derivatives are those of 3. alone: with r_s the reverse message at the end of segment s, log Z
depends on what happens in the segment through its scale and its last message α_s, as log(α_s · r_s)
does. Source: ours; the tables are those of Särkkä & García-Fernández (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.chains.layout import Chain
from emjax.elimination.chains.operands import Label

# Steps of fewer operations than this are dominated by what a loop costs (measured: 1.5 µs a step on
# a CPU, more on an accelerator).
SMALL_STEP = {"cpu": 2**13}
SMALL_STEP_ELSEWHERE = 2**18
# Shorter chains are no gain: three passes in place of one have to be compiled.
FEWEST_STEPS = 4096
# The tables of all segments at one step, of so many numbers, are to stay in the cache of a core,
# unless segments would be few (measured on a CPU, 10⁶ steps of 8 states: 500 segments take 0.83 ×
# the time that √T take, and 250 take 1.2 ×, as two cores have less to share).
NUMBERS_IN_CACHE = 2**15
FEWER = 4
# The label of the state that a segment starts in: of no latent, so that no factor has it.
START = Label("start of a segment", None)


def number_of_segments(chain: Chain, steps: int) -> int:
    """Return into how many segments to cut a chain: one, unless it is long and its steps small."""
    limit = SMALL_STEP.get(jax.default_backend(), SMALL_STEP_ELSEWHERE)
    # in the first pass, each of K states is carried on by itself
    work = chain.count * chain.num_states**2 * max(chain.sizes.values())
    if steps < FEWEST_STEPS or work > limit:
        return 1
    # as many segments as each has steps
    root = math.isqrt(steps)
    if jax.default_backend() == "cpu":
        in_cache = NUMBERS_IN_CACHE // (chain.count * chain.num_states**2)
        root = min(root, max(root // FEWER, in_cache))
    return _nearly_a_divisor(steps, root)


def _nearly_a_divisor(steps: int, wanted: int) -> int:
    """Return the number nearest to one of those that leave the fewest steps over.

    Steps that are left over are loops of their own, one step of a single segment at a time.
    """
    numbers = range(wanted * 2 // 3, wanted * 3 // 2 + 1)
    return min(numbers, key=lambda number: (steps % number, abs(number - wanted)))


def with_starts(chain: Chain) -> Chain:
    """Return the chain with one more label, that of the state in which a segment starts.

    It is the last, beside the segments: a step is then one product with all of both.
    """
    size = math.prod(chain.sizes[label] for label in chain.window if label.is_in_time)
    return replace(chain, window=(*chain.window, START), sizes={**chain.sizes, START: size})


def in_segments(
    carried: Callable,
    message: Any,
    arrays: Any,
    num_others: int,
    segments: int,
    steps: int,
    epsilon: Any,
) -> tuple[Array, Array]:
    """Return a message after `steps` steps, and the logarithm of its scale.

    The message is (batch, *others, *states), the scale (batch, *others).

    - `carried(message, arrays, of_starts)`: the same over the steps of one segment, with the
      starts' label behind all others if `of_starts`.
    - `arrays`: a tree of arrays (time, batch, …), of length 1 where they do not vary.
    - `segments`: how many there are; they divide `steps`.
    - `epsilon`: a zero, see `scaled`.
    """
    stop = jax.lax.stop_gradient
    count, lead = message.shape[0], message.shape[: 1 + num_others]
    states = message.shape[1 + num_others :]
    arrays = jax.tree.map(lambda array: _side_by_side(array, count, segments, steps), arrays)
    tables, scales = _tables(carried, message, stop(arrays), num_others, segments)
    starts, reverse = _at_the_ends(stop(message).reshape(*lead, -1), tables, scales)
    starts = starts[1:].reshape((segments - 1) * count, *message.shape[1:])
    first = jnp.concatenate([message, stop(starts) + epsilon])
    last, scale = carried(first, arrays, False)
    last = last.reshape(segments, *lead, -1)
    # has the value zero, and the derivative of log(α_s · r_s) at the ends of segments
    through_last = (stop(reverse) * last[:-1]).sum((0, -1))
    total = scale.reshape(segments, count, *scale.shape[1:]).sum(0)
    total = total + through_last - stop(through_last)
    return last[-1].reshape(*lead, *states), total


def _side_by_side(array, count: int, segments: int, steps: int):
    """Return an array (time, batch, …) with segments as elements: (R, segment · batch, …)."""
    tail, rows = array.shape[2:], steps // segments
    if array.shape[0] == 1 and array.shape[1] == 1:
        return array
    if array.shape[0] == 1:
        return jnp.tile(array, (1, segments) + (1,) * len(tail))
    array = jnp.broadcast_to(array, (steps, count, *tail)).reshape(segments, rows, count, *tail)
    return jnp.swapaxes(array, 0, 1).reshape(rows, segments * count, *tail)


def _tables(carried: Callable, message, arrays, num_others: int, segments: int):
    """Return what every state at the start of each segment becomes, and the logarithm of its scale.

    Tables (segment, batch, *others, state, state) and scales (segment, batch, *others, state).
    """
    count, others = message.shape[0], message.shape[1 : 1 + num_others]
    states = message.shape[1 + num_others :]
    size = math.prod(states)
    certain = jnp.eye(size, dtype=message.dtype).reshape(1, *(1,) * num_others, *states, size)
    certain = jnp.broadcast_to(certain, (segments * count, *others, *states, size))
    tables, scales = carried(certain, arrays, True)
    tables = jnp.swapaxes(tables.reshape(segments, count, *others, size, size), -1, -2)
    return tables, scales.reshape(segments, count, *others, size)


def _at_the_ends(message, tables, scales):
    """Return the messages at the starts of segments, and the reverse ones at all ends but the last.

    Messages are (segment, batch, *others, state), of sum one; reverse messages are such that the
    sum of products with the message there is one.
    """
    weights = jnp.exp(scales - scales.max(-1, keepdims=True))
    # products of the highest precision: an accelerator would round single precision to ten bits

    def forward(message, table, weight):
        after = jnp.einsum("...i,...ij->...j", message * weight, table, precision="highest")
        return after / after.sum(-1, keepdims=True)

    def backward(reverse, table, weight):
        before = jnp.einsum("...ij,...j->...i", table, reverse, precision="highest") * weight
        return before / before.max(-1, keepdims=True)

    # both ways in one loop: a second one would take as long to compile
    def both(carry, segments):
        (message, reverse), (first, last) = carry, segments
        return (forward(message, *first), backward(reverse, *last)), carry

    from_the_end = tables[::-1], weights[::-1]
    ends = message, jnp.ones_like(message)
    _, (starts, reverse) = jax.lax.scan(both, ends, ((tables, weights), from_the_end))
    reverse = reverse[:0:-1]
    return starts, reverse / (starts[1:] * reverse).sum(-1, keepdims=True)
