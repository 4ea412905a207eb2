"""Rows of any order, with those of an item side by side: partitioned on a disk by their keys."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize

import jax
import numpy as np

from emjax.sources.by_key import ByKey, key_of
from emjax.sources.chunks import has_rows
from emjax.sources.part import Part

# a hundredth of the data or so has room in memory
NUM_BUCKETS = 128


class Buckets:
    """Rows in temporary files, all rows of an item in one of them.

    They are written once, when they are first read, and deleted when nobody holds this any more.
    """

    def __init__(self, by: ByKey):
        self._by = by
        self._lock = Lock()
        self._folder: Path | None = None
        self._tree: Any = None
        self._shared: list[Any] = []

    def parts(self, parts: Iterable[tuple[Part, int]]) -> Iterator[tuple[Part, int]]:
        """Yield the rows of parts, bucket by bucket, sorted by item within each."""
        # of two threads that read at once, one writes
        with self._lock:
            if self._folder is None:
                self._folder = self._written(parts)
        for number in range(NUM_BUCKETS):
            path = self._folder / str(number)
            if path.exists():
                yield self._sorted(path)

    def _written(self, parts: Iterable[tuple[Part, int]]) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="emjax-by-key-"))
        remove = finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            for part, _ in parts:
                self._write(part, folder)
        except BaseException as error:
            remove()
            if isinstance(error, OSError):
                error.add_note(
                    f"Rows were being sorted by item in {folder}. The variable TMPDIR names "
                    "another place; rows that come sorted by item need none."
                )
            raise
        return folder

    def _write(self, part: Part, folder: Path) -> None:
        """Append the rows of a part to the files of their buckets."""
        leaves, self._tree = jax.tree.flatten((part.args, dict(part.kwargs)))
        self._shared = [None if has_rows(leaf) else leaf for leaf in leaves]
        bucket = bucket_of(key_of(part, self._by))
        order = np.argsort(bucket, kind="stable")
        stops = np.searchsorted(bucket[order], np.arange(NUM_BUCKETS + 1))
        columns = [leaf[order] for leaf in leaves if has_rows(leaf)]
        for number in range(NUM_BUCKETS):
            start, stop = stops[number : number + 2]
            if start == stop:
                continue
            with open(folder / str(number), "ab") as file:
                for column in columns:
                    np.save(file, column[start:stop], allow_pickle=False)

    def _sorted(self, path: Path) -> tuple[Part, int]:
        """Return the rows of a bucket, sorted by item."""
        is_column = [leaf is None for leaf in self._shared]
        pieces, size = [], os.path.getsize(path)
        with open(path, "rb") as file:
            while file.tell() < size:
                pieces.append([np.load(file) for flag in is_column if flag])
        columns = map(np.concatenate, zip(*pieces, strict=True))
        leaves = [next(columns) if leaf is None else leaf for leaf in self._shared]
        part = Part(*jax.tree.unflatten(self._tree, leaves))
        keys = key_of(part, self._by)
        order = np.argsort(keys, kind="stable")
        leaves = [leaf[order] if has_rows(leaf) else leaf for leaf in leaves]
        return Part(*jax.tree.unflatten(self._tree, leaves)), len(keys)


def bucket_of(keys: np.ndarray) -> np.ndarray:
    """Return the bucket of each key, the same in every chunk."""
    if keys.dtype.kind in "iub":
        # Knuth's multiplicative hash: keys that follow one another are apart
        scattered = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (scattered >> np.uint64(40)).astype(np.int64) % NUM_BUCKETS
    distinct, number = np.unique(keys, return_inverse=True)
    buckets = [zlib.crc32(str(key).encode()) % NUM_BUCKETS for key in distinct]
    return np.array(buckets, np.int64)[number]
