"""Chains: latents whose steps are coupled with the steps before, found among factors and laid out
in time.

A factor of a chain couples elements that are a few steps apart: `transition[state[t − 1],
state[t]]`. Its axes are labeled by the latent and by the *lag*, how many steps before the factor's
last one it is read. Everything is brought into one order: time, batch (the elements of one step, of
one axis), labels. What does not vary in time stays of length one, and what data pick stays a table
and an index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from emjax.elimination.alignment import laid_out, permutation
from emjax.elimination.factors import Deferred, Factor, Variable
from emjax.numerics.arrays import gated, in_order, rows_of
from emjax.tables.indices import Affine
from emjax.tables.named import Axis


@dataclass(frozen=True, eq=False)
class Operand:
    """A factor laid out in time: `table` is (time, batch, *labels), of length 1 where it does not
    vary, or, with an `index` (time, batch), (row, *labels). `gate`: (time, batch), where it counts;
    `last`: the time of its first entry, that of lag 0, of `steps`. The table may be `Deferred`,
    along time.
    """

    labels: tuple
    table: Any
    index: Any
    gate: Any
    last: int
    steps: int
    per_copy: bool = False

    @property
    def lag(self) -> int:
        return max(lag for _, lag in self.labels if lag is not None)

    def between(self, start, stop) -> Operand:
        """Return the operand at last times start … stop − 1, which must be among its own."""

        def cut(array):
            return (
                array
                if array is None or array.shape[0] == 1
                else array[start - self.last : stop - self.last]
            )

        return self._with(
            lambda table: table.part(start - self.last, stop - start), cut, start, stop - start
        )

    def _with(self, deferred: Callable, array: Callable, last, steps: int) -> Operand:
        """Return the operand at other times, by what becomes of its table, if it is deferred, and
        of arrays (time, …).
        """
        table = (
            self.table
            if self.index is not None
            else deferred(self.table)
            if isinstance(self.table, Deferred)
            else array(self.table)
        )
        return replace(
            self,
            table=table,
            index=array(self.index),
            gate=array(self.gate),
            last=last,
            steps=steps,
        )

    def stretches(self, start: int, rows: int, count: int) -> tuple[list, Callable]:
        """Cut the operand, from last time `start` on, into `count` stretches of `rows` steps:
        return arrays (stretch, …), and a function of a number and one stretch of these that is the
        operand there.
        """

        def moves(array) -> bool:
            return array is not None and not isinstance(array, Deferred) and array.shape[0] != 1

        own = [None if self.index is not None else self.table, self.index, self.gate]
        first = start - self.last
        moving = [
            array[first : first + rows * count].reshape(count, rows, *array.shape[1:])
            for array in own
            if moves(array)
        ]

        def at(number, stretch) -> Operand:
            one = iter(stretch)
            return self._with(
                lambda table: table.part(first + rows * number, rows),
                lambda array: next(one) if moves(array) else array,
                0,
                rows,
            )

        return moving, at

    def spread(self, start: int, stop: int) -> Operand:
        """Return the operand, at last times start … stop − 1 at least, with zeros where it was
        absent.
        """
        first, end = max(start, self.last), min(stop, self.last + self.steps)
        if (first, end) == (start, stop):
            return self
        array = self.between(first, end).array
        array = jnp.broadcast_to(array, (end - first, *array.shape[1:]))
        table = jnp.pad(array, [(first - start, stop - end), *[(0, 0)] * (array.ndim - 1)])
        return Operand(self.labels, table, None, None, start, stop - start, self.per_copy)

    @property
    def array(self):
        """The operand as (time, batch, *labels), or, of one step, without the time axis."""
        table = (
            self.table.part(0, self.table.size) if isinstance(self.table, Deferred) else self.table
        )
        return self.gated(self.read(table), 0)

    def read(self, table):
        """Return a function of the table's entries at every time and batch element."""
        return rows_of(table, self.index)

    def gated(self, array, otherwise):
        return gated(self.gate, array, otherwise)


@dataclass(frozen=True, eq=False)
class Chain:
    """All factors of coupled chains. `window`: the labels of its state: (key, None) for each of
    `others`, latents that do not vary in time, and (latent, lag); `sizes`: the number of values of
    each label; `operands`: the factors, in time; `batch`: the shape of the elements of one step;
    `length`: the number of steps.
    """

    names: tuple
    window: tuple
    others: tuple[Axis, ...]
    sizes: Mapping[Any, int]
    operands: tuple[Operand, ...]
    batch: tuple[int, ...]
    length: int

    @property
    def order(self) -> int:
        return max(operand.lag for operand in self.operands)

    @property
    def count(self) -> int:
        return math.prod(self.batch)

    @property
    def num_states(self) -> int:
        return math.prod(self.sizes[label] for label in self.window)

    def of_one_copy(self, multiplicity) -> Chain:
        """Return the chain with what one copy contributes in place of totals. `multiplicity`:
        that of each sequence.
        """
        copies = jnp.broadcast_to(
            jnp.where(multiplicity == 0, 1, multiplicity), self.batch
        ).reshape(1, -1)

        def divided(operand: Operand) -> Operand:
            array = operand.array / copies.reshape(copies.shape + (1,) * len(operand.labels))
            return replace(operand, table=array, index=None, gate=None, per_copy=True)

        return replace(self, operands=tuple(o if o.per_copy else divided(o) for o in self.operands))


def chain_among(factors: Sequence[Factor], remaining: Mapping[Any, Variable]) -> Chain | None:
    """Return a chain that can be summed out: nothing in it is coupled with a latent that varies in
    time and is no part of it.
    """
    for names in _coupled_in_time(factors, remaining):
        while True:
            touching = [
                factor for factor in factors if any(axis.source in names for axis in factor.axes)
            ]
            more = {
                axis.source
                for factor in touching
                for axis in factor.axes
                if _moves(axis, remaining[axis.source])
            } - set(names)
            if not more:
                break
            names = (
                *names,
                *sorted(more, key=str),
            )  # a latent of single steps that two steps of the chain read
        chain = _chain(touching, names, remaining)
        if chain is not None:
            return chain
    return None


def _moves(axis: Axis, variable: Variable) -> bool:
    """Whether an axis reads the steps of a latent one after the other."""
    if not isinstance(axis.index, Affine) or not variable.shape:
        return any(axis.varies)
    return math.prod(variable.shape[1:]) in map(abs, axis.index.strides)


def _coupled_in_time(factors: Sequence[Factor], remaining: Mapping[Any, Variable]) -> list[tuple]:
    """Return the groups of latents of which a factor reads several elements, and which a factor
    couples at every step.
    """
    sources = [[axis.source for axis in factor.axes] for factor in factors]
    repeated = {source for own in sources for source in own if own.count(source) > 1}
    groups: list[set] = [{name} for name in repeated]
    for factor in factors:
        met = {
            axis.source for axis in factor.axes if _moves(axis, remaining[axis.source])
        } & repeated
        joint = [group for group in groups if group & met]
        groups = [group for group in groups if not group & met] + (
            [set().union(*joint)] if joint else []
        )
    return [tuple(sorted(group, key=str)) for group in groups]


def _chain(
    factors: Sequence[Factor], names: tuple, remaining: Mapping[Any, Variable]
) -> Chain | None:
    variables = [remaining[name] for name in names]
    first = variables[0]
    if (
        any(
            v.shape != first.shape or v.multiplicity_key != first.multiplicity_key
            for v in variables
        )
        or len(first.shape) == 0
    ):
        return None
    if first.multiplicity is not None and first.multiplicity.shape[0] != 1:
        raise ValueError(
            f"Latent '{first.name}' is in a scan, and its multiplicity varies in time. Give "
            "`handlers.scale` one number for each sequence."
        )
    found = [_operand(factor, names, remaining) for factor in factors]
    if any(one is None for one in found):
        return None
    operands = tuple(operand for operand, _ in found)
    others = {axis.key: axis for _, axes in found for axis in axes}
    lags = {
        name: max(lag for o in operands for own, lag in o.labels if own == name) for name in names
    }
    window = (
        *((key, None) for key in others),
        *((name, lag) for name in names for lag in range(max(lags[name], 1))),
    )
    sizes = {(key, None): axis.size for key, axis in others.items()} | {
        (v.name, lag): v.size for v in variables for lag in range(lags[v.name] + 1)
    }
    return Chain(
        names, window, tuple(others.values()), sizes, operands, first.shape[1:], first.shape[0]
    )


def _operand(
    factor: Factor, names: tuple, remaining: Mapping[Any, Variable]
) -> tuple[Operand, list[Axis]] | None:
    """Return a factor laid out in time, and the axes of the latents outside the chain that it
    reads.
    """
    own = [axis for axis in factor.axes if axis.source in names]
    shape = remaining[names[0]].shape
    places = [_place(axis, factor.shape, shape) for axis in own]
    if len(own) == 1 and places[0] is None:
        in_order_of_latent = laid_out(factor, own[0], remaining[own[0].source], remaining)
        return (
            None if in_order_of_latent is None else _operand(in_order_of_latent, names, remaining)
        )
    if any(place is None or place[1:] != places[0][1:] for place in places):
        return None
    _, dim, step, order = places[0]
    steps = 1 if dim is None else factor.shape[dim]
    firsts = [first if step > 0 else first - (steps - 1) for first, *_ in places]
    last = max(firsts)
    others = [axis for axis in factor.axes if axis.source not in names]
    if dim is not None and any(axis.varies[dim] for axis in others):
        return None
    others = [axis.placed(order) for axis in others]
    rest, labels = iter(zip(own, firsts, strict=True)), []
    outside = iter(others)
    for axis in factor.axes:
        if axis.source in names:
            read, time = next(rest)
            labels.append((read.source, last - time))
        else:
            labels.append((next(outside).key, None))

    def in_time(array):
        """Return an array over (elements, …) as one over (time, batch, …)."""
        if array is None:
            return None
        tail = array.ndim - len(factor.shape)
        array = in_order(array, [dim, *order, *range(len(factor.shape), array.ndim)])
        array = jnp.flip(array, 0) if step < 0 else array
        inner = array.shape[1 : array.ndim - tail]
        if math.prod(inner) != 1:
            array = jnp.broadcast_to(
                array, (array.shape[0], *shape[1:], *array.shape[array.ndim - tail :])
            )
        return array.reshape(
            (
                array.shape[0],
                math.prod(array.shape[1 : array.ndim - tail]),
                *array.shape[array.ndim - tail :],
            )
        )

    if isinstance(factor.table, Deferred) and factor.table.dim == dim:

        def part(start, rows: int):
            return in_time(factor.table.part(start if step > 0 else steps - start - rows, rows))

        table = Deferred(part, 0, steps)
    elif factor.index is None:
        table = in_time(
            factor.table
            if factor.gate is None and not isinstance(factor.table, Deferred)
            else replace(factor, gate=None).array
        )
    else:
        table = factor.table
    return Operand(
        tuple(labels),
        table,
        in_time(factor.index),
        in_time(factor.gate),
        last,
        steps,
        factor.per_copy,
    ), others


def _place(axis: Axis, shape: Sequence[int], target: Sequence[int]):
    """Return (time of the first element, the axis along time, ±1, the axes along the batch) of an
    index into a chain's elements; None if it is not of that kind.
    """
    index, inner = axis.index, math.prod(target[1:])
    if not isinstance(index, Affine) or index.offset % inner:
        return None
    along = [
        d
        for d, stride in enumerate(index.strides)
        if stride and abs(stride) == inner and (inner > 1 or shape[d] > 1)
    ]
    if len(along) > 1:
        return None
    dim = along[0] if along else None
    rest = [d for d in range(len(shape)) if d != dim]
    order = permutation(
        Affine(0, tuple(index.strides[d] for d in rest)), [shape[d] for d in rest], target[1:]
    )
    if order is None:
        return None
    step = 1 if dim is None or index.strides[dim] > 0 else -1
    return index.offset // inner, dim, step, tuple(None if d is None else rest[d] for d in order)
