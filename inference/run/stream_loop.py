"""EM steps over data that come in parts, one after another: the loop is on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from emjax.e_step.expected import Expected
from emjax.run.part_program import PartProgram
from emjax.run.precision import double_precision, doubled, from_single
from emjax.run.state import LoopState
from emjax.sources.part import Part


@dataclass(frozen=True, eq=False)
class StreamLoop:
    """EM steps over a stream.

    - `parts`: iterates its parts, as often as it is asked to.
    - `program`: of the E-step, in JAX's precision or in double; `whole`: of all else, in double.
    - `sums`: what all parts share, for either.
    - `any_part`: one of them, as `whole` takes it: shapes are taken from it.
    - `is_single`: whether E-steps are in single precision.
    - `doubles`: whether they are in double, of a program that is in single precision.
    - `over_all`: from a sum over these parts to that over those of all processes.
    """

    parts: Iterable[Part]
    program: PartProgram
    whole: PartProgram
    sums: list[np.ndarray]
    any_part: Part
    is_single: bool
    doubles: bool
    over_all: Callable[[Any], Any]

    def step(self, at: LoopState, since: int = 0) -> LoopState:
        """Return where the loop stands after one more step. `since`: see `Loop`."""
        params = at.current.params
        own = self.expected(params)
        with double_precision():
            data = self.data_of_any
            expected = self.whole.completed(params, jax.device_put(own), data, self.sums)
            tables = self.whole.tables(params, data, self.sums)
            return self.whole.after(at, expected, tables, data, self.sums, since)

    @cached_property
    def data_of_any(self) -> list[Any]:
        """The arrays of some part, as `whole` takes them."""
        return self.whole.data(self.any_part)

    def expected(self, params: Mapping[str, Any]) -> Expected:
        """Return what the E-step yields of all parts, added up in double on the host."""
        tables: list = []

        def of_part(params, data, sums):
            if not tables:
                tables.append(self.program.tables(params, data, sums))
            return self.program.expected(params, tables[0], data, sums)

        return self._summed(of_part, params)

    def log_likelihood(self, params: Mapping[str, Any]) -> float:
        """Return log p of all data in nats."""
        own = self._summed(self.program.log_likelihood, params)
        return self._likelihood_with(params, own)

    def shared_log_likelihood(self, params: Mapping[str, Any]) -> float:
        """Return log p in nats of what parts share."""
        return self._likelihood_with(params, self.whole.division.nothing(self.whole.pure.graph))

    def _likelihood_with(self, params: Mapping[str, Any], own: Expected) -> float:
        """Return log p in nats of all data, of whose parts `own` is the sum."""
        parameters = self.whole.pure.graph.parameters
        with double_precision():
            params, own = from_single(parameters, jax.device_get(params)), jax.device_put(own)
            found = self.whole.completed(params, own, self.data_of_any, self.sums, True)
            return float(found.log_partition)

    def _summed(self, of_part: Callable, params: Mapping[str, Any]) -> Expected:
        """Return the sum over parts of `of_part(params, data, sums)`."""
        with jax.enable_x64(not self.is_single):
            total, pending = None, None
            dtype = np.float32 if self.is_single else np.float64
            params = {name: np.asarray(value, dtype) for name, value in params.items()}
            sums = [one.astype(dtype) for one in self.sums]
            for part in self.parts:
                part = doubled_part(part) if self.doubles else part
                # while one part is computed, the one before is added up
                ahead = of_part(params, self.program.data(part), sums)
                total, pending = _added(total, pending), ahead
            return jax.tree.map(self.over_all, _added(total, pending))


def _added(total: Expected | None, more: Expected | None) -> Any:
    """Return what two yield together, in double; None yields nothing."""
    if more is None:
        return total
    more = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(more))
    return more if total is None else jax.tree.map(np.add, total, more)


def doubled_part(part: Part) -> Part:
    """Return a part in double precision."""
    args, kwargs = doubled((part.args, dict(part.kwargs)))
    return Part(args, kwargs, part.counts)
