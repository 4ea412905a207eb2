"""Equal rows of data that come in chunks, of which no two need be in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from emjax.program.handlers.distinct_rows import distinct_rows
from emjax.program.handlers.row_arrays import Nested, nested

Arrays = list[Shaped[np.ndarray, "row ..."]]


def merged(chunks: Iterable[Any]) -> tuple[Nested, Int[np.ndarray, "distinct"]]:
    """Return the distinct rows of all chunks, and how often each occurs.

    They are in the order in which they first appear. Errors: `ValueError` for no chunk, and for one
    whose arrays are not like those of the first.
    """
    structure, table, pending = None, None, []
    for number, chunk in enumerate(chunks):
        data = nested(*_arguments(chunk), where=f"chunk {number} of compress")
        if structure is None:
            structure = data._replace(arrays=[array[:0].copy() for array in data.arrays])
        _check_alike(data.arrays, structure.arrays, number)
        found = distinct_rows(data.arrays, with_rows=False)
        pending.append(([array[found.first] for array in data.arrays], found.count))
        # once as many rows wait as the table has: each row is merged but a few times
        num_rows = sum(len(count) for _, count in pending)
        if table is None or num_rows >= len(table[1]):
            table, pending = _joined([*_listed(table), *pending]), []
    if structure is None or table is None:
        raise ValueError(
            "compress was given no chunk: the iterator yields nothing. One that has been used up "
            "has to be made again, compress(read(path))."
        )
    arrays, count = _joined([table, *pending]) if pending else table
    return structure._replace(arrays=arrays), count


def _arguments(chunk: Any) -> Iterator[Any]:
    """Yield what `compress` would take in place of a chunk, without rows that are padding."""
    if not hasattr(chunk, "counts"):
        yield from chunk if isinstance(chunk, tuple) else (chunk,)
        return
    real = slice(min(chunk.counts.values(), default=None))
    for argument in (*chunk.args, *([dict(chunk.kwargs)] if chunk.kwargs else [])):
        data = nested(argument, where="a part")
        yield from data._replace(arrays=[array[real] for array in data.arrays]).rebuilt()


def _listed(table: tuple[Arrays, Int[np.ndarray, "distinct"]] | None) -> list:
    return [] if table is None else [table]


def _joined(
    tables: list[tuple[Arrays, Int[np.ndarray, "_"]]],
) -> tuple[Arrays, Int[np.ndarray, "distinct"]]:
    """Return the distinct rows of tables of distinct rows, their counts added up."""
    if len(tables) == 1:
        return tables[0]
    arrays = [np.concatenate(parts) for parts in zip(*(rows for rows, _ in tables), strict=True)]
    found = distinct_rows(arrays)
    # sums of integers below 2⁵³ are exact in float64
    count = np.bincount(found.rows, np.concatenate([count for _, count in tables]))
    return [array[found.first] for array in arrays], np.rint(count).astype(np.int64)


def _check_alike(arrays: Arrays, first: Arrays, number: int) -> None:
    """Raise `ValueError` unless the arrays of a chunk have the columns of those of the first."""
    here, there = ([(array.dtype, array.shape[1:]) for array in each] for each in (arrays, first))
    if here != there:
        described = (
            ", ".join(f"{dtype} {('rows', *shape)}".replace("'", "") for dtype, shape in each)
            for each in (here, there)
        )
        raise ValueError(
            "Chunk {} of compress has arrays of {}, and the first has {}: cast them to one type "
            "where they are read, np.asarray(x, np.int8).".format(number, *described)
        )
