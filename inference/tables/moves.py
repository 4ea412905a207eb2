"""Primitives that only move data: they act on a table and on the index of each of its axes
alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from emjax.numerics.arrays import broadcast, concatenated, transposed
from emjax.tables.indices import Affine, Dense, Index
from emjax.tables.named import Axis, Named, without_rows


def move(eqn, value: Named) -> Named:
    """Apply a data-moving primitive of one operand."""
    return _moved(value, tuple(eqn.outvars[0].aval.shape), eqn.params, eqn.primitive.name)


def _moved(value: Named, shape: tuple[int, ...], params, name: str) -> Named:
    on_array, on_affine = MOVES[name]

    def identity_kept(old, new) -> bool:
        """Whether only unit axes came, went or moved, so that the content is what it was (`old`,
        `new`: compact).
        """
        if name == "transpose":
            moved = [d for d in params["permutation"] if old[d] != 1]
            return moved == sorted(moved)
        return name != "rev" and [n for n in old if n != 1] == [n for n in new if n != 1]

    def moved(index: Index) -> Index:
        if isinstance(index, Affine):
            found = on_affine(index, value.shape, shape, params)
            if found is not None:
                return found
            index = Dense.of(index.dense(value.shape))
        result = on_array(index.array, 0, value.shape, shape, params)
        same = identity_kept(index.array.shape, result.shape)
        return replace(index, array=result) if same else Dense.of(result)

    array = on_array(value.array, len(value.axes), value.shape, shape, params)
    axes = tuple(replace(axis, index=moved(axis.index)) for axis in value.axes)
    lead = len(value.axes)
    return Named(
        array,
        shape,
        axes,
        value.content if identity_kept(value.compact, array.shape[lead:]) else None,
    )


def _broadcast_array(array, lead, shape, new_shape, params):
    compact = [1] * len(new_shape)
    for source, target in enumerate(params["broadcast_dimensions"]):
        compact[target] = array.shape[lead + source]
    return array.reshape((*array.shape[:lead], *compact))


def _broadcast_affine(index, shape, new_shape, params):
    strides = [0] * len(new_shape)
    for source, target in enumerate(params["broadcast_dimensions"]):
        strides[target] = index.strides[source] if shape[source] == new_shape[target] else 0
    return Affine(index.offset, tuple(strides))


def _transpose_array(array, lead, shape, new_shape, params):
    return transposed(array, [*range(lead), *(lead + p for p in params["permutation"])])


def _transpose_affine(index, shape, new_shape, params):
    return Affine(index.offset, tuple(index.strides[p] for p in params["permutation"]))


def _squeeze_array(array, lead, shape, new_shape, params):
    return array.reshape(
        [
            *array.shape[:lead],
            *(array.shape[lead + d] for d in range(len(shape)) if d not in params["dimensions"]),
        ]
    )


def _squeeze_affine(index, shape, new_shape, params):
    return Affine(
        index.offset, tuple(s for d, s in enumerate(index.strides) if d not in params["dimensions"])
    )


def _slice_array(array, lead, shape, new_shape, params):
    strides = params["strides"] or (1,) * len(shape)
    slices = [
        slice(None) if array.shape[lead + d] == 1 else slice(start, limit, stride)
        for d, (start, limit, stride) in enumerate(
            zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        )
    ]
    return array[(slice(None),) * lead + tuple(slices)]


def _slice_affine(index, shape, new_shape, params):
    steps = params["strides"] or (1,) * len(shape)
    offset = index.offset + sum(
        s * start for s, start in zip(index.strides, params["start_indices"], strict=True)
    )
    return Affine(
        offset,
        tuple(
            s * step if size > 1 else 0
            for s, step, size in zip(index.strides, steps, new_shape, strict=True)
        ),
    )


def _reverse_array(array, lead, shape, new_shape, params):
    return array[
        tuple(
            slice(None, None, -1) if d - lead in params["dimensions"] else slice(None)
            for d in range(array.ndim)
        )
    ]


def _reverse_affine(index, shape, new_shape, params):
    strides = tuple(-s if d in params["dimensions"] else s for d, s in enumerate(index.strides))
    ends = sum(s * (shape[d] - 1) for d, s in enumerate(index.strides) if d in params["dimensions"])
    return Affine(index.offset + ends, strides)


def _groups(shape, new_shape):
    """Yield the runs of axes (old, new) that a reshape turns into each other; unit axes stand
    alone.
    """
    i = j = 0
    while i < len(shape) or j < len(new_shape):
        old, new = [], []
        if i < len(shape) and shape[i] == 1:
            old, i = [i], i + 1
        elif j < len(new_shape) and new_shape[j] == 1:
            new, j = [j], j + 1
        else:
            old, new, i, j = [i], [j], i + 1, j + 1
            while (a := math.prod(shape[d] for d in old)) != (
                b := math.prod(new_shape[d] for d in new)
            ):
                if a < b:
                    old, i = [*old, i], i + 1
                else:
                    new, j = [*new, j], j + 1
        yield old, new


def _reshape_array(array, lead, shape, new_shape, params):
    if math.prod(shape) == 0:
        return array.reshape((*array.shape[:lead], *new_shape))
    target, full_shape = [1] * len(new_shape), list(array.shape)
    for old, new in _groups(shape, new_shape):
        if any(array.shape[lead + d] > 1 for d in old):
            for d in old:
                full_shape[lead + d] = shape[d]
            for d in new:
                target[d] = new_shape[d]
    return broadcast(array, full_shape).reshape((*array.shape[:lead], *target))


def _reshape_affine(index, shape, new_shape, params):
    strides = [0] * len(new_shape)
    for old, new in _groups(shape, new_shape):
        old = [d for d in old if shape[d] > 1]
        if not old or all(index.strides[d] == 0 for d in old):
            continue
        for outer, inner in zip(old, old[1:], strict=False):
            if index.strides[outer] != index.strides[inner] * shape[inner]:
                return None
        step = index.strides[old[-1]]
        for d in reversed(new):
            strides[d], step = (step, step * new_shape[d]) if new_shape[d] > 1 else (0, step)
    return Affine(index.offset, tuple(strides))


MOVES = {
    "broadcast_in_dim": (_broadcast_array, _broadcast_affine),
    "transpose": (_transpose_array, _transpose_affine),
    "squeeze": (_squeeze_array, _squeeze_affine),
    "slice": (_slice_array, _slice_affine),
    "rev": (_reverse_array, _reverse_affine),
    "reshape": (_reshape_array, _reshape_affine),
}


@dataclass(frozen=True, eq=False)
class Joined:
    """A concatenation that has not been carried out: a gather reads its pieces one by one."""

    pieces: tuple[Named, ...]
    dim: int
    shape: tuple[int, ...]


def carried_out(value: Named | Joined) -> Named:
    """Return a concatenation as one named value."""
    if isinstance(value, Named):
        return value
    dim, shape = value.dim, value.shape
    pieces = [
        without_rows(piece) if any(axis.varies[dim] for axis in piece.row_axes) else piece
        for piece in value.pieces
    ]
    bases = _aligned_by_source(pieces, dim)
    axes = tuple(_joined_axis(entries, pieces, dim) for entries in bases)
    compact = [max(piece.compact[d] for piece in pieces) for d in range(len(shape))]
    arrays = []
    for number, piece in enumerate(pieces):
        order = [
            piece.axes.index(entries[number]) if entries[number] is not None else None
            for entries in bases
        ]
        array = transposed(
            piece.array,
            [i for i in order if i is not None] + list(range(len(piece.axes), piece.array.ndim)),
        )
        sizes = [1 if i is None else axis.size for i, axis in zip(order, axes, strict=True)]
        target = [axis.size for axis in axes] + [
            piece.shape[d] if d == dim else compact[d] for d in range(len(shape))
        ]
        arrays.append(broadcast(array.reshape((*sizes, *piece.compact)), tuple(target)))
    joined = concatenated(arrays, len(axes) + dim)
    return Named(joined, shape, axes)


def _aligned_by_source(pieces, dim) -> list[list[Axis | None]]:
    """Match the axes of the pieces: the n-th axis of a latent in one piece with the n-th in the
    next.
    """
    bases: dict = {}
    for number, piece in enumerate(pieces):
        count: dict = {}
        for axis in piece.axes:
            nth = count[axis.source] = count.get(axis.source, -1) + 1
            key = (axis.source, axis.size, nth) if axis.is_latent else axis.key
            bases.setdefault(key, [None] * len(pieces))[number] = axis
    return list(bases.values())


def _joined_axis(entries, pieces, dim) -> Axis:
    present = [axis for axis in entries if axis is not None]
    first = present[0]
    if not first.varies[dim] and all(axis.key == first.key for axis in present):
        return first
    arrays = []
    for axis, piece in zip(entries, pieces, strict=True):
        reference = axis or first
        index = reference.index.dense(piece.shape if axis else pieces[entries.index(first)].shape)
        if axis is None and index.shape[dim] > 1:
            index = index[(slice(None),) * dim + (slice(0, 1),)]
        arrays.append((index, piece.shape[dim]))
    common = np.broadcast_shapes(
        *(tuple(1 if d == dim else s for d, s in enumerate(index.shape)) for index, _ in arrays)
    )
    arrays = [broadcast(index, (*common[:dim], size, *common[dim + 1 :])) for index, size in arrays]
    joined = concatenated(arrays, dim)
    return replace(first, index=Dense.of(joined))


def sliced(value: Named, dim: int, i: int) -> Named:
    """Return the slice of length one at `i` along an axis."""
    params = {
        "start_indices": [i if d == dim else 0 for d in range(len(value.shape))],
        "limit_indices": [i + 1 if d == dim else s for d, s in enumerate(value.shape)],
        "strides": None,
    }
    shape = tuple(1 if d == dim else s for d, s in enumerate(value.shape))
    return _moved(value, shape, params, "slice")
