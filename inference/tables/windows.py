"""Slices at indices (`dynamic_slice`, gathers of longer slices) as lookups of their entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jax.lax import GatherScatterMode

from emjax.numerics.primitives import Equation
from emjax.tables.joined import Joined
from emjax.tables.lifting import lift
from emjax.tables.lookup import Lookup, index_columns, look_up
from emjax.tables.named import Named, constant


def dynamic_slice(eqn: Equation, operand: Named, starts: Sequence[Named]) -> Named:
    """Return a slice that starts at indices."""
    rank = len(operand.shape)
    where = {dim: start.padded(rank) for dim, start in enumerate(starts)}
    return _slices(eqn, operand, where, dict(zip(range(rank), range(rank), strict=True)), {}, True)


def slices(eqn: Equation, operand: Named, indices: Named | Joined) -> Named | None:
    """Return slices that a gather reads at indices; None where they may be outside."""
    numbers, rank = eqn.params["dimension_numbers"], len(eqn.outvars[0].aval.shape)
    columns = index_columns(indices, {int(d): c for c, d in enumerate(numbers.start_index_map)})
    is_clipped = eqn.params["mode"] == GatherScatterMode.CLIP
    if not is_clipped and not all(piece.is_static for piece in columns.values()):
        return None
    batch = [d for d in range(rank) if d not in numbers.offset_dims]
    order = [batch.index(d) if d in batch else None for d in range(rank)]
    starts = {dim: piece.placed(order) for dim, piece in columns.items()}
    batching = [int(d) for d in numbers.operand_batching_dims]
    gone = [*numbers.collapsed_slice_dims, *batching]
    windows = [d for d in range(len(operand.shape)) if d not in gone]
    offsets = dict(zip(windows, map(int, numbers.offset_dims), strict=True))
    paired = zip(batching, numbers.start_indices_batching_dims, strict=True)
    return _slices(eqn, operand, starts, offsets, {d: batch[int(b)] for d, b in paired}, is_clipped)


def _slices(
    eqn: Equation,
    operand: Named,
    starts: Mapping[int, Named],
    offsets: Mapping[int, int],
    batching: Mapping[int, int],
    is_clipped: bool,
) -> Named:
    """Return the entries of slices.

    - `starts`: where they begin along axes of the operand, each of the rank of the result.
    - `offsets`: the axis of the result along which a slice runs, by axis of the operand.
    - `batching`: the axis of the result that runs along with an axis of the operand.
    - `is_clipped`: whether a slice that does not fit is moved.
    """
    shape = tuple(map(int, eqn.outvars[0].aval.shape))
    target, pieces = dict(batching), {}
    for dim, size in enumerate(map(int, eqn.params["slice_sizes"])):
        if dim in batching:
            continue
        last = operand.shape[dim] - size
        # a slice as long as its axis is the axis
        if dim in offsets and last == 0 and (is_clipped or dim not in starts):
            target[dim] = offsets[dim]
            continue
        piece = starts.get(dim, constant(np.zeros((1,) * len(shape), np.int32)))
        if is_clipped:
            piece = lift(lambda i, last=last: i.clip(0, last), [piece], piece.shape)
        if dim in offsets:
            piece = _along(piece, offsets[dim], size)
        pieces[dim] = piece
    return look_up(operand, pieces, Lookup(target, range(len(shape)), len(shape)), shape)


def _along(start: Named, dim: int, size: int) -> Named:
    """Return the index that starts somewhere and runs along an axis."""
    along = [1] * len(start.shape)
    along[dim] = size
    numbers = constant(np.arange(size, dtype=np.int32).reshape(along))
    shape = np.broadcast_shapes(start.shape, tuple(along))
    return lift(lambda first, number: first + number, [start, numbers], shape)
