"""Compiled programs, and the one place that keeps them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from emjax.program.arguments import signature, split_arguments
from emjax.program.identity import Unidentified, identity
from emjax.program.trace import DependsOnData
from emjax.run import validation
from emjax.run.compilation import CompiledFunction, is_traced
from emjax.run.pure import PureProgram
from emjax.run.settings import Settings

# what JAX raises where Python asks for the value of an array that is being traced
LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    DependsOnData,
)
LOOKS_AT_VALUES_MESSAGE = (
    "The program looks at the value of a latent or a parameter (or of data that are being traced) "
    "in Python: an `if`, an `int(...)`, or a NumPy function. "
    "Write jnp.where(z == 0, a, b) for a choice, jnp for np, and pass sizes as Python numbers."
)


# Programs whose compiled functions are kept, the ones used last: a few MB each, beside the arrays
# that a program holds as constants.
MOST_KEPT = 64


class CompiledProgram:
    """The functions of a `PureProgram`, each compiled when it is first called.

    `pure` has the same functions as they are, for use within a larger compiled function.
    `functions`: those compiled already, of all `EM`s that share the program; the numbers among
    their settings are arguments.
    """

    def __init__(self, pure: PureProgram, functions: dict[Hashable, CompiledFunction]):
        self.pure, self._functions = pure, functions
        self.graph, self.maximizers, self.watch = pure.graph, pure.maximizers, pure.watch

    def function(
        self, key: Hashable, make: Callable[[], Callable], is_called_once: bool = False
    ) -> Callable:
        """Return `make()`, compiled; it is made once for each key, and may read all settings.

        `is_called_once`: see `CompiledFunction`.
        """
        numbers = self.pure.numbers
        settings = (numbers.tol, numbers.max_steps, numbers.temperature, tuple(numbers.annealing))
        return self._kept((key, settings), make, is_called_once)

    def _kept(
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
        return self._kept(name, lambda: on_numbers)(pure.numbers, *args)

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

    def initial(self, rng_key, data):
        """Return `PureProgram.initial`."""
        return self._of_numbers("initial", rng_key, data)

    def update(self, state, data):
        """Return `PureProgram.update`."""
        return self._of_numbers("update", state, data)

    def start(self, rng_key, data, given):
        """Return `PureProgram.start`."""
        return self._of_numbers("start", rng_key, data, given)

    def advance(self, at, constants, stop_at):
        """Return `PureProgram.advance`."""
        return self._of_numbers("advance", at, constants, stop_at)

    def end(self, at, constants):
        """Return `PureProgram.end`."""
        return self._of_numbers("end", at, constants)

    def run(self, rng_key, data, given):
        """Return `PureProgram.run`."""
        return self._of_numbers("run", rng_key, data, given)

    def short_runs(self, rng_key, numbers, data, given, num_steps):
        """Return `PureProgram.short_runs`."""
        return self._of_numbers("short_runs", rng_key, numbers, data, given, num_steps)

    def continued(self, starts, ends, number, data):
        """Return `PureProgram.continued`."""
        return self._of_numbers("continued", starts, ends, number, data)

    # ── what depends on no setting that is a number ───────────────────────────────────────────────

    def prepare(self, data, floor: float = 0.0):
        """Return what depends on data alone; see `FactorGraph.prepare`."""
        return self._kept("prepare", lambda: self.graph.prepare)(data, floor)

    def variances(self, params, constants):
        """Return `PureProgram.variances`."""
        return self._kept("variances", lambda: self.pure.variances)(params, constants)

    def violations(self, constants):
        """Return `validation.violations`."""
        graph = self.graph
        return self._kept("violations", lambda: partial(validation.violations, graph))(constants)

    def inspection(self, params, constants):
        """Return `validation.inspection`."""
        of_graph = partial(validation.inspection, self.graph)
        return self._kept("inspection", lambda: of_graph)(params, constants)

    def most_favorable(self, params, constants):
        """Return `validation.most_favorable`."""
        of_graph = partial(validation.most_favorable, self.graph)
        return self._kept("most favorable", lambda: of_graph)(params, constants)

    def asked(self, question: Callable, params, data, floor: float) -> tuple[Any, list]:
        """Return the answer to a question of data, and the data's violations.

        In one function, so that there is one to compile. `question`: a function of (pure program,
        params, constants), the same one for every call; `floor`: the least multiplicity that a row
        is given.
        """
        pure = self.pure

        def answered(numbers, params, data):
            constants = pure.graph.prepare(data, floor)
            violations = validation.violations(pure.graph, constants)
            return question(pure.at(numbers), params, constants), violations

        return self._kept((question, floor), lambda: answered)(pure.numbers, params, data)

    def given(self, params: Mapping[str, Any]) -> dict[str, tuple[Any, np.bool_]]:
        """Return {name: (a value, whether it is given)} for every parameter.

        So any choice of parameters that are given is one signature, and compiled once.
        """
        given = {}
        for name, parameter in self.graph.parameters.items():
            value = params.get(name, np.zeros(parameter.shape, parameter.dtype))
            given[name] = value, np.bool_(name in params)
        return given


@dataclass(eq=False)
class Kept:
    """What has been traced and compiled of a program, under settings of one structure.

    - `programs`: by signature of the arguments, the traced program and its compiled functions.
    - `variants`: what is kept of programs made of this one.
    """

    programs: dict[Hashable, tuple[PureProgram, dict]] = field(default_factory=dict)
    variants: dict[Hashable, Kept] = field(default_factory=dict)


# of all programs, the one used last at the end
KEPT: OrderedDict[Hashable, Kept] = OrderedDict()


def kept_of(model: Callable, settings: Settings) -> Kept:
    """Return what is kept of a program: `EM`s of the same one, and alike settings, share it."""
    try:
        key = identity(model), structure_of(settings)
    except Unidentified:
        # it may be another one, though nothing shows it
        return Kept()
    kept = KEPT.setdefault(key, Kept())
    KEPT.move_to_end(key)
    if len(KEPT) > MOST_KEPT:
        KEPT.popitem(last=False)
    return kept


def structure_of(settings: Settings) -> Hashable:
    """Return what identifies the settings that are no numbers."""
    try:
        return identity(settings.structure)
    except Unidentified:
        return object()


class Compiler:
    """A program under the settings of an `EM`, and all that has been compiled of it.

    A program is traced anew for arguments of other shapes; if it looks at their values in Python,
    which is seen when that fails, for other values, too.
    """

    def __init__(self, model: Callable, settings: Settings, kept: Kept | None = None):
        self.model, self.settings = model, settings
        self._kept_of_variant = kept
        self._programs: dict[Hashable, CompiledProgram] = {}
        self._variants: dict[Hashable, Compiler] = {}
        self._looks_at_values: set[Hashable] = set()

    def compiled(
        self, args: tuple, kwargs: Mapping[str, Any]
    ) -> tuple[CompiledProgram, list, bool]:
        """Return the program for these arguments, its arrays, and whether it looks at values.

        A program that looks at the values of arrays has them as constants: none is left.
        """
        arrays_traced = signature(args, kwargs)
        if arrays_traced not in self._looks_at_values:
            try:
                program = self._program(arrays_traced, args, kwargs, concrete=False)
                return program, split_arguments(args, kwargs)[0], False
            except LOOKS_AT_VALUES as error:
                # what the user's own `jit` traces has no values, so that it cannot be made constant
                if is_traced((args, kwargs)):
                    raise ValueError(LOOKS_AT_VALUES_MESSAGE) from error
                # the next call of such shapes does not try again
                self._looks_at_values.add(arrays_traced)
        # no second look at the set: an argument that is not identified never equals itself
        try:
            key = signature(args, kwargs, concrete=True)
            return self._program(key, args, kwargs, concrete=True), [], True
        except LOOKS_AT_VALUES as error:
            raise ValueError(LOOKS_AT_VALUES_MESSAGE) from error

    def _program(
        self, key: Hashable, args: tuple, kwargs: Mapping[str, Any], concrete: bool
    ) -> CompiledProgram:
        """Return the program for arguments of this signature, traced if it is the first such."""
        if key not in self._programs:
            programs = self._kept().programs
            if key not in programs:
                pure = PureProgram.traced(self.model, self.settings, args, kwargs, concrete)
                programs[key] = pure, {}
            pure, functions = programs[key]
            self._programs[key] = CompiledProgram(pure.at(self.settings.numbers), functions)
        return self._programs[key]

    def _kept(self) -> Kept:
        """Return what is kept of the program as it is now: what it reads may have changed."""
        if self._kept_of_variant is not None:
            return self._kept_of_variant
        return kept_of(self.model, self.settings)

    def variant(self, key: Hashable, model: Callable, **changes: Any) -> Compiler:
        """Return the compiler of another program, made once for each key.

        `changes`: the settings that differ.
        """
        if key not in self._variants:
            settings = replace(self.settings, **changes)
            kept = self._kept().variants.setdefault((key, structure_of(settings)), Kept())
            self._variants[key] = Compiler(model, settings, kept)
        return self._variants[key]
