"""EM steps over data that come in parts, one after another: the loop is on the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from emjax.e_step.expected import Expected
from emjax.run.part_program import PartProgram
from emjax.run.precision import double_precision, doubled
from emjax.run.state import LoopState
from emjax.sources.part import Part


@dataclass(frozen=True, eq=False)
class StreamLoop:
    """EM steps over a stream.

    - `parts`: iterates its parts, as often as it is asked to.
    - `program`: of the E-step, in JAX's precision or in double; `whole`: of all else, in double.
    - `sums`: what all parts share, for either.
    - `any_part`: one of them, from which shapes are taken.
    - `is_single`: whether E-steps are in single precision.
    """

    parts: Iterable[Part]
    program: PartProgram
    whole: PartProgram
    sums: list[np.ndarray]
    any_part: Part
    is_single: bool

    def advance(self, at: LoopState, stop_at: int, since: int = 0) -> Iterator[LoopState]:
        """Yield where the loop stands after each step, until it stops or has taken `stop_at`.

        `since`: see `Loop`.
        """
        while int(at.status) < 0 and int(at.step) < stop_at:
            at = self.step(at, since)
            yield at

    def step(self, at: LoopState, since: int = 0) -> LoopState:
        """Return where the loop stands after one more step."""
        params = at.current.params
        total = self.expected(params)
        with double_precision():
            data = self.whole.data(doubled_part(self.any_part))
            shared = jax.device_get(self.whole.shared(params, data, self.sums))
            expected = jax.device_put(total + shared)
            tables = self.whole.tables(params, data, self.sums)
            return self.whole.after(at, expected, tables, data, self.sums, since)

    def expected(self, params: Mapping[str, Any]) -> Expected:
        """Return what the E-step yields of all parts, added up in double on the host."""
        with jax.enable_x64(not self.is_single):
            program, total, pending = self.program, None, None
            dtype = np.float32 if self.is_single else np.float64
            params = {name: np.asarray(value, dtype) for name, value in params.items()}
            sums = [one.astype(dtype) for one in self.sums]
            tables = None
            for part in self.parts:
                data = program.data(part)
                if tables is None:
                    tables = program.tables(params, data, sums)
                # while one part is computed, the one before is added up
                ahead = program.expected(params, tables, data, sums)
                total, pending = _added(total, pending), ahead
            return _added(total, pending)


def _added(total: Expected | None, more: Expected | None) -> Any:
    """Return what two yield together, in double; None yields nothing."""
    if more is None:
        return total
    more = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(more))
    return more if total is None else _plus(total, more)


def _plus(total: Expected, more: Expected) -> Expected:
    return jax.tree.map(np.add, total, more)


def doubled_part(part: Part) -> Part:
    """Return a part in double precision."""
    args, kwargs = doubled((part.args, dict(part.kwargs)))
    return Part(args, kwargs, part.counts)
