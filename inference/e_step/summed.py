"""What an E-step yields, summed over blocks: log Z and its gradient are sums over them.

A gradient with respect to a table that all blocks share is added up; one with respect to a table
with rows of its own for each position is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from emjax.e_step.blocks import Blocks
from emjax.e_step.expected import Expected
from emjax.e_step.instance import Instance
from emjax.numerics.jaxprs import split_jaxpr


def summed(blocks: Blocks, log_z: Callable, with_statistics: bool) -> tuple[Expected, Any]:
    """Return what all blocks and the terms that are not cut yield, added up, and the least margin.

    `log_z(instance, tables)` is (log Z, margin). Without `with_statistics`, there are none.
    """
    derived = _value_and_gradient if with_statistics else _value_alone
    tables = _Tables(blocks)

    def of_block(shared, in_rows, start, rows: int):
        part = blocks.part(start, rows)
        return log_z(part, tables.joined(part, shared, in_rows))

    def added(so_far, start, rows: int, function: Callable, argument):
        """Add function(argument, rows of tables) = (log Z, margin) of one block."""
        total, margin, of_rows = so_far
        block, block_margin, along_rows = derived(function)(argument, tables.rows_at(start, rows))
        if with_statistics:
            of_rows = tables.placed(of_rows, along_rows, start)
        return total + block, jnp.minimum(margin, block_margin), of_rows

    # what depends on the parameters alone is computed before the loop, and its derivative after it
    before, after = _hoisted(
        lambda in_rows, start, shared: of_block(shared, in_rows, start, blocks.rows),
        tables.rows_at(0, blocks.rows),
        tables.shared,
    )
    operands, pull, others = jax.vjp(before, tables.shared, has_aux=True)

    def step(number, so_far):
        start = number * blocks.rows
        return added(
            so_far,
            start,
            blocks.rows,
            lambda operands, in_rows: after(operands, others, in_rows, start),
            operands,
        )

    # what is not cut counts once, whatever the number of blocks
    rest, margin, _ = derived(lambda tables, _: log_z(blocks.rest, tables))(blocks.rest.tables, [])
    zeros: tuple = ([], [])
    if with_statistics:
        zeros = jax.tree.map(jnp.zeros_like, (operands, tables.in_rows))
    so_far = (Expected(rest.log_partition, zeros[0]), margin, zeros[1])
    total, margin, of_rows = jax.lax.fori_loop(0, blocks.size // blocks.rows, step, so_far)
    if with_statistics:
        total = Expected(total.log_partition, pull(total.statistics)[0])
    # the last rows, where blocks leave a remainder: fewer rows are another program
    if tail := blocks.size % blocks.rows:
        start = blocks.size - tail
        total, margin, of_rows = added(
            (total, margin, of_rows),
            start,
            tail,
            lambda shared, in_rows: of_block(shared, in_rows, start, tail),
            tables.shared,
        )
    if with_statistics:
        statistics = tables.with_rest(total.statistics, of_rows, rest.statistics)
        total = Expected(total.log_partition, statistics)
    return total, margin


class _Tables:
    """The tables of the terms that are cut.

    - `is_shared`: whether each is the same in every block: it has no row for each position.
    - `shared`: those that are, as arrays.
    - `in_rows`: the others, each cut along its axis of `dims`.
    """

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.is_shared: list[bool] = []
        self.shared: list = []
        self.in_rows: list = []
        self.dims: list[int] = []
        for number, axis in blocks.axes.items():
            for table in blocks.instance.naturals[number]:
                is_shared = table.compact[axis] == 1
                self.is_shared.append(is_shared)
                (self.shared if is_shared else self.in_rows).append(jnp.asarray(table.array))
                if not is_shared:
                    self.dims.append(len(table.axes) + axis)

    def rows_at(self, start, rows: int) -> list:
        """Return `rows` rows from `start` of the tables that are cut into rows."""
        pairs = zip(self.in_rows, self.dims, strict=True)
        return [jax.lax.dynamic_slice_in_dim(table, start, rows, dim) for table, dim in pairs]

    def placed(self, totals: Sequence, gradients: Sequence, start) -> list:
        """Return arrays of the shapes of `in_rows` with a block's gradients in their place."""
        after = []
        for total, gradient, dim in zip(totals, gradients, self.dims, strict=True):
            after.append(jax.lax.dynamic_update_slice_in_dim(total, gradient, start, dim))
        return after

    def joined(self, part: Instance, shared: Sequence, in_rows: Sequence) -> list[list]:
        """Return the tables of each term of a block from the shared ones and those in rows."""
        of_all, of_block = iter(shared), iter(in_rows)
        flat = iter([next(of_all if is_shared else of_block) for is_shared in self.is_shared])
        of_terms = []
        for tables in part.naturals:
            of_terms.append([next(flat) for _ in tables])
        return of_terms

    def with_rest(self, shared: Sequence, in_rows: Sequence, rest: Sequence) -> list[list]:
        """Return what belongs to the tables of all terms, in their order."""
        instance, axes = self.blocks.instance, self.blocks.axes
        cut = Instance((), tuple(instance.naturals[i] for i in axes), {})
        of_term = dict(zip(axes, self.joined(cut, shared, in_rows), strict=True))
        others = iter(rest)
        return [of_term[i] if i in of_term else next(others) for i in range(len(instance.terms))]


def _value_and_gradient(function: Callable) -> Callable:
    """Return the function of (a, b) that is what `function` yields along a, and a gradient along b.

    `function(a, b)` is (value, margin); the result (Expected, margin, gradient).
    """
    # one reverse pass for both gradients
    both = jax.value_and_grad(function, argnums=(0, 1), has_aux=True)

    def derived(*arguments):
        (value, margin), (first, second) = both(*arguments)
        return Expected(value, first), margin, second

    return derived


def _value_alone(function: Callable) -> Callable:
    """Return what `_value_and_gradient` does, with no derivatives."""

    def derived(*arguments):
        value, margin = function(*arguments)
        return Expected(value, []), margin, []

    return derived


def _hoisted(function: Callable, in_rows: Sequence, shared: Sequence) -> tuple[Callable, Callable]:
    """Split function(in_rows, start, shared) into what no block changes, and what does the rest.

    That is before(shared) = (operands, others) and after(operands, others, in_rows, start).
    `others` are what has no derivative; what is only longer than what it is made of stays in the
    block.
    """
    jaxpr = jax.make_jaxpr(function)(in_rows, 0, shared)
    known, unknown = split_jaxpr(
        jaxpr,
        len(in_rows) + 1,
        stays=lambda eqn: eqn.primitive.name in ("broadcast_in_dim", "iota"),
    )
    is_real = [jnp.issubdtype(aval.dtype, jnp.inexact) for aval in known.out_avals]

    def before(shared):
        arrays = eval_jaxpr(known.jaxpr, known.consts, *shared)
        operands = [array for array, real in zip(arrays, is_real, strict=True) if real]
        return operands, [array for array, real in zip(arrays, is_real, strict=True) if not real]

    def after(operands, others, in_rows, start):
        operands, others = iter(operands), iter(others)
        arrays = [next(operands if real else others) for real in is_real]
        return tuple(eval_jaxpr(unknown.jaxpr, unknown.consts, *in_rows, start, *arrays))

    return before, after
