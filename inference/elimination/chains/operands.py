"""A factor of a chain, laid out in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from emjax.elimination.factors import Cells, Deferred


@dataclass(frozen=True, eq=False)
class Operand:
    """A factor laid out in time: at each of its steps, a table of what it reads.

    - `labels`: (latent, lag), read `lag` steps before the factor's last one, or (key, None) of a
      latent that does not vary in time.
    - `cells`: (time, batch, *labels), of length 1 where they do not vary; a `Deferred` table is so
      along time.
    - `last`: the time of its first entry, that of lag 0.
    - `steps`: the number of its entries in time.
    - `without_multiplicity`: as of a `Factor`.
    """

    labels: tuple
    cells: Cells
    last: int
    steps: int
    without_multiplicity: bool = False

    @property
    def lag(self) -> int:
        """How many steps back it reads."""
        return max(lag for _, lag in self.labels if lag is not None)

    @property
    def end(self) -> int:
        """The time after its last entry."""
        return self.last + self.steps

    @property
    def array(self) -> Any:
        """The factor's values: (time, batch, *labels)."""
        return self.cells.array

    def between(self, start: int, stop: int) -> Operand:
        """Return the operand at last times start … stop − 1, which must be among its own."""
        first, rows = start - self.last, stop - start
        return self._at(
            start,
            rows,
            lambda array: array[first : first + rows],
            lambda table: table.part(first, rows),
        )

    def stretches(self, start: int, rows: int, count: int) -> tuple[list, Callable]:
        """Return the operand from last time `start` on in `count` stretches of `rows` steps.

        That is, arrays (stretch, step, …), and a function of the number of a stretch and its part
        of these arrays, which is the operand there.
        """
        first = start - self.last
        moving: list = []

        # `_at` meets the arrays in the same order here, to collect them, and below, to take them
        def cut(array):
            inner = array[first : first + rows * count]
            moving.append(inner.reshape(count, rows, *array.shape[1:]))

        self._at(0, rows, cut, lambda table: table)

        def at(number, stretch) -> Operand:
            pieces = iter(stretch)
            return self._at(
                0,
                rows,
                lambda array: next(pieces),
                lambda table: table.part(first + rows * number, rows),
            )

        return moving, at

    def _at(self, last: int, steps: int, cut: Callable, computed: Callable) -> Operand:
        """Return the operand at other times.

        `cut`: what becomes of arrays (time, …), called for the table, the index and the gate, in
        this order, where they vary in time; `computed`: what becomes of a deferred table.
        """

        def in_time(array):
            return array if array is None or array.shape[0] == 1 else cut(array)

        table = self.cells.table
        if isinstance(table, Deferred):
            table = computed(table)
        elif self.cells.index is None:
            table = in_time(table)
        cells = Cells(table, in_time(self.cells.index), in_time(self.cells.gate))
        return replace(self, cells=cells, last=last, steps=steps)

    def spread(self, start: int, stop: int) -> Operand:
        """Return the operand at last times start … stop − 1 at least, zero where it was absent."""
        first, end = max(start, self.last), min(stop, self.end)
        if (first, end) == (start, stop):
            return self
        array = self.between(first, end).array
        array = jnp.broadcast_to(array, (end - first, *array.shape[1:]))
        padding = [(first - start, stop - end)] + [(0, 0)] * (array.ndim - 1)
        cells = Cells(jnp.pad(array, padding))
        return replace(self, cells=cells, last=start, steps=stop - start)
