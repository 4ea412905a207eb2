"""The sufficient statistics of data: where the data count, about which origin, how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.families.family import Family
from emjax.graph.recipes import Statistic
from emjax.numerics.arrays import evaluate
from emjax.numerics.guards import as_float, or_number
from emjax.tables.lifting import lift, lift_events
from emjax.tables.named import Named, constant, without_rows

# A row of a smaller multiplicity is there for its own posterior alone.
COUNTS = 1e-20


@dataclass(frozen=True, eq=False)
class Weight:
    """What an element of a site is multiplied by: its multiplicity, where its `mask` is true.

    Without a mask, all elements count.
    """

    multiplicity: Named
    mask: Named | None

    @property
    def counts_once(self) -> bool:
        """Whether every element that counts does so once."""
        # what data decide may be one or not: it is multiplied
        return self.multiplicity.is_static and bool((self.multiplicity.array == 1).all())

    @property
    def is_one(self) -> bool:
        return self.mask is None and self.counts_once

    @property
    def data_mask(self) -> Named | None:
        """The mask, if no latent takes part in it."""
        return None if self.mask is None or self.mask.latent_axes else self.mask

    def counted(self, event: int) -> list[Named]:
        """Return where elements count at all, as masks, for values of `event` more axes."""
        if self.counts_once:
            return []
        counts = evaluate(lambda often: often > COUNTS, self.multiplicity.array)
        return [replace(self.multiplicity, array=counts).with_event(event)]

    def applied(self, value: Named, elements: tuple[int, ...], otherwise: float | int = 0) -> Named:
        """Return multiplicity · value, and multiplicity · `otherwise` where masked."""
        rank = len(elements)
        event = len(value.shape) - rank
        shape = elements + value.shape[rank:]
        if self.is_one:
            return replace(value, shape=shape)
        multiplicity = self.multiplicity.with_event(event)
        if self.mask is None:
            return lift(lambda t, s: t * s, [value, multiplicity], shape)
        mask = self.mask.with_event(event)
        return lift(
            lambda t, s, m: jnp.where(m, t, otherwise) * s, [value, multiplicity, mask], shape
        )

    def weighted(self, statistic: Statistic, elements: tuple[int, ...]) -> Statistic:
        """Return the statistic times the weight."""
        weight = self
        if statistic.square and not self.is_one:
            # w x xᵀ is the square of √w x
            root = jnp.sqrt(self.multiplicity.array)
            weight = replace(self, multiplicity=replace(self.multiplicity, array=root))
        total = None
        if statistic.total is not None and self.is_one:
            total = replace(statistic.total, shape=elements)
        value = weight.applied(statistic.value, elements)
        indicator = statistic.indicator and self.counts_once
        return Statistic(value, statistic.square, total, indicator)


def masked_data(value: Named, masks: Sequence[Named]) -> Named:
    """Return the data with ones in place of what is masked, which may be anything, NaN included.

    `masks`: of the rank of the data.
    """
    if value.latent_axes:
        return value
    for mask in masks:
        shape = np.broadcast_shapes(value.shape, mask.shape)
        value = lift(lambda x, m: jnp.where(m, x, jnp.ones_like(x)), [value, mask], shape)
    return value


def transformed(family: Family, value: Named, rank: int, event: int) -> Named:
    """Return the data as numbers, in the coordinate in which the family's statistics are taken."""

    def function(x):
        return (family.transform(as_float(x)),)

    return lift_events(function, [(value, event)], rank, (event,))[0]


def mean_of(value: Named, location: Named, masks: Sequence[Named], rank: int) -> Named:
    """Return the mean of the data that no mask excludes, the origin of its statistics.

    It is taken along the axes that the location does not vary along.
    """
    # the origin is one point of the data, whatever rows they are read by
    value = without_rows(value)
    dims = tuple(d for d in range(rank) if location.compact[d] == 1)
    weight = jnp.ones((1,) * value.array.ndim, value.array.dtype)
    for mask in masks:
        weight = weight * without_rows(mask).array
    shape = list(value.array.shape)
    for d in dims:
        shape[d] = value.shape[d]
    weight = jnp.broadcast_to(weight, np.broadcast_shapes(tuple(shape), weight.shape))
    total = (value.array * weight).sum(dims, keepdims=True)
    return Named(mean_of_sums(total, weight.sum(dims, keepdims=True)), value.shape)


@jax.jit
def mean_of_sums(total: Array, count: Array) -> Array:
    """Return a mean by what adds up over parts of the data; `summary` finds the calls.

    Of no data at all, or of infinite ones, it is 0.
    """
    mean = total / jnp.maximum(count, 1)
    return or_number(jax.lax.is_finite(mean), mean, 0)


def sufficient(
    family: Family,
    value: Named,
    origin: Named | None,
    given: Sequence[tuple[Named, int]],
    rank: int,
    event: int,
) -> list[Statistic]:
    """Return t(x − origin), unweighted.

    `given`: the family's given arguments and the number of their event axes.
    """
    value = _from_origin(value, origin, rank, event)
    number = jnp.result_type(float)
    events = [1 if i in family.squares else e for i, e in enumerate(family.event_dims)]

    def function(x, *arguments):
        statistics = family.statistics(x, **dict(zip(family.given, arguments, strict=True)))
        return tuple(jnp.asarray(t, number) for t in statistics)

    values = lift_events(function, [(value, event), *given], rank, events)
    statistics = [Statistic(t, i in family.squares) for i, t in enumerate(values)]
    if family.total is not None and all(argument.array.size == 1 for argument, _ in given):
        pairs = zip(family.given, given, strict=True)
        total = family.total(**{name: argument.array.reshape(()) for name, (argument, _) in pairs})
        everywhere = constant(jnp.full((1,) * rank, total, number))
        statistics[1] = replace(statistics[1], total=everywhere)
    return statistics


def incomplete(
    value: Named,
    origin: Named | None,
    observed: Named,
    weight: Weight,
    elements: tuple[int, ...],
    event: int,
) -> list[Statistic]:
    """Return what a marginal is a function of.

    That is x − origin, which of its coordinates are observed, and how often each element counts.
    """
    value = _from_origin(value, origin, len(elements), event)
    ones = constant(np.ones((1,) * len(elements)))
    return [Statistic(value), Statistic(observed), Statistic(weight.applied(ones, elements))]


def _from_origin(value: Named, origin: Named | None, rank: int, event: int) -> Named:
    if origin is None:
        return value
    pairs = [(value, event), (origin, event)]
    return lift_events(lambda x, o: (x - o,), pairs, rank, (event,))[0]
