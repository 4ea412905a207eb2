"""Lookups: each piece of a gather's index becomes a named axis of the result.

`confusion[annotator, truth[item]]` is the table `confusion` with its first axis read at `annotator`
(rows that data pick), its second at the latent `truth`, whose own index becomes `item`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from emjax.numerics.arrays import broadcast, concatenated, evaluate, take
from emjax.tables.indices import Affine, Dense, Index, composed
from emjax.tables.lifting import lift
from emjax.tables.moves import Joined, carried_out, sliced
from emjax.tables.named import Axis, Named, spread, table_and_labels, union, without_rows


class MixedElements(Exception):
    """A primitive mixes the elements of a latent, so that no table over one element can hold its
    result.
    """

    def __init__(self, latent: str, primitive: str):
        self.latent = latent
        super().__init__(f"'{primitive}' mixes the elements of the latent '{latent}'.")


@dataclass(frozen=True)
class Lookup:
    """What a gather with slices of length one does to the axes of its operand.

    `target`: {axis that is kept, or runs along with the index: axis of the result}; `batch`: the
    axes of the result that the index's own axes become; `rank`: the result's. All other axes of the
    operand are looked up.
    """

    target: Mapping[int, int]
    batch: Sequence[int]
    rank: int


def as_lookup(eqn, operand_shape) -> tuple[Lookup, dict[int, int]] | None:
    """Return a gather as a lookup, and for each operand axis that is looked up the column of the
    index that does so; None if it takes longer slices.
    """
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    batching = [int(d) for d in numbers.operand_batching_dims]
    is_clipped = (
        eqn.params["mode"] == GatherScatterMode.CLIP
    )  # then a slice as long as its axis is the axis
    looked_up = {
        int(d): column
        for column, d in enumerate(numbers.start_index_map)
        if not (is_clipped and sizes[d] == operand_shape[d] != 1)
    }
    if any(
        sizes[d] != (1 if d in looked_up or d in batching else operand_shape[d])
        for d in range(len(operand_shape))
    ):
        return None
    rank = len(eqn.outvars[0].aval.shape)
    batch = [d for d in range(rank) if d not in numbers.offset_dims]
    windows = [
        d
        for d in range(len(operand_shape))
        if d not in numbers.collapsed_slice_dims and d not in batching
    ]
    target = {
        d: out
        for d, out in zip(windows, map(int, numbers.offset_dims), strict=True)
        if d not in looked_up
    }
    target |= {
        d: batch[b] for d, b in zip(batching, numbers.start_indices_batching_dims, strict=True)
    }
    return Lookup(target, batch, rank), looked_up


def index_columns(indices: Named | Joined, looked_up: Mapping[int, int]) -> dict[int, Named]:
    """Return the columns of a gather's index array, by the axes that they look up: a piece of a
    concatenation each where there is one.
    """
    last = len(indices.shape) - 1
    number = indices.shape[last]
    if (
        isinstance(indices, Joined)
        and indices.dim == last
        and all(piece.shape[last] == 1 for piece in indices.pieces)
    ):
        columns = list(indices.pieces)
    else:
        whole = carried_out(indices)
        columns = [whole] if number == 1 else [sliced(whole, last, i) for i in range(number)]
    return {d: columns[column].placed(range(last)) for d, column in looked_up.items()}


def look_up(
    operand: Named, pieces: Mapping[int, Named], lookup: Lookup, shape: tuple[int, ...]
) -> Named:
    """Return operand[pieces], of the given shape. Errors: `IndexError` for a known index that is
    out of range.
    """
    place = [lookup.batch.index(d) if d in lookup.batch else None for d in range(lookup.rank)]
    pieces = {d: piece.placed(place) for d, piece in pieces.items()}
    read = {
        d: _as_rows(piece, operand.shape[d])
        for d, piece in pieces.items()
        if operand.compact[d] > 1
    }
    for d, piece in pieces.items():
        _check_range(piece, operand, operand.shape[d])
    indices = [_index_after(axis, operand.shape, pieces, lookup) for axis in operand.axes]
    moved = [replace(axis, index=index) for axis, index in zip(operand.axes, indices, strict=True)]
    axes = tuple(
        {
            axis.key: axis
            for axis in [*(axis for piece in read.values() for axis in piece.axes), *moved]
        }.values()
    )

    array, labels = table_and_labels(operand)
    renamed = {old.key: new.key for old, new in zip(operand.axes, moved, strict=True)}
    renamed |= {
        d: ("read", d) if d in read else lookup.target.get(d) for d in range(len(operand.shape))
    }
    array, labels = _diagonal(array, [renamed[label] for label in labels])
    picks = {("read", d): table_and_labels(piece) for d, piece in read.items()}
    for key in list(picks):
        name = _plain_name(picks, key, array.shape[labels.index(key)])
        if name is not None and name not in labels:
            labels[labels.index(key)] = name
            del picks[key]
    out = [axis.key for axis in axes] + list(range(lookup.rank))
    is_renamed = (
        not picks
        and array.size == operand.array.size
        and labels == [label for label in out if label in labels]
    )
    return Named(
        take(array, labels, picks, out), shape, axes, operand.content if is_renamed else None
    )


def select_rows(predicate: Named, cases: Sequence[Named], shape: tuple[int, ...]) -> Named | None:
    """Return where(predicate, …) as rows of a table, one for each case, which the predicate picks;
    None where a case is no smaller than the result.
    """
    varying = [d for d, size in enumerate(predicate.compact) if size != 1]
    if (
        predicate.latent_axes
        or not varying
        or not any(case.latent_axes for case in cases)
        or any(case.compact[d] != 1 for case in cases for d in varying)
    ):
        return None
    predicate, axes = without_rows(predicate), union(cases)
    tables = [spread(case, axes) for case in cases]
    common = np.broadcast_shapes(*(table.shape for table in tables))
    table = concatenated([broadcast(table, common)[None] for table in tables], 0)
    index = evaluate(lambda p: jnp.asarray(p, jnp.int32), predicate.array)
    return Named(table, shape, (Axis(None, len(cases), Dense(index, (predicate.content,))), *axes))


def _as_rows(piece: Named, size: int) -> Named:
    """Turn an index given by data into a named axis of rows; an index that is known is left as
    positions.
    """
    if piece.latent_axes or piece.is_static:
        return piece
    piece = without_rows(piece)
    if all(s == 1 for s in piece.array.shape):
        return piece
    axis = Axis(None, size, Dense(piece.array, (piece.content,)))
    return Named(
        np.arange(size, dtype=np.int32).reshape([-1] + [1] * len(piece.shape)), piece.shape, (axis,)
    )


@dataclass(frozen=True, eq=False)
class Reach:
    """Where indices reach beyond a table or a latent: `bad` is true there, `what` says how long it
    is; `indices` are the jaxpr's.
    """

    bad: Named
    what: str
    indices: tuple


def reach(eqn, operand: Named | Joined, indices: Sequence[Named | Joined]) -> list[Reach]:
    """Return, for every index of a lookup that only data decide, where it is out of range."""
    shape = operand.shape
    if eqn.primitive.name == "dynamic_slice":  # of length one, it is how JAX looks up one entry
        pieces, lengths = dict(enumerate(map(carried_out, indices))), eqn.params["slice_sizes"]
    else:
        found = as_lookup(eqn, shape)
        if found is None or eqn.params["mode"] == GatherScatterMode.CLIP:
            return []
        pieces, lengths = index_columns(indices[0], found[1]), [1] * len(shape)
    axes = operand.axes if isinstance(operand, Named) else ()
    return [
        Reach(
            _beyond(piece, shape[d] - lengths[d]), _length(axes, d, shape[d]), tuple(eqn.invars[1:])
        )
        for d, piece in pieces.items()
        if not piece.is_static
    ]


def _beyond(piece: Named, last: int) -> Named:
    """Return where an index lies outside 0 … last for some value of the latents that it
    depends on.
    """
    piece = without_rows(piece)
    bad = lift(lambda i: (i < 0) | (i > last), [piece], piece.shape)
    return Named(bad.array.any(axis=tuple(range(len(bad.axes)))), bad.shape)


def _length(axes: Sequence[Axis], dim: int, size: int) -> str:
    latents = [axis.source for axis in axes if axis.is_latent and axis.varies[dim]]
    return f"latent '{latents[0]}' has {size} elements" if latents else f"the table has {size} rows"


def _check_range(piece: Named, operand: Named, size: int) -> None:
    if (
        piece.is_static
        and piece.array.size
        and not (0 <= int(piece.array.min()) and int(piece.array.max()) < size)
    ):

        def listed(value: Named) -> str:
            return ", ".join(f"latent '{axis.source}'" for axis in value.latent_axes)

        what = f"An index by {listed(piece)}" if piece.latent_axes else "An index"
        into = listed(operand) or "a table"
        raise IndexError(
            f"{what} into {into} takes values from {int(piece.array.min())} to "
            f"{int(piece.array.max())}, but there are {size} entries. "
            "Give the table a row for every value."
        )


def _diagonal(array, labels: list):
    """Make two axes of a table that came to read the same element one."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            array = jnp.moveaxis(jnp.diagonal(array, axis1=i, axis2=j), -1, i)
            labels = labels[:j] + labels[j + 1 :]
    return array, labels


def _plain_name(picks, key, size: int):
    """Return the named axis that an index merely enumerates (0, 1, …): then the axis is renamed,
    not read.
    """
    index, labels = picks[key]
    plain = (
        len(labels) == 1
        and isinstance(index, np.ndarray)
        and np.array_equal(index.ravel(), np.arange(size))
    )
    shared = plain and any(labels[0] in others for k, (_, others) in picks.items() if k != key)
    return labels[0] if plain and not shared else None


def _index_after(axis: Axis, shape, pieces: Mapping[int, Named], lookup: Lookup) -> Index:
    """Return the index of an operand's axis after the lookup: index[pieces]."""
    index, source = axis.index, {out: d for d, out in lookup.target.items()}
    order = [source.get(out) for out in range(lookup.rank)]
    varying = [d for d in pieces if axis.varies[d]]
    if not varying:
        return index.placed(order)
    for d in varying:
        if pieces[d].latent_axes:
            raise MixedElements(axis.source, "gather")
    inner = {d: affine(pieces[d]) if pieces[d].is_static else None for d in varying}
    if isinstance(index, Affine) and all(inner.values()):
        strides = list(index.placed(order).strides)
        for d, step in inner.items():
            strides = [s + index.strides[d] * t for s, t in zip(strides, step.strides, strict=True)]
        return Affine(
            index.offset + sum(index.strides[d] * step.offset for d, step in inner.items()),
            tuple(strides),
        )
    read = {d: without_rows(pieces[d]).array for d in varying}
    if isinstance(
        index, Affine
    ):  # arithmetic, not a gather: what is out of range stays so, to be found
        rest = index.placed(order)
        array = sum(
            (index.strides[d] * values for d, values in read.items()),
            rest.dense([shape[d] if d is not None else 1 for d in order]),
        )
    else:
        table, labels = table_and_labels(Named(index.array, tuple(shape)))
        labels = [("read", d) if d in pieces else lookup.target[d] for d in labels]
        array = take(
            table,
            labels,
            {("read", d): table_and_labels(without_rows(pieces[d])) for d in varying},
            list(range(lookup.rank)),
        )
    dims = [d for d in range(len(shape)) if axis.varies[d]]
    inner = _as_index(pieces[varying[0]], read[varying[0]])
    if len(dims) > 1 or inner is None:
        return Dense.of(array)
    return composed(index.placed(dims), shape[dims[0]], inner, array)


def _as_index(piece: Named, array) -> Dense | None:
    """Return a piece of an index, which reads `array`, as the composition that it is: of its table
    and its rows.
    """
    if not piece.axes:
        return Dense(array, (piece.content,))
    if len(piece.axes) > 1 or any(size != 1 for size in piece.compact):
        return None
    (rows,) = piece.axes
    return composed(Dense(piece.array.reshape(-1), (piece.content,)), rows.size, rows.index, array)


def affine(piece: Named) -> Affine | None:
    """Return a known index as an affine one, if it is."""
    if piece.axes or piece.array.size == 0:
        return None
    array = np.asarray(piece.array)
    first = [
        array[tuple(slice(0, 2) if i == d else 0 for i in range(array.ndim))]
        for d in range(array.ndim)
    ]
    found = Affine(
        int(array.ravel()[0]),
        tuple(int(pair[1] - pair[0]) if len(pair) > 1 else 0 for pair in first),
    )
    return (
        found
        if np.array_equal(np.broadcast_to(found.dense(array.shape), array.shape), array)
        else None
    )
