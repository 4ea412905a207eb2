"""Several starts of one program: where each came to, and which distinct optima there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emjax.run.columns import Column, Table, lines_of
from emjax.run.state import NOT_CONVERGED, RUNNING, Status, has_failed, has_settled


class Optimum(NamedTuple):
    """One of the distinct optima that several starts came to.

    - `objective`: in nats.
    - `starts`: those that came there, the best first.
    - `best`: the first of them.
    - `params`: its parameters.
    - `degenerate`: whether a component has collapsed, or the objective is not finite.
    """

    objective: float
    starts: np.ndarray
    best: int
    params: dict[str, np.ndarray]
    degenerate: bool


class Restarts(eqx.Module, Table):
    """Where each of R starts came to.

    **Attributes:**

    - `objective`: in nats, at `params`: the last finite value of each start (−∞: the program
      excludes the start).
    - `status`: why each stopped (`Status`), −1 where it was running still when the short runs
      ended.
    - `num_steps`: how many EM steps each took.
    - `degenerate`: whether a component has collapsed, or the objective has become infinite or NaN.
    - `params`: {site: (start, *shape)}.
    """

    objective: Float[np.ndarray, "start"]
    status: Int[np.ndarray, "start"]
    num_steps: Int[np.ndarray, "start"]
    degenerate: Bool[np.ndarray, "start"]
    params: dict[str, Array]

    @property
    def best(self) -> int:
        """The start with the largest objective of those that did not fail; of all, if all did.

        One fails that is degenerate, or whose objective decreased.
        """
        return self.ranked[0]

    @property
    def ranked(self) -> list[int]:
        """All starts, the best first."""
        is_good = ~(self.degenerate | has_failed(self.status))
        # NaN would be sorted above all numbers
        height = np.where(np.isnan(self.objective), -np.inf, self.objective)
        # the last key counts first: good ones come last, and of these the highest
        return np.lexsort((height, is_good))[::-1].tolist()

    def with_degenerate(self, start: int) -> Restarts:
        """Return the same, one more start being degenerate."""
        is_start = np.arange(len(self.degenerate)) == start
        return replace(self, degenerate=self.degenerate | is_start)

    def optima(self, tolerance: float | None = None) -> list[Optimum]:
        """Return the distinct optima, the best first and degenerate ones last.

        Two starts came to one optimum if their objectives differ by at most tolerance · (1 +
        |objective|): components may be permuted. None is 1e-6, and 1e-4 of runs that ended in
        single precision, which tells no closer ones apart. Starts that had not converged are left
        out unless they are degenerate.
        """
        if tolerance is None:
            tolerance = 1e-6 if self.objective.dtype == np.float64 else 1e-4
        # what runs still, or was cut off, may yet come to another place
        is_at_optimum = has_settled(self.status) & np.isfinite(self.objective)
        height = np.nan_to_num(self.objective, nan=-np.inf)
        order = sorted(
            np.flatnonzero(self.degenerate | is_at_optimum).tolist(),
            key=lambda start: (self.degenerate[start], -height[start]),
        )
        groups: list[list[int]] = []
        for start in order:
            if groups and self._is_one_optimum(groups[-1][0], start, tolerance):
                groups[-1].append(start)
            else:
                groups.append([start])
        return [self._optimum(starts) for starts in groups]

    def _is_one_optimum(self, first: int, second: int, tolerance: float) -> bool:
        """Whether two starts came to one optimum, the first no lower than the second."""
        # a height without a maximum tells nothing: degenerate starts are together
        if self.degenerate[first] or self.degenerate[second]:
            return bool(self.degenerate[first] and self.degenerate[second])
        apart = self.objective[first] - self.objective[second]
        return bool(apart <= tolerance * (1 + abs(self.objective[first])))

    def _optimum(self, starts: Sequence[int]) -> Optimum:
        """Return the optimum that some starts came to, the best of them first."""
        best = starts[0]
        params = {name: np.asarray(value)[best] for name, value in self.params.items()}
        degenerate = bool(self.degenerate[best])
        return Optimum(float(self.objective[best]), np.asarray(starts), best, params, degenerate)

    def __str__(self) -> str:
        lines = [f"  {line}" for line in lines_of(self._columns())]
        return "\n".join([f"{len(self.objective)} starts", *lines, *self._others(self.optima())])

    def _columns(self) -> list[Column]:
        """Return a row for each distinct optimum."""
        optima, heights = self.optima(), []
        for optimum in optima:
            heights.append("degenerate" if optimum.degenerate else f"{optimum.objective:.6f}")
        numbers = [len(optimum.starts) for optimum in optima]
        return [
            Column("objective", [each.objective for each in optima], heights, "objective (nats)"),
            Column("starts", numbers),
            Column("share", [number / len(self.objective) for number in numbers], ".0%"),
            Column("degenerate", [each.degenerate for each in optima], is_printed=False),
            Column("best_start", [each.best for each in optima], is_printed=False),
        ]

    def _others(self, optima: Sequence[Optimum]) -> list[str]:
        """Return a line for each reason why starts came to no optimum."""
        # starts that came to an optimum are counted there
        is_other = np.ones(len(self.objective), bool)
        for optimum in optima:
            is_other[optimum.starts] = False
        counts = {
            "excluded by the program: zero likelihood at the start": self.objective == -np.inf,
            "not converged": np.isin(self.status, (RUNNING, *NOT_CONVERGED)),
            "stopped by a decrease": self.status == Status.OBJECTIVE_DECREASED,
        }
        lines = []
        for reason, applies in counts.items():
            number = (applies & is_other).sum()
            if number:
                lines.append(f"{number:>6} {reason}")
        return lines
