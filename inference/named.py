"""Compact named values: what a program's arrays look like while its latents are still symbols.

A value of the program, of shape (s₁ … s_d), is kept as a table

    value[i₁ … i_d] = table[a(i), …, i₁ or 0, …, i_d or 0]

whose leading axes are *named*: each stands for the value of a latent, or for a row of a table that data
picks. At position i a named axis reads the latent element, or the row, that its `index` gives. The other
axes are the program's own, of length 1 where the value does not vary. `loc[component]` for a million rows
is thus the table `loc` with its first axis renamed, and an index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def in_order(array, order: Sequence[int | None]):
    """Return the array with its axes in this order: None is a new unit axis; axes left out are units."""
    used = [d for d in order if d is not None]
    rest = [d for d in range(array.ndim) if d not in used]
    if used + rest != list(range(array.ndim)):
        array = transposed(array, used + rest)
    sizes = iter(array.shape[: len(used)])
    return array.reshape([1 if d is None else next(sizes) for d in order])


@dataclass(frozen=True)
class Affine:
    """The index offset + Σ_d strides[d] · i_d, known before any data is seen."""

    offset: int
    strides: tuple[int, ...]

    @property
    def is_known(self) -> bool:
        """Whether it is known before any data is seen."""
        return True

    @property
    def varies(self) -> tuple[bool, ...]:
        return tuple(stride != 0 for stride in self.strides)

    @property
    def key(self):
        return ("affine", self.offset, self.strides)

    def placed(self, order: Sequence[int | None]) -> Affine:
        """Return the index with its axes in this order: None is a new axis, along which it does not vary."""
        return Affine(self.offset, tuple(0 if d is None else self.strides[d] for d in order))

    def dense(self, shape: Sequence[int]) -> np.ndarray:
        """Return the index as an array, of length 1 along axes that it does not vary along."""
        total = np.full((1,) * len(shape), self.offset, dtype=np.int32)
        for axis, (stride, size) in enumerate(zip(self.strides, shape, strict=True)):
            if stride:
                steps = np.arange(size, dtype=np.int32) * stride
                total = total + steps.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return total


@dataclass(frozen=True, eq=False)
class Dense:
    """An index held as an integer array, of length 1 along axes that it does not vary along.

    It is a composition of maps: the last of `maps` reads a number at every position, each of the others maps numbers to
    numbers, the first to elements. Indices of equal maps and equal shapes are equal. `partial[k]` is the composition of
    the first k + 1 maps as an array of one axis, for every k but the last.
    """

    array: Any
    maps: tuple[Root, ...]
    partial: tuple[Any, ...] = ()

    @staticmethod
    def of(array) -> Dense:
        """Return an array as an index of one map."""
        return Dense(array, (Root(array),))

    @property
    def is_known(self) -> bool:
        """Whether it is known before any data is seen."""
        return isinstance(self.array, np.ndarray)

    @property
    def varies(self) -> tuple[bool, ...]:
        return tuple(size != 1 for size in self.array.shape)

    @property
    def key(self):
        return ("dense", self.maps, tuple(self.array.shape))

    def placed(self, order: Sequence[int | None]) -> Dense:
        """Return the index with its axes in this order: None is a new axis; axes left out must not vary."""
        array = in_order(self.array, order)
        kept = [d for d in order if d is not None and self.array.shape[d] != 1]
        return replace(self, array=array) if kept == sorted(kept) else Dense.of(array)

    def dense(self, shape: Sequence[int]):
        return self.array

    def with_arrays(self, function: Callable) -> Dense:
        """Return the index with a function applied to its arrays; its maps still identify it."""
        return replace(self, array=function(self.array), partial=tuple(map(function, self.partial)))

    def before(self, inner: Dense) -> Dense | None:
        """Return the index `outer` of one axis for which this one is outer ∘ inner, if its maps end with those of `inner`."""
        count = len(self.maps) - len(inner.maps)
        if count < 1 or self.maps[count:] != inner.maps or self.array.shape != inner.array.shape:
            return None
        return Dense(self.partial[count - 1], self.maps[:count], self.partial[: count - 1])


Index = Affine | Dense


def composed(outer: Index, size: int, inner: Dense, array) -> Dense:
    """Return outer ∘ inner. `outer` has one axis, of length `size`; `array` holds what the composition reads."""
    table = outer.dense((size,))
    if isinstance(table, np.ndarray) and np.array_equal(table, np.arange(size)):
        return replace(inner, array=array)
    first = outer if isinstance(outer, Dense) else Dense.of(table)
    rest = [take(table, ["number"], {"number": (one, [0])}, [0]) for one in inner.partial]
    return Dense(array, first.maps + inner.maps, (*first.partial, table, *rest))


@dataclass(frozen=True, eq=False)
class Root:
    """The identity of an array's content: known arrays compare by value, traced ones by identity."""

    array: Any

    def __eq__(self, other):
        if not isinstance(other, Root):
            return False
        if isinstance(self.array, np.ndarray) and isinstance(other.array, np.ndarray):
            return np.array_equal(self.array.ravel(), other.array.ravel())
        return self.array is other.array

    def __hash__(self):
        return hash(self.array.size) if isinstance(self.array, np.ndarray) else id(self.array)


@dataclass(frozen=True)
class Axis:
    """A named axis: `source` is a latent's name (or a latent's name and the number of one element), or None for the
    rows of a table; `index` says which element or row each position reads."""

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
    """A value of the program of shape `shape`; `array` has one axis for each of `axes`, then the compact ones."""

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
        return tuple(self.array.shape[len(self.axes):])

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
        """Return the value with its own axes in this order: None is a new unit axis; axes left out must be units."""
        lead = len(self.axes)
        array = in_order(self.array, [*range(lead), *(None if d is None else lead + d for d in order)])
        kept = [d for d in order if d is not None and self.compact[d] != 1]
        shape = tuple(1 if d is None else self.shape[d] for d in order)
        return Named(array, shape, tuple(axis.placed(order) for axis in self.axes), self.content if kept == sorted(kept) else None)

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
    array = value if isinstance(value, jax.core.Tracer) else np.asarray(value)
    return Named(array, tuple(array.shape))


def transposed(array, axes: Sequence[int]):
    """Return the array with its axes in another order; a known array stays known."""
    if list(axes) == list(range(array.ndim)):
        return array
    return (np if isinstance(array, np.ndarray) else jnp).transpose(array, axes)


def broadcast(array, shape: Sequence[int]):
    """Return the array broadcast to a shape; a known array stays known."""
    if tuple(array.shape) == tuple(shape):
        return array
    return (np if isinstance(array, np.ndarray) else jnp).broadcast_to(array, tuple(shape))


def concatenated(arrays: Sequence, axis: int):
    """Return the arrays joined along an axis; known arrays stay known."""
    return (np if all(isinstance(array, np.ndarray) for array in arrays) else jnp).concatenate(arrays, axis=axis)


def evaluate(function: Callable, *arrays, **settings):
    """Apply a JAX function at once where every array is known, else as part of the trace."""
    if all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        with jax.ensure_compile_time_eval():
            return jax.tree.map(_as_known, function(*arrays, **settings))
    return function(*arrays, **settings)


def _as_known(array):
    return array if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key) else np.asarray(array)


def union(values: Sequence[Named]) -> tuple[Axis, ...]:
    """Return the axes of all values, each once, in order of appearance."""
    return tuple({axis.key: axis for value in values for axis in value.axes}.values())


def spread(value: Named, axes: Sequence[Axis], rank: int | None = None) -> Any:
    """Return the table with `axes` in this order (length 1 where absent), padded on the left to `rank`."""
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


def take(array, labels: list, picks: dict, out: list):
    """Index an array by labeled axes: axis `l` in `picks` is read at `picks[l] = (index array, its labels)`.

    A label that an index array shares with the array runs along both (a diagonal). The result has the axes
    `out`, of length 1 where the label is gone.
    """
    running = list(dict.fromkeys(label for _, index_labels in picks.values() for label in index_labels))
    picked = [label for label in labels if label in picks or label in running]
    rest = [label for label in labels if label not in picked]
    sizes: dict = {}
    for index, index_labels in picks.values():
        for label, size in zip(index_labels, index.shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    for label in picked:
        if label in running:
            sizes[label] = max(sizes[label], array.shape[labels.index(label)])

    def place(index, index_labels):
        order = sorted(range(len(index_labels)), key=lambda i: running.index(index_labels[i]))
        index = transposed(index, order)
        shape = dict(zip((index_labels[i] for i in order), index.shape, strict=True))
        return index.reshape([shape.get(label, 1) for label in running])

    indices = []
    for label in picked:
        if label in picks:
            indices.append(place(*picks[label]))
        else:
            size = array.shape[labels.index(label)]
            indices.append(place(np.arange(size, dtype=np.int32) if size > 1 else np.zeros(1, np.int32), [label]))
    array = transposed(array, [labels.index(label) for label in picked + rest])
    if indices and all(isinstance(a, np.ndarray) for a in (array, *indices)):
        array = array[tuple(indices)]
    elif indices:  # all in one index: XLA reads and adds up rows of a matrix faster than cells of a table
        sizes = array.shape[: len(indices)]
        flat = sum(index * math.prod(sizes[i + 1:]) for i, index in enumerate(indices))
        array = jnp.asarray(array).reshape(-1, *array.shape[len(indices):])
        array = array.at[jnp.asarray(flat)].get(mode="promise_in_bounds", wrap_negative_indices=False)
    current = running + rest
    order = [current.index(label) for label in out if label in current]
    shape = dict(zip(current, array.shape, strict=True))
    array = transposed(array, order)
    return array.reshape([shape.get(label, 1) for label in out])


def labeled(value: Named) -> tuple[Any, list]:
    """Return a table without its unit positional axes, and the labels of the others."""
    kept = [(label, size) for label, size in zip(value.labels, value.array.shape, strict=True) if not (isinstance(label, int) and size == 1)]
    return value.array.reshape([size for _, size in kept]), [label for label, _ in kept]


def without_rows(value: Named, which: Sequence[Axis] | None = None) -> Named:
    """Return the value with its row axes read out: one entry for each position instead of one for each row."""
    rows = value.row_axes if which is None else which
    if not rows:
        return value
    gone = {axis.key for axis in rows}
    kept = tuple(axis for axis in value.axes if axis.key not in gone)
    picks = {axis.key: labeled(Named(axis.index.dense(value.shape), value.shape)) for axis in rows}
    out = [axis.key for axis in kept] + list(range(len(value.shape)))
    return Named(take(*labeled(value), picks, out), value.shape, kept)


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
