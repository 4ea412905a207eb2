"""Factors of log Z, and the latents that are summed out of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from emjax.numerics.arrays import gated, rows_of
from emjax.numerics.row_sums import sums_of_rows
from emjax.tables.named import Axis


@dataclass(frozen=True, eq=False)
class Deferred:
    """A table that is computed a stretch at a time.

    - `part(start, rows)`: its positions start … start + rows − 1 along one axis.
    - `dim`: that axis.
    - `size`: its length.
    """

    part: Callable
    dim: int
    size: int

    @property
    def array(self) -> Any:
        """The table at all positions."""
        return self.part(0, self.size)


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """Rows of a table, each times a weight, which can be added up without an array of them all.

    - `table`: (row, *values).
    - `index`, `weight`: the row that each element reads, and how often it counts, (element,).
    """

    table: Any
    index: Any
    weight: Any

    def added_up(self, group: Any, count: int) -> Any:
        """Return the sums of the elements of each of `count` groups: (count, *values)."""
        values = self.table.shape[1:]
        table = self.table.reshape(len(self.table), -1)
        sums: Any = sums_of_rows(table, self.weight, self.index, group, count)
        return sums.reshape(count, *values)


@dataclass(frozen=True, eq=False)
class Cells:
    """An array (elements…, *values): a table, read at an index, where a gate is open.

    - `table`: the array, of length 1 along elements that it does not vary along; with an `index`,
      (row, *values). It may be `Deferred`.
    - `index`: the row that each element reads, (elements…).
    - `gate`: whether each element counts, (elements…): the array is zero where it does not.
    """

    table: Any
    index: Any = None
    gate: Any = None

    @property
    def array(self) -> Any:
        """The array at every element."""
        table = self.table.array if isinstance(self.table, Deferred) else self.table
        return self.gated(self.read(table), 0)

    def read(self, table: Any) -> Any:
        """Return the entries at every element of a table of as many rows: (elements…, *values)."""
        return rows_of(table, self.index)

    def gated(self, array: Any, otherwise: Any) -> Any:
        """Return an array (elements…, *values) with another value at elements that do not count."""
        return gated(self.gate, array, otherwise)


@dataclass(frozen=True, eq=False)
class Factor:
    """A function of latents for each of its elements: a table of log-densities.

    - `axes`: the latents that it is a function of, and which of their elements each element reads.
    - `shape`: the shape of its elements.
    - `cells`: (elements…, one axis for each of `axes`).
    - `without_multiplicity`: whether an element is what its latents contribute counted once; else
      it is a total, as often as they count.
    - `rows`: the same values, if they are rows of a table that had better be added up in blocks.
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    cells: Cells
    without_multiplicity: bool = False
    rows: WeightedRows | None = None

    @property
    def array(self) -> Any:
        """Its values: (elements…, one axis for each of `axes`)."""
        return self.cells.array

    @property
    def total(self) -> Any:
        """The number that a factor is of which no latent and no element is left."""
        return self.array.reshape(())

    def axes_of(self, name: Any) -> list[Axis]:
        """Return the axes that read a latent."""
        return [axis for axis in self.axes if axis.source == name]

    def reads_any(self, names: Collection) -> bool:
        """Whether it is a function of one of these latents."""
        return any(axis.source in names for axis in self.axes)

    def mapped(self, function: Callable, axes: tuple[Axis, ...], shape: tuple[int, ...]) -> Factor:
        """Return the factor of other axes and elements that a function makes of its values."""
        return Factor(axes, shape, Cells(function(self.array)), self.without_multiplicity)


@dataclass(frozen=True)
class Variable:
    """A latent to sum out, of numbered values: what they are is in the program's `Latent`.

    - `size`: its number of values.
    - `shape`: the shape of its elements.
    - `multiplicity`: how often each element counts, (elements…), of length 1 along axes where that
      is equal; None: once.
    - `multiplicity_key`: what identifies the multiplicity.
    - `plates`, `order`: where it stands in the program.
    """

    name: Any
    size: int
    shape: tuple[int, ...]
    multiplicity: Any = None
    multiplicity_key: Any = None
    plates: frozenset[str] = frozenset()
    order: int = 0

    @property
    def count(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    def encloses(self, other: Variable) -> bool:
        """Whether another latent counts several times within each time that this one counts."""
        # of one multiplicity, both are counted together
        if self.multiplicity_key == other.multiplicity_key or other.multiplicity is None:
            return False
        if self.multiplicity is None or self.plates < other.plates:
            return True
        # where plates do not tell, what is sampled later is within what is sampled before
        return not other.plates < self.plates and self.order < other.order


def divisor_of(multiplicity: Any) -> Any:
    """Return what to divide a total by: the multiplicity, and one where that is zero."""
    # the total of no elements is zero itself
    return jnp.where(multiplicity == 0, 1, multiplicity)


def settled(factor: Factor) -> Factor:
    """Return the factor summed over the elements that none of its latents distinguishes."""
    rank = len(factor.shape)
    varying: set = set()
    for axis in factor.axes:
        varying |= {d for d in range(rank) if axis.varies[d]}
    kept = [d for d in range(rank) if d in varying]
    gone = [d for d in range(rank) if d not in varying]
    if not gone:
        return factor

    def summed(array):
        # along an axis of length 1 the factor is the same at all elements that it stands for
        times = math.prod(factor.shape[d] for d in gone if array.shape[d] == 1)
        total = array.sum(axis=tuple(gone))
        return total if times == 1 else total * times

    axes = tuple(axis.placed(kept) for axis in factor.axes)
    return factor.mapped(summed, axes, tuple(factor.shape[d] for d in kept))


def without_repeats(factor: Factor) -> Factor:
    """Return the factor with one axis in place of two that read the same element."""
    rank = len(factor.shape)
    keys = [axis.key for axis in factor.axes]
    for i, key in enumerate(keys):
        earlier = keys.index(key)
        if earlier < i:
            axes = factor.axes[:i] + factor.axes[i + 1 :]

            def diagonal(array, kept=rank + earlier, dropped=rank + i):
                both = jnp.diagonal(array, axis1=kept, axis2=dropped)
                return jnp.moveaxis(both, -1, kept)

            # there may be a third
            return without_repeats(factor.mapped(diagonal, axes, factor.shape))
    return factor
