"""Rows that belong to items, cut so that all rows of an item are in one part.

A latent of an item, such as the true answer to a question, is summed out of all rows of that item
at once. Rows that are sorted by item need no more than to carry over the last, unfinished one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from emjax.sources.chunks import has_rows
from emjax.sources.part import Part

Leaves = list[Any]
# they fit a cache, and take longer than a call
NUMBERS_IN_A_PART = 2**20


@dataclass(frozen=True)
class ByKey:
    """How rows belong to items.

    - `key`: the argument that says of which item a row is: its place in a tuple, or its name.
    - `items`, `rows`: the program's plates of both.
    - `num_items`: what a program calls the number of items, where chunks are dictionaries; of a
      tuple it is the last argument.
    - `most_items`, `most_rows`: how many a part has room for; None: items as the first part needs.
    - `is_sorted`: whether rows come in the order of their keys.
    """

    key: int | str
    items: str
    rows: str
    num_items: str
    most_items: int | None
    most_rows: int | None
    is_sorted: bool = True


class ItemPart(NamedTuple):
    """A part of whole items, how many rows it has, and the keys of its items, in their order."""

    part: Part
    num_rows: int
    keys: np.ndarray


def key_of(part: Part, by: ByKey) -> np.ndarray:
    """Return the key of each row. Errors: `ValueError` where a part has no such argument."""
    try:
        return part.args[by.key] if isinstance(by.key, int) else part.kwargs[by.key]
    except (IndexError, KeyError) as error:
        kwargs = ", ".join(map(repr, part.kwargs))
        found = kwargs or f"{len(part.args)} positional arguments"
        raise ValueError(
            f"The rows belong to items by argument {by.key!r}, and chunks have {found}: "
            "emjax.Stream.by_key(chunks, key='item', ...) of a dictionary, key=0 of a tuple."
        ) from error


def item_parts(parts: Iterable[tuple[Part, int]], by: ByKey) -> Iterator[ItemPart]:
    """Yield parts that have all rows of their items, of parts that have some, and their lengths.

    Each has room for as many items and rows: what is added counts nothing. Errors: `ValueError`
    for rows that are not sorted, or an item that has more rows than a part has room for.
    """
    waiting: list[Leaves] = []
    num_waiting, last, tree, room = 0, None, None, None
    for number, (part, num_rows) in enumerate(parts):
        keys = key_of(part, by)
        if by.most_rows is None:
            by = replace(by, most_rows=_rows_of(part))
        if by.is_sorted and num_rows:
            _check_sorted(keys, last, number)
            last = keys[-1]
        leaves, tree = jax.tree.flatten((keys, part.args, dict(part.kwargs)))
        waiting, num_waiting = [*waiting, leaves], num_waiting + num_rows
        assert by.most_rows is not None
        if num_waiting <= by.most_rows:
            continue
        leaves, start = _joined(waiting), 0
        for first, stop in _cuts(leaves[0], by, room, is_end=False):
            taken, start = _rows(leaves, first, stop), stop
            room = room or _room(taken[0], by, is_all=False)
            yield made(taken, tree, room, by)
        waiting, num_waiting = [_rows(leaves, start, num_waiting)], num_waiting - start
    if num_waiting:
        leaves = _joined(waiting)
        for first, stop in _cuts(leaves[0], by, room, is_end=True):
            taken = _rows(leaves, first, stop)
            room = room or _room(taken[0], by, is_all=stop == num_waiting)
            yield made(taken, tree, room, by)


def _rows_of(part: Part) -> int:
    leaves = jax.tree.leaves((part.args, dict(part.kwargs)))
    numbers = sum(math.prod(leaf.shape[1:]) for leaf in leaves if has_rows(leaf))
    return max(NUMBERS_IN_A_PART // numbers, 1)


class Room(NamedTuple):
    """How many items and rows a part has, with those that count nothing."""

    items: int
    rows: int


def _room(keys: np.ndarray, by: ByKey, is_all: bool) -> Room:
    """Return the room that parts have. `keys`: of the first one; `is_all`: there is no other."""
    found = len(starts_of(keys))
    # an eighth more: that later rows belong to more items shall not leave parts half empty
    items = by.most_items or (found if is_all else found + found // 8 + 1)
    rows = len(keys) if is_all else by.most_rows
    # arrays of rows are told from arrays of items by their lengths
    return Room(items, rows + (rows == items))


def starts_of(keys: np.ndarray) -> np.ndarray:
    """Return the first row of each item."""
    return np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])


def _cuts(
    keys: np.ndarray, by: ByKey, room: Room | None, is_end: bool
) -> Iterator[tuple[int, int]]:
    """Yield the first row of parts and that after their last, as long as they are full.

    `is_end`: the last item is whole, and the last part need not be full.
    """
    bounds = np.append(starts_of(keys), len(keys))
    num_whole = len(bounds) - 1 if is_end else len(bounds) - 2
    most_items = by.most_items or (room.items if room else len(keys))
    first = 0
    while True:
        fitting = np.searchsorted(bounds, bounds[first] + by.most_rows, side="right") - 1
        if fitting == first < len(bounds) - 1:
            raise ValueError(
                f"Item {keys[bounds[first]]!r} has more rows than a part has room for, "
                f"{by.most_rows}, and is in one part: emjax.Stream.by_key(..., rows=...)."
            )
        stop = min(fitting, first + most_items)
        if stop >= num_whole:
            if is_end and first < num_whole:
                yield int(bounds[first]), int(bounds[num_whole])
            return
        yield int(bounds[first]), int(bounds[stop])
        if room is None:
            room = _room(keys[bounds[first] : bounds[stop]], by, is_all=False)
            most_items = room.items
        first = stop


def made(leaves: Leaves, tree: Any, room: Room, by: ByKey) -> ItemPart:
    """Return a part of rows: their keys are numbers of items from 0, and all is padded."""
    starts = starts_of(leaves[0])
    num_rows, num_items = len(leaves[0]), len(starts)
    keys = leaves[0][starts]
    number = np.zeros(num_rows, np.int32)
    number[starts[1:]] = 1
    _, args, kwargs = jax.tree.unflatten(tree, [_padded(leaf, room.rows) for leaf in leaves])
    local = _padded(np.cumsum(number, dtype=np.int32), room.rows)
    if isinstance(by.key, int):
        args = (*args[: by.key], local, *args[by.key + 1 :], room.items)
    else:
        kwargs = {**kwargs, by.key: local, by.num_items: room.items}
    counts = {by.items: num_items, by.rows: num_rows}
    return ItemPart(Part(args, kwargs, counts), num_rows, keys)


def _padded(leaf: Any, length: int) -> Any:
    """Return rows and as many copies of the first as there is room for."""
    if not has_rows(leaf) or len(leaf) == length:
        return leaf
    copies = np.broadcast_to(leaf[:1], (length - len(leaf), *leaf.shape[1:]))
    return np.concatenate([leaf, copies])


def _joined(waiting: list[Leaves]) -> Leaves:
    if len(waiting) == 1:
        return waiting[0]
    pairs = zip(*waiting, strict=True)
    return [np.concatenate(leaves) if has_rows(leaves[0]) else leaves[0] for leaves in pairs]


def _rows(leaves: Leaves, start: int, stop: int) -> Leaves:
    return [leaf[start:stop] if has_rows(leaf) else leaf for leaf in leaves]


def _check_sorted(keys: np.ndarray, last: Any, number: int) -> None:
    """Raise `ValueError` for rows that are not in the order of their keys.

    `last`: the key before the first one; None: there is none. `number`: the chunk's.
    """
    descends = np.flatnonzero(keys[1:] < keys[:-1])
    if last is not None and keys[0] < last:
        row, key, before = 0, keys[0], last
    elif len(descends):
        row = int(descends[0]) + 1
        key, before = keys[row], keys[row - 1]
    else:
        return
    raise ValueError(
        f"Rows are not sorted by item: in chunk {number}, row {row} is of item {key.item()!r}, "
        f"after a row of {before.item()!r}, and an item whose rows are apart is in two parts. Sort "
        "the rows where they are made (ORDER BY), or let the stream do so, by temporary files: "
        "emjax.Stream.by_key(..., sort=True)."
    )
