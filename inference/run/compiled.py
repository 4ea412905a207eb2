"""Compiled programs, and the one place that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from emjax.program.arguments import signature, split_arguments
from emjax.program.trace import DependsOnData
from emjax.run import validation
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


class CompiledProgram:
    """The functions of a `PureProgram`, each compiled when it is first called.

    `pure` has the same functions as they are, for use within a larger compiled function.
    """

    def __init__(self, pure: PureProgram):
        self.pure = pure
        self.graph, self.maximizers, self.watch = pure.graph, pure.maximizers, pure.watch
        self._functions: dict[Hashable, Callable] = {}
        graph = pure.graph
        self.prepare = jax.jit(graph.prepare)
        self.initial = jax.jit(pure.initial)
        self.update = jax.jit(pure.update)
        self.start = jax.jit(pure.start)
        self.advance = jax.jit(pure.loop.advance)
        self.end = jax.jit(pure.end)
        self.run = jax.jit(pure.run)
        self.short_runs = jax.jit(pure.short_runs)
        self.continued = jax.jit(pure.continued)
        self.variances = jax.jit(pure.variances)
        self.log_likelihood = jax.jit(pure.log_likelihood)
        self.posterior = jax.jit(pure.posterior, static_argnames="temperature")
        self.pairwise_posterior = jax.jit(pure.pairwise_posterior, static_argnames="temperature")
        self.violations = jax.jit(lambda constants: validation.violations(graph, constants))
        self.inspection = jax.jit(
            lambda params, constants: validation.inspection(graph, params, constants)
        )
        self.most_favorable = jax.jit(
            lambda params, constants: validation.most_favorable(graph, params, constants)
        )

    def function(self, key: Hashable, make: Callable[[], Callable]) -> Callable:
        """Return `make()`, compiled; it is made once for each key."""
        if key not in self._functions:
            self._functions[key] = jax.jit(make())
        return self._functions[key]

    def given(self, params: Mapping[str, Any]) -> dict[str, tuple[Any, np.bool_]]:
        """Return {name: (a value, whether it is given)} for every parameter.

        So any choice of parameters that are given is one signature, and compiled once.
        """
        given = {}
        for name, parameter in self.graph.parameters.items():
            value = params.get(name, np.zeros(parameter.shape, parameter.dtype))
            given[name] = value, np.bool_(name in params)
        return given


class Compiler:
    """A program under the settings of an `EM`, and all that has been compiled of it.

    A program is traced anew for arguments of other shapes; if it looks at their values in Python,
    which is seen when that fails, for other values, too.
    """

    def __init__(self, model: Callable, settings: Settings):
        self.model, self.settings = model, settings
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
                if validation.is_traced((args, kwargs)):
                    raise ValueError(LOOKS_AT_VALUES_MESSAGE) from error
                # the next call of such shapes does not try again
                self._looks_at_values.add(arrays_traced)
        # no second look at the set: an argument without a hash (a `set`) never equals itself
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
            pure = PureProgram.traced(self.model, self.settings, args, kwargs, concrete)
            self._programs[key] = CompiledProgram(pure)
        return self._programs[key]

    def variant(self, key: Hashable, model: Callable, **changes: Any) -> Compiler:
        """Return the compiler of another program, made once for each key.

        `changes`: the settings that differ.
        """
        if key not in self._variants:
            self._variants[key] = Compiler(model, replace(self.settings, **changes))
        return self._variants[key]
