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
import jax.core
import numpy as np

from emjax.numerics.arrays import broadcast, in_order, take, transposed
from emjax.numerics.guards import is_key
from emjax.tables.indices import Index, Root


@dataclass(frozen=True)
class Axis:
    """A named axis.

    - `source`: a latent's name (or a latent's name and the number of one element); None for the
      rows of a table.
    - `size`: how many values or rows there are.
    - `index`: which element or row each position reads.
    """

    source: str | tuple[str, int] | None
    size: int
    index: Index

    @property
    def key(self) -> tuple:
        """What identifies it: axes of one key are one axis."""
        return (self.source, self.size, self.index.key)

    @property
    def varies(self) -> tuple[bool, ...]:
        """Along which axes of the value different elements are read."""
        return self.index.varies

    @property
    def is_latent(self) -> bool:
        return self.source is not None

    def placed(self, order: Sequence[int | None]) -> Axis:
        """Return the axis for the value with its own axes in another order."""
        return replace(self, index=self.index.placed(order))

    def fitted(self, rank: int) -> Axis:
        """Return the axis for a value of another rank: trailing axes are cut off or added."""
        present = len(self.varies)
        if present == rank:
            return self
        return self.placed([d if d < present else None for d in range(rank)])


@dataclass(frozen=True)
class Coordinates(Axis):
    """A named axis over the coordinates of one element of a Gaussian latent.

    `source` is the latent's name, `size` the number of coordinates of one element, and `index` says
    which element each position reads. A table with such an axis is linear in that element.
    """


@dataclass(frozen=True, eq=False)
class Named:
    """A value of the program.

    - `array`: the table: one axis for each of `axes`, then the compact ones.
    - `shape`: the value's own.
    - `root`: what identifies the table's content, where that is not the table itself.
    """

    array: Any
    shape: tuple[int, ...]
    axes: tuple[Axis, ...] = ()
    root: Any = None

    @property
    def content(self) -> Any:
        """What identifies the table's content, unit axes aside."""
        return Root(self.array) if self.root is None else self.root

    @property
    def compact(self) -> tuple[int, ...]:
        """The lengths of its own axes in the table: 1 where it does not vary."""
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
        """Return the value with its own axes in this order.

        None is a new unit axis; axes left out must be units.
        """
        lead = len(self.axes)
        after_lead = [None if d is None else lead + d for d in order]
        array = in_order(self.array, [*range(lead), *after_lead])
        shape = tuple(1 if d is None else self.shape[d] for d in order)
        axes = tuple(axis.placed(order) for axis in self.axes)
        # axes that trade places change the order of the entries, and so the content
        varying = [d for d in order if d is not None and self.compact[d] != 1]
        return Named(array, shape, axes, self.content if varying == sorted(varying) else None)

    def padded(self, rank: int) -> Named:
        """Return the value with unit axes on the left, as NumPy broadcasting does."""
        extra = rank - len(self.shape)
        return self.placed([*[None] * extra, *range(len(self.shape))]) if extra else self

    def fitted(self, rank: int) -> Named:
        """Return the value with its named axes laid out over `rank` axes of elements."""
        return replace(self, axes=tuple(axis.fitted(rank) for axis in self.axes))

    def with_event(self, event: int) -> Named:
        """Return the value with unit axes on the right."""
        return self.placed([*range(len(self.shape)), *[None] * event]) if event else self

    @property
    def labels(self) -> list:
        """Labels of the table's axes: keys of the named ones, numbers of its own."""
        return [axis.key for axis in self.axes] + list(range(len(self.shape)))


class MixedElements(Exception):
    """A primitive mixes the elements of a latent: no table over one element can hold its result.

    - `primitive`: its name, or that of a site whose event reads several elements.
    - `index`: of a Gaussian latent, which element each position of a value reads, and `dims`, the
      axes along which these are mixed (None: all).
    - `line`: where the program does so, "" if that is unknown.
    """

    def __init__(self, latent: Any, primitive: str, index: Any = None, dims: Any = None):
        self.latent = latent
        self.primitive = primitive
        self.index, self.dims = index, dims
        self.line = ""
        super().__init__(f"'{primitive}' mixes the elements of the latent '{latent}'.")


def mixed(axis: Axis, value: Named, primitive: str, dims: Sequence[int] | None) -> MixedElements:
    """Return that a primitive mixes elements along axes of a value (None: all), of a named axis."""
    index = axis.index.dense(value.shape) if isinstance(axis, Coordinates) else None
    return MixedElements(axis.source, primitive, index, dims)


def constant(value: Any) -> Named:
    """Return an array as a named value without named axes."""
    # random keys are no numbers for NumPy
    is_array = isinstance(value, jax.core.Tracer) or is_key(value)
    array = value if is_array else np.asarray(value)
    return Named(array, tuple(array.shape))


def has_elements(value: Named) -> bool:
    """Whether a value reads different elements of a latent at different positions."""
    return any(any(axis.varies) for axis in value.latent_axes)


def union(values: Sequence[Named]) -> tuple[Axis, ...]:
    """Return the axes of all values, each once, in order of appearance."""
    # axes of one key read the same elements: they are one axis of the joint table
    return tuple({axis.key: axis for value in values for axis in value.axes}.values())


def varying_dims(axes: Sequence[Axis], rank: int) -> tuple[int, ...]:
    """Return along which of a value's own axes some of its named axes read different elements."""
    dims: set[int] = set()
    for axis in axes:
        dims.update(d for d in range(rank) if axis.varies[d])
    return tuple(sorted(dims))


def spread(value: Named, axes: Sequence[Axis], rank: int | None = None) -> Any:
    """Return the table with `axes` in this order, of length 1 where absent.

    So tables of different named axes broadcast; `Named.placed` is for the value's own axes.
    Its own axes are padded on the left to `rank`.
    """
    rank = len(value.shape) if rank is None else rank
    position = {axis.key: i for i, axis in enumerate(value.axes)}
    present = [position[axis.key] for axis in axes if axis.key in position]
    lead = len(value.axes)
    array = transposed(value.array, [*present, *range(lead, value.array.ndim)])
    sizes = [axis.size if axis.key in position else 1 for axis in axes]
    return array.reshape((*sizes, *(1,) * (rank - len(value.shape)), *value.compact))


def table_and_labels(value: Named) -> tuple[Any, list]:
    """Return a table without the unit axes among its own, and the labels of the others."""
    labels, sizes = [], []
    for label, size in zip(value.labels, value.array.shape, strict=True):
        if size != 1 or not isinstance(label, int):
            labels.append(label)
            sizes.append(size)
    return value.array.reshape(sizes), labels


def without_rows(value: Named, which: Sequence[Axis] | None = None) -> Named:
    """Return the value with its row axes (or those of `which`) read out.

    It then has one entry for each position instead of one for each row.
    """
    rows = value.row_axes if which is None else which
    if not rows:
        return value
    picks = {}
    for axis in rows:
        index = Named(axis.index.dense(value.shape), value.shape)
        picks[axis.key] = table_and_labels(index)
    kept = tuple(axis for axis in value.axes if axis.key not in picks)
    out = [axis.key for axis in kept] + list(range(len(value.shape)))
    return Named(take(*table_and_labels(value), picks, out), value.shape, kept)


def full(value: Named, dims: Sequence[int] | None = None) -> Any:
    """Return the table with its own axes `dims` (all by default) at their full length."""
    lead = len(value.axes)
    shape = list(value.array.shape)
    for dim in range(len(value.shape)) if dims is None else dims:
        shape[lead + dim] = value.shape[dim]
    return broadcast(value.array, shape)
