"""Which rows are equal: counted where columns are small integers, sorted where they are not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

# rows of which the codes are made at once: they and what they are made of stay in the cache
BLOCK = 2**15
# a table of so many counts costs nothing, however few rows there are
SMALL_TABLE = 2**16


class DistinctRows(NamedTuple):
    """Distinct rows, in the order in which they first appear.

    - `first`: where each of them first appears.
    - `rows`: which of them each row is; None if nobody asked.
    - `count`: how often each occurs.
    """

    first: Int[np.ndarray, "distinct"]
    rows: Int[np.ndarray, "row"] | None
    count: Int[np.ndarray, "distinct"]


class Codes(NamedTuple):
    """One integer for each row, equal where rows are: from 0 to `size` − 1."""

    code: Int[np.ndarray, "row"]
    size: int


def distinct_rows(
    arrays: Sequence[Shaped[np.ndarray, "row ..."]], with_rows: bool = True
) -> DistinctRows:
    """Return the distinct rows of arrays that lie side by side."""
    codes = _codes(arrays)
    if codes is not None and codes.size <= max(SMALL_TABLE, len(codes.code)):
        return _counted(codes, with_rows)
    items = _bytes(arrays) if codes is None else codes.code
    _, first, inverse, count = np.unique(
        items, return_index=True, return_inverse=True, return_counts=True
    )
    # `np.unique` sorts, by an order without a meaning
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = place[inverse.reshape(-1)] if with_rows else None
    return DistinctRows(first[order], rows, count[order])


def _counted(codes: Codes, with_rows: bool) -> DistinctRows:
    """Return the distinct rows by a table of every code that there may be."""
    code = codes.code
    of_code = np.bincount(code, minlength=codes.size)
    starts = range(0, len(code), BLOCK)
    first_of_code = np.full(codes.size, len(code))
    # where an index occurs again the last assignment stays: backward, that of its first row
    for start in reversed(starts):
        backward = code[start : start + BLOCK][::-1]
        first_of_code[backward] = np.arange(start + len(backward) - 1, start - 1, -1)
    occurring = np.flatnonzero(of_code)
    occurring = occurring[np.argsort(first_of_code[occurring])]
    if not with_rows:
        return DistinctRows(first_of_code[occurring], None, of_code[occurring])
    place = np.zeros(codes.size, np.int64)
    place[occurring] = np.arange(len(occurring))
    for start in starts:
        code[start : start + BLOCK] = place[code[start : start + BLOCK]]
    return DistinctRows(first_of_code[occurring], code, of_code[occurring])


def _codes(arrays: Sequence[Shaped[np.ndarray, "row ..."]]) -> Codes | None:
    """Return mixed-radix numbers of the columns; None unless 64 bits hold such numbers."""
    if len(arrays[0]) == 0 or any(array.dtype.kind not in "biu" for array in arrays):
        return None
    # of so many columns that vary the smallest radices are too much
    if sum(math.prod(array.shape[1:]) for array in arrays) > 62:
        return None
    lows, radices = _ranges(arrays)
    size = math.prod(radices)
    if size >= 2**63:
        return None
    lowest = 0
    for low, radix in zip(lows, radices, strict=True):
        lowest = lowest * radix + low
    # in 64 bits a difference that is small is right, also if its terms wrap around
    lowest = (lowest + 2**63) % 2**64 - 2**63
    code = np.zeros(len(arrays[0]), np.int64)
    for start in range(0, len(code), BLOCK):
        block = code[start : start + BLOCK]
        columns = itertools.chain.from_iterable(_block(array, start) for array in arrays)
        for column, radix in zip(columns, radices, strict=True):
            block *= radix
            block += column.astype(np.int64, copy=False)
        block -= lowest
    return Codes(code, size)


def _ranges(arrays: Sequence[Shaped[np.ndarray, "row ..."]]) -> tuple[list[int], list[int]]:
    """Return the lowest number of each column, and how many there are from it to the highest."""
    lows, radices = [], []
    for array in arrays:
        starts = range(0, len(array), BLOCK)
        low = np.min([_block(array, start).min(axis=1) for start in starts], axis=0)
        high = np.max([_block(array, start).max(axis=1) for start in starts], axis=0)
        lows += low.tolist()
        radices += [int(last) - int(one) + 1 for one, last in zip(low, high, strict=True)]
    return lows, radices


def _block(array: Shaped[np.ndarray, "row ..."], start: int) -> Shaped[np.ndarray, "column block"]:
    """Return a block of rows by columns, each in one piece: far faster to go through."""
    return np.ascontiguousarray(_flat(array[start : start + BLOCK]).T)


def _bytes(arrays: Sequence[Shaped[np.ndarray, "row ..."]]) -> Shaped[np.ndarray, "row"]:
    """Return one opaque item for each row, equal where the rows are."""
    columns = []
    for array in arrays:
        flat = _flat(array)
        if np.issubdtype(flat.dtype, np.inexact):
            # NaN and zero have several bit patterns
            flat = np.where(np.isnan(flat), np.nan, flat + 0.0).astype(flat.dtype)
        bytes_of_rows = np.ascontiguousarray(flat).view(np.uint8)
        columns.append(bytes_of_rows.reshape(len(flat), flat.shape[1] * flat.itemsize))
    joint = np.ascontiguousarray(np.concatenate(columns, axis=1))
    width = joint.shape[1]
    # rows without columns are all equal
    if width == 0:
        return np.zeros(len(joint), np.uint8)
    return joint.view(np.dtype((np.void, width))).reshape(-1)


def _flat(array: Shaped[np.ndarray, "row ..."]) -> Shaped[np.ndarray, "row column"]:
    return array.reshape(len(array), math.prod(array.shape[1:]))
