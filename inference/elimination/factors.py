"""Factors of log Z, and the latents that are summed out of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emjax.numerics.arrays import gated, rows_of
from emjax.tables.named import Axis


@dataclass(frozen=True, eq=False)
class Deferred:
    """A table that is computed a stretch at a time: `part(start, rows)` is its positions start …
    start + rows − 1 along the axis `dim`, of `size`.
    """

    part: Callable
    dim: int
    size: int


@dataclass(frozen=True, eq=False)
class Factor:
    """A function of latents: `array` is (elements…, one axis for each of `axes`), element axes of
    length 1 where it does not vary.

    A total over the copies of its elements, or what one copy contributes (`per_copy`). With an
    `index`, an integer for each element, the array is not there yet: it is `table`[index]; the
    table may be `Deferred`. With a `gate`, true or false for each element, it is zero where that is
    false.
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    table: Any
    per_copy: bool = False
    index: Any = None
    gate: Any = None

    @property
    def array(self):
        table = (
            self.table.part(0, self.table.size) if isinstance(self.table, Deferred) else self.table
        )
        return self.gated(self.read(table), 0)

    def read(self, table):
        """Return a function of the table's entries at every element."""
        return rows_of(table, self.index)

    def gated(self, array, otherwise):
        """Return an array over the elements, with another value where the factor does not count."""
        return gated(self.gate, array, otherwise)

    def replaced(self, array, axes: tuple[Axis, ...], shape: tuple[int, ...]) -> Factor:
        return Factor(axes, shape, array, self.per_copy)


@dataclass(frozen=True)
class Variable:
    """A latent to sum out: its number of values, its elements' shape, and their multiplicity (None:
    one).

    `multiplicity_key`: what identifies that; `plates` and `order`: where it stands in the
    program.
    """

    name: Any
    size: int
    shape: tuple[int, ...]
    multiplicity: Any = None
    multiplicity_key: Any = None
    plates: frozenset[str] = frozenset()
    order: int = 0

    def encloses(self, other: Variable) -> bool:
        """Whether another latent's copies are copies within each of this one's."""
        if self.multiplicity_key == other.multiplicity_key or other.multiplicity is None:
            return False
        if self.multiplicity is None or self.plates < other.plates:
            return True
        return not other.plates < self.plates and self.order < other.order


def settled(factor: Factor) -> Factor:
    """Sum a factor over the elements that none of its latents distinguishes."""
    rank = len(factor.shape)
    gone = [d for d in range(rank) if not any(axis.varies[d] for axis in factor.axes)]
    if not gone:
        return factor
    array = factor.array
    array = array.sum(axis=tuple(gone)) * math.prod(
        factor.shape[d] for d in gone if array.shape[d] == 1
    )
    kept = [d for d in range(rank) if d not in gone]
    axes = tuple(axis.placed(kept) for axis in factor.axes)
    return factor.replaced(array, axes, tuple(factor.shape[d] for d in kept))
