"""Blocks: log Z and its gradient are sums over blocks of the outermost plate.

Each is small enough to stay in the cache. Terms whose latents all run along one axis with the data
are cut along it; the others are added once. A block is an instance with fewer rows, so that
everything else in the package is unaware of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.e_step.cutting import can_be_cut, cut, cut_latent, cut_term
from emjax.e_step.expected import Expected
from emjax.e_step.instance import Instance
from emjax.e_step.products import features
from emjax.elimination.factors import Variable
from emjax.graph.terms import Term
from emjax.numerics.jaxprs import split_jaxpr
from emjax.tables.indices import Affine
from emjax.tables.named import Named

# What one block works on: about what a core's share of the last cache holds (measured: 4 to 16 MB
# are within 10 %, one pass over everything takes up to 3 times as long). An accelerator has no such
# cache: there a block only bounds memory.
BLOCK_BYTES = {"cpu": 8 * 2**20}
BLOCK_BYTES_ELSEWHERE = 2**29
# Every block adds its gradient to that of the tables: it should take many times as long itself.
# (Tables with a row for each position are counted in vain; they are seldom large.)
BLOCK_TABLES = 32
# Matrices for each row with missing coordinates and each value of its latents: the precision among
# what is missing, its inverse, the second moment.
MATRICES = 3
# Data of fewer blocks than this are taken in one piece: a loop costs small work more than it saves.
FEWEST_BLOCKS = 2


@dataclass(frozen=True, eq=False)
class Blocks:
    """How an instance is cut along a plate.

    - `instance`: all of it.
    - `axes`: by number of the term, the axis of its elements that runs along the plate, for terms
      that are cut.
    - `size`: the plate's length.
    - `rows`: a block's.
    """

    instance: Instance
    axes: Mapping[int, int]
    size: int
    rows: int

    @property
    def rest(self) -> Instance:
        """The terms that are not cut."""
        instance = self.instance
        numbers = [i for i in range(len(instance.terms)) if i not in self.axes]
        cut_names = {axis.source for i in self.axes for axis in instance.terms[i].latent_axes}
        return Instance(
            tuple(instance.terms[i] for i in numbers),
            tuple(instance.naturals[i] for i in numbers),
            {name: v for name, v in instance.latents.items() if name not in cut_names},
            instance.constant,
        )

    def part(self, start, rows: int) -> Instance:
        """Return the instance on `rows` positions of the plate from `start`."""
        terms, naturals, latents = [], [], {}
        for i, axis in self.axes.items():
            term = self.instance.terms[i]
            terms.append(cut_term(term, axis, start, rows))
            naturals.append([cut(table, axis, start, rows) for table in self.instance.naturals[i]])
            for read in term.latent_axes:
                latents[read.source] = self.instance.latents[read.source]
        latents = {name: cut_latent(latent, start, rows) for name, latent in latents.items()}
        return Instance(tuple(terms), tuple(naturals), latents)

    @property
    def cut_tables(self) -> list[tuple[Named, int]]:
        """The tables of the terms that are cut, and the axis of each that runs along the plate."""
        tables = []
        for i, axis in self.axes.items():
            tables += [(table, axis) for table in self.instance.naturals[i]]
        return tables

    @property
    def is_shared(self) -> list[bool]:
        """Whether each of these tables is the same in every block: it has no row for a position."""
        return [table.compact[axis] == 1 for table, axis in self.cut_tables]

    def tables_of(self, part: Instance, shared: Sequence, in_rows: Sequence) -> list[list]:
        """Return the tables of a block from those that all blocks share and those cut into rows."""
        shared, in_rows = iter(shared), iter(in_rows)
        flat = iter([next(shared if is_shared else in_rows) for is_shared in self.is_shared])
        return [[next(flat) for _ in tables] for tables in part.naturals]

    def summed(self, log_z: Callable, with_statistics: bool) -> tuple[Expected, Any]:
        """Return what all blocks and the rest yield, added up, and the least margin.

        `log_z(instance, tables)` is (log Z, margin). Without `with_statistics`, there are none.
        """
        derived = _value_and_gradient if with_statistics else _value_alone
        shared, in_rows, dims = self._tables_apart()

        def of_block(shared, rows_of_tables, start, rows: int):
            part = self.part(start, rows)
            return log_z(part, self.tables_of(part, shared, rows_of_tables))

        def rows_at(start, rows: int):
            pairs = zip(in_rows, dims, strict=True)
            return [jax.lax.dynamic_slice_in_dim(table, start, rows, dim) for table, dim in pairs]

        def placed(totals, gradients, start):
            if not with_statistics:
                return []
            after = []
            for total, gradient, dim in zip(totals, gradients, dims, strict=True):
                after.append(jax.lax.dynamic_update_slice_in_dim(total, gradient, start, dim))
            return after

        # what depends on the parameters alone is computed before the loop, and its derivative after
        before, after = _hoisted(
            lambda rows_of_tables, start, shared: of_block(
                shared, rows_of_tables, start, self.rows
            ),
            rows_at(0, self.rows),
            shared,
        )
        operands, pull, others = jax.vjp(before, shared, has_aux=True)

        def step(number, carry):
            total, margin, of_rows = carry
            start = number * self.rows
            block, block_margin, along_rows = derived(
                lambda operands, rows_of_tables: after(operands, others, rows_of_tables, start)
            )(operands, rows_at(start, self.rows))
            margin = jnp.minimum(margin, block_margin)
            return total + block, margin, placed(of_rows, along_rows, start)

        rest, margin, _ = derived(lambda tables, _: log_z(self.rest, tables))(self.rest.tables, [])
        zeros = jax.tree.map(jnp.zeros_like, (operands, in_rows)) if with_statistics else ([], [])
        total, margin, of_rows = jax.lax.fori_loop(
            0,
            self.size // self.rows,
            step,
            (Expected(rest.log_partition, zeros[0]), margin, zeros[1]),
        )
        if with_statistics:
            total = Expected(total.log_partition, pull(total.statistics)[0])
        if tail := self.size % self.rows:
            start = self.size - tail
            block, block_margin, along_rows = derived(
                lambda shared, rows_of_tables: of_block(shared, rows_of_tables, start, tail)
            )(shared, rows_at(start, tail))
            total, margin = total + block, jnp.minimum(margin, block_margin)
            of_rows = placed(of_rows, along_rows, start)
        if not with_statistics:
            return total, margin
        statistics = self.in_order(total.statistics, of_rows, rest.statistics)
        return Expected(total.log_partition, statistics), margin

    def _tables_apart(self) -> tuple[list, list, list[int]]:
        """Return the tables that all blocks share, the others, and the axis of these to be cut."""
        shared, in_rows, dims = [], [], []
        for (table, axis), is_shared in zip(self.cut_tables, self.is_shared, strict=True):
            if is_shared:
                shared.append(jnp.asarray(table.array))
            else:
                in_rows.append(jnp.asarray(table.array))
                dims.append(len(table.axes) + axis)
        return shared, in_rows, dims

    def in_order(self, shared: Sequence, in_rows: Sequence, rest: Sequence) -> list[list]:
        """Return what belongs to the tables in the order of all terms."""
        naturals = tuple(self.instance.naturals[i] for i in self.axes)
        tables = self.tables_of(Instance((), naturals, {}), shared, in_rows)
        of_term, rest = dict(zip(self.axes, tables, strict=True)), iter(rest)
        numbers = range(len(self.instance.terms))
        return [of_term[i] if i in of_term else next(rest) for i in numbers]


def _value_and_gradient(function: Callable) -> Callable:
    """Return the function of (a, b) that is what `function` yields along a, and a gradient along b.

    `function(a, b)` is (value, margin); the result (Expected, margin, gradient).
    """
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
        arrays = jax.core.eval_jaxpr(known.jaxpr, known.consts, *shared)
        operands = [array for array, real in zip(arrays, is_real, strict=True) if real]
        return operands, [array for array, real in zip(arrays, is_real, strict=True) if not real]

    def after(operands, others, in_rows, start):
        operands, others = iter(operands), iter(others)
        arrays = [next(operands if real else others) for real in is_real]
        return tuple(jax.core.eval_jaxpr(unknown.jaxpr, unknown.consts, *in_rows, start, *arrays))

    return before, after


def blocks_of(instance: Instance) -> Blocks | None:
    """Return how to cut an instance; None where nothing is gained, or its terms run apart."""
    bytes_per_block = BLOCK_BYTES.get(jax.default_backend(), BLOCK_BYTES_ELSEWHERE)
    sizes = {latent.shape[0] for latent in instance.latents.values() if latent.shape}
    for size in sorted(sizes, reverse=True):
        axes = _axes_along(instance, size)
        if not axes:
            continue
        bytes_of_tables, bytes_per_row = 0, 0
        for i, axis in axes.items():
            bytes_of_tables += sum(_bytes(table.array) for table in instance.naturals[i])
            bytes_per_row += _bytes_per_row(instance.terms[i], axis)
        rows = max(bytes_per_block, BLOCK_TABLES * bytes_of_tables) // max(1, bytes_per_row)
        if size < FEWEST_BLOCKS * rows or size == 1:
            return None
        return Blocks(instance, axes, size, _rows_of_equal_blocks(size, max(rows, 1)))
    return None


def _rows_of_equal_blocks(size: int, most: int) -> int:
    """Return the rows of a block, `most` or fewer.

    Blocks are equal, if a few more of them than are needed leave no remainder.
    """
    fewest = -(-size // most)
    for number in range(fewest, 2 * fewest):
        if size % number == 0:
            return size // number
    return -(-size // fewest)


def _axes_along(instance: Instance, size: int) -> dict[int, int]:
    """Return the axis of each term that runs along the latents whose first axis has this length.

    By number of the term, for the terms that read these latents; {} if one of them has none.
    """
    along = {name for name, v in instance.latents.items() if v.shape and v.shape[0] == size}
    axes = {}
    for i, term in enumerate(instance.terms):
        sources = {axis.source for axis in term.latent_axes}
        if not sources & along:
            continue
        if not sources <= along:
            return {}
        axis = _axis_along(term, instance.latents, size)
        if axis is None or not can_be_cut(term, instance.naturals[i], axis):
            return {}
        axes[i] = axis
    multiplicities = [instance.latents[name].multiplicity for name in along]
    if any(m is not None and m.shape[0] not in (1, size) for m in multiplicities):
        return {}
    return axes


def _axis_along(term: Term, latents: Mapping[str, Variable], size: int) -> int | None:
    """Return the axis of a term's elements at whose position i its latents are read at row i.

    And at no other row; None if there is none.
    """
    dims = set()
    for axis in term.latent_axes:
        index = axis.index
        if not isinstance(axis.source, str) or not isinstance(index, Affine) or index.offset:
            return None
        row = Affine.identity(latents[axis.source].shape).strides[0]
        along = []
        within_row = 0
        for d, (stride, length) in enumerate(zip(index.strides, term.elements, strict=True)):
            if stride < 0:
                return None
            if stride == row and length == size:
                along.append(d)
            if d not in along[:1]:
                within_row += stride * (length - 1)
        # an index that goes beyond one row would read several at one position
        if not along or within_row >= row:
            return None
        dims.add(along[0])
    return dims.pop() if len(dims) == 1 else None


def _bytes(array) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _bytes_per_row(term: Term, axis: int) -> int:
    """Return what a term works on for one position of an axis, in bytes.

    Its statistics, its latents' joint table, that one's exponential and derivative; where
    coordinates are missing, also some matrices for each entry of that table.
    """
    size = term.elements[axis]
    width = np.dtype(jnp.result_type(float)).itemsize
    formed = jax.eval_shape(
        lambda: [features(s) for s in term.statistics.formed(term.elements) if s.total is None]
    )
    columns = sum(math.prod(s.shape) // size for s in formed if s.size >= size)
    kept = [n for d, n in enumerate(term.elements) if d in term.kept and d != axis]
    entries = math.prod(kept) * math.prod(a.size for a in term.latent_axes)
    copies = 3
    if term.family is not None and term.family.marginal is not None:
        copies += MATRICES * term.site.event[-1] ** 2
    return width * (columns + copies * entries)
