"""Blocks: log Z and its gradient are sums over blocks of the outermost plate, each small enough to
stay in the cache.

Terms whose latents all run along one axis with the data are cut along it; the others are added
once. A block is an instance with fewer rows, so that everything else in the package is unaware
of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.e_step.products import features
from emjax.elimination.factors import Variable
from emjax.graph.terms import Term
from emjax.numerics.jaxprs import split_jaxpr
from emjax.tables.indices import Affine, Dense
from emjax.tables.named import Axis, Named

# What one block works on: about what a core's share of the last cache holds (measured: 4 to 16 MB
# are within 10 %, one pass over
# everything takes up to 3 times as long). An accelerator has no such cache: there a block only
# bounds memory.
BLOCK_BYTES = {"cpu": 8 * 2**20}
BLOCK_BYTES_ELSEWHERE = 2**29
# Every block adds its gradient to that of the tables: it should take many times as long itself.
# (Tables with a row for each position
# are counted in vain; they are seldom large.)
BLOCK_TABLES = 32
# matrices for each row with missing coordinates and each value of its latents: the precision among
# what is missing, its inverse, the second moment
MATRICES = 3
# data of fewer blocks than this are taken in one piece: a loop costs small work more than it saves
FEWEST_BLOCKS = 2


@dataclass(frozen=True, eq=False)
class Instance:
    """A factor graph at given parameters and data: terms without slots, their natural-parameter
    tables, the latents to sum out, the part of log Z that depends on neither, and how chains are
    summed out (see `EM`).
    """

    terms: tuple[Term, ...]
    naturals: tuple[Sequence[Named], ...]
    latents: Mapping[str, Variable]
    constant: Any = 0.0
    chains: str = "sequential"

    @property
    def tables(self) -> list[list]:
        """The natural-parameter tables as plain arrays."""
        return [[jnp.asarray(table.array) for table in tables] for tables in self.naturals]


@dataclass(frozen=True, eq=False)
class Blocks:
    """How an instance is cut: `axes[i]` is the axis of term i's elements that runs along the plate,
    for those that are cut; `size` the plate's length, `rows` a block's.
    """

    whole: Instance
    axes: Mapping[int, int]
    size: int
    rows: int

    @property
    def rest(self) -> Instance:
        """The terms that are not cut."""
        numbers = [i for i in range(len(self.whole.terms)) if i not in self.axes]
        own = {axis.source for i in self.axes for axis in self.whole.terms[i].latent_axes}
        return Instance(
            tuple(self.whole.terms[i] for i in numbers),
            tuple(self.whole.naturals[i] for i in numbers),
            {name: v for name, v in self.whole.latents.items() if name not in own},
            self.whole.constant,
        )

    def part(self, start, rows: int) -> Instance:
        """Return the instance on `rows` positions of the plate from `start`."""
        terms, naturals, latents = [], [], {}
        for i, axis in self.axes.items():
            term = self.whole.terms[i]
            terms.append(cut_term(term, axis, start, rows))
            naturals.append([cut(table, axis, start, rows) for table in self.whole.naturals[i]])
            latents |= {a.source: self.whole.latents[a.source] for a in term.latent_axes}
        return Instance(
            tuple(terms),
            tuple(naturals),
            {name: _shortened(v, start, rows) for name, v in latents.items()},
        )

    @property
    def shared(self) -> list[bool]:
        """Whether each table of the terms that are cut is the same in every block: it has no row
        for each position.
        """
        return [
            table.compact[axis] == 1
            for i, axis in self.axes.items()
            for table in self.whole.naturals[i]
        ]

    def tables_of(self, part: Instance, shared: Sequence, own: Sequence) -> list[list]:
        """Return the tables of a block from those that all blocks share and its own."""
        of_all, of_one = iter(shared), iter(own)
        flat = iter([next(of_all if is_shared else of_one) for is_shared in self.shared])
        return [[next(flat) for _ in tables] for tables in part.naturals]

    def summed(self, log_z: Callable, with_gradient: bool):
        """Return, of log_z(instance, tables) = (value, margin) over all blocks, Σ value, the least
        margin, and the gradient of Σ value with respect to the tables, if asked for (else None).
        """
        flat = [table for i in self.axes for table in self.whole.tables[i]]
        shared = [table for table, is_shared in zip(flat, self.shared, strict=True) if is_shared]
        own = [table for table, is_shared in zip(flat, self.shared, strict=True) if not is_shared]
        dims = [
            len(table.axes) + axis
            for i, axis in self.axes.items()
            for table in self.whole.naturals[i]
            if table.compact[axis] != 1
        ]
        derived = _value_and_gradient if with_gradient else _value_alone

        def of_block(own, start, shared, rows):
            part = self.part(start, rows)
            return log_z(part, self.tables_of(part, shared, own))

        def rows_of(start, rows):
            return [
                jax.lax.dynamic_slice_in_dim(table, start, rows, dim)
                for table, dim in zip(own, dims, strict=True)
            ]

        def placed(totals, gradients, start):
            return [
                jax.lax.dynamic_update_slice_in_dim(t, g, start, dim)
                for t, g, dim in zip(totals, gradients, dims, strict=True)
            ]

        before, after = _hoisted(
            lambda own, start, shared: of_block(own, start, shared, self.rows),
            rows_of(0, self.rows),
            shared,
        )
        operands, pull, others = jax.vjp(before, shared, has_aux=True)

        def step(number, carry):
            (total, margin, of_operands, of_own), start = carry, number * self.rows
            (value, own_margin), (along, along_own) = derived(
                lambda operands, own: after(operands, others, own, start)
            )(operands, rows_of(start, self.rows))
            of_operands = jax.tree.map(jnp.add, of_operands, along)
            return (
                total + value,
                jnp.minimum(margin, own_margin),
                of_operands,
                placed(of_own, along_own, start) if with_gradient else [],
            )

        zeros = jax.tree.map(jnp.zeros_like, (operands, own)) if with_gradient else ([], [])
        (value, margin), (of_rest, _) = derived(lambda tables, _: log_z(self.rest, tables))(
            self.rest.tables, []
        )
        total, margin, of_operands, of_own = jax.lax.fori_loop(
            0, self.size // self.rows, step, (value, margin, *zeros)
        )
        of_shared = pull(of_operands)[0] if with_gradient else []
        if tail := self.size % self.rows:
            start = self.size - tail
            (value, own_margin), (along, along_own) = derived(
                lambda shared, own: of_block(own, start, shared, tail)
            )(shared, rows_of(start, tail))
            total, margin, of_shared = (
                total + value,
                jnp.minimum(margin, own_margin),
                jax.tree.map(jnp.add, of_shared, along),
            )
            of_own = placed(of_own, along_own, start) if with_gradient else []
        return total, margin, self.in_order(of_shared, of_own, of_rest) if with_gradient else None

    def in_order(self, shared: Sequence, own: Sequence, rest: Sequence) -> list[list]:
        """Return what belongs to the tables in the order of all terms."""
        cut = self.tables_of(
            Instance((), tuple(self.whole.naturals[i] for i in self.axes), {}), shared, own
        )
        cut, rest = dict(zip(self.axes, cut, strict=True)), iter(rest)
        return [cut[i] if i in cut else next(rest) for i in range(len(self.whole.terms))]


def _value_and_gradient(function: Callable):
    return jax.value_and_grad(function, argnums=(0, 1), has_aux=True)


def _value_alone(function: Callable):
    return lambda *arguments: (function(*arguments), ([], []))


def _hoisted(function: Callable, own, shared):
    """Split function(own, start, shared) into before(shared) = (operands, others), what no block
    changes, and after(operands, others, own, start). `others` are what has no derivative; what is
    only longer than what it is made of stays in the block.
    """
    jaxpr = jax.make_jaxpr(function)(own, 0, shared)
    known, unknown = split_jaxpr(
        jaxpr, len(own) + 1, stays=lambda eqn: eqn.primitive.name in ("broadcast_in_dim", "iota")
    )
    real = [jnp.issubdtype(aval.dtype, jnp.inexact) for aval in known.out_avals]

    def before(shared):
        found = jax.core.eval_jaxpr(known.jaxpr, known.consts, *shared)
        return [x for x, is_real in zip(found, real, strict=True) if is_real], [
            x for x, is_real in zip(found, real, strict=True) if not is_real
        ]

    def after(operands, others, own, start):
        floats, rest = iter(operands), iter(others)
        found = [next(floats if is_real else rest) for is_real in real]
        return tuple(jax.core.eval_jaxpr(unknown.jaxpr, unknown.consts, *own, start, *found))

    return before, after


def blocks_of(whole: Instance) -> Blocks | None:
    """Return how to cut an instance, or None where nothing is gained or its terms do not run along
    one axis.
    """
    bytes_per_block = BLOCK_BYTES.get(jax.default_backend(), BLOCK_BYTES_ELSEWHERE)
    for size in sorted({v.shape[0] for v in whole.latents.values() if v.shape}, reverse=True):
        axes = _axes_along(whole, size)
        if not axes:
            continue
        tables = sum(
            math.prod(table.array.shape) * table.array.dtype.itemsize
            for i in axes
            for table in whole.naturals[i]
        )
        rows = max(bytes_per_block, BLOCK_TABLES * tables) // max(
            1, sum(_bytes_per_row(whole, i, axis) for i, axis in axes.items())
        )
        if size < FEWEST_BLOCKS * rows or size == 1:
            return None
        return Blocks(whole, axes, size, _rows_of_equal_blocks(size, max(rows, 1)))
    return None


def _rows_of_equal_blocks(size: int, most: int) -> int:
    """Return the rows of a block: as many equal ones as `most` asks for, or a few more if they
    leave no remainder.
    """
    fewest = -(-size // most)
    return next((size // n for n in range(fewest, 2 * fewest) if size % n == 0), -(-size // fewest))


def _axes_along(whole: Instance, size: int) -> dict[int, int]:
    """Return, for each term of the latents whose first axis has this length, its own axis that runs
    along it; {} if one has none.
    """
    along = {name for name, v in whole.latents.items() if v.shape and v.shape[0] == size}
    axes = {}
    for i, term in enumerate(whole.terms):
        sources = {axis.source for axis in term.latent_axes}
        if not sources & along:
            continue
        axis = _axis_along(term, whole.latents, size) if sources <= along else None
        if axis is None or not can_be_cut(term, whole.naturals[i], axis):
            return {}
        axes[i] = axis
    multiplicities = [whole.latents[name].multiplicity for name in along]
    if any(m is not None and m.shape[0] not in (1, size) for m in multiplicities):
        return {}
    return axes


def _axis_along(term: Term, latents: Mapping[str, Variable], size: int) -> int | None:
    """Return the axis of a term's elements at whose position i all its latents are read at row i
    and nowhere else.
    """
    found = set()
    for axis in term.latent_axes:
        if (
            not isinstance(axis.source, str)
            or not isinstance(axis.index, Affine)
            or axis.index.offset
        ):
            return None
        stride = Affine.identity(latents[axis.source].shape).strides[0]
        along = [
            d for d, s in enumerate(axis.index.strides) if s == stride and term.elements[d] == size
        ]
        inner = sum(
            s * (n - 1)
            for d, (s, n) in enumerate(zip(axis.index.strides, term.elements, strict=True))
            if d not in along[:1]
        )
        if not along or inner >= stride or any(s < 0 for s in axis.index.strides):
            return None
        found.add(along[0])
    return found.pop() if len(found) == 1 else None


def can_be_cut(term: Term, naturals: Sequence[Named], axis: int) -> bool:
    """Whether everything that varies along an axis is an array or an index that can be sliced."""
    size = term.elements[axis]
    for value in (*term.statistics.inputs.values(), term.base, term.value, *naturals):
        if axis >= len(value.shape):
            continue
        if value.compact[axis] not in (1, size) or (value.compact[axis] != 1 and value.is_static):
            return False
        if any(
            a.varies[axis] and (a.is_latent != isinstance(a.index, Affine))
            for a in value.axes
            if axis < len(a.varies)
        ):
            return False
    return True


def cut_term(term: Term, axis: int, start, rows: int) -> Term:
    """Return a term on `rows` positions of an axis of its elements from `start`."""
    inputs = {name: cut(value, axis, start, rows) for name, value in term.statistics.inputs.items()}
    return replace(
        term,
        elements=tuple(rows if d == axis else n for d, n in enumerate(term.elements)),
        statistics=replace(term.statistics, inputs=inputs),
        base=cut(term.base, axis, start, rows),
        value=cut(term.value, axis, start, rows),
    )


def cut(value: Named, axis: int, start, rows: int) -> Named:
    """Return a value on `rows` positions of an axis from `start`."""

    def sliced(array, dim: int):
        return (
            array
            if array.shape[dim] == 1
            else jax.lax.dynamic_slice_in_dim(array, start, rows, dim)
        )

    def moved(own: Axis) -> Axis:
        index = own.index
        if isinstance(index, Dense) and axis < len(index.varies) and index.varies[axis]:
            index = replace(index, array=sliced(jnp.asarray(index.array), axis))
        return replace(own, index=index)

    if axis >= len(value.shape):
        return value
    shape = tuple(rows if d == axis and n != 1 else n for d, n in enumerate(value.shape))
    array = sliced(value.array, len(value.axes) + axis) if value.compact[axis] != 1 else value.array
    return Named(array, shape, tuple(moved(own) for own in value.axes))


def _shortened(variable: Variable, start, rows: int) -> Variable:
    multiplicity = variable.multiplicity
    if multiplicity is not None and multiplicity.shape[0] != 1:
        multiplicity = jax.lax.dynamic_slice_in_dim(multiplicity, start, rows, 0)
    return replace(variable, shape=(rows, *variable.shape[1:]), multiplicity=multiplicity)


def _bytes_per_row(whole: Instance, number: int, axis: int) -> int:
    """Return what a term works on for one position: its statistics, its latents' joint table, that
    one's exponential and derivative (where coordinates are missing, also some matrices for each
    entry of that table).
    """
    term = whole.terms[number]
    size = term.elements[axis]
    width = np.dtype(jnp.result_type(float)).itemsize
    formed = jax.eval_shape(
        lambda: [features(s) for s in term.statistics.formed(term.elements) if s.total is None]
    )
    columns = sum(math.prod(s.shape) // size for s in formed if s.size >= size)
    kept = math.prod(n for d, n in enumerate(term.elements) if d in term.kept and d != axis)
    is_incomplete = term.family is not None and term.family.marginal is not None
    copies = 3 + (MATRICES * term.site.event[-1] ** 2 if is_incomplete else 0)
    return width * (columns + copies * kept * math.prod(a.size for a in term.latent_axes))
