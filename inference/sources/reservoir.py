"""Rows of a stream that stand for all of it: a uniform sample, whatever its length."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from emjax.sources.part import Part


class Reservoir:
    """A uniform sample of the rows of parts that are added one after another.

    Of parts whose elements are counted, whole parts are kept, the first ones: rows of several
    plates belong together. Source: Vitter (1985), algorithm R.
    """

    def __init__(self, size: int, seed: int):
        self._size, self._rng = size, np.random.default_rng(seed)
        self._part: Part | None = None
        self._seen = 0

    def add(self, part: Part, has_rows: Any) -> None:
        """Take rows of a part into the sample. `has_rows`: for each leaf, whether it has rows."""
        leaves, tree = jax.tree.flatten((part.args, dict(part.kwargs)))
        if part.counts:
            self._part = part if self._part is None else self._part
            return
        length = next(len(leaf) for leaf, has in zip(leaves, has_rows, strict=True) if has)
        kept = [] if self._part is None else jax.tree.leaves((self._part.args, self._part.kwargs))
        room = max(self._size - self._seen, 0)
        after = []
        # of the rows beyond the room, row i of all takes a place that is uniform on 0 … i
        number = self._seen + np.arange(length)
        place = np.where(number < self._size, number, self._rng.integers(0, number + 1))
        is_taken = place < self._size
        for leaf_number, (leaf, has) in enumerate(zip(leaves, has_rows, strict=True)):
            if not has:
                after.append(leaf)
                continue
            first = np.asarray(leaf[:room])
            rows = first if not kept else np.concatenate([kept[leaf_number], first])
            late = is_taken & (number >= self._size)
            if late.any():
                rows = np.array(rows)
                rows[place[late]] = np.asarray(leaf)[late]
            after.append(rows)
        self._seen += length
        args, kwargs = jax.tree.unflatten(tree, after)
        self._part = Part(args, kwargs)

    @property
    def part(self) -> Part:
        """The sample, as a part."""
        assert self._part is not None
        return self._part
