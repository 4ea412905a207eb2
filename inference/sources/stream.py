"""Data in chunks that are read as often as they are needed: what `emjax.Stream` is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from emjax.sources.buckets import Buckets
from emjax.sources.by_key import NUMBERS_IN_A_PART, ByKey, ItemPart, item_parts
from emjax.sources.chunks import Form, has_rows, length_of, named_leaves, part_of
from emjax.sources.parquet import Columns, scanned
from emjax.sources.part import Part, Parts
from emjax.sources.read_ahead import read_ahead
from emjax.sources.rechunked import rechunked
from emjax.sources.restarts import numbered, restarted


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
        self._by: ByKey | None = None
        self._buckets: Buckets | None = None

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
        rows = rows or max(NUMBERS_IN_A_PART // max(numbers_in_row, 1), 1)

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
        chunks = scanned(source, columns, rows, NUMBERS_IN_A_PART, dtype)
        return cls(chunks, read_ahead=read_ahead)

    @classmethod
    def by_key(
        cls,
        chunks: Any,
        *,
        key: int | str,
        items: str,
        rows: str,
        num_items: str = "num_items",
        most_items: int | None = None,
        most_rows: int | None = None,
        sort: bool = False,
        read_ahead: int = 1,
    ) -> Stream:
        """Return a stream of rows that belong to items, all rows of an item in one chunk.

        Chunks are cut anew, so that the latents of items stay local; keys, integers or strings,
        become numbers of the chunk's items, 0 … m − 1.

        - `chunks`: as of `Stream`, or a `Stream`. Rows come sorted by key.
        - `key`: the argument that says of which item a row is: its place in a tuple, or its name in
          a dictionary.
        - `items`, `rows`: the names of the program's plates of items and of rows.
        - `num_items`: what the program calls the number of items; in place of it, a tuple has it as
          its last argument. It is the same in every chunk: those beyond its own count nothing.
        - `most_items`, `most_rows`: of a chunk; None: 2²⁰ numbers, and as many items as they have.
        - `sort`: whether rows come in any order: they are partitioned, once, into temporary files.

        `keys` says which items those of a chunk are. Errors: `ValueError` for a key that comes
        after a larger one, unless sorted here, and for an item with more than `most_rows`.

        ```python
        import emjax, numpy as np

        item, rating = np.array([3, 3, 5, 5, 5, 8]), np.array([0, 1, 1, 1, 0, 1])
        chunks = [(item[:4], rating[:4]), (item[4:], rating[4:])]
        stream = emjax.Stream.by_key(chunks, key=0, items="items", rows="ratings")
        (keys,) = stream.keys  # [3, 5, 8]
        ```
        """
        stream = cls(chunks, read_ahead=read_ahead)
        stream._by = ByKey(key, items, rows, num_items, most_items, most_rows, not sort)
        stream._buckets = Buckets(stream._by) if sort else None
        return stream

    @property
    def keys(self) -> Iterator[np.ndarray]:
        """The keys of the items of one chunk after another, of a stream that is cut by key."""
        if self._by is None:
            raise ValueError(
                "Only of a stream that is cut by key are there keys: emjax.Stream.by_key(chunks, "
                "key='item', items='items', rows='rows')."
            )
        for part in self._item_parts(self._by):
            yield part.keys

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
        if self._by is not None:
            for part, num_rows, _ in self._item_parts(self._by):
                yield part, num_rows
            return
        if self._rows is None:
            yield from self._chunks()
            return
        for part in rechunked(self._chunks(), self._rows):
            yield part, _num_rows(part)

    def _item_parts(self, by: ByKey) -> Iterator[ItemPart]:
        chunks = self._chunks()
        yield from item_parts(self._buckets.parts(chunks) if self._buckets else chunks, by)

    def _chunks(self) -> Iterator[tuple[Part, int]]:
        """Yield the chunks as they are, and how many rows each has."""
        form = None
        for number, chunk in enumerate(numbered(self._restart)):
            part = part_of(chunk, number, None if self._by is None else self._by.key)
            form = Form.of(part) if form is None else form
            form.check(part, number)
            if part.counts and (self._rows or self._by):
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
