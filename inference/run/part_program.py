"""A program on parts of its data: what adds up over parts, and what is made of the sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.e_step.expected import Expected
from emjax.e_step.parts import Division, division_of
from emjax.program.arguments import checked_arguments, split_arguments
from emjax.program.explanations import failures_explained, looked_at
from emjax.program.failures import LOOKS_AT_VALUES
from emjax.program.handlers.plates import PlateRecorder, Plates
from emjax.program.padding import padding
from emjax.program.records import Parameter
from emjax.program.trace import Program, initial_values, trace
from emjax.run import validation
from emjax.run.compiled import CompiledProgram
from emjax.run.loop import Loop
from emjax.run.part_rows import PartRows, leaves_of
from emjax.run.pure import PureProgram
from emjax.run.settings import Settings
from emjax.run.state import LoopState
from emjax.sources.part import Part


@dataclass(frozen=True, eq=False)
class PartProgram:
    """A program traced for a part of its data, and its compiled functions.

    - `compiled`: of (the weights of plates …, the part's arguments, `args`, `kwargs`).
    - `rows`: how a part becomes arguments of the shapes that it is traced for.
    - `division`: what of its graph belongs to a part.
    - `args`, `kwargs`: the program's further arguments, the same for all parts.

    In every method, `data` are the arrays of one part (`data`), and `sums` the `summarized` of all
    parts, added up (`FactorGraph.summary`).
    """

    compiled: CompiledProgram
    rows: PartRows
    division: Division
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def pure(self) -> PureProgram:
        return self.compiled.pure

    @property
    def loop(self) -> Loop:
        return self.pure.loop

    def data(self, part: Part) -> list[Any]:
        """Return the arrays of a part, in the order in which functions take them."""
        padded = self.rows.padded(part)
        weights = self.rows.weights(self.rows.counts(part))
        return _arrays(weights, padded, self.args, self.kwargs)

    # ── of one part ───────────────────────────────────────────────────────────────────────────────

    def looked_at(self, data: Sequence) -> tuple[list, list]:
        """Return what adds up of a part for the origins of all, and its `validation.violations`."""
        graph = self.pure.graph

        def look(data):
            return graph.summarized(data), validation.violations(graph, graph.prepare(data))

        return self.compiled.function("look at part", lambda: look)(data)

    def tables(self, params: Mapping[str, Any], data: Sequence, sums: Sequence) -> list:
        """Return the natural-parameter tables, which are the same for all parts."""
        graph = self.pure.graph

        # within the E-step, XLA would make a logarithm for each row of them
        def tables(params, data, sums):
            return graph.tables(params, graph.prepare(data, sums=sums))

        return self.compiled.function("tables", lambda: tables)(params, data, sums)

    def expected(
        self, params: Mapping[str, Any], tables: Sequence, data: Sequence, sums: Sequence
    ) -> Expected:
        """Return what the E-step yields of a part. `tables`: at these parameters."""
        graph, division, temperature = self.pure.graph, self.division, self.loop.temperature

        def expected(params, tables, data, sums):
            arrays = graph.arrays(params, graph.prepare(data, sums=sums))
            return division.expected(graph, arrays, temperature, tables)

        return self.compiled.function("of part", lambda: expected)(params, tables, data, sums)

    def log_likelihood(self, params: Mapping[str, Any], data: Sequence, sums: Sequence) -> Expected:
        """Return log p of a part in nats, as something that adds up over parts (`completed`)."""
        graph, division = self.pure.graph, self.division

        def log_likelihood(params, data, sums):
            arrays = graph.arrays(params, graph.prepare(data, sums=sums))
            own = division.expected(graph, arrays)
            return replace(own, statistics=jax.tree.map(jnp.zeros_like, own.statistics))

        return self.compiled.function("log p", lambda: log_likelihood)(params, data, sums)

    # ── of all parts ──────────────────────────────────────────────────────────────────────────────

    def completed(
        self,
        params: Mapping[str, Any],
        own: Expected,
        data: Sequence,
        sums: Sequence,
        is_likelihood: bool = False,
    ) -> Expected:
        """Return what the E-step yields of all data; `own`: of all parts, added up.

        `data`: of any part; `is_likelihood`: at temperature one, without priors.
        """
        graph, division = self.pure.graph, self.division
        temperature = 1.0 if is_likelihood else self.loop.temperature

        def completed(params, own, data, sums):
            arrays = graph.arrays(params, graph.prepare(data, sums=sums))
            return division.completed(graph, arrays, own, temperature, not is_likelihood)

        key = "completed", is_likelihood
        return self.compiled.function(key, lambda: completed)(params, own, data, sums)

    def first(self, rng_key: Any, data: Sequence, given: Mapping, number: int) -> dict[str, Any]:
        """Return where a run starts on this part alone, which is start `number` of several."""
        pure = self.pure

        def first(rng_key, data, given, number):
            return pure.first(rng_key, data, given, pure.graph.prepare(data), number)

        return self.compiled.function("first", lambda: first)(rng_key, data, given, number)

    def sharpness(
        self, params: Mapping[str, Any], start: Mapping[str, Any], data: Sequence
    ) -> list:
        """Return how sharp densities are on this part alone; see `End`."""
        pure = self.pure

        def sharpness(params, start, data):
            return pure.watch.sharpness(params, start, pure.graph.prepare(data))

        return self.compiled.function("sharpness", lambda: sharpness)(params, start, data)

    def start(self, params: Mapping[str, Any]) -> LoopState:
        """Return where the loop stands before the first step."""
        return self.compiled.function("loop start", lambda: self.loop.start)(params)

    def after(
        self,
        at: LoopState,
        expected: Expected,
        tables: Sequence,
        data: Sequence,
        sums: Sequence,
        since: int = 0,
    ) -> LoopState:
        """Return where the loop stands after an E-step at its state.

        `data`: of any part; `since`: see `Loop`.
        """
        graph = self.pure.graph

        def after(at, expected, tables, data, sums, since):
            loop = replace(self.loop, since=since)
            constants = graph.prepare(data, sums=sums)
            return loop.after(at, expected, tables, constants, loop.numbers.max_steps)

        function = self.compiled.function("after E-step", lambda: after)
        return function(at, expected, tables, data, sums, since)

    @cached_property
    def own_tables(self) -> str:
        """Which sites have natural parameters that differ from row to row; empty if none has."""
        names = []
        for term, in_rows in zip(self.pure.graph.terms, self.division.is_in_rows, strict=True):
            if any(in_rows) and term.site.name not in names:
                names.append(term.site.name)
        return ", ".join(map(repr, names))

    def with_resolution(self, eps: float) -> PartProgram:
        """Return the program whose objective is a sum of such precision."""
        loop = replace(self.loop, resolution=eps)
        functions: dict = {}
        return replace(self, compiled=CompiledProgram(replace(self.pure, loop=loop), functions))


def part_program(
    model: Callable,
    settings: Settings,
    part: Part,
    args: tuple,
    kwargs: Mapping[str, Any],
    rows: PartRows | None = None,
) -> PartProgram:
    """Return a program traced for parts like this one.

    `args`, `kwargs`: its further arguments, the same for all parts; `rows`: None for those of this
    part. Errors: `ValueError` for a program that is no sum over the elements of its plates.
    """
    everything = checked_arguments(model, (*part.args, *args), {**part.kwargs, **kwargs})
    part, args, kwargs = _apart(part, *everything)
    seen = Plates({}, {})
    try:
        own = initial_values(
            PlateRecorder(model, seen),
            settings.strategy,
            (*part.args, *args),
            {**part.kwargs, **kwargs},
            integrate=settings.integrate,
        )
        found = [PartRows.of(seen, part), PartRows.of(seen, part, True)] if rows is None else [rows]
        trace_of = partial(_traced, model, own.parameters, settings)
        program, rows = _sum_over_rows(trace_of, found, part, args, kwargs)
    except LOOKS_AT_VALUES as error:
        raise ValueError(looked_at(error)) from error

    def own_start(rng_key, data):
        return own.start(rng_key, data[len(rows.plates) :])

    with failures_explained():
        pure = PureProgram.of(program, settings, own_start, own.is_random, is_of_part=True)
    is_of_part = _is_of_part(rows, part, args, kwargs)
    division = division_of(pure.graph, rows.plates, is_of_part)
    return PartProgram(CompiledProgram(pure, {}), rows, division, args, kwargs)


def _apart(part: Part, args: tuple, kwargs: Mapping[str, Any]) -> tuple[Part, tuple, dict]:
    """Return a part and further arguments of these, which are both's."""
    number = len(part.args)
    own = {name: value for name, value in kwargs.items() if name in part.kwargs}
    others = {name: value for name, value in kwargs.items() if name not in part.kwargs}
    return Part(args[:number], own, part.counts), args[number:], others


def _arrays(weights: Sequence, part: Part, args: tuple, kwargs: Mapping[str, Any]) -> list[Any]:
    return split_arguments((*weights, *part.args, *args), {**part.kwargs, **kwargs})[0]


def _is_of_part(
    rows: PartRows, part: Part, args: tuple, kwargs: Mapping[str, Any]
) -> tuple[bool, ...]:
    """Return which arrays of the program's data have rows of the part, weights included."""
    leaves, tree = jax.tree.flatten((part.args, dict(part.kwargs)))
    flags = [
        np.full((), group is not None) if isinstance(leaf, np.ndarray | jax.Array) else leaf
        for leaf, group in zip(leaves, rows.groups, strict=True)
    ]
    own = Part(*jax.tree.unflatten(tree, flags))
    is_no = jax.tree.map(
        lambda leaf: np.zeros((), bool) if isinstance(leaf, np.ndarray | jax.Array) else leaf,
        (args, dict(kwargs)),
    )
    weights = [np.ones((), bool)] * len(rows.plates)
    return tuple(bool(flag) for flag in _arrays(weights, own, *is_no))


def _traced(
    model: Callable,
    parameters: Mapping[str, Parameter],
    settings: Settings,
    rows: PartRows,
    part: Part,
    args: tuple,
    kwargs: Mapping[str, Any],
) -> Program:
    """Return a program traced for a part, padded to the room that `rows` have."""
    part = rows.padded(part)
    weights = rows.weights(rows.room)
    return trace(
        rows.program(model),
        parameters,
        (*weights, *part.args, *args),
        {**part.kwargs, **kwargs},
        integrate=settings.integrate,
    )


def _sum_over_rows(
    traced: Callable[..., Program],
    candidates: Sequence[PartRows],
    part: Part,
    args: tuple,
    kwargs: Mapping[str, Any],
) -> tuple[Program, PartRows]:
    """Return a program traced for a part, and the first of several rows that it is a sum over.

    `traced(rows, part, args, kwargs)`: the trace. Errors: `ValueError` where it is none of any.
    """
    reasons = []
    for rows in candidates:
        program = traced(rows, part, args, kwargs)
        with_rows = {group for group in rows.groups if group is not None}
        # a plate whose size is a number, and no array's, stays as long as it is
        room = tuple(n + (group in with_rows) for group, n in enumerate(rows.room))
        try:
            longer = traced(replace(rows, room=room), part, args, kwargs)
        # a program that checks its arguments finds that they do not fit one another
        except (TypeError, ValueError) as error:
            reasons.append(str(error))
            continue
        found = padding(program, longer, len(rows.plates), are_in_front=False)
        if found.is_sound:
            return program, rows
        reasons.append(found.reason)
    plates = " and ".join(map(repr, candidates[0].plates))
    raise ValueError(
        f"The data come in parts, and the program is no sum over the elements of {plates}: "
        f"{reasons[0]}. What it computes for a row may depend on that row, on parameters and on "
        "arguments without rows; pass what depends on all rows, such as their mean, as a further "
        "argument: em.run(key, data, mean)."
    )


def equal_in_all(first: Part, part: Part, rows: PartRows) -> str | None:
    """Return which argument without rows differs between two parts; None: none does."""
    named = jax.tree.leaves_with_path((first.args, dict(first.kwargs)))
    for (path, leaf), other, group in zip(named, leaves_of(part), rows.groups, strict=True):
        if group is None and not np.array_equal(leaf, other):
            return jax.tree_util.keystr(path)
    return None
