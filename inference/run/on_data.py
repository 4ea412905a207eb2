"""A program on data: its arguments, what is compiled for their shapes, and in which precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax

from emjax.graph.factor_graph import FactorGraph
from emjax.program.arguments import checked_arguments
from emjax.program.explanations import reads_as_given
from emjax.run.batches import num_cells
from emjax.run.compiled import CompiledProgram
from emjax.run.compiler import Compiler, Padded
from emjax.run.described import data_in_words, program_in_words
from emjax.run.precision import (
    CachedInPrecision,
    double_precision,
    doubled,
    in_precision,
    is_single,
    num_reals,
)
from emjax.run.result import EMResult
from emjax.run.runner import PaddedRunner, Runner

# Numbers in the data, and four times as many entries of the tables of elements × values, up to
# which a run in single precision is done in double altogether: what hundreds of steps take more is
# what it takes to compile the end of the run on its own.
SMALL = 2**17


@dataclass(frozen=True, eq=False, repr=False)
class ProgramOnData:
    """A program and its arguments; two are equal if these are the very same.

    - `compiler`: the program and its settings.
    - `args`, `kwargs`: the program's own arguments, as they were given.
    - `make_result`: (this, a result) → what `run` returns; None: the result.
    """

    compiler: Compiler
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    make_result: Callable[[Any, EMResult], EMResult] | None = None

    def __repr__(self) -> str:
        return f"Bound{self.in_words}"

    @property
    def in_words(self) -> str:
        """The program and what it is bound to, in brackets."""
        model = self.compiler.model
        given = data_in_words(model, self.args, self.kwargs)
        return f"({', '.join([program_in_words(model), *given])})"

    def __eq__(self, other: object) -> bool:
        # a result keeps what it belongs to: two of the same data are trees of one structure
        if not isinstance(other, ProgramOnData) or self.compiler is not other.compiler:
            return False
        return self._identities == other._identities

    def __hash__(self) -> int:
        return hash(id(self.compiler))

    @property
    def _identities(self) -> tuple[Any, list]:
        leaves, tree = jax.tree.flatten((self.args, self.kwargs))
        return tree, [leaf if isinstance(leaf, int | float | str) else id(leaf) for leaf in leaves]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: what is compiled is made again."""
        names = ("compiler", "args", "kwargs", "make_result")
        return {name: getattr(self, name) for name in names}

    @CachedInPrecision
    def _as_arrays(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        # a data frame is an array in its own precision
        return in_precision(checked_arguments(self.compiler.model, self.args, self.kwargs))

    @CachedInPrecision
    def arguments(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The arguments as the program takes them.

        Data frames, series and tensors of numbers are arrays, unless the program reads them as
        what they are: their columns by name, say.
        """
        args, kwargs = self._as_arrays
        leaves, given = jax.tree.leaves((args, kwargs)), jax.tree.leaves((self.args, self.kwargs))
        replaced = [one for one, leaf in zip(given, leaves, strict=True) if one is not leaf]
        if replaced:
            try:
                self.compiler.compiled(args, kwargs)
            except ValueError as error:
                if not reads_as_given(error.__cause__, replaced):
                    raise
                return self.args, self.kwargs
        return args, kwargs

    @CachedInPrecision
    def _at_own_length(self) -> tuple[CompiledProgram, list[Any], bool]:
        return self.compiler.compiled(*self.arguments)

    @property
    def compiled(self) -> CompiledProgram:
        """The program's compiled functions for arguments of these shapes."""
        return self._at_own_length[0]

    @property
    def data(self) -> list[Any]:
        """The arrays among the arguments."""
        return self._at_own_length[1]

    @property
    def traced(self) -> CompiledProgram:
        """The program that answers: that for padded data, where they are padded."""
        return self.compiled if self._padded is None else self._padded.compiled

    @property
    def looks_at_values(self) -> bool:
        """Whether the program looks at the values of its arguments in Python.

        Then all of them are constants of the trace, and `data` is empty.
        """
        return self._at_own_length[2]

    @property
    def graph(self) -> FactorGraph:
        """The factor graph of what answers: of more rows than the data have, where it is padded."""
        return (self._padded or self).compiled.graph

    @property
    def _runner(self) -> Runner:
        return Runner(self.compiled, self.data, self.compiler.settings)

    @CachedInPrecision
    def _padded(self) -> Padded | None:
        return self.compiler.padded(*self._as_arrays)

    @CachedInPrecision
    def _padded_runner(self) -> PaddedRunner | None:
        if self._padded is None:
            return None
        compiled, data, at_length, _, refuse = self._padded
        runner = Runner(compiled, data, self.compiler.settings, at_length.elements)
        return PaddedRunner(runner, at_length.latents, at_length.gaussians, refuse)

    # ── in which precision ────────────────────────────────────────────────────────────────────────

    @property
    def is_done_in_double(self) -> bool:
        """Whether JAX is in single precision here, and what is asked is computed in double.

        That is where it takes no longer than a compilation does.
        """
        return self._ends_in_double and self._is_small

    @property
    def _ends_in_double(self) -> bool:
        return is_single() and self.compiler.settings.ends_in_double(self._num_reals)

    @property
    def _num_reals(self) -> int:
        return num_reals(jax.tree.leaves(self._as_arrays))

    @cached_property
    def _is_small(self) -> bool:
        if self._num_reals > SMALL:
            return False
        with double_precision():
            if self._doubled._padded is not None:
                return True
            runner = self._doubled_runner()
            return runner is not None and num_cells(runner.compiled.graph.terms) <= 4 * SMALL

    @cached_property
    def _doubled(self) -> Any:
        """The program bound to the same data in double precision, where JAX has that."""
        # as they were given: a program may read the columns of a data frame by name
        return replace(self, args=doubled(self.args), kwargs=doubled(self.kwargs))

    def _doubled_runner(self) -> Runner | None:
        try:
            return self._doubled._runner
        # whatever it is, single precision goes without
        except Exception:
            return None
