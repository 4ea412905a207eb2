"""Data in chunks that are read as often as they are needed: what `emjax.Stream` is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Shaped

from emjax.sources.chunks import Form, has_rows, length_of, named_leaves, part_of, restarted
from emjax.sources.part import Part, Parts
from emjax.sources.rechunked import rechunked

# Numbers in a chunk that is cut out of an array: they fit a cache, and take longer than a call.
NUMBERS_IN_A_CHUNK = 2**20


class Stream(Parts):
    """Data in chunks, for `em.run(key, stream)`: larger than memory, and read at every step.

    - `chunks`: something that can be iterated as often as wanted, or a function that returns an
      iterator, such as a generator function. A chunk is an array, a tuple of arrays (the program's
      positional arguments), a dictionary (named ones), or a `Part`; a row is an element of the
      program's outermost plate. Data frames and tensors are arrays, so that a torch `DataLoader`
      or a loader of grain is a stream as it is.
    - `rows`: chunks of as many rows are made of them, however long they are; None: as they are.

    A chunk should take longer than a call does, which some 100,000 numbers do. All are padded to
    the longest, with rows that count nothing.

    **Errors:** `ValueError` for chunks that can be read only once, that differ in their types or
    columns, that have no rows; and where they are fewer or more when they are read again.

    ```python
    import emjax, numpy as np

    def chunks():
        for path in ["a.npy", "b.npy"]:
            yield np.load(path)

    stream = emjax.Stream(chunks)  # then emjax.EM(program).run(jax.random.key(0), stream)
    ```
    """

    def __init__(self, chunks: Any, *, rows: int | None = None):
        if rows is not None and (not isinstance(rows, int) or rows < 1):
            raise ValueError(f"A chunk has rows=1 or more, not {rows!r}.")
        self._restart = restarted(chunks)
        self._rows = rows
        # how many chunks and rows there are, once all were read
        self._numbers: tuple[int, int] | None = None
        self._name = f"Stream({type(chunks).__name__})"

    @classmethod
    def of(cls, *arrays: Shaped[Any, "row ..."], rows: int | None = None) -> Stream:
        """Return a stream of arrays of one length, such as memory-mapped ones, as chunks.

        Each chunk is a view. `rows`: how many each has; None: 2²⁰ numbers or so.

        ```python
        import emjax, numpy as np

        x = np.memmap("x.f4", np.float32, "w+", shape=(1000, 8))  # or np.load(…, mmap_mode="r")
        stream = emjax.Stream.of(x, rows=100)
        ```
        """
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) != 1:
            raise ValueError(f"Stream.of takes arrays of one length, not of {lengths or 'none'}.")
        numbers_in_row = sum(int(np.prod(np.shape(array)[1:])) for array in arrays)
        rows = rows or max(NUMBERS_IN_A_CHUNK // max(numbers_in_row, 1), 1)

        def chunks():
            for start in range(0, lengths[0], rows):
                yield tuple(array[start : start + rows] for array in arrays)

        return cls(chunks)

    def __repr__(self) -> str:
        if self._numbers is None:
            return self._name
        num_chunks, num_rows = self._numbers
        return f"{self._name[:-1]}, {num_chunks} chunks, {num_rows} rows)"

    def __iter__(self) -> Iterator[Part]:
        """Yield the chunks as parts."""
        num_chunks = num_rows = 0
        for part, rows in self._parts():
            num_chunks, num_rows = num_chunks + 1, num_rows + rows
            if self._numbers is not None and num_rows > self._numbers[1]:
                raise ValueError(self._differs(num_rows, "or more "))
            yield part
        if self._numbers is None and num_rows == 0:
            raise ValueError("The stream yields no data: its iterator ended before the first row.")
        if self._numbers is None:
            self._numbers = num_chunks, num_rows
        if num_rows != self._numbers[1]:
            raise ValueError(self._differs(num_rows))

    def _differs(self, num_rows: int, or_more: str = "") -> str:
        assert self._numbers is not None
        return (
            f"The stream had {self._numbers[1]} rows when it was first read, and {num_rows} "
            f"{or_more}when it was read again: EM needs the same chunks each time. A function that "
            "is given to emjax.Stream returns a new iterator, from the first chunk, at each call."
        )

    def _parts(self) -> Iterator[tuple[Part, int]]:
        """Yield the parts, and how many rows each has."""
        if self._rows is None:
            yield from self._chunks()
            return
        for part in rechunked(self._chunks(), self._rows):
            yield part, _num_rows(part)

    def _chunks(self) -> Iterator[tuple[Part, int]]:
        """Yield the chunks as they are, and how many rows each has."""
        form = None
        for number, chunk in enumerate(self._restart()):
            part = part_of(chunk, number)
            form = Form.of(part) if form is None else form
            form.check(part, number)
            is_whole = isinstance(chunk, Part) and self._rows is None
            if part.counts and not is_whole:
                raise ValueError(
                    f"Chunk {number} of the stream counts the elements of plates, so that its rows "
                    "belong together: leave out rows=, and cut it where it is made."
                )
            num_rows = _num_rows(part) if is_whole else length_of(part, number)
            if num_rows == 0 and self._rows is None:
                raise ValueError(
                    f"Chunk {number} of the stream has no rows. Leave out such chunks, or let the "
                    "stream do so: emjax.Stream(chunks, rows=100_000) makes chunks of as many rows."
                )
            yield part, num_rows


def _num_rows(part: Part) -> int:
    if part.counts:
        return sum(part.counts.values())
    return next((len(leaf) for leaf in named_leaves(part).values() if has_rows(leaf)), 0)
