"""Chunks of one length, of chunks of any lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax
import numpy as np

from emjax.sources.chunks import has_rows
from emjax.sources.part import Part


def rechunked(parts: Iterable[tuple[Part, int]], length: int) -> Iterator[Part]:
    """Yield parts of as many rows, of parts and how many rows each has; the last has the rest.

    Rows are copied only where a part is made of several.
    """
    waiting: list[Part] = []
    num_waiting = 0
    for part, num_rows in parts:
        start = 0
        while num_waiting + num_rows - start >= length:
            stop = start + length - num_waiting
            yield joined([*waiting, rows_of(part, start, stop)])
            waiting, num_waiting, start = [], 0, stop
        if start < num_rows:
            waiting.append(rows_of(part, start, num_rows))
            num_waiting += num_rows - start
    if waiting:
        yield joined(waiting)


def rows_of(part: Part, start: int, stop: int) -> Part:
    """Return some rows of a part."""

    def rows(leaf):
        return leaf[start:stop] if has_rows(leaf) else leaf

    return Part(*jax.tree.map(rows, (part.args, dict(part.kwargs))))


def joined(parts: list[Part]) -> Part:
    """Return the rows of parts of one form, one after another."""
    if len(parts) == 1:
        return parts[0]

    def rows(first, *others):
        return np.concatenate([first, *others]) if has_rows(first) else first

    return Part(*jax.tree.map(rows, *[(part.args, dict(part.kwargs)) for part in parts]))
