"""Sufficient statistics: what a term keeps of its data, and what is formed from that in every step.

Statistics that are sums over the data are computed once. Those that are as long as the data and
larger (x and x² of x, the matrix x xᵀ of a vector x) are formed in the step, block by block, from
the data themselves: memory is dearer than products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from emjax.families.family import Family
from emjax.numerics.arrays import evaluate
from emjax.numerics.guards import as_float
from emjax.numerics.primitives import traits
from emjax.tables.lifting import lift, lift_events
from emjax.tables.named import Named, constant, without_rows


@dataclass(frozen=True, eq=False)
class Statistic:
    """A sufficient statistic t: its named value, or the matrix x xᵀ of a named vector x, which is
    not formed (`square`).

    `total`: the constant n, where t is n minus the statistic before it; `indicator`: t is 0 or 1,
    whether an element counts.
    """

    value: Named
    square: bool = False
    total: Named | None = None
    indicator: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.value.array.shape)


@dataclass(frozen=True, eq=False)
class StatisticsRecipe:
    """The statistics of a term as a function of what it keeps of the data: `function(inputs,
    elements)` is a list.
    """

    inputs: Mapping[str, Named]
    function: Callable

    def formed(self, elements: tuple[int, ...]) -> list[Statistic]:
        return self.function(self.inputs, elements)


def precomputed(statistics: Sequence[Statistic]) -> StatisticsRecipe:
    def function(inputs, elements):
        return [
            replace(statistic, value=value, total=None)
            for value, statistic in zip(inputs.values(), kept, strict=True)
        ]

    # of the statistics themselves nothing is kept but what kind they are: their arrays are the
    # inputs
    kept = [
        replace(statistic, value=constant(np.zeros(())), total=None) for statistic in statistics
    ]

    return StatisticsRecipe(
        {f"statistic {i}": statistic.value for i, statistic in enumerate(statistics)}, function
    )


def is_cheap(statistics: StatisticsRecipe, elements: tuple[int, ...]) -> bool:
    """Whether statistics take nothing but sums and products of what is kept."""
    names = list(statistics.inputs)

    def arrays(*values):
        inputs = {
            name: replace(statistics.inputs[name], array=value)
            for name, value in zip(names, values, strict=True)
        }
        return [
            jnp.asarray(statistic.value.array)
            for statistic in statistics.function(inputs, elements)
        ]

    if any(value.axes for value in statistics.inputs.values()):
        return False
    jaxpr = jax.make_jaxpr(arrays)(
        *(jax.ShapeDtypeStruct(v.array.shape, v.array.dtype) for v in statistics.inputs.values())
    )
    return all(traits(eqn).is_cheap for eqn in jaxpr.jaxpr.eqns)


@dataclass(frozen=True, eq=False)
class Weight:
    """How often each element of a site counts: its multiplicity, and a mask (None: all of them)."""

    multiplicity: Named
    mask: Named | None

    @property
    def is_one(self) -> bool:
        return (
            self.mask is None
            and self.multiplicity.is_static
            and bool((self.multiplicity.array == 1).all())
        )

    def applied(self, value: Named, elements: tuple[int, ...], otherwise: float | int = 0) -> Named:
        """Return mask · multiplicity · value, with `otherwise` · multiplicity where masked."""
        rank = len(elements)
        event = len(value.shape) - rank
        shape = elements + value.shape[rank:]
        if self.is_one:
            return replace(value, shape=shape)
        masks = [] if self.mask is None else [self.mask.with_event(event)]
        return lift(
            lambda t, s, *m: (jnp.where(m[0], t, otherwise) if m else t) * s,
            [value, self.multiplicity.with_event(event), *masks],
            shape,
        )

    def weighted(self, statistic: Statistic, elements: tuple[int, ...]) -> Statistic:
        """Return the statistic times the weight: w x xᵀ is the square of √w x."""
        weight = (
            replace(
                self,
                multiplicity=replace(self.multiplicity, array=jnp.sqrt(self.multiplicity.array)),
            )
            if statistic.square and not self.is_one
            else self
        )
        total = (
            replace(statistic.total, shape=elements)
            if statistic.total is not None and self.is_one
            else None
        )
        counts_once = self.multiplicity.is_static and bool((self.multiplicity.array == 1).all())
        return Statistic(
            weight.applied(statistic.value, elements),
            statistic.square,
            total,
            statistic.indicator and counts_once,
        )

    @property
    def data_mask(self) -> Named | None:
        """The mask, if no latent takes part in it."""
        return None if self.mask is None or self.mask.latent_axes else self.mask


def masked_data(value: Named, masks: Sequence[Named]) -> Named:
    """Return the data with ones in place of what is masked, which may be anything, NaN included.
    `masks`: of the rank of the data.
    """
    for mask in [] if value.latent_axes else masks:
        value = lift(
            lambda x, m: jnp.where(m, x, jnp.ones_like(x)),
            [value, mask],
            np.broadcast_shapes(value.shape, mask.shape),
        )
    return value


def transformed(family: Family, value: Named, rank: int, event: int) -> Named:
    """Return the data as numbers, in the coordinate in which the family's statistics are taken."""

    def function(x):
        return (family.transform(as_float(x)),)

    return lift_events(function, [(value, event)], rank, (event,))[0]


def mean_of(value: Named, location: Named, masks: Sequence[Named], rank: int) -> Named:
    """Return the mean of the data that no mask excludes, along the axes that the location does not
    vary along: the origin of its statistics.
    """
    value, dims = without_rows(value), tuple(d for d in range(rank) if location.compact[d] == 1)
    weight = jnp.ones((1,) * value.array.ndim, value.array.dtype)
    for mask in masks:
        weight = weight * without_rows(mask).array
    shape = tuple(
        n if d in dims else m
        for d, (n, m) in enumerate(zip(value.shape, value.array.shape, strict=True))
    )
    weight = jnp.broadcast_to(weight, np.broadcast_shapes(shape, weight.shape))
    mean = (value.array * weight).sum(dims, keepdims=True) / jnp.maximum(
        weight.sum(dims, keepdims=True), 1
    )
    return Named(jnp.where(jnp.isfinite(mean), mean, 0), value.shape)


def sufficient(
    family: Family,
    value: Named,
    origin: Named | None,
    given: Sequence[tuple[Named, int]],
    rank: int,
    event: int,
) -> list[Statistic]:
    """Return t(x − origin), unweighted. `given`: the family's given arguments and the number of
    their event axes.
    """
    if origin is not None:
        (value,) = lift_events(
            lambda x, o: (x - o,), [(value, event), (origin, event)], rank, (event,)
        )
    number = jnp.result_type(float)
    out_events = [1 if i in family.squares else e for i, e in enumerate(family.event_dims)]

    def function(x, *g):
        return tuple(
            jnp.asarray(t, number)
            for t in family.statistics(x, **dict(zip(family.given, g, strict=True)))
        )

    values = lift_events(function, [(value, event), *given], rank, out_events)
    statistics = [Statistic(v, i in family.squares) for i, v in enumerate(values)]
    if family.total is not None and all(value.array.size == 1 for value, _ in given):
        total = family.total(
            **{
                name: value.array.reshape(())
                for name, (value, _) in zip(family.given, given, strict=True)
            }
        )
        statistics[1] = replace(statistics[1], total=constant(jnp.full((1,) * rank, total, number)))
    return statistics


def incomplete(
    value: Named,
    origin: Named | None,
    observed: Named,
    weight: Weight,
    elements: tuple[int, ...],
    event: int,
) -> list[Statistic]:
    """Return what a marginal is a function of: x − origin, and which of its coordinates are
    observed; and how often each element counts.
    """
    if origin is not None:
        (value,) = lift_events(
            lambda x, o: (x - o,), [(value, event), (origin, event)], len(elements), (event,)
        )
    ones = constant(np.ones((1,) * len(elements)))
    return [Statistic(value), Statistic(observed), Statistic(weight.applied(ones, elements))]


def summed_dims(statistic: Statistic, natural: Named, kept: Sequence[int], rank: int) -> list[int]:
    """Return the axes of a term's elements that neither the latents nor the natural parameter of a
    statistic vary along.
    """
    rows = [axis.varies for axis in (*natural.row_axes, *statistic.value.row_axes)]
    return [
        d
        for d in range(rank)
        if d not in kept and natural.compact[d] == 1 and not any(varies[d] for varies in rows)
    ]


def summed(statistic: Statistic, dims: Sequence[int]) -> Statistic:
    """Sum a statistic along axes, which stay with length 1."""
    if statistic.square:
        return _summed_squares(statistic.value, dims)
    total = None if statistic.total is None else _summed(statistic.total, dims)
    value = _summed(statistic.value, dims)
    return Statistic(
        value, False, total, statistic.indicator and value.array is statistic.value.array
    )


def _summed(value: Named, dims: Sequence[int]) -> Named:
    times, over, shape = _what_is_summed(value, dims)
    if not over and times == 1:
        return replace(value, shape=shape)
    return replace(
        value,
        array=evaluate(lambda a: a.sum(axis=over, keepdims=True) * times, value.array),
        shape=shape,
    )


def _summed_squares(value: Named, dims: Sequence[int]) -> Statistic:
    """Return Σ x xᵀ along axes, which stay with length 1: one matrix product."""
    times, over, shape = _what_is_summed(value, dims)
    if not over and times == 1:
        return Statistic(replace(value, shape=shape), True)
    letters = [chr(97 + d) for d in range(value.array.ndim)]
    out = [letter for d, letter in enumerate(letters[:-1]) if d not in over]
    spec = f"{''.join(letters)},{''.join(letters[:-1])}Z->{''.join(out)}{letters[-1]}Z"
    lead = [1 if d in over else n for d, n in enumerate(value.array.shape[:-1])]

    def squares(x):
        return times * jnp.einsum(spec, x, x, precision="highest").reshape(*lead, *shape[-1:] * 2)

    return Statistic(Named(evaluate(squares, value.array), shape + shape[-1:], value.axes))


def _what_is_summed(value: Named, dims: Sequence[int]):
    """Return how often a value counts along axes that it does not vary along, the array's axes to
    sum, and the shape that is left.
    """
    times = math.prod(value.shape[d] for d in dims if value.compact[d] == 1)
    over = tuple(len(value.axes) + d for d in dims if value.compact[d] > 1)
    return times, over, tuple(1 if d in dims else s for d, s in enumerate(value.shape))
