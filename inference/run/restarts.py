"""Several starts of one program: where each came to, and which distinct optima there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emjax.run.loop import RUNNING, Status, has_failed


class Optimum(NamedTuple):
    """One of the distinct optima of a report: its objective in nats, the starts that came there,
    the first best of them, its parameters, and whether it is degenerate: a scale has collapsed, or
    the objective is not finite.
    """

    objective: float
    starts: np.ndarray
    best: int
    params: dict[str, np.ndarray]
    degenerate: bool


class Restarts(eqx.Module):
    """Where each of R starts came to.

    **Attributes:**

    - `objective`: in nats, at `params`: the last finite value of each start (−∞: the program
      excludes the start).
    - `status`: why each stopped (`Status`), −1 where it was running still when the short runs
      ended.
    - `num_steps`: how many EM steps each took.
    - `degenerate`: whether a scale has collapsed, or the objective has become infinite or NaN.
    - `params`: {site: (start, *shape)}.
    """

    objective: Float[np.ndarray, "start"]
    status: Int[np.ndarray, "start"]
    num_steps: Int[np.ndarray, "start"]
    degenerate: Bool[np.ndarray, "start"]
    params: dict[str, Array]

    @property
    def best(self) -> int:
        """The start with the largest objective of those that did not fail: not degenerate, no
        decrease (of all, if all did).
        """
        finite = np.where(np.isnan(self.objective), -np.inf, self.objective)
        return int(np.lexsort((finite, ~(self.degenerate | has_failed(self.status))))[-1])

    def with_degenerate(self, start: int) -> Restarts:
        """Return the same, one more start being degenerate."""
        return replace(
            self, degenerate=self.degenerate | (np.arange(len(self.degenerate)) == start)
        )

    def optima(self, tolerance: float = 1e-6) -> list[Optimum]:
        """Return the distinct optima, the best first and degenerate ones last.

        Two starts came to one optimum if their objectives differ by at most tolerance · (1 +
        |objective|): components may be permuted. Starts that were running still, or stopped at
        max_steps, are left out unless they are degenerate.
        """
        found: list[Optimum] = []
        counted = np.flatnonzero(
            self.degenerate | ((self.status == Status.CONVERGED) & np.isfinite(self.objective))
        )
        order = sorted(
            counted,
            key=lambda i: (self.degenerate[i], -np.nan_to_num(self.objective[i], nan=-np.inf)),
        )
        groups: list[list[int]] = []
        for i in order:
            first = groups[-1][0] if groups else None
            same = (
                first is not None
                and self.degenerate[first] == self.degenerate[i]
                and (
                    self.degenerate[i]
                    or self.objective[first] - self.objective[i]
                    <= tolerance * (1 + abs(self.objective[first]))
                )
            )
            groups[-1].append(int(i)) if same else groups.append([int(i)])
        for group in groups:
            params = {name: np.asarray(value)[group[0]] for name, value in self.params.items()}
            found.append(
                Optimum(
                    float(self.objective[group[0]]),
                    np.asarray(group),
                    group[0],
                    params,
                    bool(self.degenerate[group[0]]),
                )
            )
        return found

    def __str__(self) -> str:
        optima = self.optima()
        lines = [f"{len(self.objective)} starts", "   objective (nats)   starts   share"]
        for optimum in optima:
            value = "degenerate" if optimum.degenerate else f"{optimum.objective:.6f}"
            lines.append(
                f"{value:>19}   {len(optimum.starts):>6}   "
                f"{len(optimum.starts) / len(self.objective):>5.0%}"
            )
        return "\n".join([*lines, *self._others(optima)])

    def _others(self, optima: Sequence[Optimum]) -> list[str]:
        counted = {i for optimum in optima for i in optimum.starts}
        others = [i for i in range(len(self.objective)) if i not in counted]
        excluded = sum(self.objective[i] == -np.inf for i in others)
        running = sum(self.status[i] in (RUNNING, Status.MAX_STEPS) for i in others)
        decreased = sum(self.status[i] == Status.OBJECTIVE_DECREASED for i in others)
        return [
            f"{count:>6} {what}"
            for count, what in (
                (excluded, "excluded by the program: zero likelihood at the start"),
                (running, "not converged"),
                (decreased, "stopped by a decrease"),
            )
            if count
        ]
