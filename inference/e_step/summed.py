"""What an E-step yields, summed over blocks: log Z and its gradient are sums over them.

A gradient with respect to a table that all blocks share is added up; one with respect to a table
with rows of its own for each position is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from emjax.e_step.blocks import Blocks
from emjax.e_step.expected import Expected
from emjax.elimination.flags import merged, split
from emjax.numerics.in_place import added_to
from emjax.numerics.jaxprs import split_jaxpr


class _SoFar(NamedTuple):
    """What has been added up over some blocks.

    - `total`: log Z in nats, and its gradient with respect to what all blocks share.
    - `margin`: the least margin of their fast forms.
    - `in_rows`: its gradient with respect to tables with a row for each position.
    """

    total: Expected
    margin: Any
    in_rows: list


def summed(
    blocks: Blocks, log_z: Callable, rest: Expected, with_statistics: bool
) -> tuple[Expected, Any]:
    """Return what all blocks yield, added to `rest`, and the least margin of their fast forms.

    - `log_z(instance, tables, epsilon)`: (log Z, margin) of a block; ε as in `FastForms`.
    - `rest`: what the terms that are not cut yield: it counts once, whatever the number of blocks.
    - `with_statistics`: without, there are none, in `rest` either.
    """
    tables = _Tables(blocks)
    derived = _with_gradient if with_statistics else _value_alone

    # what all blocks share: tables, and ε, whose derivatives add up as theirs do
    in_all = [*tables.shared, jnp.zeros(())]

    def of_block(in_all, in_rows, start, rows: int):
        part = blocks.part(start, rows)
        *shared, epsilon = in_all
        return log_z(part, tables.joined(part.naturals, shared, in_rows), epsilon)

    def with_block(so_far: _SoFar, start, rows: int, function: Callable, argument) -> _SoFar:
        """Add function(argument, rows of tables) = (log Z, margin) of the block at `start`."""
        rows_of_tables = tables.rows_at(start, rows)
        total, margin, gradient = derived(so_far.total, function, argument, rows_of_tables)
        in_rows = so_far.in_rows
        if with_statistics:
            in_rows = tables.placed(in_rows, gradient, start)
        return _SoFar(total, jnp.minimum(so_far.margin, margin), in_rows)

    # what depends on the parameters alone is computed before the loop, and its derivative after it
    before, after = _hoisted(
        lambda in_rows, start, in_all: of_block(in_all, in_rows, start, blocks.rows),
        tables.rows_at(0, blocks.rows),
        in_all,
    )
    hoisted, pull, without_derivative = jax.vjp(before, in_all, has_aux=True)

    def with_next(number, so_far: _SoFar) -> _SoFar:
        start = number * blocks.rows

        def remainder(hoisted, in_rows):
            return after(hoisted, without_derivative, in_rows, start)

        return with_block(so_far, start, blocks.rows, remainder, hoisted)

    zeros: tuple = ([], [])
    if with_statistics:
        zeros = jax.tree.map(jnp.zeros_like, (hoisted, tables.in_rows))
    so_far = _SoFar(Expected(rest.log_partition, zeros[0]), jnp.full((), jnp.inf), zeros[1])
    so_far = jax.lax.fori_loop(0, blocks.size // blocks.rows, with_next, so_far)
    if with_statistics:
        # from the gradient with respect to what was hoisted to that of the tables it is made of
        (of_all,) = pull(so_far.total.statistics)
        so_far = so_far._replace(total=Expected(so_far.total.log_partition, of_all))
    # the last rows, where blocks leave some over: fewer rows are another program
    if left_over := blocks.size % blocks.rows:
        start = blocks.size - left_over

        def of_last(in_all, in_rows):
            return of_block(in_all, in_rows, start, left_over)

        so_far = with_block(so_far, start, left_over, of_last, in_all)
    if not with_statistics:
        return so_far.total, so_far.margin
    *of_shared, lost = so_far.total.statistics
    statistics = tables.with_rest(of_shared, so_far.in_rows, rest.statistics)
    total = Expected(so_far.total.log_partition, statistics)
    return total, jnp.minimum(so_far.margin, 1 / lost)


class _Tables:
    """The tables of the terms that are cut.

    - `is_shared`: whether each is the same in every block: it has no row for each position.
    - `shared`: those that are, as arrays.
    - `in_rows`: the others, each cut along its axis of `dims`.
    """

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.is_shared: list[bool] = []
        self.dims: list[int] = []
        arrays = []
        for number, axis in blocks.axes.items():
            for table in blocks.instance.naturals[number]:
                arrays.append(jnp.asarray(table.array))
                self.is_shared.append(table.compact[axis] == 1)
                if not self.is_shared[-1]:
                    self.dims.append(len(table.axes) + axis)
        self.shared, self.in_rows = split(arrays, self.is_shared)

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

    def joined(self, naturals: Sequence, shared: Sequence, in_rows: Sequence) -> list[list]:
        """Return the arrays of each cut term, as many as its `naturals` are."""
        arrays = iter(merged(shared, in_rows, self.is_shared))
        of_terms = []
        for tables in naturals:
            of_terms.append([next(arrays) for _ in tables])
        return of_terms

    def with_rest(self, shared: Sequence, in_rows: Sequence, rest: Sequence) -> list[list]:
        """Return what belongs to the tables of all terms, in their order."""
        instance, axes = self.blocks.instance, self.blocks.axes
        cut = self.joined([instance.naturals[i] for i in axes], shared, in_rows)
        of_term = dict(zip(axes, cut, strict=True))
        others = iter(rest)
        return [of_term[i] if i in of_term else next(others) for i in range(len(instance.terms))]


def _with_gradient(total: Expected, function: Callable, *arguments: Any) -> tuple:
    """Return `total` with what function(a, b) yields along a, its margin and its gradient by b.

    `function(a, b)` is (value, margin).
    """
    # one reverse pass for both gradients
    both = jax.value_and_grad(function, argnums=(0, 1), has_aux=True)

    def derived(*arguments):
        (value, margin), (along_first, along_second) = both(*arguments)
        return along_first, (value, margin, along_second)

    statistics, structure = jax.tree.flatten(total.statistics)
    statistics, (value, margin, gradient) = added_to(statistics, derived, *arguments)
    statistics = jax.tree.unflatten(structure, statistics)
    return Expected(total.log_partition + value, statistics), margin, gradient


def _value_alone(total: Expected, function: Callable, *arguments: Any) -> tuple:
    """Return what `_with_gradient` does, with no derivatives."""
    value, margin = function(*arguments)
    return Expected(total.log_partition + value, []), margin, []


def _hoisted(function: Callable, in_rows: Sequence, shared: Sequence) -> tuple[Callable, Callable]:
    """Split function(in_rows, start, shared) into what no block changes, and what does the rest.

    That is before(shared) = (operands, others) and after(operands, others, in_rows, start), where
    `others` are what has no derivative.
    """
    # what is only longer than what it is made of stays in the block: to read it from memory would
    # cost more than to make it
    jaxpr = jax.make_jaxpr(function)(in_rows, 0, shared)
    known, unknown = split_jaxpr(
        jaxpr,
        len(in_rows) + 1,
        is_cheap=lambda eqn: eqn.primitive.name in ("broadcast_in_dim", "iota"),
    )
    # whole numbers and flags have no cotangents, and `vjp` takes them as auxiliary values
    is_real = [jnp.issubdtype(aval.dtype, jnp.inexact) for aval in known.out_avals]

    def before(shared):
        arrays = eval_jaxpr(known.jaxpr, known.consts, *shared)
        return split(arrays, is_real)

    def after(operands, others, in_rows, start):
        arrays = merged(operands, others, is_real)
        return tuple(eval_jaxpr(unknown.jaxpr, unknown.consts, *in_rows, start, *arrays))

    return before, after
