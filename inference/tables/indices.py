"""Which element of a latent, or which row of a table, does each position read?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import in_order, take


@dataclass(frozen=True, eq=False)
class Root:
    """What identifies an array's content: of known ones the values, of traced ones the object."""

    array: Any

    def __eq__(self, other):
        if not isinstance(other, Root):
            return False
        if isinstance(self.array, np.ndarray) and isinstance(other.array, np.ndarray):
            # two literals of the program are different objects of equal content; unit axes do not
            # matter
            return np.array_equal(self.array.ravel(), other.array.ravel())
        return self.array is other.array

    def __hash__(self):
        return hash(self.array.size) if isinstance(self.array, np.ndarray) else id(self.array)


@dataclass(frozen=True)
class Affine:
    """The index offset + Σ_d strides[d] · i_d of position i, known before any data is seen."""

    offset: int
    strides: tuple[int, ...]

    @staticmethod
    def identity(shape: Sequence[int]) -> Affine:
        """Return the index that numbers the elements of an array in order."""
        # along an axis of length 1 there is nothing to step over
        strides = [math.prod(shape[d + 1 :]) if size > 1 else 0 for d, size in enumerate(shape)]
        return Affine(0, tuple(strides))

    @property
    def is_static(self) -> bool:
        """Whether it is known before any data is seen."""
        return True

    @property
    def varies(self) -> tuple[bool, ...]:
        return tuple(stride != 0 for stride in self.strides)

    @property
    def key(self) -> tuple:
        return ("affine", self.offset, self.strides)

    def placed(self, order: Sequence[int | None]) -> Affine:
        """Return the index with its axes in this order; it does not vary along a new one, None."""
        return Affine(self.offset, tuple(0 if d is None else self.strides[d] for d in order))

    def dense(self, shape: Sequence[int]) -> np.ndarray:
        """Return the index as an array, of length 1 along axes that it does not vary along."""
        return self._counted(shape, np.arange)

    def computed(self, shape: Sequence[int]) -> Any:
        """Return the same, counted where the program runs: no constant of it is as long as data."""
        return self._counted(shape, jnp.arange)

    def _counted(self, shape: Sequence[int], arange: Callable) -> Any:
        index = np.full((1,) * len(shape), self.offset, dtype=np.int32)
        for axis, (stride, size) in enumerate(zip(self.strides, shape, strict=True)):
            if stride:
                along = [1] * len(shape)
                along[axis] = size
                index = index + (arange(size, dtype=np.int32) * stride).reshape(along)
        return index


@dataclass(frozen=True, eq=False)
class Dense:
    """An index held as an integer array, of length 1 along axes that it does not vary along.

    It is a composition of maps: the last reads a number at every position, each of the others maps
    numbers to numbers, the first to elements.

    - `maps`: what identifies each. Indices of equal maps and equal shapes are equal.
    - `partial`: for every k but the last, the composition of the first k + 1 maps as an array of
      one axis.
    """

    array: Any
    maps: tuple[Root, ...]
    partial: tuple[Any, ...] = ()

    @staticmethod
    def of(array: Any) -> Dense:
        """Return an array as an index of one map."""
        return Dense(array, (Root(array),))

    @property
    def is_static(self) -> bool:
        """Whether it is known before any data is seen."""
        return isinstance(self.array, np.ndarray)

    @property
    def varies(self) -> tuple[bool, ...]:
        return tuple(size != 1 for size in self.array.shape)

    @property
    def key(self) -> tuple:
        return ("dense", self.maps, tuple(self.array.shape))

    def placed(self, order: Sequence[int | None]) -> Dense:
        """Return the index with its axes in this order.

        None is a new axis; it must not vary along axes that are left out.
        """
        array = in_order(self.array, order)
        varying = [d for d in order if d is not None and self.array.shape[d] != 1]
        return replace(self, array=array) if varying == sorted(varying) else Dense.of(array)

    def dense(self, shape: Sequence[int]) -> Any:
        """Return the index as an array."""
        return self.array

    def computed(self, shape: Sequence[int]) -> Any:
        """Return the same: it is an array."""
        return self.array

    def with_arrays(self, function: Callable) -> Dense:
        """Return the index with a function applied to its arrays; its maps still identify it."""
        partial = tuple(function(array) for array in self.partial)
        return replace(self, array=function(self.array), partial=partial)

    def before(self, inner: Dense) -> Dense | None:
        """Return the index `outer` of one axis for which this one is outer ∘ inner.

        None if its maps do not end with those of `inner`.
        """
        count = len(self.maps) - len(inner.maps)
        if count < 1 or self.maps[count:] != inner.maps or self.array.shape != inner.array.shape:
            return None
        return Dense(self.partial[count - 1], self.maps[:count], self.partial[: count - 1])


Index = Affine | Dense


def composed(outer: Index, size: int, inner: Any, array: Any) -> Dense:
    """Return outer ∘ inner.

    `outer` has one axis, of length `size`; `array` holds what the composition reads.
    """
    table = outer.dense((size,))
    # the identity is no map: what it is composed with stays recognizable
    if isinstance(table, np.ndarray) and np.array_equal(table, np.arange(size)):
        return replace(inner, array=array)
    first = outer if isinstance(outer, Dense) else Dense.of(table)
    rest = [take(table, ["number"], {"number": (numbers, [0])}, [0]) for numbers in inner.partial]
    return Dense(array, first.maps + inner.maps, (*first.partial, table, *rest))


def affine(array: np.ndarray) -> Affine | None:
    """Return known numbers as an affine index, if they are one."""
    if array.size == 0:
        return None
    first = int(array.ravel()[0])
    strides = []
    for d in range(array.ndim):
        along = array[(0,) * d + (slice(0, 2),) + (0,) * (array.ndim - d - 1)]
        strides.append(int(along[1]) - first if len(along) > 1 else 0)
    index = Affine(first, tuple(strides))
    is_equal = np.array_equal(np.broadcast_to(index.dense(array.shape), array.shape), array)
    return index if is_equal else None


def index_of(array: Any) -> Index:
    """Return numbers as an index: affine where they are known to be, compact where they repeat."""
    if not isinstance(array, np.ndarray) or array.size == 0:
        return Dense.of(array)
    known = affine(array)
    if known is not None:
        return known
    for dim in range(array.ndim):
        first = array[(slice(None),) * dim + (slice(0, 1),)]
        # what is the same all along an axis does not vary along it
        if (array == first).all():
            array = first
    return Dense.of(array)
