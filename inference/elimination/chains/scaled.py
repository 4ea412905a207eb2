"""log Z of a chain by scaled messages: probabilities, whose step is a matrix product.

Probabilities below the smallest number are lost. So every message has an ε added to it, which is
zero: what is lost changes log Z by at most the smallest number times ∂ log Z / ∂ε, and where that
is not small, the caller does all again in logarithms. Source of ε: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.chains.layout import Chain
from emjax.elimination.chains.messages import Recursion, carried
from emjax.elimination.chains.operands import Operand, axes_in_time
from emjax.elimination.chains.segments import in_segments, number_of_segments, with_starts
from emjax.elimination.chains.steps import Advance, first_window, in_steps, over_stretches
from emjax.elimination.reductions import Tempered
from emjax.numerics.axes import arranged


def scaled_log_sum(chain: Chain, epsilon: Any, checkpointed: bool = False) -> Array:
    """Return log Z in nats of a chain longer than its order: (batch, *others).

    `epsilon`: a zero, see above; `checkpointed`: see `over_stretches`.
    """
    start = first_window(chain, Tempered())
    densities, transitions = in_steps(chain)

    def stretch(message, operands: Sequence[Operand]):
        tables, offset = [], jnp.zeros((1,) * (1 + len(chain.others)))
        for operand in operands:
            table, shift = relative(operand, chain)
            tables.append(table)
            offset = offset + shift
        message, scale = _over_steps(chain, operands, message, tables, epsilon)
        return message, offset + scale

    states = axes_in_time(chain.window, 1)
    largest = jax.lax.stop_gradient(start.max(states, keepdims=True))
    first = jnp.exp(start - largest) + epsilon
    total = first.sum(states, keepdims=True)
    _, value = over_stretches(
        stretch, first / total, [*densities, *transitions], chain, checkpointed
    )
    return value + (largest + jnp.log(total)).squeeze(states)


def relative(operand: Operand, chain: Chain):
    """Return a table relative to its largest entries, and the sum of these over time.

    Exponentials are taken of tables before they are looked up, relative to the largest entry of
    each step and batch element. Their sum is (batch, *others).
    """
    # with an index, a table is (row, …): rows stand for time and batch element
    cells = operand.cells
    lead = 2 if cells.index is None else 1
    states = axes_in_time(operand.labels, lead)
    largest = jax.lax.stop_gradient(cells.table.max(states, keepdims=True))
    shift = cells.gated(cells.read(largest), 0)
    others = [label for label in chain.window if not label.is_in_time]
    shift = arranged(shift, operand.labels, others, 2)
    over_time = shift[0] * operand.steps if shift.shape[0] == 1 else shift.sum(0)
    return cells.table - largest, over_time


def _over_steps(
    chain: Chain, operands: Sequence[Operand], message, tables: Sequence, epsilon
) -> tuple:
    """Return a message after the operands' steps, and the logarithm of its scale, (batch, *others).

    In segments, where the chain is long and its steps are small. `tables`: the operands' tables.
    """
    transitions = [operand for operand in operands if operand.lag > 0]
    densities = tuple(operand.labels for operand in operands if operand.lag == 0)
    # a table that is looked up has no axis along time
    in_time = []
    for operand, table in zip(operands, tables, strict=True):
        index, gate = operand.cells.index, operand.cells.gate
        in_time.append((None if index is not None else table, index, gate))

    def over(message, arrays, rows: int, of_starts: bool = False) -> Any:
        its_tables = []
        for table, (varying, _, _) in zip(tables, arrays, strict=True):
            its_tables.append(table if varying is None else varying)
        # the tables of segments are constants to the derivative (see `segments`)
        if of_starts:
            its_tables = [jax.lax.stop_gradient(table) for table in its_tables]
        its_chain = with_starts(chain) if of_starts else chain
        advance = Advance(its_chain, transitions)
        recursion = Recursion(advance, its_chain.window, rows, densities, batch_is_last=of_starts)
        fixed = [(index, gate) for _, index, gate in arrays]
        return carried(recursion, message, its_tables, fixed, epsilon)

    def between(start: int, stop: int):
        return jax.tree.map(
            lambda array: array if array.shape[0] == 1 else array[start:stop], in_time
        )

    steps = operands[0].steps
    segments = number_of_segments(chain, steps)
    if segments == 1:
        return over(message, in_time, steps)
    rows = steps // segments
    # the steps that are left over come first, so that nothing comes after the segments
    rest = steps - rows * segments
    before = jnp.zeros(())
    if rest:
        message, before = over(message, between(0, rest), rest)
    message, scale = in_segments(
        lambda message, arrays, of_starts: over(message, arrays, rows, of_starts),
        message,
        between(rest, steps),
        len(chain.others),
        segments,
        rows * segments,
        epsilon,
    )
    return message, before + scale
