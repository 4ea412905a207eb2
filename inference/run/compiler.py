"""Programs for arguments of all shapes, and the one place that keeps what is compiled of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
from numpyro import primitives

from emjax.families.family import REGISTRATIONS
from emjax.program.arguments import signature, split_arguments
from emjax.program.explanations import failures_explained, looked_at
from emjax.program.failures import LOOKS_AT_VALUES
from emjax.program.identity import Unidentified, identity
from emjax.program.trace import InitialValues, initial_values, trace
from emjax.run.compilation import is_outermost, is_traced
from emjax.run.compiled import CompiledProgram
from emjax.run.padded import AtLength, Buckets, Found, Lengths, OwnStart
from emjax.run.pickled import check_can_be_pickled
from emjax.run.pure import PureProgram
from emjax.run.settings import Settings

# Programs whose compiled functions are kept, the ones used last, and of each so many shapes of
# arguments: a few MB each, beside the arrays that a program holds as constants.
MOST_KEPT = 64


@dataclass(eq=False)
class Kept:
    """What has been traced and compiled of a program, under settings of one structure.

    - `programs`: by signature of the arguments, the traced program and its compiled functions.
    - `variants`: what is kept of programs made of this one.
    - `buckets`: its padded programs.
    """

    programs: dict[Hashable, tuple[PureProgram, dict]] = field(default_factory=dict)
    variants: dict[Hashable, Kept] = field(default_factory=dict)
    buckets: Buckets = field(default_factory=Buckets)


# of all programs, the one used last at the end
KEPT: OrderedDict[Hashable, Kept] = OrderedDict()


def kept_of(model: Callable, settings: Settings) -> Kept | None:
    """Return what is kept of a program: `EM`s of the same one, and alike settings, share it.

    None for a program that may be another one, though nothing shows it.
    """
    # handlers around the call take part in the trace, and are not seen here
    if primitives._PYRO_STACK:
        return None
    try:
        # whatever else a trace depends on: records of families, a precision of products
        config: Any = jax.config
        around = len(REGISTRATIONS), config.jax_default_matmul_precision
        key = identity(model), identity(settings.structure), around
    except Unidentified:
        return None
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


def _forget_the_first(programs: dict) -> None:
    """Remove the program that was made first, if there are more than are kept."""
    if len(programs) > MOST_KEPT:
        del programs[next(iter(programs))]


def _raised(error: Exception, *args: Any) -> Any:
    """Raise an error, when it is called in place of what has raised it."""
    raise error


class Padded(NamedTuple):
    """A program on padded arguments.

    - `compiled`: the program of the weights of its rows and of its own arguments.
    - `data`: the arrays among these.
    - `at_length`: what is the program's own at the length of the arguments.
    - `own_start`: (whether values are given) → how a run starts at that length.
    - `refuse`: called with nothing where it may not be padded after all.
    """

    compiled: CompiledProgram
    data: list
    at_length: AtLength
    own_start: Callable[[bool], OwnStart]
    refuse: Callable[[], None]


class Compiler:
    """A program under the settings of an `EM`, and all that has been compiled of it.

    A program is traced anew for arguments of other shapes; if it looks at their values in Python,
    which is seen when that fails, for other values, too.
    """

    def __init__(self, model: Callable, settings: Settings, kept: Kept | None = None):
        self.model, self.settings = model, settings
        self._kept_of_variant = kept
        # where the program cannot be identified, nothing is shared with another `EM`
        self._own = Kept()
        self._programs: dict[Hashable, CompiledProgram] = {}
        self._padded: dict[Hashable, Found | None] = {}
        self._variants: dict[Hashable, Compiler] = {}
        self._looks_at_values: set[Hashable] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: what is compiled is made again."""
        check_can_be_pickled(self.model, self.settings)
        return {"model": self.model, "settings": self.settings}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)

    def __deepcopy__(self, memo: dict) -> Compiler:
        """Return another one, which shares what is compiled as all `EM`s of a program do."""
        return Compiler(deepcopy(self.model, memo), deepcopy(self.settings, memo))

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
                    raise ValueError(looked_at(error)) from error
                # the next call of such shapes does not try again
                self._looks_at_values.add(arrays_traced)
        # no second look at the set: an argument that is not identified never equals itself
        try:
            key = signature(args, kwargs, concrete=True)
            return self._program(key, args, kwargs, concrete=True), [], True
        except LOOKS_AT_VALUES as error:
            raise ValueError(looked_at(error)) from error

    @property
    def looks_at_values(self) -> bool:
        """Whether the program has been seen to look at the values of arguments."""
        return bool(self._looks_at_values)

    def _program(
        self, key: Hashable, args: tuple, kwargs: Mapping[str, Any], concrete: bool
    ) -> CompiledProgram:
        """Return the program for arguments of this signature, traced if it is the first such."""
        if key not in self._programs:
            kept = self._kept()
            programs = kept.programs
            if key not in programs:
                programs[key] = self._traced(kept.buckets, args, kwargs, concrete), {}
                _forget_the_first(programs)
            pure, functions = programs[key]
            self._programs[key] = CompiledProgram(pure.at(self.settings.numbers), functions)
            _forget_the_first(self._programs)
        return self._programs[key]

    def _traced(
        self, buckets: Buckets, args: tuple, kwargs: Mapping[str, Any], concrete: bool
    ) -> PureProgram:
        """Return the program traced for arguments."""
        lengths = Lengths.of(args, kwargs)
        pattern = lengths.pattern
        try:
            if concrete:
                strategy, integrate = self.settings.strategy, self.settings.integrate
                own = initial_values(self.model, strategy, args, kwargs, concrete, integrate)
            else:
                own = buckets.start(lengths, self.model, self.settings, args, kwargs)
            buckets.parameters[pattern] = own.parameters
        except Exception as error:
            # what is asked of an estimate needs no start: two points cannot be drawn from one row
            if pattern not in buckets.parameters or isinstance(error, LOOKS_AT_VALUES):
                raise
            # its traceback would keep the data, as would that of its cause
            if error.__cause__ is not None:
                error.__cause__.with_traceback(None)
            raises = partial(_raised, error.with_traceback(None))
            own = InitialValues(raises, buckets.parameters[pattern], False)
        integrate = self.settings.integrate
        program = trace(self.model, own.parameters, args, kwargs, concrete, integrate)
        # what JAX does not compute of a site, such as an order of complex numbers
        with failures_explained():
            return PureProgram.of(program, self.settings, own.start, own.is_random)

    def padded(self, args: tuple, kwargs: Mapping[str, Any]) -> Padded | None:
        """Return the program on padded arguments; None where it runs at their own length."""
        # variants are asked for what belongs to single rows
        if self._kept_of_variant is not None or is_traced((args, kwargs)) or not is_outermost():
            return None
        key = signature(args, kwargs)
        if key not in self._padded:
            buckets = self._kept().buckets
            self._padded[key] = buckets.found(self.model, self.settings, args, kwargs)
        found = self._padded[key]
        if found is None:
            return None
        bucket = found.bucket
        compiled = CompiledProgram(bucket.pure.at(self.settings.numbers), bucket.functions)
        layout = found.layout
        data, _ = split_arguments(
            (*layout.weights(padded=True), *layout.padded(args)), layout.padded(kwargs)
        )

        def refuse():
            self._padded[key] = None
            found.refuse()

        own_start = partial(found.own_start, self.model, self.settings, args, kwargs)
        return Padded(compiled, data, found.at_length, own_start, refuse)

    def _kept(self) -> Kept:
        """Return what is kept of the program as it is now: what it reads may have changed."""
        if self._kept_of_variant is not None:
            return self._kept_of_variant
        return kept_of(self.model, self.settings) or self._own

    def variant(self, key: Hashable, model: Callable, **changes: Any) -> Compiler:
        """Return the compiler of another program, made once for each key.

        `changes`: the settings that differ.
        """
        if key not in self._variants:
            settings = replace(self.settings, **changes)
            kept = self._kept().variants.setdefault((key, structure_of(settings)), Kept())
            self._variants[key] = Compiler(model, settings, kept)
        return self._variants[key]
