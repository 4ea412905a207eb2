"""A compiled run, called again: from other parameters, on other rows of its data.

Parameters, data and how many steps are taken are arguments of what a run has compiled, so that none
of this compiles anything; what is handed over is put together by NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from emjax.numerics.guards import is_key
from emjax.run.compiled import CompiledProgram
from emjax.run.pieces import Pieces
from emjax.run.pure import End


class Reached(NamedTuple):
    """Where some steps of EM led.

    - `params`: from which EM would go on.
    - `objective`: in nats, where each step began.
    - `end`: the rest, on the device.
    """

    params: dict[str, np.ndarray]
    objective: np.ndarray
    end: End


@dataclass(frozen=True, eq=False)
class Rerun:
    """A compiled run that is called again.

    - `pieces`: its run; `rng_key`: as of the first one.
    - `num_rows`: {how many rows the data have: how many of these count}, where they were padded.
    """

    pieces: Pieces
    rng_key: Any
    num_rows: Mapping[int, int]

    @property
    def compiled(self) -> CompiledProgram:
        """Whose run it is."""
        return self.pieces.compiled

    @property
    def data(self) -> Sequence[Any]:
        """The arrays that it takes."""
        return self.pieces.data

    @cached_property
    def arrays(self) -> list[Any]:
        """The data, in the host's memory; random keys among them as they are."""
        return [leaf if is_key(leaf) else np.asarray(leaf) for leaf in self.data]

    @property
    def held(self) -> set[str]:
        """The parameters to be left where they are.

        One that is fixed, and one that a maximizer of the user's may keep to a part of its space.
        """
        settings = self.compiled.pure.settings
        return {*settings.fixed, *(settings.m_step or {})}

    def steps(
        self,
        params: Mapping[str, Any],
        number: int,
        data: Sequence[Any] | None = None,
        may_settle: bool = False,
    ) -> Reached:
        """Return where so many steps lead; fewer, where these may settle before."""
        numbers = replace(self.compiled.pure.numbers, may_settle=may_settle)
        pieces = replace(self.pieces, data=self.data if data is None else data).at(numbers)
        _, end = pieces.run(self.rng_key, self.compiled.given(params), 0, number)
        at = end.at
        # where a leap was proposed, EM's own step is at its side
        state = at.current if at.leap is None else at.leap.image
        after, objective, step, status = jax.device_get(
            (state.params, at.objective, at.step, at.status)
        )
        return Reached(after, objective[: int(step) + (int(status) >= 0)], end)

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def rows(self) -> int:
        """How long the longest of the data are along their first axis, rows that count nothing
        among them.
        """
        lengths = [array.shape[0] for array in self.arrays if array.ndim]
        return max(lengths, default=0)

    def of_rows(self, rows: Mapping[int, np.ndarray]) -> list[Any]:
        """Return the data with these of their rows: {how many there are: which to take}."""
        data = []
        for leaf, array in zip(self.data, self.arrays, strict=True):
            axis = _row_axis(array)
            numbers = None if axis is None else rows.get(array.shape[axis])
            taken = leaf if numbers is None else np.take(array, numbers, axis)
            # elsewhere, the run would be compiled again
            is_placed = isinstance(leaf, jax.Array) and leaf.committed
            data.append(jax.device_put(taken, leaf.sharding) if is_placed else taken)
        return data

    def drawn(self, rng: np.random.Generator, number: int) -> list[Any]:
        """Return the data with a few rows, drawn at random, each as often as need be."""
        rows = {}
        for array in self.arrays:
            axis = _row_axis(array)
            if axis is not None and array.shape[axis] not in rows:
                length = array.shape[axis]
                count = self.num_rows.get(length, length)
                few = rng.choice(count, min(number, count), replace=False)
                rows[length] = rng.choice(few, length)
        return self.of_rows(rows)


def _row_axis(array: Any) -> int | None:
    """Return the first axis along which there is more than one row."""
    if not isinstance(array, np.ndarray):
        return None
    return next((axis for axis, length in enumerate(array.shape) if length > 1), None)
