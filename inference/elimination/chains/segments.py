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

import jax
import jax.numpy as jnp

from emjax.elimination.chains.layout import Chain

# Steps of fewer operations than this are dominated by what a loop costs (measured: 1.5 µs a step on
# a CPU, more on an accelerator).
SMALL_STEP = {"cpu": 2**13}
SMALL_STEP_ELSEWHERE = 2**18
FEWEST_STEPS = 4096
START = ("start of a segment", None)


def number_of_segments(chain: Chain, steps: int) -> int:
    """Return into how many segments a chain is to be cut: one, unless it is long and a step of K
    tables is small.
    """
    limit = SMALL_STEP.get(jax.default_backend(), SMALL_STEP_ELSEWHERE)
    if (
        steps < FEWEST_STEPS
        or chain.count * chain.num_states**2 * max(chain.sizes.values()) > limit
    ):
        return 1
    return round(steps**0.5)


def with_starts(chain: Chain) -> Chain:
    """Return the chain with one more label, that no factor has: the state at the start of a
    segment.
    """
    size = math.prod(chain.sizes[label] for label in chain.window if label[1] is not None)
    return replace(chain, window=(START, *chain.window), sizes={**chain.sizes, START: size})


def in_segments(carried: Callable, message, arrays, lead: int, segments: int, steps: int, epsilon):
    """Carry a message (batch, *others, *states) over `segments` · R = `steps` steps: return the
    last message, and the logarithm of its scale, (batch, *others).

    `carried(message, arrays, of_starts)` does so over R steps, with the starts' label in front of
    the others if `of_starts`; `arrays`: a tree of arrays (time, batch, …), of length 1 where they
    do not vary; `lead`: the number of others.
    """
    count, rows = message.shape[0], steps // segments
    states = message.shape[1 + lead :]

    def cut(array):
        """Return an array with the segments side by side, (R, segment · batch, …)."""
        if array.shape[0] == 1:
            return (
                array
                if array.shape[1] == 1
                else jnp.tile(array, (1, segments) + (1,) * (array.ndim - 2))
            )
        array = jnp.broadcast_to(array, (steps, count, *array.shape[2:])).reshape(
            segments, rows, count, *array.shape[2:]
        )
        return jnp.swapaxes(array, 0, 1).reshape(rows, segments * count, *array.shape[3:])

    arrays = jax.tree.map(cut, arrays)
    tables, scales = _tables(carried, message, jax.lax.stop_gradient(arrays), lead, segments)
    starts, reverse = _at_the_ends(
        jax.lax.stop_gradient(message).reshape(*message.shape[: 1 + lead], -1), tables, scales
    )
    starts = starts[1:].reshape((segments - 1) * count, *message.shape[1:])
    first = jnp.concatenate([message, jax.lax.stop_gradient(starts) + epsilon])
    last, scale = carried(first, arrays, False)
    last = last.reshape(segments, *message.shape[: 1 + lead], -1)
    through_last = (jax.lax.stop_gradient(reverse) * last[:-1]).sum((0, -1))
    total = (
        scale.reshape(segments, count, *scale.shape[1:]).sum(0)
        + through_last
        - jax.lax.stop_gradient(through_last)
    )
    return last[-1].reshape(count, *message.shape[1 : 1 + lead], *states), total


def _tables(carried: Callable, message, arrays, lead: int, segments: int):
    """Return what every state at the start of each segment becomes, (segment, batch, *others,
    state, state), and the logarithms of its scale.
    """
    count, others, states = message.shape[0], message.shape[1 : 1 + lead], message.shape[1 + lead :]
    size = math.prod(states)
    certain = jnp.eye(size, dtype=message.dtype).reshape(1, size, *(1,) * lead, *states)
    tables, scales = carried(
        jnp.broadcast_to(certain, (segments * count, size, *others, *states)), arrays, True
    )
    tables = jnp.moveaxis(tables.reshape(segments, count, size, *others, size), 2, -2)
    return tables, jnp.moveaxis(scales.reshape(segments, count, size, *others), 2, -1)


def _at_the_ends(message, tables, scales):
    """Return the messages at the starts of all segments, (segment, batch, *others, state), and for
    all ends but the last the reverse messages, of which the sum of products with the message there
    is one.
    """
    weights = jnp.exp(scales - scales.max(-1, keepdims=True))

    def forward(message, own):
        table, weight = own
        after = jnp.einsum("...i,...ij->...j", message * weight, table)
        return after / after.sum(-1, keepdims=True), message

    def backward(reverse, own):
        table, weight = own
        before = weight * jnp.einsum("...ij,...j->...i", table, reverse)
        return before / before.max(-1, keepdims=True), before

    _, starts = jax.lax.scan(forward, message, (tables, weights))
    _, reverse = jax.lax.scan(
        backward, jnp.ones_like(message), (tables[1:], weights[1:]), reverse=True
    )
    return starts, reverse / (starts[1:] * reverse).sum(-1, keepdims=True)
