"""Rows of a stream that stand for all of it: a uniform sample, whatever its length."""

from __future__ import annotations

from collections.abc import Sequence

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

    def add(self, part: Part, along: Sequence[int | None]) -> None:
        """Take rows of a part into the sample.

        `along`: for each leaf, the axis that its rows lie along; None: it has none.
        """
        if part.counts:
            self._part = part if self._part is None else self._part
            return
        leaves, tree = jax.tree.flatten((part.args, dict(part.kwargs)))
        pairs = zip(leaves, along, strict=True)
        length = next(leaf.shape[axis] for leaf, axis in pairs if axis is not None)
        # of the rows beyond the room, row i of all takes a place that is uniform on 0 … i
        number = self._seen + np.arange(length)
        place = np.where(number < self._size, number, self._rng.integers(0, number + 1))
        is_late = (number >= self._size) & (place < self._size)
        kept = [None] * len(leaves)
        if self._part is not None:
            kept = jax.tree.leaves((self._part.args, self._part.kwargs))
        after = []
        for before, leaf, axis in zip(kept, leaves, along, strict=True):
            if axis is None:
                after.append(leaf)
                continue
            leaf = np.asarray(leaf)
            rows = leaf.take(np.flatnonzero(number < self._size), axis)
            rows = rows if before is None else np.concatenate([before, rows], axis)
            if is_late.any():
                # a view with the rows in front
                np.moveaxis(rows, axis, 0)[place[is_late]] = np.moveaxis(leaf, axis, 0)[is_late]
            after.append(rows)
        self._seen += length
        self._part = Part(*jax.tree.unflatten(tree, after))

    @property
    def part(self) -> Part:
        """The sample, as a part."""
        assert self._part is not None
        return self._part
