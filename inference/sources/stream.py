"""Data in chunks that are read as often as they are needed: what `emjax.Stream` is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from emjax.sources.chunks import Form, has_rows, length_of, named_leaves, part_of
from emjax.sources.parquet import Columns, scanned
from emjax.sources.part import Part, Parts
from emjax.sources.read_ahead import read_ahead
from emjax.sources.rechunked import rechunked
from emjax.sources.restarts import numbered, restarted

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
    - `read_ahead`: how many chunks a thread has ready, copies, while one is computed with.

    A chunk should take longer than a call does, which some 100,000 numbers do. All are padded to
    the longest, with rows that count nothing. A dataset of Hugging Face is read in batches of
    `rows`.

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

    def __init__(self, chunks: Any, *, rows: int | None = None, read_ahead: int = 1):
        if rows is not None and (not isinstance(rows, int) or rows < 1):
            raise ValueError(f"A chunk has rows=1 or more, not {rows!r}.")
        if not isinstance(read_ahead, int) or read_ahead < 0:
            raise ValueError(f"A thread reads read_ahead=0 or more chunks, not {read_ahead!r}.")
        self._restart = restarted(chunks, rows)
        self._rows, self._read_ahead = rows, read_ahead
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

        # views need no thread: what is on a disk is read when they are
        return cls(chunks, read_ahead=0)

    @classmethod
    def parquet(
        cls,
        source: Any,
        columns: Columns = None,
        *,
        rows: int | None = None,
        dtype: Any = None,
        read_ahead: int = 1,
    ) -> Stream:
        """Return a stream of columns of Parquet files, or of any dataset of pyarrow's.

        - `source`: a path, a folder, several paths, or a `pyarrow.dataset.Dataset`, filtered, say.
        - `columns`: names of columns, side by side: the first argument, (row, column); one name: an
          array (row,); {argument: such}: named arguments of the program; None: all columns.
        - `rows`: of each chunk, whatever the file's row groups; None: 2²⁰ numbers or so.
        - `dtype`: of all arrays; None: what the columns are of. What is missing is NaN.

        Errors: `ImportError` without pyarrow; `ValueError` for a file that is not Parquet or was
        cut short, for columns that are not there or hold no numbers, and for whole numbers of which
        some are missing, unless `dtype=float`.

        ```python
        import emjax, pyarrow as pa, pyarrow.parquet as pq

        pq.write_table(pa.table({"height": [1.8, 1.6], "weight": [80.0, None]}), "people.parquet")
        stream = emjax.Stream.parquet("people.parquet", ["height", "weight"])
        ```
        """
        chunks = scanned(source, columns, rows, NUMBERS_IN_A_CHUNK, dtype)
        return cls(chunks, read_ahead=read_ahead)

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
        if self._read_ahead == 0:
            yield from self._made()
            return
        # a loader may fill its arrays again once it is asked for the next
        yield from read_ahead(lambda: map(_copied, self._made()), self._read_ahead)

    def _made(self) -> Iterator[tuple[Part, int]]:
        if self._rows is None:
            yield from self._chunks()
            return
        for part in rechunked(self._chunks(), self._rows):
            yield part, _num_rows(part)

    def _chunks(self) -> Iterator[tuple[Part, int]]:
        """Yield the chunks as they are, and how many rows each has."""
        form = None
        for number, chunk in enumerate(numbered(self._restart)):
            part = part_of(chunk, number)
            form = Form.of(part) if form is None else form
            form.check(part, number)
            if part.counts and self._rows is not None:
                raise ValueError(
                    f"Chunk {number} of the stream counts the elements of plates, so that its rows "
                    "belong together: leave out rows=, and cut it where it is made."
                )
            is_whole = isinstance(chunk, Part) and self._rows is None
            num_rows = _num_rows(part) if is_whole else length_of(part, number)
            if num_rows == 0 and self._rows is None:
                raise ValueError(
                    f"Chunk {number} of the stream has no rows. Leave out such chunks, or let the "
                    "stream do so: emjax.Stream(chunks, rows=100_000) makes chunks of as many rows."
                )
            yield part, num_rows


def _copied(numbered: tuple[Part, int]) -> tuple[Part, int]:
    part, num_rows = numbered

    def copy(leaf):
        return np.array(leaf) if has_rows(leaf) else leaf

    args, kwargs = jax.tree.map(copy, (part.args, dict(part.kwargs)))
    return Part(args, kwargs, part.counts), num_rows


def _num_rows(part: Part) -> int:
    if part.counts:
        return sum(part.counts.values())
    return next((len(leaf) for leaf in named_leaves(part).values() if has_rows(leaf)), 0)
