"""Minibatches: some rows of a part at a time, in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from emjax.sources.part import Part, Parts


class InMemory(Parts):
    """Data in memory, as one part."""

    def __init__(self, part: Part):
        self._part = part

    def __iter__(self) -> Iterator[Part]:
        yield self._part


def batches(
    part: Part, along: Sequence[int | None], size: int, rng: np.random.Generator
) -> Iterator[tuple[Part, int]]:
    """Yield batches of a part's rows in random order, and how many rows each has.

    - `along`: for each leaf of its arguments the axis that its rows lie along; None: it has none.
    - `size`: how many rows a batch has; one of them may have fewer.

    A part whose elements are counted is one batch: rows of several plates belong together.
    """
    leaves, tree = jax.tree.flatten((part.args, dict(part.kwargs)))
    pairs = [(leaf, axis) for leaf, axis in zip(leaves, along, strict=True) if axis is not None]
    length = pairs[0][0].shape[pairs[0][1]] if pairs else 0
    if part.counts:
        yield part, next(iter(part.counts.values()))
        return
    # rows that come one after another may be alike: a batch is to be like all of them
    order = rng.permutation(length)
    for start in range(0, length, size):
        rows = order[start : start + size]
        batch = []
        for leaf, axis in zip(leaves, along, strict=True):
            batch.append(leaf if axis is None else np.asarray(leaf).take(rows, axis))
        yield Part(*jax.tree.unflatten(tree, batch)), len(rows)
