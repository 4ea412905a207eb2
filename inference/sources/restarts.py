"""Chunks from the first one, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from emjax.program.array_like import is_array_like

# of a dataset that is read in batches
ROWS_OF_A_BATCH = 10_000
END = object()


def restarted(chunks: Any, rows: int | None = None) -> Callable[[], Iterator[Any]]:
    """Return a function that returns an iterator over chunks, from the first, each time.

    `chunks`: such a function, or what can be iterated as often as wanted; a dataset of Hugging
    Face's is read in batches of `rows`. Errors: `ValueError` for what can be read once.
    """
    if isinstance(chunks, np.ndarray | jax.Array | Mapping) or is_array_like(chunks):
        kind = type(chunks).__name__
        raise ValueError(
            f"emjax.Stream takes chunks, and this is one {kind}. Let it be cut into chunks, "
            "emjax.Stream.of(x); or pass a list of chunks, emjax.Stream([chunk])."
        )
    # a row at a time is what iterating it gives
    if hasattr(chunks, "with_format") and hasattr(chunks, "iter"):
        return lambda: chunks.with_format("numpy").iter(batch_size=rows or ROWS_OF_A_BATCH)
    if callable(chunks) and not hasattr(chunks, "__iter__"):
        return lambda: _iterator_of(chunks)
    if hasattr(chunks, "__next__"):
        kind = type(chunks).__name__
        raise ValueError(
            f"A {kind} can be read once, and EM reads its data at every step. Pass a function that "
            "returns a new one each time: emjax.Stream(lambda: chunks(path)), where chunks is the "
            f"function that made this {kind}; or a list of chunks, if they fit in memory."
        )
    if not hasattr(chunks, "__iter__"):
        raise ValueError(
            "emjax.Stream takes chunks: something to be iterated as often as wanted, or a function "
            f"that returns an iterator; not {type(chunks).__name__}."
        )
    return chunks.__iter__


def _iterator_of(function: Any) -> Iterator[Any]:
    found = function()
    if not hasattr(found, "__iter__"):
        raise ValueError(
            "emjax.Stream takes a function that returns an iterator over chunks, and this one "
            f"returned a {type(found).__name__}. Write yield where it says return."
        )
    yield from found


def numbered(restart: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Yield chunks; an error of their iterator's has a note that says which chunk was read."""
    number, chunks = 0, None
    while True:
        try:
            chunks = restart() if chunks is None else chunks
            chunk = next(chunks, END)
        except Exception as error:
            error.add_note(f"Chunk {number} of the stream was being read.")
            raise
        if chunk is END:
            return
        yield chunk
        number += 1
