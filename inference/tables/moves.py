"""Primitives that only move data: they act on a table and on the index of each of its axes alike.

`MOVES` has two functions for each: one of arrays with any number of leading axes, which the move
leaves alone, and one of affine indices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from emjax.numerics.arrays import broadcast, tiled, transposed
from emjax.numerics.primitives import Equation
from emjax.tables.indices import Affine, Dense, Index, index_of
from emjax.tables.named import Named


def move(eqn: Equation, value: Named) -> Named:
    """Apply a data-moving primitive of one operand."""
    return _moved(value, tuple(eqn.outvars[0].aval.shape), eqn.params, eqn.primitive.name)


def split(eqn: Equation, value: Named) -> list[Named]:
    """Return the pieces that a value is cut into along an axis."""
    params = eqn.params
    dim = int(params["axis"])
    if eqn.primitive.name == "unstack":
        return [entry(value, dim, i) for i in range(value.shape[dim])]
    pieces, start = [], 0
    for size in map(int, params["sizes"]):
        pieces.append(sliced(value, dim, start, start + size))
        start += size
    return pieces


def entry(value: Named, dim: int, i: int) -> Named:
    """Return what is at `i` along an axis, which is gone."""
    return sliced(value, dim, i, i + 1).placed([d for d in range(len(value.shape)) if d != dim])


def sliced(value: Named, dim: int, start: int, stop: int) -> Named:
    """Return the slice from `start` to `stop` along an axis."""
    starts, limits, shape = [0] * len(value.shape), list(value.shape), list(value.shape)
    starts[dim], limits[dim], shape[dim] = start, stop, stop - start
    params = {"start_indices": starts, "limit_indices": limits, "strides": None}
    return _moved(value, tuple(shape), params, "slice")


def reshaped(value: Named, shape: tuple[int, ...]) -> Named:
    """Return the value with its entries, in order, in another shape."""
    return _moved(value, shape, {}, "reshape")


def _moved(value: Named, shape: tuple[int, ...], params: Any, name: str) -> Named:
    on_array, on_affine = MOVES[name]

    def moved(index: Index) -> Index:
        if isinstance(index, Affine):
            affine = on_affine(index, value.shape, shape, params)
            if affine is not None:
                return affine
            # the move breaks the pattern: from here on the index is an array
            index = Dense.of(index.dense(value.shape))
        array = on_array(index.array, 0, value.shape, shape, params)
        is_same = _keeps_content(name, params, index.array.shape, array.shape)
        return replace(index, array=array) if is_same else index_of(array)

    lead = len(value.axes)
    array = on_array(value.array, lead, value.shape, shape, params)
    axes = tuple(replace(axis, index=moved(axis.index)) for axis in value.axes)
    is_same = _keeps_content(name, params, value.compact, array.shape[lead:])
    return Named(array, shape, axes, value.content if is_same else None)


def _keeps_content(name: str, params: Any, old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether only unit axes came, went or moved. `old`, `new`: the compact shapes."""
    if name == "transpose":
        order = [d for d in params["permutation"] if old[d] != 1]
        return order == sorted(order)
    if name == "rev":
        return all(old[d] == 1 for d in params["dimensions"])
    return [n for n in old if n != 1] == [n for n in new if n != 1]


def _broadcast_array(array, lead, shape, new_shape, params):
    compact = [1] * len(new_shape)
    for source, target in enumerate(params["broadcast_dimensions"]):
        compact[target] = array.shape[lead + source]
    return array.reshape((*array.shape[:lead], *compact))


def _broadcast_affine(index, shape, new_shape, params):
    strides = [0] * len(new_shape)
    for source, target in enumerate(params["broadcast_dimensions"]):
        # what is repeated reads the same elements again
        if shape[source] == new_shape[target]:
            strides[target] = index.strides[source]
    return Affine(index.offset, tuple(strides))


def _transpose_array(array, lead, shape, new_shape, params):
    return transposed(array, [*range(lead), *(lead + p for p in params["permutation"])])


def _transpose_affine(index, shape, new_shape, params):
    return Affine(index.offset, tuple(index.strides[p] for p in params["permutation"]))


def _squeeze_array(array, lead, shape, new_shape, params):
    stay = [d for d in range(len(shape)) if d not in params["dimensions"]]
    return array.reshape([*array.shape[:lead], *(array.shape[lead + d] for d in stay)])


def _squeeze_affine(index, shape, new_shape, params):
    strides = enumerate(index.strides)
    return Affine(index.offset, tuple(s for d, s in strides if d not in params["dimensions"]))


def _slice_array(array, lead, shape, new_shape, params):
    strides = params["strides"] or (1,) * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    slices = [slice(None)] * lead
    for d, (start, limit, stride) in enumerate(bounds):
        # a table that does not vary along an axis has nothing to slice there
        varies = array.shape[lead + d] != 1
        slices.append(slice(start, limit, stride) if varies else slice(None))
    return array[tuple(slices)]


def _slice_affine(index, shape, new_shape, params):
    steps = params["strides"] or (1,) * len(shape)
    starts = zip(index.strides, params["start_indices"], strict=True)
    offset = index.offset + sum(stride * start for stride, start in starts)
    strides = zip(index.strides, steps, new_shape, strict=True)
    return Affine(offset, tuple(s * step if size > 1 else 0 for s, step, size in strides))


def _reverse_array(array, lead, shape, new_shape, params):
    slices = [slice(None)] * array.ndim
    for d in params["dimensions"]:
        slices[lead + d] = slice(None, None, -1)
    return array[tuple(slices)]


def _reverse_affine(index, shape, new_shape, params):
    offset, strides = index.offset, list(index.strides)
    for d in params["dimensions"]:
        offset += strides[d] * (shape[d] - 1)
        strides[d] = -strides[d]
    return Affine(offset, tuple(strides))


def _tile_array(array, lead, shape, new_shape, params):
    # where the table does not vary, neither do its copies
    reps = [int(rep) if array.shape[lead + d] != 1 else 1 for d, rep in enumerate(params["reps"])]
    if all(rep == 1 for rep in reps):
        return array
    return tiled(array, (1,) * lead + tuple(reps))


def _tile_affine(index, shape, new_shape, params):
    """Return the index of copies side by side; None if it is affine no longer."""
    starts_again = any(
        stride and rep != 1 for stride, rep in zip(index.strides, params["reps"], strict=True)
    )
    return None if starts_again else index


def _groups(
    shape: Sequence[int], new_shape: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the runs of axes (old, new) that a reshape turns into each other.

    Unit axes stand alone.
    """
    i = j = 0
    while i < len(shape) or j < len(new_shape):
        old: list[int] = []
        new: list[int] = []
        if i < len(shape) and shape[i] == 1:
            old, i = [i], i + 1
        elif j < len(new_shape) and new_shape[j] == 1:
            new, j = [j], j + 1
        else:
            old, new, i, j = [i], [j], i + 1, j + 1
            before, after = shape[old[0]], new_shape[new[0]]
            while before != after:
                if before < after:
                    before *= shape[i]
                    old, i = [*old, i], i + 1
                else:
                    after *= new_shape[j]
                    new, j = [*new, j], j + 1
        yield old, new


def _reshape_array(array, lead, shape, new_shape, params):
    if math.prod(shape) == 0:
        return broadcast(array, (*array.shape[:lead], *shape)).reshape(
            (*array.shape[:lead], *new_shape)
        )
    compact, full_shape = [1] * len(new_shape), list(array.shape)
    for old, new in _groups(shape, new_shape):
        # a run of axes along which the array varies is taken at its full length
        if any(array.shape[lead + d] > 1 for d in old):
            for d in old:
                full_shape[lead + d] = shape[d]
            for d in new:
                compact[d] = new_shape[d]
    return broadcast(array, full_shape).reshape((*array.shape[:lead], *compact))


def _reshape_affine(index, shape, new_shape, params):
    """Return the index after a reshape; None if it is affine no longer."""
    strides = [0] * len(new_shape)
    for old, new in _groups(shape, new_shape):
        old = [d for d in old if shape[d] > 1]
        # the index does not vary along these axes
        if all(index.strides[d] == 0 for d in old):
            continue
        for outer, inner in pairwise(old):
            if index.strides[outer] != index.strides[inner] * shape[inner]:
                return None
        step = index.strides[old[-1]]
        for d in reversed(new):
            strides[d] = step if new_shape[d] > 1 else 0
            step *= new_shape[d]
    return Affine(index.offset, tuple(strides))


MOVES = {
    "broadcast_in_dim": (_broadcast_array, _broadcast_affine),
    "transpose": (_transpose_array, _transpose_affine),
    "squeeze": (_squeeze_array, _squeeze_affine),
    "slice": (_slice_array, _slice_affine),
    "rev": (_reverse_array, _reverse_affine),
    "reshape": (_reshape_array, _reshape_affine),
    "tile": (_tile_array, _tile_affine),
}
