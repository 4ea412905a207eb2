"""Axes that all coupled latents share: they are not coupled along these.

Effects that are crossed in every school, y[s, i, j] ~ a[s, i] + b[s, j], are as many small systems
as there are schools.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emjax.elimination.factors import Factor, Variable
from emjax.numerics.arrays import broadcast
from emjax.tables.indices import Affine, Index, index_of
from emjax.tables.named import Axis, Coordinates


@dataclass(frozen=True, eq=False)
class Grid:
    """The axes of elements that coupled latents share.

    - `shape`: the lengths of these axes.
    - `kept`: which axes of each latent they are, in this order; a latent that is none of them has
      none.
    """

    shape: tuple[int, ...]
    kept: Mapping[Any, tuple[int, ...]]

    def kept_of(self, variable: Variable) -> tuple[int, ...]:
        """Return which axes of a latent's elements are shared."""
        return self.kept.get(variable.name, ())

    def inner_of(self, variable: Variable) -> tuple[int, ...]:
        """Return which axes of a latent's elements are its own."""
        return tuple(d for d in range(len(variable.shape)) if d not in self.kept_of(variable))

    def count_of(self, variable: Variable) -> int:
        """Return how many elements of a latent meet one another."""
        return math.prod(variable.shape[d] for d in self.inner_of(variable))

    def place(self, axis: Axis, shape: Sequence[int], variable: Variable) -> Any:
        """Return the number of the element that is read, among those that meet one another."""
        return _number(axis, shape, variable, self.inner_of(variable))

    def cell(self, axis: Axis, shape: Sequence[int], variable: Variable) -> Index:
        """Return which cell of the grid the element is in that is read."""
        return index_of(_number(axis, shape, variable, self.kept_of(variable)))

    def cell_of_elements(self, variable: Variable) -> Affine:
        """Return the same for each element of a latent."""
        strides = [0] * len(variable.shape)
        own = Affine.identity(self.shape).strides
        for stride, d in zip(own, self.kept_of(variable), strict=False):
            strides[d] = stride
        return Affine(0, tuple(strides))


def shared_grid(
    names: Sequence, factors: Sequence[Factor], remaining: Mapping[Any, Variable]
) -> Grid:
    """Return the axes that latents share, all of which are coupled by some factors."""
    agreements = _agreements(names, factors, remaining)
    if agreements is None:
        return Grid((), {})
    kept: dict = dict.fromkeys(names, ())
    first = remaining[names[0]]
    for d, size in enumerate(first.shape):
        chosen = _chosen(first.name, d, agreements, kept)
        if size > 1 and chosen is not None and len(chosen) == len(names):
            kept = {name: (*kept[name], chosen[name]) for name in names}
    return Grid(tuple(first.shape[d] for d in kept[first.name]), kept)


def _agreements(
    names: Sequence, factors: Sequence[Factor], remaining: Mapping[Any, Variable]
) -> dict | None:
    """Return, for two latents, which of their axes are read alike by all factors that read both.

    None where that is not known beforehand.
    """
    agreements: dict = {}
    for factor in factors:
        read = [axis for axis in factor.axes if axis.source in names]
        read = [axis for axis in read if isinstance(axis, Coordinates)]
        if not all(axis.index.is_static for axis in read):
            return None
        numbers = [_unraveled(axis, factor.shape, remaining[axis.source]) for axis in read]
        for axis, its_numbers in zip(read, numbers, strict=True):
            for other, others_numbers in zip(read, numbers, strict=True):
                alike = _alike(its_numbers, others_numbers)
                pair = axis.source, other.source
                agreements[pair] = agreements.get(pair, alike) & alike
    return agreements


def _alike(numbers: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> set:
    return {
        (d, e)
        for d, number in enumerate(numbers)
        for e, other in enumerate(others)
        if np.array_equal(number, other)
    }


def _chosen(first: Any, dim: int, agreements: Mapping, kept: Mapping) -> dict | None:
    """Return the axis of each latent that is read as one of the first is; None if there is none."""
    chosen, waiting = {first: dim}, [first]
    while waiting:
        name = waiting.pop()
        for (one, other), alike in agreements.items():
            if one != name:
                continue
            if other in chosen:
                if (chosen[name], chosen[other]) not in alike:
                    return None
                continue
            options = [e for d, e in sorted(alike) if d == chosen[name] and e not in kept[other]]
            if not options:
                return None
            chosen[other] = options[0]
            waiting.append(other)
    return chosen


def _unraveled(axis: Axis, shape: Sequence[int], variable: Variable) -> list[np.ndarray]:
    """Return the number along each axis of the element that is read, at each element."""
    element = broadcast(axis.index.dense(shape), shape)
    return [_along(element, variable, d) for d in range(len(variable.shape))]


def _number(axis: Axis, shape: Sequence[int], variable: Variable, dims: Sequence[int]) -> Any:
    """Return the number, along some axes of a latent together, of the element that is read."""
    if not dims:
        return np.zeros((1,) * len(shape), np.int32)
    element = axis.index.dense(shape)
    # all of it, without arithmetic: what identifies the index stays
    if tuple(dims) == tuple(range(len(variable.shape))):
        return element
    number = element * 0
    for d in dims:
        number = number * variable.shape[d] + _along(element, variable, d)
    return number


def _along(element: Any, variable: Variable, dim: int) -> Any:
    return element // math.prod(variable.shape[dim + 1 :]) % variable.shape[dim]
