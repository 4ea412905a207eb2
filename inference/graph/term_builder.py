"""Build the term of a site: what it reads, its natural parameters, its statistics, its checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emjax.families.family import lacks_coordinates
from emjax.graph.checks import (
    check_elements,
    check_plates,
    choice_checks,
    observation_checks,
)
from emjax.graph.data_statistics import Weight
from emjax.graph.factor_graph import Check
from emjax.graph.missing_patterns import patterns_of
from emjax.graph.multiplicity import Multiplicities
from emjax.graph.outputs import Outputs
from emjax.graph.recipes import (
    Statistic,
    StatisticsRecipe,
    is_cheap,
    precomputed,
    summed,
    summed_dims,
)
from emjax.graph.site_input import (
    Data,
    SiteInput,
    data_of,
    data_read,
    elements_of,
    log_density,
    statistics_of,
)
from emjax.graph.slots import Slots
from emjax.graph.terms import Term, natural_tables, of_shape
from emjax.program.records import Site, family_for
from emjax.tables.named import Axis, Named, constant, union, varying_dims, without_rows


class TermBuilder:
    """Builds the terms of a program from its named outputs.

    - `affine`, `outputs`: the outputs, and what they are where all Gaussian latents are zero.
    - `multiplicities`: of its sites, each at least `floor`.
    - `slots`: in place of all traced arrays.
    - `checks`: what must not be true of the data, as far as terms were built.
    """

    def __init__(self, outputs: Outputs, floor: Any):
        self.affine, self.outputs = outputs, outputs.at_zero
        self.multiplicities = Multiplicities(self.outputs, floor)
        self.slots = Slots()
        self.checks: list[Check] = []

    def record(self, checks: Sequence[Check]) -> None:
        """Record what must not be true of any element."""
        for check in checks:
            if math.prod(check.bad.shape):  # `numpyro.factor` has no elements
                self.checks.append(replace(check, bad=self.slots.stored(check.bad)))

    def terms(self, site: Site) -> list[Term]:
        """Return a site's terms, where all Gaussian latents are zero: there is one."""
        read = self.site_input(site)
        return [self.term(read, data_of(read))]

    def term(self, read: SiteInput, data: Data) -> Term:
        """Return a site's term, where all Gaussian latents are zero."""
        site, rank, elements, weight = read.site, read.rank, read.elements, read.weight
        naturals = natural_tables(read.family, read.arguments, data.origin, data.value, elements)
        given = [value for value, _ in read.given.values()]
        # a lookup's value is read already: it is part of the tables
        values = [*naturals, *read.masks, *given, *([] if read.is_lookup else [data.value])]
        weight_of_one = self.weight_of_one(weight, latent_axes_of(values, rank))
        recipe = statistics_of(read, data, weight_of_one)
        formed = recipe.formed(elements)
        is_constant = read.possible is None and not any(
            value.latent_axes for value in (data.base, *read.masks)
        )
        # what no latent has to do with is theirs neither to count
        base_weight = weight if is_constant else weight_of_one
        base = base_weight.applied(data.base, elements, self.masked_density(site))
        # a Gaussian latent integrates to one: log h is part of that
        if site.is_integrated:
            base = constant(np.zeros((1,) * rank))
        touched = [*naturals, *(statistic.value for statistic in formed), base]
        # masks and given arguments may read latents that the natural parameters do not
        latent_axes = latent_axes_of(touched, rank)
        kept = varying_dims(latent_axes, rank)
        summed_over = [d for d in range(rank) if is_constant or d not in kept]
        return Term(
            site=site,
            family=read.family,
            elements=elements,
            arguments=read.arguments,
            statistics=self.reduced(read, recipe, formed, naturals, kept),
            base=summed(Statistic(without_rows(base)), summed_over).value,
            origin=data.origin,
            value=data.value,
            latent_axes=latent_axes,
            naturals=tuple(map(of_shape, naturals)),
            kept=kept,
            prior_arguments=self.outputs.prior_arguments(site),
            without_multiplicity=weight_of_one is not weight,
            gate=self.gate(site, rank),
            counted=() if site.is_discrete or not site.is_observed else tuple(read.counted),
            patterns=patterns_of(read, naturals, formed),
        )

    def weight_of_one(self, weight: Weight, axes: Sequence[Axis]) -> Weight:
        """Return the weight of an element that counts once, where its latents count for it."""
        if self.multiplicities.is_that_of_latents(weight.multiplicity, axes):
            ones = constant(np.ones((1,) * len(weight.multiplicity.shape)))
            return replace(weight, multiplicity=ones)
        return weight

    def site_input(self, site: Site) -> SiteInput:
        """Return what a site's term reads, checked."""
        outputs = self.outputs
        value = outputs.values[site.outputs.value]
        elements = elements_of(site, value)
        rank = len(elements)
        value, weight = value.padded(rank + len(site.event)), self.weight(site, rank)
        check_plates(outputs, site, value, elements)
        family, possible = family_for(site, outputs.depends), outputs.possible(site, rank)
        given = {} if family is None else outputs.arguments(site, family.given, rank)
        observed = given["observed"][0] if lacks_coordinates(family) else None
        self.record(observation_checks(outputs, site, value, weight.data_mask, observed))
        event = len(site.event)
        counted = [*data_read(weight.data_mask, observed, event), *weight.counted(event)]
        self.record(choice_checks(outputs, site, rank))
        if family is None:
            arguments = {"log_prob": log_density(outputs, site, elements, weight.mask, possible)}
            if not site.is_latent:
                weight = Weight(weight.multiplicity, None)  # masked cells are zeros already
            return SiteInput(
                site, family, elements, value, weight, possible, arguments, {}, counted
            )
        arguments = {name: outputs.argument(site, name, rank) for name in family.arguments}
        given_values = [given_value for given_value, _ in given.values()]
        check_elements(site, rank, [*arguments.values(), *given_values, value])
        return SiteInput(site, family, elements, value, weight, possible, arguments, given, counted)

    def weight(self, site: Site, rank: int) -> Weight:
        """Return how often each element of a site counts."""
        numbers = list(site.outputs.masks)
        if site.outputs.gate is not None:
            numbers.append(site.outputs.gate)
        multiplicity = self.multiplicities.of(site).padded(rank)
        return Weight(multiplicity, self.outputs.all_of(numbers, rank))

    def gate(self, site: Site, rank: int) -> Named | None:
        """Return where a component of a `Select` is chosen, if latents say so."""
        if site.outputs.gate is None:
            return None
        gate = self.outputs.values[site.outputs.gate]
        return gate.padded(rank) if gate.latent_axes else None

    def masked_density(self, site: Site) -> float | int:
        """Return the log-density of an element that is masked."""
        if not site.is_latent:
            return 0
        # a masked latent changes nothing: uniform over its support, it sums to one
        return -math.log(len(self.outputs.program.latents[site.name].support))

    def reduced(
        self,
        read: SiteInput,
        recipe: StatisticsRecipe,
        formed: Sequence[Statistic],
        naturals: Sequence[Named],
        kept: Sequence[int],
    ) -> StatisticsRecipe:
        """Return the recipe of the statistics summed along whatever no table needs.

        They are summed once, as they are `formed` here, or in every step.
        """
        # each element's own missing coordinates are integrated out before anything is summed
        if read.is_incomplete:
            dims = [[] for _ in formed]
        else:
            pairs = zip(formed, naturals, strict=True)
            dims = [summed_dims(t, natural, kept, read.rank) for t, natural in pairs]
        sums = [summed(t, over) for t, over in zip(formed, dims, strict=True)]
        if not self.is_formed_in_step(read, recipe, sums):
            return precomputed(sums)

        def function(inputs, elements):
            statistics = recipe.function(inputs, elements)
            return [summed(t, over) for t, over in zip(statistics, dims, strict=True)]

        return replace(recipe, function=function)

    def is_formed_in_step(
        self, read: SiteInput, recipe: StatisticsRecipe, sums: Sequence[Statistic]
    ) -> bool:
        """Whether statistics are formed of the data in every step.

        They are where they are larger than the data, and nothing but sums and products of them.
        """
        outputs = read.site.outputs
        numbers = [outputs.value, *outputs.masks, outputs.multiplicity, outputs.gate]
        numbers += [outputs.args[name] for name in recipe.inputs if name in outputs.args]
        is_estimated = any(self.outputs.depends[number] for number in numbers if number is not None)
        if is_estimated or "possible" in recipe.inputs:
            return False
        kept = sum(math.prod(value.array.shape) for value in recipe.inputs.values())
        is_larger = sum(t.size for t in sums) > kept
        return (read.is_incomplete or is_larger) and is_cheap(recipe, read.elements)


def latent_axes_of(values: Sequence[Named], rank: int) -> tuple[Axis, ...]:
    """Return the axes of the latents that values read, over `rank` axes of elements: each once."""
    axes = [axis.fitted(rank) for axis in union(values) if axis.is_latent]
    return tuple({axis.key: axis for axis in axes}.values())
