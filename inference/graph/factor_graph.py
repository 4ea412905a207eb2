"""The factor graph of a program: terms ⟨η(θ), t(x)⟩ over named tables, and what is computed when.

A graph is built by one abstract trace. Its named values hold *slots* in place of arrays; `prepare`
computes, once, the slots that depend on data alone, `arrays` those that depend on parameters as
well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from emjax.families.family import Family
from emjax.graph.statistics import StatisticsRecipe
from emjax.graph.wiring import Wire, wires
from emjax.numerics.guards import as_float, bounded_below
from emjax.numerics.jaxprs import inlined
from emjax.program.latents import Latent
from emjax.program.records import Parameter, Site
from emjax.tables.indices import Dense, Index
from emjax.tables.lifting import lift_events
from emjax.tables.lookup import Lookup, look_up
from emjax.tables.named import Axis, Named, constant, spread


@dataclass(frozen=True)
class Slot:
    """Stands for an array that is known only when the program runs."""

    number: int
    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class Term:
    """One site's contribution Σ_i ⟨η_i, t_i⟩ to the complete-data log-likelihood.

    - `family`: None where the one natural parameter is the table of log-densities itself.
    - `elements`: the shape of its elements.
    - `arguments`: the named tables that the η_i are functions of.
    - `statistics`: how the t_i are formed of what is kept of the data: weighted by mask and
      multiplicity, summed along whatever no table needs.
    - `base`: Σ log h(x), weighted and summed likewise.
    - `origin`: the point about which locations are measured.
    - `value`: the observed or drawn value, at which a categorical's table is read.
    - `latent_axes`: the latents that it touches.
    - `natural_axes`: the named axes of each η_i.
    - `kept`: the axes of its elements along which its latents vary.
    - `prior_arguments`: the arguments of a prior that may be conjugate.
    - `without_multiplicity`: its multiplicity is that of its latents, and theirs to count; its own
      tables and statistics are those of elements that count once.
    - `gate`: where a component of a `Select` is chosen, if latents choose it.
    """

    site: Site
    family: Family | None
    elements: tuple[int, ...]
    arguments: Mapping[str, Named]
    statistics: StatisticsRecipe
    base: Named
    origin: Named | None
    value: Named
    latent_axes: tuple[Axis, ...]
    natural_axes: tuple[tuple[Axis, ...], ...]
    kept: tuple[int, ...]
    prior_arguments: Mapping[str, Named]
    without_multiplicity: bool
    gate: Named | None = None

    @property
    def base_is_constant(self) -> bool:
        """Whether Σ log h(x) is one number, whatever the latents (of a term that has its
        arrays).
        """
        return not self.base.axes and self.base.array.size == 1 and math.prod(self.base.shape) == 1


@dataclass(frozen=True)
class Check:
    """What must not be: `kind` is "nan", "support" or "index"; `bad` is true where it is."""

    kind: str
    site: str
    what: str
    bad: Named


@dataclass(frozen=True, eq=False)
class FactorGraph:
    """Terms whose arrays are slots, and the functions that fill them.

    - `predicted`: the terms of discrete latents that no observation depends on: they sum to one,
      and only their posterior reads them.
    - `multiplicities`: how often the elements of each latent count.
    - `checks`: what must not be true of the data.
    - `unused`: the names of the continuous latents that no observation depends on.
    - `full_jaxpr`: (parameters, floor, data) → slots. Its halves are `once_jaxpr`, (floor, data) →
      constants, and `step_jaxpr`, (parameters, constants) → slots.
    - `chains`: how latents that are coupled in time are summed out.
    - `cache`: what is derived from the graph on request.
    """

    terms: tuple[Term, ...]
    predicted: tuple[Term, ...]
    latents: Mapping[str, Latent]
    multiplicities: Mapping[str, Named]
    parameters: Mapping[str, Parameter]
    checks: tuple[Check, ...]
    unused: tuple[str, ...]
    full_jaxpr: ClosedJaxpr
    once_jaxpr: ClosedJaxpr
    step_jaxpr: ClosedJaxpr
    chains: str = "sequential"
    cache: dict = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order in which the graph takes them."""
        return tuple(sorted(self.parameters))

    @property
    def has_priors(self) -> bool:
        """Whether the objective is more than the log-likelihood."""
        return any(term.site.is_prior for term in self.terms)

    def prepare(self, data: Sequence, floor=0.0) -> list:
        """Return everything that depends on data alone. `floor`: the least multiplicity that a row
        is given.
        """
        return jax.core.eval_jaxpr(
            self.once_jaxpr.jaxpr,
            self.once_jaxpr.consts,
            jnp.asarray(floor, jnp.result_type(float)),
            *data,
        )

    def arrays(self, params: Mapping[str, Any], constants: Sequence) -> list:
        """Return the array of every slot."""
        return jax.core.eval_jaxpr(
            self.step_jaxpr.jaxpr,
            self.step_jaxpr.consts,
            *(params[name] for name in self.names),
            *constants,
        )

    def wires(self) -> list[Wire]:
        """Return what each slot depends on; entries of all parameters are numbered in the order of
        `names`.
        """
        if "wires" not in self.cache:
            shapes = {name: self.parameters[name].shape for name in self.names}
            self.cache["wires"] = wires(
                inlined(self.full_jaxpr), self.offsets(), self.names, shapes
            )
        return self.cache["wires"]

    def offsets(self) -> dict[str, int]:
        """Return the number of each parameter's first entry."""
        sizes = [math.prod(self.parameters[name].shape) for name in self.names]
        return {name: sum(sizes[:i]) for i, name in enumerate(self.names)}


class Slots:
    """Puts slots in place of traced arrays, and collects these in the order of their numbers.
    `filled` is the inverse.
    """

    def __init__(self):
        self.arrays: list = []

    def stored(self, value: Named) -> Named:
        """Return the value with slots in place of its traced arrays."""
        axes = tuple(
            replace(
                a, index=a.index.with_arrays(self._slot) if isinstance(a.index, Dense) else a.index
            )
            for a in value.axes
        )
        return Named(self._slot(value.array), value.shape, axes, value.content)

    def stored_term(self, term: Term) -> Term:
        """Return the term with slots in place of its traced arrays."""
        return replace(
            term,
            arguments=self._all(term.arguments),
            statistics=replace(term.statistics, inputs=self._all(term.statistics.inputs)),
            base=self.stored(term.base),
            origin=None if term.origin is None else self.stored(term.origin),
            value=self.stored(term.value),
            latent_axes=self.stored(Named(np.zeros(()), (), term.latent_axes)).axes,
            prior_arguments=self._all(term.prior_arguments),
            gate=None if term.gate is None else self.stored(term.gate),
        )

    def _all(self, values: Mapping[str, Named]) -> dict[str, Named]:
        return {name: self.stored(value) for name, value in values.items()}

    def _slot(self, array):
        if isinstance(array, np.ndarray | np.generic):
            return array
        self.arrays.append(array)
        return Slot(len(self.arrays) - 1, tuple(array.shape), array.dtype)


def filled(value: Named, arrays: Sequence) -> Named:
    """Return the value with the arrays of its slots."""
    array = arrays[value.array.number] if isinstance(value.array, Slot) else value.array
    return replace(value, array=array, axes=filled_axes(value.axes, arrays))


def filled_axes(axes: Sequence[Axis], arrays: Sequence) -> tuple[Axis, ...]:
    """Return the axes with the arrays of their indices' slots."""

    def fill(index: Index) -> Index:
        return (
            index.with_arrays(
                lambda array: arrays[array.number] if isinstance(array, Slot) else array
            )
            if isinstance(index, Dense)
            else index
        )

    return tuple(replace(axis, index=fill(axis.index)) for axis in axes)


def filled_term(term: Term, arrays: Sequence) -> Term:
    """Return the term with arrays in place of its slots."""

    def all_of(values):
        return {name: filled(value, arrays) for name, value in values.items()}

    return replace(
        term,
        arguments=all_of(term.arguments),
        statistics=replace(term.statistics, inputs=all_of(term.statistics.inputs)),
        base=filled(term.base, arrays),
        origin=None if term.origin is None else filled(term.origin, arrays),
        value=filled(term.value, arrays),
        latent_axes=filled_axes(term.latent_axes, arrays),
        prior_arguments=all_of(term.prior_arguments),
        gate=None if term.gate is None else filled(term.gate, arrays),
    )


@dataclass(frozen=True, eq=False)
class Features:
    """Features for the cells of one argument's table: `replaced(features, rows)`, where `rows` says
    which entry of a parameter each cell reads (−1: none).
    """

    argument: str
    rows: np.ndarray
    replaced: Callable


def term_naturals(term: Term, arrays: Sequence, instead: Features | None = None) -> list[Named]:
    """Return a term's natural-parameter tables η_i at the parameters that the arrays were computed
    at.
    """
    return naturals_of(filled_term(term, arrays), instead)


def naturals_of(term: Term, instead: Features | None = None) -> list[Named]:
    """Return the natural-parameter tables η_i of a term that has its arrays."""
    return natural_tables(
        term.family, term.arguments, term.origin, term.value, term.elements, instead
    )


def natural_tables(
    family: Family | None,
    arguments: Mapping[str, Named],
    origin: Named | None,
    value: Named,
    elements: tuple[int, ...],
    instead: Features | None = None,
) -> list[Named]:
    """Return the natural-parameter tables η_i of arguments; `instead` replaces the features of one
    of them.

    A categorical's table is read at the observed `value`: the categories that data pick are rows of
    it.
    """
    rank = len(elements)
    if family is None:
        (table,) = arguments.values()
        return [replace(table, array=bounded_below(jnp.asarray(table.array)))]
    names = list(family.arguments)
    pairs = [(arguments[name], len(arguments[name].shape) - rank) for name in names]
    if family.centered:
        event = len(arguments[family.centered].shape) - rank
        pairs.append(
            (origin if origin is not None else constant(np.zeros((1,) * (rank + event))), event)
        )
    if instead is not None:
        table = arguments[instead.argument]
        pairs.append(
            (
                Named(
                    instead.rows,
                    table.shape[:rank],
                    tuple(axis.fitted(rank) for axis in table.axes),
                ),
                0,
            )
        )

    def naturals(*arrays):
        inputs = {}
        for name, array in zip(names, arrays, strict=False):
            form = family.arguments[name]
            reference = arrays[len(names)] if name == family.centered else None
            inputs[name] = (
                as_float(array) if form is None else form.features(as_float(array), reference)
            )
            if instead is not None and name == instead.argument:
                inputs[name] = instead.replaced(inputs[name], arrays[-1])
        return family.naturals(**inputs)

    tables = lift_events(naturals, pairs, rank, family.event_dims)
    return [read_at(tables[0], value, elements)] if family.lookup else tables


def read_at(table: Named, value: Named, elements: tuple[int, ...]) -> Named:
    """Return table[…, value]: the log-probability of a category at every element, rows that data
    pick before latents.
    """
    rank = len(elements)
    table = replace(table.padded(rank + 1), shape=elements + table.shape[-1:])
    lookup = Lookup({d: d for d in range(rank)}, range(rank), rank)
    read = look_up(table, {rank: value.padded(rank)}, lookup, elements)
    axes = read.row_axes + read.latent_axes
    return Named(spread(read, axes), read.shape, axes)
