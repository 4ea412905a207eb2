"""Compact named values: what a program's arrays look like while its latents are still symbols.

A value of the program, of shape (s₁ … s_d), is kept as a table

    value[i₁ … i_d] = table[a(i), …, i₁ or 0, …, i_d or 0]

whose leading axes are *named*: each stands for the value of a latent, or for a row of a table that
data picks. At position i a named axis reads the latent element, or the row, that its `index` gives.
The other axes are the program's own, of length 1 where the value does not vary. `loc[component]`
for a million rows is thus the table `loc` with its first axis renamed, and an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from emjax.numerics.arrays import broadcast, in_order, take, transposed
from emjax.numerics.guards import is_key
from emjax.tables.indices import Index, Root


@dataclass(frozen=True)
class Axis:
    """A named axis: `source` is a latent's name (or a latent's name and the number of one element),
    or None for the rows of a table; `index` says which element or row each position reads.
    """

    source: str | tuple[str, int] | None
    size: int
    index: Index

    @property
    def key(self):
        return (self.source, self.size, self.index.key)

    @property
    def varies(self) -> tuple[bool, ...]:
        return self.index.varies

    @property
    def is_latent(self) -> bool:
        return self.source is not None

    def placed(self, order: Sequence[int | None]) -> Axis:
        return replace(self, index=self.index.placed(order))

    def fitted(self, rank: int) -> Axis:
        """Return the axis for a value of another rank: trailing axes are cut off or added."""
        own = len(self.index.varies)
        return self.placed([d if d < own else None for d in range(rank)])


@dataclass(frozen=True, eq=False)
class Named:
    """A value of the program of shape `shape`; `array` has one axis for each of `axes`, then the
    compact ones.
    """

    array: Any
    shape: tuple[int, ...]
    axes: tuple[Axis, ...] = ()
    root: Any = None

    @property
    def content(self):
        """What identifies the table's content, unit axes aside."""
        return Root(self.array) if self.root is None else self.root

    @property
    def compact(self) -> tuple[int, ...]:
        return tuple(self.array.shape[len(self.axes) :])

    @property
    def latent_axes(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if axis.is_latent)

    @property
    def row_axes(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if not axis.is_latent)

    @property
    def is_static(self) -> bool:
        """Whether the table is known before any data or parameter is seen."""
        return isinstance(self.array, np.ndarray)

    def placed(self, order: Sequence[int | None]) -> Named:
        """Return the value with its own axes in this order: None is a new unit axis; axes left out
        must be units.
        """
        lead = len(self.axes)
        array = in_order(
            self.array, [*range(lead), *(None if d is None else lead + d for d in order)]
        )
        kept = [d for d in order if d is not None and self.compact[d] != 1]
        shape = tuple(1 if d is None else self.shape[d] for d in order)
        return Named(
            array,
            shape,
            tuple(axis.placed(order) for axis in self.axes),
            self.content if kept == sorted(kept) else None,
        )

    def padded(self, rank: int) -> Named:
        """Return the value with unit axes on the left, as NumPy broadcasting does."""
        extra = rank - len(self.shape)
        return self.placed([None] * extra + list(range(len(self.shape)))) if extra else self

    def with_event(self, event: int) -> Named:
        """Return the value with unit axes on the right."""
        return self.placed([*range(len(self.shape)), *[None] * event]) if event else self

    @property
    def labels(self) -> list:
        return [axis.key for axis in self.axes] + list(range(len(self.shape)))


def constant(value) -> Named:
    array = value if isinstance(value, jax.core.Tracer) or is_key(value) else np.asarray(value)
    return Named(array, tuple(array.shape))


def union(values: Sequence[Named]) -> tuple[Axis, ...]:
    """Return the axes of all values, each once, in order of appearance."""
    return tuple({axis.key: axis for value in values for axis in value.axes}.values())


def spread(value: Named, axes: Sequence[Axis], rank: int | None = None) -> Any:
    """Return the table with `axes` in this order (length 1 where absent), padded on the left to
    `rank`.
    """
    rank = len(value.shape) if rank is None else rank
    position = {axis.key: i for i, axis in enumerate(value.axes)}
    present = [position[axis.key] for axis in axes if axis.key in position]
    lead = len(value.axes)
    array = value.array
    order = present + list(range(lead, array.ndim))
    if order != list(range(array.ndim)):
        array = transposed(array, order)
    sizes = [axis.size if axis.key in position else 1 for axis in axes]
    return array.reshape((*sizes, *(1,) * (rank - len(value.shape)), *value.compact))


def table_and_labels(value: Named) -> tuple[Any, list]:
    """Return a table without its unit positional axes, and the labels of the others."""
    kept = [
        (label, size)
        for label, size in zip(value.labels, value.array.shape, strict=True)
        if not (isinstance(label, int) and size == 1)
    ]
    return value.array.reshape([size for _, size in kept]), [label for label, _ in kept]


def without_rows(value: Named, which: Sequence[Axis] | None = None) -> Named:
    """Return the value with its row axes read out: one entry for each position instead of one for
    each row.
    """
    rows = value.row_axes if which is None else which
    if not rows:
        return value
    gone = {axis.key for axis in rows}
    kept = tuple(axis for axis in value.axes if axis.key not in gone)
    picks = {
        axis.key: table_and_labels(Named(axis.index.dense(value.shape), value.shape))
        for axis in rows
    }
    out = [axis.key for axis in kept] + list(range(len(value.shape)))
    return Named(take(*table_and_labels(value), picks, out), value.shape, kept)


def full(value: Named, dims: Sequence[int] | None = None):
    """Return the table with the positional axes `dims` (all by default) at their full length."""
    lead = len(value.axes)
    dims = range(len(value.shape)) if dims is None else dims
    shape = list(value.array.shape)
    for dim in dims:
        shape[lead + dim] = value.shape[dim]
    if tuple(shape) == tuple(value.array.shape):
        return value.array
    return broadcast(value.array, tuple(shape))
