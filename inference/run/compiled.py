"""The functions of a traced program, each compiled when it is first called."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from emjax.run import validation
from emjax.run.compilation import CompiledFunction
from emjax.run.pure import PureProgram
from emjax.run.resolution import Fall, fall_of
from emjax.run.settings import Numbers


class CompiledProgram:
    """The functions of a `PureProgram`, each compiled when it is first called.

    `pure` has the same functions as they are, for use within a larger compiled function.
    `functions`: those compiled already, of all `EM`s that share the program; the numbers among
    their settings are arguments.
    """

    def __init__(self, pure: PureProgram, functions: dict[Hashable, CompiledFunction]):
        self.pure, self._functions = pure, functions
        self.graph, self.maximizers, self.watch = pure.graph, pure.maximizers, pure.watch

    def at(self, numbers: Numbers) -> CompiledProgram:
        """Return the program with other numbers among its settings: the same functions."""
        return CompiledProgram(self.pure.at(numbers), self._functions)

    def function(
        self, key: Hashable, make: Callable[[], Callable], is_called_once: bool = False
    ) -> Callable:
        """Return `make()`, compiled; it is made once for each key, and may read all settings.

        `is_called_once`: see `CompiledFunction`.
        """
        numbers = self.pure.numbers
        annealing = tuple(numbers.annealing)
        settings = (numbers.tol, numbers.max_steps, numbers.temperature, annealing)
        settings = (*settings, numbers.may_settle)
        return self._compiled((key, settings), make, is_called_once)

    def _compiled(
        self, key: Hashable, make: Callable[[], Callable], is_called_once: bool = False
    ) -> Callable:
        if key not in self._functions:
            self._functions[key] = CompiledFunction(make(), is_called_once)
        return self._functions[key]

    def _of_numbers(self, name: str, *args: Any) -> Any:
        """Return what a method of the pure program returns, the same code for all numbers."""
        pure = self.pure

        def on_numbers(numbers, *args):
            return getattr(pure.at(numbers), name)(*args)

        # what JAX's logs call it
        on_numbers.__name__ = name
        return self._compiled(name, lambda: on_numbers)(pure.numbers, *args)

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

    def initial(self, rng_key, data):
        """Return `PureProgram.initial`."""
        return self._of_numbers("initial", rng_key, data)

    def update(self, state, data):
        """Return `PureProgram.update`."""
        return self._of_numbers("update", state, data)

    def start(self, rng_key, data, given, number: int = 0):
        """Return where a run starts, and what depends on data alone; see `PureProgram.start`."""
        start, computed = self._of_numbers("start", rng_key, data, given, number)
        return start, self.graph.with_data(computed, data)

    def advance(self, at, constants, stop_at):
        """Return `PureProgram.advance`."""
        return self._of_numbers("advance", at, constants, stop_at)

    def leap_ahead(self, at, constants, stop_at):
        """Return `PureProgram.leap_ahead`."""
        return self._of_numbers("leap_ahead", at, constants, stop_at)

    def end(self, at, constants, start):
        """Return `PureProgram.end`."""
        return self._of_numbers("end", at, constants, start)

    def unpolished_end(self, at, constants, start):
        """Return `PureProgram.unpolished_end`."""
        # without a polish, `end` is that
        name = "unpolished_end" if self.pure.settings.polish else "end"
        return self._of_numbers(name, at, constants, start)

    def run(self, rng_key, data, given, number: int = 0, stop_at: int | None = None):
        """Return `PureProgram.run`."""
        stop_at = int(self.pure.numbers.max_steps) + 1 if stop_at is None else stop_at
        return self._of_numbers("run", rng_key, data, given, number, stop_at)

    def short_runs(self, rng_key, numbers, data, given, num_steps):
        """Return `PureProgram.short_runs`."""
        return self._of_numbers("short_runs", rng_key, numbers, data, given, num_steps)

    def continued(self, starts, ends, number, data):
        """Return `PureProgram.continued`."""
        return self._of_numbers("continued", starts, ends, number, data)

    # ── what depends on no setting that is a number ───────────────────────────────────────────────

    def prepare(self, data, floor: float = 0.0):
        """Return what depends on data alone; see `FactorGraph.prepare`."""
        graph = self.graph

        def computed(data, floor):
            return graph.without_data(graph.prepare(data, floor))

        return graph.with_data(self._compiled("prepare", lambda: computed)(data, floor), data)

    def falls(self, params, data, moves: Callable) -> list[Fall | None]:
        """Return how far each density falls where the data are moved; None for a scale.

        `moves`: the `resolution.moves_of` the data, which serve several parameters.
        """
        function = self._compiled("densities", lambda: self.pure.moved_densities)
        found = {}
        for zeros in (False, True):
            both = moves(zeros)
            if both is not None:
                found[zeros] = [jax.device_get(function(params, data, to)) for to in both]
        falls: list[Fall | None] = []
        for number, watch in enumerate(self.watch.watched):
            of_watch = {zeros: [to[number] for to in both] for zeros, both in found.items()}
            term = self.graph.terms[watch.term]
            has_fall = watch.is_integrated or not watch.argument
            falls.append(fall_of(term, of_watch) if has_fall else None)
        return falls

    def violations(self, data, floor: float = 0.0):
        """Return the `validation.violations` of data."""
        graph = self.graph

        def of_data(data, floor):
            return validation.violations(graph, graph.prepare(data, floor))

        return self._compiled("violations", lambda: of_data, is_called_once=True)(data, floor)

    def inspection(self, params, constants):
        """Return `validation.inspection`."""
        of_graph = partial(validation.inspection, self.graph)
        return self._compiled("inspection", lambda: of_graph)(params, constants)

    def most_favorable(self, params, constants):
        """Return `validation.most_favorable`."""
        of_graph = partial(validation.most_favorable, self.graph)
        return self._compiled("most favorable", lambda: of_graph)(params, constants)

    def asked(self, question: Callable, params, data, floor: float, *more: Any) -> tuple[Any, list]:
        """Return the answer to a question of data, and the data's violations.

        In one function, so that there is one to compile. `question`: a function of (pure program,
        params, constants, *more), the same one for every call; `floor`: the least multiplicity that
        a row is given. See `CompiledFunction` for `question.is_called_once`, if there is such.
        """
        pure = self.pure

        def answered(numbers, params, data, *more):
            constants = pure.graph.prepare(data, floor)
            violations = validation.violations(pure.graph, constants)
            return question(pure.at(numbers), params, constants, *more), violations

        is_once = getattr(question, "is_called_once", False)
        function = self._compiled((question, floor), lambda: answered, is_once)
        return function(pure.numbers, params, data, *more)

    def given(self, params: Mapping[str, Any]) -> dict[str, tuple[Any, np.bool_]]:
        """Return {name: (a value, whether it is given)} for every parameter.

        So any choice of parameters that are given is one signature, and compiled once.
        """
        given = {}
        for name, parameter in self.graph.parameters.items():
            value = params.get(name, np.zeros(parameter.shape, parameter.dtype))
            given[name] = value, np.bool_(name in params)
        return given
