"""A site as its term reads it: its log-density, or its data, their statistics and log h(x)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from emjax.families.family import Family, Prior
from emjax.graph.sites import Outputs, written_prior
from emjax.graph.statistics import (
    Statistic,
    StatisticsRecipe,
    Weight,
    incomplete,
    masked_data,
    mean_of,
    precomputed,
    sufficient,
    transformed,
)
from emjax.numerics.guards import LOG_ZERO, infinite_at_zero
from emjax.program.records import Site
from emjax.tables.lifting import lift, lift_events
from emjax.tables.named import Named, constant


@dataclass(frozen=True, eq=False)
class SiteInput:
    """A site as its term reads it: family (None: its log-density is the one argument), elements,
    value, weight.

    `possible`: where the value is in the support (None: everywhere); `arguments`: what the natural
    parameters are functions of; `given`: the arguments that the statistics take, and the number of
    their event axes.
    """

    site: Site
    family: Family | None
    elements: tuple[int, ...]
    value: Named
    weight: Weight
    possible: Named | None
    arguments: Mapping[str, Named]
    given: Mapping[str, tuple[Named, int]]

    @property
    def rank(self) -> int:
        return len(self.elements)

    @property
    def event(self) -> int:
        return len(self.site.event)

    @property
    def is_lookup(self) -> bool:
        """Whether its one statistic is how often the entry that it reads counts."""
        return self.family is None or self.family.lookup

    @property
    def masks(self) -> list[Named]:
        return [part for part in (self.weight.mask, self.possible) if part is not None]

    @property
    def is_incomplete(self) -> bool:
        """Whether its events may lack coordinates."""
        return self.family is not None and self.family.marginal is not None

    def read(self, masks: Sequence[Named | None], given: Mapping[str, Named]) -> list[Named]:
        """Return where data are read, of the rank of the data: where their elements count, and
        where their coordinates are observed.
        """
        found = [mask.with_event(self.event) for mask in masks if mask is not None]
        return [*found, given["observed"]] if self.is_incomplete else found


@dataclass(frozen=True, eq=False)
class Data:
    """What a term takes of its data: the `value` that its tables are read at, how often it
    `counts`, `base`: log h(x), and the `origin` of its locations.
    """

    value: Named
    indicator: Named
    base: Named
    origin: Named | None = None


def elements_of(site: Site, value: Named) -> tuple[int, ...]:
    """Return the shape of a site's independent elements, its value's included."""
    try:
        return tuple(
            np.broadcast_shapes(site.elements, value.shape[: len(value.shape) - len(site.event)])
        )
    except ValueError as error:
        raise ValueError(
            f"Site '{site.name}': the value has shape {value.shape}, its distribution "
            f"{site.elements + site.event}. Give the plate the "
            "size of the data, or reshape the data."
        ) from error


# ── log-densities ─────────────────────────────────────────────────────────────────────────────────


def log_density(
    outputs: Outputs,
    site: Site,
    elements: tuple[int, ...],
    mask: Named | None,
    possible: Named | None,
) -> Named:
    """Return a site's log-density as the program's distribution computes it, zero where masked."""
    number = site.outputs.log_prob
    if number is None:
        raise ValueError(
            f"Site '{site.name}': {site.family.__name__} has no `log_prob` that JAX can trace. Use "
            "a distribution that has one."
        )
    table = replace(outputs.values[number].padded(len(elements)), shape=elements)
    if (prior := written_prior(site)) is not None:
        table = _prior_density(outputs, site, prior, elements)
    if possible is not None:
        table = lift(lambda t, p: jnp.where(p, t, LOG_ZERO), [table, possible], elements)
    return table if mask is None else lift(lambda t, m: jnp.where(m, t, 0), [table, mask], elements)


def _prior_density(outputs: Outputs, site: Site, prior: Prior, elements: tuple[int, ...]) -> Named:
    """Return log p(θ) from the features of θ in which it is linear."""
    rank, event = len(elements), len(site.event)

    def density(value, *arrays):
        arguments = dict(zip(prior.arguments, arrays, strict=True))
        return (
            infinite_at_zero(
                prior.log_density(prior.form.features(value), **arguments)
                + prior.log_constant(**arguments)
            ),
        )

    value = outputs.values[site.outputs.value].padded(rank + event)
    (table,) = lift_events(
        density, [(value, event), *outputs.arguments(site, prior.arguments, rank).values()], rank
    )
    return replace(table, shape=elements)


def _log_base(site_input: SiteInput, data: Named) -> Named:
    """Return log h(x)."""
    family, given, possible = site_input.family, site_input.given, site_input.possible

    def function(x, *g):
        return (
            jnp.asarray(family.base(x, **dict(zip(given, g, strict=True))), jnp.result_type(float)),
        )

    (base,) = lift_events(function, [(data, site_input.event), *given.values()], site_input.rank)
    return (
        base
        if possible is None
        else lift(lambda b, p: jnp.where(p, b, LOG_ZERO), [base, possible], site_input.elements)
    )


# ── data and statistics ───────────────────────────────────────────────────────────────────────────


def data_of(site_input: SiteInput) -> Data:
    """Return what a site's term takes of its data."""
    family, value, mask, rank, event = (
        site_input.family,
        site_input.value,
        site_input.weight.data_mask,
        site_input.rank,
        site_input.event,
    )
    if family is not None and family.lookup and site_input.site.is_observed:
        return _categories(value, mask, site_input.possible, site_input.elements)
    ones = constant(np.ones((1,) * rank))
    if site_input.is_lookup:
        return Data(value, ones, constant(np.zeros((1,) * rank)))
    read = site_input.read([mask], {name: one for name, (one, _) in site_input.given.items()})
    data = transformed(family, masked_data(value, read), rank, event)
    origin = (
        mean_of(data, site_input.arguments[family.centered], read, rank)
        if family.centered and not value.latent_axes
        else None
    )
    return Data(value, ones, _log_base(site_input, data), origin)


def _categories(
    value: Named, mask: Named | None, possible: Named | None, elements: tuple[int, ...]
) -> Data:
    """Return categories that exist (0 where one is masked or does not), how often each counts, and
    log h: whether it exists.
    """
    rank = len(elements)
    for exists in (mask, possible):
        if exists is not None:
            value = lift(lambda x, e: jnp.where(e, x, 0), [value, exists], elements)
    if possible is None:
        return Data(value, constant(np.ones((1,) * rank)), constant(np.zeros((1,) * rank)))
    return Data(
        value,
        lift(lambda p: jnp.where(p, 1.0, 0.0), [possible], elements),
        lift(lambda p: jnp.where(p, 0.0, LOG_ZERO), [possible], elements),
    )


def statistics_of(site_input: SiteInput, data: Data, weight: Weight) -> StatisticsRecipe:
    """Return the weighted sufficient statistics of a site as a function of its data."""
    if site_input.is_lookup:
        return precomputed(
            [weight.weighted(Statistic(data.indicator, indicator=True), site_input.elements)]
        )
    family, rank, event = site_input.family, site_input.rank, site_input.event
    events = {name: number for name, (_, number) in site_input.given.items()}
    kept = {
        "value": site_input.value,
        "origin": data.origin,
        "multiplicity": weight.multiplicity,
        "mask": weight.mask,
        "possible": site_input.possible,
    }
    inputs = {name: v for name, v in kept.items() if v is not None} | {
        name: v for name, (v, _) in site_input.given.items()
    }

    def function(inputs, elements):
        own = Weight(inputs["multiplicity"], inputs.get("mask"))
        data = transformed(
            family,
            masked_data(inputs["value"], site_input.read([own.data_mask], inputs)),
            rank,
            event,
        )
        if site_input.is_incomplete:
            return incomplete(data, inputs.get("origin"), inputs["observed"], own, elements, event)
        found = sufficient(
            family,
            data,
            inputs.get("origin"),
            [(inputs[name], number) for name, number in events.items()],
            rank,
            event,
        )
        return [
            own.weighted(_where_possible(s, inputs.get("possible"), elements), elements)
            for s in found
        ]

    return StatisticsRecipe(inputs, function)


def _where_possible(
    statistic: Statistic, possible: Named | None, elements: tuple[int, ...]
) -> Statistic:
    """Return the statistic, zero where the observation is outside the support."""
    if possible is None:
        return statistic
    event = statistic.value.shape[len(elements) :]
    return replace(
        statistic,
        value=lift(
            lambda t, p: jnp.where(p, t, 0),
            [statistic.value, possible.with_event(len(event))],
            elements + event,
        ),
    )
