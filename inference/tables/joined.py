"""Concatenations, which are not carried out before somebody needs them as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emjax.numerics.arrays import broadcast, concatenated, transposed
from emjax.tables.indices import index_of
from emjax.tables.named import Axis, Named, without_rows


@dataclass(frozen=True, eq=False)
class Joined:
    """A concatenation that has not been carried out: a gather reads its pieces one by one."""

    pieces: tuple[Named, ...]
    dim: int
    shape: tuple[int, ...]


def stack(values: Sequence[Named], dim: int) -> Joined:
    """Return values of one shape side by side along a new axis."""
    rank = len(values[0].shape)
    order = [*range(dim), None, *range(dim, rank)]
    shape = (*values[0].shape[:dim], len(values), *values[0].shape[dim:])
    return Joined(tuple(value.placed(order) for value in values), dim, shape)


def carried_out(value: Any) -> Any:
    """Return a concatenation as one named value; anything else as it is."""
    if not isinstance(value, Joined):
        return value
    dim = value.dim
    pieces = []
    for piece in value.pieces:
        # rows that the data pick along the axis are no rows of the other pieces
        has_rows = any(axis.varies[dim] for axis in piece.row_axes)
        pieces.append(without_rows(piece) if has_rows else piece)
    matched = _matched_axes(pieces)
    axes = tuple(_joined_axis(entries, pieces, dim) for entries in matched)
    compact = list(np.broadcast_shapes(*(_compact_but(piece, dim) for piece in pieces)))
    arrays = []
    for number, piece in enumerate(pieces):
        entries = [entries[number] for entries in matched]
        present = [piece.axes.index(entry) for entry in entries if entry is not None]
        array = transposed(piece.array, [*present, *range(len(piece.axes), piece.array.ndim)])
        sizes = [1 if entry is None else entry.size for entry in entries]
        shape = [axis.size for axis in axes] + compact
        shape[len(axes) + dim] = piece.shape[dim]
        arrays.append(broadcast(array.reshape((*sizes, *piece.compact)), shape))
    return Named(concatenated(arrays, len(axes) + dim), value.shape, axes)


def _compact_but(piece: Named, dim: int) -> tuple[int, ...]:
    """Return the compact shape of a piece, 1 along an axis."""
    return tuple(1 if d == dim else size for d, size in enumerate(piece.compact))


def _matched_axes(pieces: Sequence[Named]) -> list[list[Axis | None]]:
    """Return the axes of the result, each as its entry in every piece.

    The n-th axis of a latent in one piece is matched with the n-th in the next.
    """
    matched: dict = {}
    for number, piece in enumerate(pieces):
        count: dict = {}
        for axis in piece.axes:
            # a value may read a latent at several of its elements (this step's and the last one's)
            nth = count[axis.source] = count.get(axis.source, -1) + 1
            key = (axis.source, axis.size, nth) if axis.is_latent else axis.key
            matched.setdefault(key, [None] * len(pieces))[number] = axis
    return list(matched.values())


def _joined_axis(entries: Sequence[Axis | None], pieces: Sequence[Named], dim: int) -> Axis:
    """Return the axis whose index is that of its entries, one after another."""
    present = [axis for axis in entries if axis is not None]
    first = present[0]
    # all pieces read the same elements wherever they stand along the axis
    if not first.varies[dim] and all(axis.key == first.key for axis in present):
        return first
    shape_of_first = pieces[entries.index(first)].shape
    indices = []
    for axis, piece in zip(entries, pieces, strict=True):
        if axis is not None:
            indices.append(axis.index.dense(piece.shape))
            continue
        # a piece without the axis is the same for all its values: any index will do
        index = first.index.dense(shape_of_first)
        indices.append(index[(slice(None),) * dim + (slice(0, 1),)])
    outside = [(*index.shape[:dim], 1, *index.shape[dim + 1 :]) for index in indices]
    common = list(np.broadcast_shapes(*outside))
    full = []
    for index, piece in zip(indices, pieces, strict=True):
        common[dim] = piece.shape[dim]
        full.append(broadcast(index, common))
    return replace(first, index=index_of(concatenated(full, dim)))
