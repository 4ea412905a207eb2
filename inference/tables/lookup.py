"""Lookups: each piece of a gather's index becomes a named axis of the result.

`confusion[annotator, truth[item]]` is the table `confusion` with its first axis read at `annotator`
(rows that data pick), its second at the latent `truth`, whose own index becomes `item`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from emjax.numerics.arrays import take
from emjax.numerics.primitives import Equation
from emjax.tables.indices import Affine, Dense, Index, affine, composed, index_of
from emjax.tables.joined import Joined, carried_out
from emjax.tables.moves import sliced
from emjax.tables.named import (
    Axis,
    Named,
    mixed,
    table_and_labels,
    union,
    without_rows,
)


@dataclass(frozen=True)
class Lookup:
    """What a gather with slices of length one does to the axes of its operand.

    - `target`: {axis that is kept, or runs along with the index: axis of the result}. All other
      axes of the operand are looked up.
    - `batch`: the axes of the result that the index's own axes become.
    - `rank`: the result's.
    """

    target: Mapping[int, int]
    batch: Sequence[int]
    rank: int

    def order(self) -> list[int | None]:
        """Return, for each axis of the result, the axis of the operand that it was."""
        source = {out: d for d, out in self.target.items()}
        return [source.get(out) for out in range(self.rank)]


def as_lookup(eqn: Equation, operand_shape: Sequence[int]) -> tuple[Lookup, dict[int, int]] | None:
    """Return a gather as a lookup, and {operand axis that is looked up: column of the index}.

    None if it takes longer slices.
    """
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    operand_rank, rank = len(operand_shape), len(eqn.outvars[0].aval.shape)
    batching = [int(d) for d in numbers.operand_batching_dims]
    is_clipped = eqn.params["mode"] == GatherScatterMode.CLIP
    looked_up = {}
    for column, d in enumerate(numbers.start_index_map):
        # where indices are clipped, a slice as long as its axis is the axis
        if not (is_clipped and sizes[d] == operand_shape[d] != 1):
            looked_up[int(d)] = column
    for d in range(operand_rank):
        if sizes[d] != (1 if d in looked_up or d in batching else operand_shape[d]):
            return None
    batch = [d for d in range(rank) if d not in numbers.offset_dims]
    gone = {*numbers.collapsed_slice_dims, *batching}
    windows = [d for d in range(operand_rank) if d not in gone]
    target = {}
    for d, out in zip(windows, numbers.offset_dims, strict=True):
        if d not in looked_up:
            target[d] = int(out)
    for d, b in zip(batching, numbers.start_indices_batching_dims, strict=True):
        target[d] = batch[b]
    return Lookup(target, batch, rank), looked_up


def index_columns(indices: Named | Joined, looked_up: Mapping[int, int]) -> dict[int, Named]:
    """Return the columns of a gather's index array, by the axes that they look up.

    The columns of a concatenation are its pieces, if each is one column.
    """
    last = len(indices.shape) - 1
    number = indices.shape[last]
    columns = _pieces(indices, last)
    if columns is None:
        array = carried_out(indices)
        columns = [array] if number == 1 else [sliced(array, last, i, i + 1) for i in range(number)]
    return {d: columns[column].placed(range(last)) for d, column in looked_up.items()}


def _pieces(indices: Named | Joined, last: int) -> list[Named] | None:
    """Return the pieces of a concatenation of columns; None if it is no such."""
    if not isinstance(indices, Joined) or indices.dim != last:
        return None
    is_of_columns = all(piece.shape[last] == 1 for piece in indices.pieces)
    return list(indices.pieces) if is_of_columns else None


def look_up(
    operand: Named, pieces: Mapping[int, Named], lookup: Lookup, shape: tuple[int, ...]
) -> Named:
    """Return operand[pieces], of the given shape.

    `pieces`: the indices, by the axis that each looks up. Errors: `IndexError` for a known index
    that is out of range.
    """
    place = [lookup.batch.index(d) if d in lookup.batch else None for d in range(lookup.rank)]
    pieces = {d: piece.placed(place) for d, piece in pieces.items()}
    for d, piece in pieces.items():
        _check_range(piece, operand, operand.shape[d])
    # along an axis of length 1 the operand does not vary: nothing is to be read
    varying = {d: piece for d, piece in pieces.items() if operand.compact[d] > 1}
    # an index by data becomes rows, one by a latent is a table over its values already
    read = {d: _as_rows(piece, operand.shape[d]) for d, piece in varying.items()}
    moved = []
    for axis in operand.axes:
        index = _index_after(axis, operand, pieces, lookup)
        moved.append(replace(axis, index=index))
    axes = union([*read.values(), Named(operand.array, shape, tuple(moved))])

    # the table stays as it is: its axes get the names of what they are read at
    renamed: dict[Any, Any] = {}
    for before, after in zip(operand.axes, moved, strict=True):
        renamed[before.key] = after.key
    for d in range(len(operand.shape)):
        renamed[d] = ("read", d) if d in read else lookup.target.get(d)
    table, labels = table_and_labels(operand)
    table, labels = _diagonal(table, [renamed[label] for label in labels])
    picks = {("read", d): table_and_labels(piece) for d, piece in read.items()}
    for key in list(picks):
        name = _plain_name(picks, key, table.shape[labels.index(key)])
        if name is not None and name not in labels:
            labels[labels.index(key)] = name
            del picks[key]
    out = [axis.key for axis in axes] + list(range(lookup.rank))
    in_order = [label for label in out if label in labels]
    # content is what identifies indices: a renamed table is the same one
    is_same = not picks and table.size == operand.array.size and labels == in_order
    content = operand.content if is_same else None
    return Named(take(table, labels, picks, out), shape, axes, content)


def _as_rows(piece: Named, size: int) -> Named:
    """Return an index given by data as a named axis of rows.

    An index that is known, or that a latent gives, is left as it is.
    """
    if piece.latent_axes or piece.is_static:
        return piece
    piece = without_rows(piece)
    if all(s == 1 for s in piece.array.shape):
        return piece
    axis = Axis(None, size, Dense(piece.array, (piece.content,)))
    numbers = np.arange(size, dtype=np.int32).reshape([-1] + [1] * len(piece.shape))
    return Named(numbers, piece.shape, (axis,))


def _diagonal(array, labels: list) -> tuple[Any, list]:
    """Return a table with two of its axes that came to read the same element made one."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            array = jnp.moveaxis(jnp.diagonal(array, axis1=i, axis2=j), -1, i)
            labels = labels[:j] + labels[j + 1 :]
    return array, labels


def _plain_name(picks: Mapping, key: Any, size: int) -> Any:
    """Return the named axis that an index merely enumerates (0, 1, …), if it does.

    The axis is then renamed, not read.
    """
    index, labels = picks[key]
    if len(labels) != 1 or not isinstance(index, np.ndarray):
        return None
    if not np.array_equal(index.ravel(), np.arange(size)):
        return None
    # two indices by one axis read a diagonal
    is_shared = any(labels[0] in others for k, (_, others) in picks.items() if k != key)
    return None if is_shared else labels[0]


# ── the index of an axis after a lookup ───────────────────────────────────────────────────────────


def _index_after(axis: Axis, operand: Named, pieces: Mapping[int, Named], lookup: Lookup) -> Index:
    """Return the index of an operand's axis after the lookup: index[pieces]."""
    index, shape, order = axis.index, operand.shape, lookup.order()
    varying = [d for d in pieces if axis.varies[d]]
    if not varying:
        return index.placed(order)
    for d in varying:
        # which element of a latent is read would depend on another latent
        if pieces[d].latent_axes:
            raise mixed(axis, operand, "gather", [d])
    steps = {d: _affine(pieces[d]) for d in varying}
    if isinstance(index, Affine) and all(steps.values()):
        return _affine_after(index, steps, order)
    read = {d: without_rows(pieces[d]).array for d in varying}
    if isinstance(index, Affine):
        # arithmetic, not a gather: what is out of range stays so, to be found
        rest = index.placed(order)
        array = rest.dense([1 if d is None else shape[d] for d in order])
        array = sum((index.strides[d] * values for d, values in read.items()), array)
    else:
        table, labels = table_and_labels(Named(index.array, tuple(shape)))
        labels = [("read", d) if d in pieces else lookup.target[d] for d in labels]
        picks = {("read", d): table_and_labels(without_rows(pieces[d])) for d in varying}
        array = take(table, labels, picks, list(range(lookup.rank)))
    along = [d for d in range(len(shape)) if axis.varies[d]]
    inner = _as_index(pieces[varying[0]], read[varying[0]])
    # of known numbers, their content says all
    if len(along) > 1 or inner is None or isinstance(array, np.ndarray):
        return index_of(array)
    return composed(index.placed(along), shape[along[0]], inner, array)


def _affine_after(index: Affine, steps: Mapping[int, Any], order: Sequence[int | None]) -> Affine:
    """Return an affine index at affine positions, by the axis that each is a position along."""
    offset, strides = index.offset, list(index.placed(order).strides)
    for d, step in steps.items():
        offset += index.strides[d] * step.offset
        for out, stride in enumerate(step.strides):
            strides[out] += index.strides[d] * stride
    return Affine(offset, tuple(strides))


def _as_index(piece: Named, array) -> Dense | None:
    """Return a piece of an index, which reads `array`, as the composition that it is.

    It is that of its table and its rows; None if it has more than one axis.
    """
    if not piece.axes:
        return Dense(array, (piece.content,))
    if len(piece.axes) != 1 or any(size != 1 for size in piece.compact):
        return None
    (rows,) = piece.axes
    table = Dense(piece.array.reshape(-1), (piece.content,))
    return composed(table, rows.size, rows.index, array)


def _affine(piece: Named) -> Affine | None:
    return affine(piece.array) if piece.is_static and not piece.axes else None


# ── what is out of range ──────────────────────────────────────────────────────────────────────────


def _check_range(piece: Named, operand: Named, size: int) -> None:
    """Raise `IndexError` for a known index that is out of range."""
    if not piece.is_static or piece.array.size == 0:
        return
    least, largest = int(piece.array.min()), int(piece.array.max())
    if least >= 0 and largest < size:
        return
    what = f"An index by {_latents(piece)}" if piece.latent_axes else "An index"
    raise IndexError(
        f"{what} into {_latents(operand) or 'a table'} takes values from {least} to {largest}, "
        f"but there are {size} entries. "
        "Give the table a row for every value."
    )


def _latents(value: Named) -> str:
    return ", ".join(f"latent '{axis.source}'" for axis in value.latent_axes)
