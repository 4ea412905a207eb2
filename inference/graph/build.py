"""Turn a traced program into a factor graph: each site into a term, each array into a slot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jax.interpreters import partial_eval as pe

from emjax.graph.checks import (
    check_elements,
    check_plates,
    choice_checks,
    index_checks,
    observation_checks,
)
from emjax.graph.factor_graph import Check, FactorGraph, Slots, Term, natural_tables
from emjax.graph.multiplicity import Copies
from emjax.graph.reading import Reading, data_of, elements_of, log_density, statistics_of
from emjax.graph.sites import (
    Outputs,
    chosen_family,
    depends_on_parameters,
    needed_outputs,
    relevant_sites,
)
from emjax.graph.statistics import (
    Statistic,
    Statistics,
    Weight,
    computed_once,
    is_cheap,
    summed,
    summed_dims,
)
from emjax.graph.symbols import propagated
from emjax.numerics.jaxprs import split_jaxpr
from emjax.program.records import Site
from emjax.program.trace import Program
from emjax.tables.lookup import MixedElements, Reach
from emjax.tables.named import Axis, Named, constant, union, without_rows

# constants of the program up to this size take part in propagation as known values, larger ones as
# data
LARGEST_KNOWN = 4096


def factor_graph(program: Program) -> FactorGraph:
    """Return the factor graph of a traced program: tables over single elements of the latents
    wherever they suffice.

    Errors: `ValueError` for an unbounded latent or a missing plate, `MemoryError` for elements that
    the program mixes and that are too many to enumerate jointly, `IndexError` for a lookup that is
    out of range.
    """
    split: set[str] = set()
    while True:
        try:
            return _factor_graph(program, split)
        except MixedElements as error:
            if error.latent in split:
                raise
            split.add(error.latent)


def _factor_graph(program: Program, split: set[str]) -> FactorGraph:
    state: dict = {}
    names = sorted(program.parameters)
    depends = depends_on_parameters(program)
    needed = needed_outputs(program, depends)

    def describe(params, floor, data):
        jaxpr = program.jaxpr.jaxpr
        jaxpr, _ = pe.dce_jaxpr(
            jaxpr, [i in needed for i in range(len(jaxpr.outvars))], instantiate=True
        )
        consts = [
            constant(c)
            if np.size(c) <= LARGEST_KNOWN
            else Named(jnp.asarray(c), tuple(np.shape(c)))
            for c in program.jaxpr.consts
        ]
        inputs = [Named(x, tuple(x.shape)) for x in (*params, *data)]
        values, reached = propagated(program, jaxpr, split, [*consts, *inputs])
        found = iter(values)
        outputs = Outputs(
            program, [next(found) if i in needed else None for i in range(len(depends))], depends
        )
        builder = _Builder(outputs, floor)
        state["graph"] = builder.graph(reached)
        return builder.slots.arrays

    abstract = [
        jax.ShapeDtypeStruct(program.parameters[name].shape, program.parameters[name].dtype)
        for name in names
    ]
    data = [
        jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
        for v in program.jaxpr.jaxpr.invars[len(names) :]
    ]
    joint = jax.make_jaxpr(describe)(
        abstract, jax.ShapeDtypeStruct((), jnp.result_type(float)), data
    )
    known, unknown = split_jaxpr(joint, len(names))
    return FactorGraph(
        parameters=program.parameters, joint=joint, known=known, unknown=unknown, **state["graph"]
    )


class _Builder:
    """Builds the terms of a program from its named outputs."""

    def __init__(self, outputs: Outputs, floor):
        self.outputs, self.copies = outputs, Copies(outputs, floor)
        self.slots = Slots()
        self.checks: list[Check] = []

    def graph(self, reached: Mapping[Var, Sequence[Reach]]) -> dict:
        """Return the fields of the factor graph that the program's sites determine."""
        relevant, leaves, unused = relevant_sites(self.outputs)
        sites = [*relevant, *leaves]
        self.record(index_checks(self.outputs, sites, reached))
        terms, predicted = (tuple(self.term(site) for site in some) for some in (relevant, leaves))
        drawn = {site.name for site in sites if site.kind == "latent"}
        latents = {
            name: latent for name, latent in self.outputs.program.latents.items() if name in drawn
        }
        scales = {
            site.name: self.slots.stored(self.copies.of(site))
            for site in sites
            if site.name in latents
        }
        return {
            "terms": terms,
            "predicted": predicted,
            "latents": latents,
            "scales": scales,
            "checks": tuple(self.checks),
            "unused": unused,
        }

    def record(self, checks: Sequence[Check]) -> None:
        """Record what must not be true of any element (`numpyro.factor` has none)."""
        self.checks += [
            replace(check, bad=self.slots.stored(check.bad))
            for check in checks
            if math.prod(check.bad.shape)
        ]

    def term(self, site: Site) -> Term:
        """Return a site's term: data, origin, natural parameters, copies, statistics, log h(x),
        slots.
        """
        reading = self.reading(site)
        family, elements, weight = reading.family, reading.elements, reading.weight
        data = data_of(reading)
        naturals = natural_tables(family, reading.arguments, data.origin, data.value, elements)
        read = [
            *naturals,
            *reading.masks,
            *(value for value, _ in reading.given.values()),
            *([] if reading.is_lookup else [data.value]),
        ]
        per_copy = self.copies.are_those_of(weight.scale, _latent_axes(read, reading.rank))
        in_copy = (
            replace(weight, scale=constant(np.ones((1,) * reading.rank))) if per_copy else weight
        )
        statistics = statistics_of(reading, data, in_copy)
        # a masked latent changes nothing: uniform over its support, it sums to one
        absent = (
            -math.log(self.outputs.program.latents[site.name].support.shape[0])
            if site.kind == "latent"
            else 0
        )
        is_constant = reading.possible is None and not any(
            v.latent_axes for v in (data.base, *reading.masks)
        )
        base = (weight if is_constant else in_copy).applied(data.base, elements, absent)
        formed = statistics.formed(elements)
        latent_axes = _latent_axes(
            [*naturals, *(statistic.value for statistic in formed), base], reading.rank
        )
        kept = tuple(d for d in range(reading.rank) if any(axis.varies[d] for axis in latent_axes))
        statistics = self.reduced(reading, statistics, formed, naturals, kept)
        base = summed(
            Statistic(without_rows(base)),
            [d for d in range(reading.rank) if is_constant or d not in kept],
        ).value
        term = Term(
            site,
            family,
            elements,
            reading.arguments,
            statistics,
            base,
            data.origin,
            data.value,
            latent_axes,
            tuple(table.axes for table in naturals),
            kept,
            self.outputs.prior_arguments(site),
            per_copy,
            self.gate(site, reading.rank),
        )
        return self.slots.stored_term(term)

    def reading(self, site: Site) -> Reading:
        """Return what a site's term reads, checked."""
        outputs, event = self.outputs, len(site.event)
        value = outputs.values[site.outputs.value]
        elements = elements_of(site, value)
        rank = len(elements)
        value, weight = value.padded(rank + event), self.weight(site, rank)
        check_plates(outputs, site, value, elements)
        family, possible = chosen_family(site, outputs.depends), outputs.possible(site, rank)
        given = {} if family is None else outputs.arguments(site, family.given, rank)
        observed = (
            given["observed"][0] if family is not None and family.marginal is not None else None
        )
        self.record(observation_checks(outputs, site, value, weight.data_mask, observed))
        self.record(choice_checks(outputs, site, rank))
        if family is None:
            arguments = {"log_prob": log_density(outputs, site, elements, weight.mask, possible)}
            weight = (
                weight if site.kind == "latent" else Weight(weight.scale, None)
            )  # masked cells are zeros already
            return Reading(site, family, elements, value, weight, possible, arguments, {})
        arguments = {name: outputs.argument(site, name, rank) for name in family.arguments}
        check_elements(
            site, rank, [*arguments.values(), *(one for one, _ in given.values()), value]
        )
        return Reading(site, family, elements, value, weight, possible, arguments, given)

    def weight(self, site: Site, rank: int) -> Weight:
        numbers = [
            *site.outputs.masks,
            *([site.outputs.gate] if site.outputs.gate is not None else []),
        ]
        return Weight(self.copies.of(site).padded(rank), self.outputs.all_of(numbers, rank))

    def gate(self, site: Site, rank: int) -> Named | None:
        """Return where a component of a `Select` is chosen, if latents say so."""
        number = site.outputs.gate
        return (
            None
            if number is None or not self.outputs.values[number].latent_axes
            else self.outputs.values[number].padded(rank)
        )

    def reduced(
        self,
        reading: Reading,
        statistics: Statistics,
        formed: Sequence[Statistic],
        naturals: Sequence[Named],
        kept: Sequence[int],
    ) -> Statistics:
        """Return the statistics summed along whatever no table needs: once, as they are `formed`
        here, or in every step.
        """
        dims = [
            [] if reading.is_incomplete else summed_dims(s, n, kept, reading.rank)
            for s, n in zip(formed, naturals, strict=True)
        ]
        reduced = [summed(s, d) for s, d in zip(formed, dims, strict=True)]
        if not self.is_formed_in_step(reading, statistics, reduced):
            return computed_once(reduced)
        return replace(
            statistics,
            function=lambda i, e: [
                summed(s, d) for s, d in zip(statistics.function(i, e), dims, strict=True)
            ],
        )

    def is_formed_in_step(
        self, reading: Reading, statistics: Statistics, reduced: Sequence[Statistic]
    ) -> bool:
        """Whether statistics are larger than the data that they are formed from, and nothing but
        sums and products of them.
        """
        outputs = reading.site.outputs
        numbers = [
            outputs.value,
            *outputs.masks,
            outputs.multiplicity,
            outputs.gate,
            *(outputs.args[name] for name in statistics.inputs if name in outputs.args),
        ]
        if (
            any(number is not None and self.outputs.depends[number] for number in numbers)
            or "possible" in statistics.inputs
        ):
            return False
        kept = sum(math.prod(value.array.shape) for value in statistics.inputs.values())
        return (reading.is_incomplete or sum(s.size for s in reduced) > kept) and is_cheap(
            statistics, reading.elements
        )


def _latent_axes(values: Sequence[Named], rank: int) -> tuple[Axis, ...]:
    """Return the axes of the latents that values read, over `rank` axes of elements: each once."""
    return tuple(
        {
            axis.key: axis
            for axis in (axis.fitted(rank) for axis in union(values) if axis.is_latent)
        }.values()
    )
