"""A site as its term reads it: its log-density, or its data, their statistics and log h(x)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.families.family import Family, Prior, lacks_coordinates
from emjax.families.jacobians import is_unconstrained, log_jacobian
from emjax.graph.data_statistics import (
    Weight,
    incomplete,
    masked_data,
    mean_of,
    sufficient,
    transformed,
)
from emjax.graph.outputs import Outputs, written_prior
from emjax.graph.recipes import Statistic, StatisticsRecipe, precomputed
from emjax.numerics.guards import IMPOSSIBLE, LOG_ZERO, infinite_at_zero
from emjax.program.records import Site
from emjax.tables.lifting import lift, lift_events
from emjax.tables.named import Named, constant


@dataclass(frozen=True, eq=False)
class SiteInput:
    """A site as its term reads it.

    - `family`: None where the log-density is the one argument.
    - `elements`: the shape of its independent elements, the value's included.
    - `value`: of shape `elements` and an event.
    - `possible`: where the value is in the support; None: everywhere.
    - `arguments`: what the natural parameters are functions of.
    - `given`: the arguments that the statistics take, and the number of their event axes.
    - `counted`: where its data count, as masks of their rank.
    """

    site: Site
    family: Family | None
    elements: tuple[int, ...]
    value: Named
    weight: Weight
    possible: Named | None
    arguments: Mapping[str, Named]
    given: Mapping[str, tuple[Named, int]]
    counted: Sequence[Named]

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
    def is_incomplete(self) -> bool:
        """Whether its events may lack coordinates."""
        return lacks_coordinates(self.family)

    @property
    def masks(self) -> list[Named]:
        """Where its elements count, and where they are possible, if not everywhere."""
        return [part for part in (self.weight.mask, self.possible) if part is not None]

    def data_read(self, mask: Named | None, given: Mapping[str, Named]) -> list[Named]:
        """Return where its data are read, as masks of the rank of the data.

        They are where elements count and where coordinates are observed.
        """
        return data_read(mask, given.get("observed") if self.is_incomplete else None, self.event)


def data_read(mask: Named | None, observed: Named | None, event: int) -> list[Named]:
    """Return where data are read: where a mask is true, and where coordinates are observed."""
    masks = [] if mask is None else [mask.with_event(event)]
    return masks if observed is None else [*masks, observed]


@dataclass(frozen=True, eq=False)
class Data:
    """What a term takes of its data.

    - `value`: what its tables are read at.
    - `indicator`: 1 where what is read exists, 0 elsewhere.
    - `base`: log h(x).
    - `origin`: of its locations.
    """

    value: Named
    indicator: Named
    base: Named
    origin: Named | None = None


def elements_of(site: Site, value: Named) -> tuple[int, ...]:
    """Return the shape of a site's independent elements, its value's included."""
    shape = value.shape[: len(value.shape) - len(site.event)]
    try:
        return tuple(np.broadcast_shapes(site.elements, shape))
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
    if site.outputs.log_prob is None:
        raise ValueError(
            f"Site '{site.name}': {site.distribution.__name__} has no `log_prob` "
            "that JAX can trace. Use a distribution that has one."
        )
    prior = written_prior(site)
    # NumPyro's densities of priors are NaN at a bound where ours are −∞ or finite
    if prior is None:
        table = outputs.values[site.outputs.log_prob].padded(len(elements))
    else:
        table = _prior_density(outputs, site, prior, elements)
    table = replace(table, shape=elements)
    if site.is_prior and outputs.is_unconstrained:
        table = _in_coordinates(outputs, site, table, elements)
    if possible is not None:
        table = lift(lambda t, p: jnp.where(p, t, LOG_ZERO), [table, possible], elements)
    # the mask last: what does not count may be impossible
    if mask is not None:
        table = lift(lambda t, m: jnp.where(m, t, 0), [table, mask], elements)
    return table


def _prior_density(outputs: Outputs, site: Site, prior: Prior, elements: tuple[int, ...]) -> Named:
    """Return log p(θ) from the features of θ in which it is linear."""
    rank, event = len(elements), len(site.event)

    def density(value, *arrays):
        arguments = dict(zip(prior.arguments, arrays, strict=True))
        linear = prior.log_density(prior.form.features(value), **arguments)
        return (infinite_at_zero(linear + prior.log_constant(**arguments)),)

    value = outputs.values[site.outputs.value].padded(rank + event)
    arguments = outputs.arguments(site, prior.arguments, rank)
    return lift_events(density, [(value, event), *arguments.values()], rank)[0]


def _in_coordinates(outputs: Outputs, site: Site, table: Named, elements: tuple[int, ...]) -> Named:
    """Return log p(θ) + log |dθ/du|, given log p(θ): the density of unconstrained coordinates."""
    rank, event = len(elements), len(site.event)
    constraint = outputs.program.parameters[site.name].constraint
    if is_unconstrained(constraint):
        return table

    def jacobian(value):
        return (log_jacobian(constraint, value, event),)

    value = outputs.values[site.outputs.value].padded(rank + event)
    (of_value,) = lift_events(jacobian, [(value, event)], rank)

    # at a bound, where the density of θ may be infinite, that of u is zero
    def density(of_theta, log_jacobian):
        return jnp.where(log_jacobian < IMPOSSIBLE, LOG_ZERO, of_theta + log_jacobian)

    return lift(density, [table, of_value], elements)


def _log_base(read: SiteInput, data: Named) -> Named:
    """Return log h(x)."""

    def function(x, *arguments):
        base = read.family.base(x, **dict(zip(read.given, arguments, strict=True)))
        return (jnp.asarray(base, jnp.result_type(float)),)

    (base,) = lift_events(function, [(data, read.event), *read.given.values()], read.rank)
    if read.possible is None:
        return base
    return lift(lambda b, p: jnp.where(p, b, LOG_ZERO), [base, read.possible], read.elements)


# ── data and statistics ───────────────────────────────────────────────────────────────────────────


def data_of(read: SiteInput) -> Data:
    """Return what a site's term takes of its data."""
    family: Any = read.family
    value, mask = read.value, read.weight.data_mask
    if family is not None and family.lookup and read.site.is_observed:
        return _categories(value, mask, read.possible, read.elements)
    ones = constant(np.ones((1,) * read.rank))
    if read.is_lookup:
        return Data(value, ones, constant(np.zeros((1,) * read.rank)))
    masks = data_read(mask, read.given["observed"][0] if read.is_incomplete else None, read.event)
    data = transformed(family, masked_data(value, masks), read.rank, read.event)
    # the mean of a latent is no origin: it is not known before the step
    origin = None
    if family.centered and not value.latent_axes:
        origin = mean_of(data, read.arguments[family.centered], read.counted, read.rank)
    return Data(value, ones, _log_base(read, data), origin)


def _categories(
    value: Named, mask: Named | None, possible: Named | None, elements: tuple[int, ...]
) -> Data:
    """Return observed categories, 0 in place of one that is masked or does not exist."""
    rank = len(elements)
    # a lookup needs a row to read, also where it does not count
    for exists in (mask, possible):
        if exists is not None:
            value = lift(lambda x, e: jnp.where(e, x, 0), [value, exists], elements)
    # whole numbers as data frames hold them that lack some; others are found outside the support
    if jnp.issubdtype(value.array.dtype, jnp.inexact):
        value = lift(lambda x: x.astype(jnp.result_type(int)), [value], elements)
    if possible is None:
        return Data(value, constant(np.ones((1,) * rank)), constant(np.zeros((1,) * rank)))
    return Data(
        value,
        lift(lambda p: jnp.where(p, 1.0, 0.0), [possible], elements),
        lift(lambda p: jnp.where(p, 0.0, LOG_ZERO), [possible], elements),
    )


def statistics_of(read: SiteInput, data: Data, weight: Weight) -> StatisticsRecipe:
    """Return the weighted sufficient statistics of a site as a function of its data."""
    if read.is_lookup:
        indicator = Statistic(data.indicator, indicator=True)
        return precomputed([weight.weighted(indicator, read.elements)])
    family: Any = read.family
    rank, event = read.rank, read.event
    kept = {
        "value": read.value,
        "origin": data.origin,
        "multiplicity": weight.multiplicity,
        "mask": weight.mask,
        "possible": read.possible,
    }
    inputs = {name: value for name, value in kept.items() if value is not None}
    inputs |= {name: value for name, (value, _) in read.given.items()}

    # nothing but `inputs` is of data here, so that blocks of them can be put in their place
    def function(inputs, elements):
        weight = Weight(inputs["multiplicity"], inputs.get("mask"))
        origin, possible = inputs.get("origin"), inputs.get("possible")
        seen = masked_data(inputs["value"], read.data_read(weight.data_mask, inputs))
        data = transformed(family, seen, rank, event)
        if read.is_incomplete:
            return incomplete(data, origin, inputs["observed"], weight, elements, event)
        given = [(inputs[name], number) for name, (_, number) in read.given.items()]
        statistics = sufficient(family, data, origin, given, rank, event)
        return [
            weight.weighted(_where_possible(statistic, possible, elements), elements)
            for statistic in statistics
        ]

    return StatisticsRecipe(inputs, function)


def _where_possible(
    statistic: Statistic, possible: Named | None, elements: tuple[int, ...]
) -> Statistic:
    """Return the statistic, zero where the observation is outside the support."""
    if possible is None:
        return statistic
    event = statistic.value.shape[len(elements) :]
    values = [statistic.value, possible.with_event(len(event))]
    value = lift(lambda t, p: jnp.where(p, t, 0), values, elements + event)
    return replace(statistic, value=value)
