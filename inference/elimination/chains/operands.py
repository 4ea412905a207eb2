"""A factor of a chain, laid out in time, and the labels of its axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from emjax.elimination.factors import Cells, Deferred


class Label(NamedTuple):
    """What an axis of a chain's tables runs along: the values of a latent at one step, or at all.

    - `name`: that of a latent of the chain; of another, the key of its axis.
    - `lag`: how many steps before the present one it is read; None: it does not vary in time.
    """

    name: Any
    lag: int | None

    @property
    def is_in_time(self) -> bool:
        """Whether it is of a latent of the chain."""
        return self.lag is not None

    def back(self, steps: int) -> Label:
        """Return what the label becomes when time goes on by `steps`."""
        return self if self.lag is None else Label(self.name, self.lag + steps)


def axes_in_time(labels: Sequence[Label], num_lead: int) -> tuple[int, ...]:
    """Return the axes of an array (lead…, *labels) that run along latents of the chain."""
    return tuple(num_lead + i for i, label in enumerate(labels) if label.is_in_time)


@dataclass(frozen=True, eq=False)
class Operand:
    """A factor laid out in time: an entry for each of its steps, a table of what it reads there.

    The time of an entry is the last that it reads: an entry at time t has (latent, lag) for its
    values at t − lag.

    - `labels`: those of an entry; one of them has lag 0.
    - `cells`: (time, batch, *labels), of length 1 where they do not vary; a `Deferred` table is so
      along time.
    - `start`: the time of its first entry.
    - `steps`: how many entries there are, one for each step from `start` on.
    - `without_multiplicity`: as of a `Factor`.
    """

    labels: tuple[Label, ...]
    cells: Cells
    start: int
    steps: int
    without_multiplicity: bool = False

    @property
    def lag(self) -> int:
        """How many steps back it reads."""
        return max(label.lag for label in self.labels if label.lag is not None)

    @property
    def stop(self) -> int:
        """The time after its last entry."""
        return self.start + self.steps

    @property
    def array(self) -> Any:
        """The factor's values: (time, batch, *labels)."""
        return self.cells.array

    def between(self, start: int, stop: int) -> Operand:
        """Return the operand at times start … stop − 1, all of which it has."""
        first, rows = start - self.start, stop - start
        return self._at(
            start,
            rows,
            lambda array: array[first : first + rows],
            lambda table: table.part(first, rows),
        )

    def stretches(self, start: int, rows: int, count: int) -> tuple[list, Callable]:
        """Return the operand from time `start` on in `count` stretches of `rows` steps.

        That is, arrays (stretch, step, …), and a function of the number of a stretch and its part
        of these arrays, which is the operand there.
        """
        first = start - self.start
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

    def _at(self, start: int, steps: int, cut: Callable, computed: Callable) -> Operand:
        """Return the operand at other times.

        - `cut`: what becomes of arrays (time, …), called for the table, the index and the gate, in
          this order, where they vary in time.
        - `computed`: what becomes of a deferred table.
        """

        def in_time(array):
            return array if array is None or array.shape[0] == 1 else cut(array)

        table = self.cells.table
        if isinstance(table, Deferred):
            table = computed(table)
        # with an index, the table's first axis is not time: it is read at any step
        elif self.cells.index is None:
            table = in_time(table)
        cells = Cells(table, in_time(self.cells.index), in_time(self.cells.gate))
        return replace(self, cells=cells, start=start, steps=steps)

    def spread(self, start: int, stop: int) -> Operand:
        """Return the operand at times start … stop − 1 at least, zero where it has no entry."""
        # it has them all: `over_stretches` takes those that it needs, and it may stay a lookup
        first, end = max(start, self.start), min(stop, self.stop)
        if (first, end) == (start, stop):
            return self
        # zeros go into the array itself: there may be no gate that could say where it is absent
        array = self.between(first, end).array
        array = jnp.broadcast_to(array, (end - first, *array.shape[1:]))
        padding = [(first - start, stop - end)] + [(0, 0)] * (array.ndim - 1)
        cells = Cells(jnp.pad(array, padding))
        return replace(self, cells=cells, start=start, steps=stop - start)
