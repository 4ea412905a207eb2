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
from emjax.graph.multiplicity import Multiplicities
from emjax.graph.site_input import SiteInput, data_of, elements_of, log_density, statistics_of
from emjax.graph.sites import (
    Outputs,
    depends_on_parameters,
    family_for,
    needed_outputs,
    relevant_sites,
)
from emjax.graph.statistics import (
    Statistic,
    StatisticsRecipe,
    Weight,
    is_cheap,
    precomputed,
    summed,
    summed_dims,
)
from emjax.graph.symbols import propagate_program
from emjax.numerics.arrays import LARGEST_KNOWN_CONSTANT
from emjax.numerics.jaxprs import split_jaxpr
from emjax.program.records import Site
from emjax.program.trace import Program
from emjax.tables.lookup import MixedElements, Reach
from emjax.tables.named import Axis, Named, constant, union, without_rows


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
            if np.size(c) <= LARGEST_KNOWN_CONSTANT
            else Named(jnp.asarray(c), tuple(np.shape(c)))
            for c in program.jaxpr.consts
        ]
        inputs = [Named(x, tuple(x.shape)) for x in (*params, *data)]
        values, reached = propagate_program(program, jaxpr, split, [*consts, *inputs])
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
        parameters=program.parameters,
        full_jaxpr=joint,
        once_jaxpr=known,
        step_jaxpr=unknown,
        **state["graph"],
    )


class _Builder:
    """Builds the terms of a program from its named outputs."""

    def __init__(self, outputs: Outputs, floor):
        self.outputs, self.multiplicities = outputs, Multiplicities(outputs, floor)
        self.slots = Slots()
        self.checks: list[Check] = []

    def graph(self, reached: Mapping[Var, Sequence[Reach]]) -> dict:
        """Return the fields of the factor graph that the program's sites determine."""
        relevant, leaves, unused = relevant_sites(self.outputs)
        sites = [*relevant, *leaves]
        self.record(index_checks(self.outputs, sites, reached))
        terms, predicted = (tuple(self.term(site) for site in some) for some in (relevant, leaves))
        drawn = {site.name for site in sites if site.is_latent}
        latents = {
            name: latent for name, latent in self.outputs.program.latents.items() if name in drawn
        }
        multiplicities = {
            site.name: self.slots.stored(self.multiplicities.of(site))
            for site in sites
            if site.name in latents
        }
        return {
            "terms": terms,
            "predicted": predicted,
            "latents": latents,
            "multiplicities": multiplicities,
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
        """Return a site's term, with slots in place of arrays."""
        site_input = self.site_input(site)
        family, elements, weight = site_input.family, site_input.elements, site_input.weight
        data = data_of(site_input)
        naturals = natural_tables(family, site_input.arguments, data.origin, data.value, elements)
        read = [
            *naturals,
            *site_input.masks,
            *(value for value, _ in site_input.given.values()),
            *([] if site_input.is_lookup else [data.value]),
        ]
        without_multiplicity = self.multiplicities.is_that_of_latents(
            weight.multiplicity, _latent_axes(read, site_input.rank)
        )
        of_one = (
            replace(weight, multiplicity=constant(np.ones((1,) * site_input.rank)))
            if without_multiplicity
            else weight
        )
        statistics = statistics_of(site_input, data, of_one)
        # a masked latent changes nothing: uniform over its support, it sums to one
        absent = (
            -math.log(self.outputs.program.latents[site.name].support.shape[0])
            if site.is_latent
            else 0
        )
        is_constant = site_input.possible is None and not any(
            v.latent_axes for v in (data.base, *site_input.masks)
        )
        base = (weight if is_constant else of_one).applied(data.base, elements, absent)
        formed = statistics.formed(elements)
        latent_axes = _latent_axes(
            [*naturals, *(statistic.value for statistic in formed), base], site_input.rank
        )
        kept = tuple(
            d for d in range(site_input.rank) if any(axis.varies[d] for axis in latent_axes)
        )
        statistics = self.reduced(site_input, statistics, formed, naturals, kept)
        base = summed(
            Statistic(without_rows(base)),
            [d for d in range(site_input.rank) if is_constant or d not in kept],
        ).value
        term = Term(
            site,
            family,
            elements,
            site_input.arguments,
            statistics,
            base,
            data.origin,
            data.value,
            latent_axes,
            tuple(table.axes for table in naturals),
            kept,
            self.outputs.prior_arguments(site),
            without_multiplicity,
            self.gate(site, site_input.rank),
        )
        return self.slots.stored_term(term)

    def site_input(self, site: Site) -> SiteInput:
        """Return what a site's term reads, checked."""
        outputs, event = self.outputs, len(site.event)
        value = outputs.values[site.outputs.value]
        elements = elements_of(site, value)
        rank = len(elements)
        value, weight = value.padded(rank + event), self.weight(site, rank)
        check_plates(outputs, site, value, elements)
        family, possible = family_for(site, outputs.depends), outputs.possible(site, rank)
        given = {} if family is None else outputs.arguments(site, family.given, rank)
        observed = (
            given["observed"][0] if family is not None and family.marginal is not None else None
        )
        self.record(observation_checks(outputs, site, value, weight.data_mask, observed))
        self.record(choice_checks(outputs, site, rank))
        if family is None:
            arguments = {"log_prob": log_density(outputs, site, elements, weight.mask, possible)}
            weight = (
                weight if site.is_latent else Weight(weight.multiplicity, None)
            )  # masked cells are zeros already
            return SiteInput(site, family, elements, value, weight, possible, arguments, {})
        arguments = {name: outputs.argument(site, name, rank) for name in family.arguments}
        check_elements(
            site, rank, [*arguments.values(), *(one for one, _ in given.values()), value]
        )
        return SiteInput(site, family, elements, value, weight, possible, arguments, given)

    def weight(self, site: Site, rank: int) -> Weight:
        numbers = [
            *site.outputs.masks,
            *([site.outputs.gate] if site.outputs.gate is not None else []),
        ]
        return Weight(self.multiplicities.of(site).padded(rank), self.outputs.all_of(numbers, rank))

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
        site_input: SiteInput,
        statistics: StatisticsRecipe,
        formed: Sequence[Statistic],
        naturals: Sequence[Named],
        kept: Sequence[int],
    ) -> StatisticsRecipe:
        """Return the statistics summed along whatever no table needs: once, as they are `formed`
        here, or in every step.
        """
        dims = [
            [] if site_input.is_incomplete else summed_dims(s, n, kept, site_input.rank)
            for s, n in zip(formed, naturals, strict=True)
        ]
        reduced = [summed(s, d) for s, d in zip(formed, dims, strict=True)]
        if not self.is_formed_in_step(site_input, statistics, reduced):
            return precomputed(reduced)
        return replace(
            statistics,
            function=lambda i, e: [
                summed(s, d) for s, d in zip(statistics.function(i, e), dims, strict=True)
            ],
        )

    def is_formed_in_step(
        self, site_input: SiteInput, statistics: StatisticsRecipe, reduced: Sequence[Statistic]
    ) -> bool:
        """Whether statistics are larger than the data that they are formed from, and nothing but
        sums and products of them.
        """
        outputs = site_input.site.outputs
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
        return (site_input.is_incomplete or sum(s.size for s in reduced) > kept) and is_cheap(
            statistics, site_input.elements
        )


def _latent_axes(values: Sequence[Named], rank: int) -> tuple[Axis, ...]:
    """Return the axes of the latents that values read, over `rank` axes of elements: each once."""
    return tuple(
        {
            axis.key: axis
            for axis in (axis.fitted(rank) for axis in union(values) if axis.is_latent)
        }.values()
    )
