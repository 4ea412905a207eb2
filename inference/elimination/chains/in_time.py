"""Factors of a chain in time: which step each of their elements reads, and in which order.

A factor runs over the steps of a chain forwards or backwards, along any of its axes, or reads one
step of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from emjax.elimination.alignment import laid_out, permutation
from emjax.elimination.chains.operands import Label, Operand
from emjax.elimination.factors import (
    Cells,
    Deferred,
    Factor,
    Variable,
    settled,
    without_repeats,
)
from emjax.numerics.arrays import in_order
from emjax.tables.indices import Affine, Dense
from emjax.tables.named import Axis

# Steps of the longest factor that is cut: its chain is of the order of its length.
MOST_CUT = 3


def dims_in_time(factor: Factor, names: tuple, remaining: Mapping[Any, Variable]) -> set[int]:
    """Return the axes of a factor's elements along which it reads latents of a chain in time."""
    dims: set[int] = set()
    for axis in factor.axes:
        if axis.source not in names:
            continue
        varying = {d for d, varies in enumerate(axis.varies) if varies}
        if isinstance(axis.index, Affine):
            step = math.prod(remaining[axis.source].shape[1:])
            varying = {d for d in varying if abs(axis.index.strides[d]) == step}
        dims |= varying
    return dims


def cut_in_time(
    factor: Factor, names: tuple, remaining: Mapping[Any, Variable]
) -> Sequence[Factor]:
    """Return a factor of which every step reads a certain one, too, as a factor for each step.

    That is so where there are but two, say, and the first is known by its number.
    """
    dims = dims_in_time(factor, names, remaining)
    inside = [axis for axis in factor.axes if axis.source in names]
    if len(dims) != 1 or not all(isinstance(axis.index, Affine) for axis in inside):
        return [factor]
    (dim,) = dims
    if all(axis.varies[dim] for axis in inside) or factor.shape[dim] > MOST_CUT:
        return [factor]
    return [_at_step(factor, dim, step) for step in range(factor.shape[dim])]


def _at_step(factor: Factor, dim: int, step: int) -> Factor:
    """Return one step of a factor along an axis of its elements."""

    def cut(array):
        return array if array.shape[dim] == 1 else array[(slice(None),) * dim + ([step],)]

    axes = []
    for axis in factor.axes:
        index = axis.index
        if isinstance(index, Affine):
            strides = (*index.strides[:dim], 0, *index.strides[dim + 1 :])
            index = Affine(index.offset + step * index.strides[dim], strides)
        else:
            index = Dense.of(cut(index.array))
        axes.append(replace(axis, index=index))
    shape = (*factor.shape[:dim], 1, *factor.shape[dim + 1 :])
    return without_repeats(settled(factor.mapped(cut, tuple(axes), shape)))


class _Place(NamedTuple):
    """How a factor's elements run through those of a chain.

    - `time`: which step its first element reads.
    - `dim`: its axis along time; None: it reads one step.
    - `step`: 1, or −1 where it runs backwards.
    - `order`: its axis along each axis of the batch; None where it has none.
    """

    time: int
    dim: int | None
    step: int
    order: tuple[int | None, ...]


def operand_in_time(
    factor: Factor, names: tuple, remaining: Mapping[Any, Variable]
) -> tuple[Operand, list[Axis]] | None:
    """Return a factor in time, and the axes that it reads of latents outside the chain."""
    shape = remaining[names[0]].shape
    inside = [axis for axis in factor.axes if axis.source in names]
    places = [_place(axis, factor.shape, shape) for axis in inside]
    if len(inside) == 1 and places[0] is None:
        # rows in any order can be added up by the element that they read, if they read only one
        in_order_of_elements = laid_out(factor, remaining[inside[0].source], remaining)
        if in_order_of_elements is None:
            return None
        factor = in_order_of_elements
        inside = factor.axes_of(inside[0].source)
        places = [_place(inside[0], factor.shape, shape)]
    place = places[0]
    if place is None or any(p is None or p[1:] != place[1:] for p in places):
        return None
    steps = 1 if place.dim is None else factor.shape[place.dim]
    # backwards, the entry that comes first in time is the factor's last
    times = [p.time if p.step > 0 else p.time - (steps - 1) for p in places]
    start = max(times)
    labels, others = [], []
    remaining_times = iter(times)
    for axis in factor.axes:
        if axis.source in names:
            labels.append(Label(axis.source, start - next(remaining_times)))
        # a latent outside that varies in time would have to be part of every message
        elif place.dim is not None and axis.varies[place.dim]:
            return None
        else:
            others.append(axis.placed(place.order))
            labels.append(Label(others[-1].key, None))
    cells = _in_time(factor, place, steps, shape[1:])
    return Operand(tuple(labels), cells, start, steps, factor.without_multiplicity), others


def _in_time(factor: Factor, place: _Place, steps: int, batch: tuple[int, ...]) -> Cells:
    """Return a factor's cells as (time, batch, …)."""
    rank = len(factor.shape)

    def in_time(array):
        # no index, or no gate
        if array is None:
            return None
        tail = array.shape[rank:]
        array = in_order(array, [place.dim, *place.order, *range(rank, array.ndim)])
        if place.step < 0:
            array = jnp.flip(array, 0)
        # the batch becomes one axis: it varies along all of its axes, or along none
        if math.prod(array.shape[1 : 1 + len(batch)]) != 1:
            array = jnp.broadcast_to(array, (array.shape[0], *batch, *tail))
        count = math.prod(array.shape[1 : 1 + len(batch)])
        return array.reshape((array.shape[0], count, *tail))

    table = factor.cells.table
    if isinstance(table, Deferred) and table.dim == place.dim:

        def part(start, rows: int):
            first = start if place.step > 0 else steps - start - rows
            return in_time(factor.cells.table.part(first, rows))

        table = Deferred(part, 0, steps)
    elif factor.cells.index is None:
        table = in_time(table.array if isinstance(table, Deferred) else table)
    return Cells(table, in_time(factor.cells.index), in_time(factor.cells.gate))


def _place(axis: Axis, shape: Sequence[int], target: Sequence[int]) -> _Place | None:
    """Return how an axis reads elements of shape `target`, (time, batch…), if step by step.

    `shape`: that of the factor's elements.
    """
    index, inner = axis.index, math.prod(target[1:])
    if not isinstance(index, Affine) or index.offset % inner:
        return None
    along = []
    for d, stride in enumerate(index.strides):
        # with one element a step, an axis of length 1 has the stride of time, too
        if stride and abs(stride) == inner and (inner > 1 or shape[d] > 1):
            along.append(d)
    if len(along) > 1:
        return None
    dim = along[0] if along else None
    rest = [d for d in range(len(shape)) if d != dim]
    strides = Affine(0, tuple(index.strides[d] for d in rest))
    order = permutation(strides, [shape[d] for d in rest], target[1:])
    if order is None:
        return None
    step = 1 if dim is None or index.strides[dim] > 0 else -1
    return _Place(
        index.offset // inner, dim, step, tuple(None if d is None else rest[d] for d in order)
    )
