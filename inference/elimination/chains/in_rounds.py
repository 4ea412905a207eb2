"""log Z of a chain of few states as a product of matrices, two neighboring steps at a time.

A loop over steps costs a tenth of a microsecond a step and more, whatever a step does. In log₂ T
rounds, each of which is all products of neighbors at once, it is T · K³ operations in place of
T · K², and a quarter of the time for a hundred steps of three states. Each round takes as long to
compile as a loop: for who asks for log Z a hundred thousand times. As in `scaled`, an ε of zero in
each product says what was lost. Source: Särkkä & García-Fernández (2021), of the rounds.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.chains.layout import Chain
from emjax.elimination.chains.scaled import relative
from emjax.elimination.chains.steps import Advance, first_window, in_steps
from emjax.elimination.reductions import Tempered
from emjax.numerics.axes import arranged

# Beyond so many states products take longer than the loop that they replace (measured on a CPU: a
# half of its time for 5, twice as long for 8).
MOST_STATES = 5


def log_sum_in_rounds(chain: Chain, epsilon: Any) -> Array:
    """Return log Z in nats of a chain longer than its order: (batch, *others).

    `epsilon`: a zero, see `scaled`. What underflows altogether is NaN.
    """
    start = first_window(chain, Tempered())
    lead = start.shape[: 1 + len(chain.others)]
    start = start.reshape(*lead, -1)
    steps, total = _steps(chain, epsilon)
    # of an odd number, the last step waits until all before it are one
    waiting = []
    while steps.shape[0] > 1:
        even = steps.shape[0] // 2 * 2
        waiting.append(steps[even:])
        steps = _product(steps[:even:2], steps[1:even:2]) + epsilon
        largest = jax.lax.stop_gradient(steps.max((-1, -2), keepdims=True))
        # where it is zero nothing is left, and NaN is no loss that could be taken for none
        steps = steps / largest
        total = total + jnp.log(largest).sum(0).squeeze((-1, -2))
    largest = jax.lax.stop_gradient(start.max(-1, keepdims=True))
    message = (jnp.exp(start - largest) + epsilon)[..., None, :]
    for last in (steps, *reversed(waiting)):
        if last.shape[0]:
            message = _product(message, last[0]) + epsilon
    return jnp.log(message.sum((-1, -2))) + largest.squeeze(-1) + total


def _product(first: Any, second: Any) -> Array:
    # not `@`: XLA calls a function for each small matrix, and fuses this with what is around it
    return (first[..., :, :, None] * second[..., None, :, :]).sum(-2)


def _steps(chain: Chain, epsilon: Any) -> tuple[Array, Array]:
    """Return each step as a matrix of probabilities, (step, batch, *others, state before, state),
    relative to its largest, and the sum of the logarithms of these, (batch, *others).
    """
    first, stop = chain.order, chain.length
    densities, transitions = (
        [operand.between(first, stop) for operand in operands] for operands in in_steps(chain)
    )
    others = len(chain.others)
    before = tuple(chain.sizes[label] for label in chain.window[others:])
    size = math.prod(before)
    tables, gates = [], []
    total: Any = jnp.zeros((1,) * (1 + others))
    for operand in (*densities, *transitions):
        table, shift = relative(operand, chain)
        # the state before is the axis behind those of time and batch
        tables.append(operand.cells.read(jnp.exp(table))[:, :, None])
        gates.append(operand.cells.gate)
        total = total + shift
    certain = jnp.eye(size).reshape(1, 1, size, *(1,) * others, *before)
    number = len(densities)
    after = Advance(chain, transitions).scaled(certain, tables[number:], gates[number:])
    for operand, table in zip(densities, tables, strict=False):
        after = after * operand.cells.gated(arranged(table, operand.labels, chain.window, 3), 1)
    lead = (stop - first, *after.shape[1 : 3 + others])
    after = jnp.broadcast_to(after, (*lead, *before))
    return jnp.moveaxis(after.reshape(*lead, size), 2, -2) + epsilon, total
