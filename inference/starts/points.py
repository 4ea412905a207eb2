"""The data that each element of a latent has to say of the locations that it chooses, as points.

The point of an element is the mean of its data, feature by feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from emjax.elimination.factors import Cells, Factor
from emjax.families.family import lacks_coordinates
from emjax.graph.data_statistics import transformed
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled, filled_axes, filled_term
from emjax.graph.terms import Term
from emjax.graph.wiring import NONE
from emjax.starts.locations import Locations, LocationTerm, by_datum, feature_numbers
from emjax.tables.named import Named, without_rows


@dataclass(frozen=True, eq=False)
class Points:
    """The data of each element of a latent.

    - `values`: their mean, feature by feature (the feature's mean where there is none).
    - `standardized`: each feature less its mean, over its standard deviation.
    - `weights`: how often the element counts.
    """

    values: Float[Array, "sample feature"]
    standardized: Float[Array, "sample feature"]
    weights: Float[Array, "sample"]


def points_of(locations: Locations, graph: FactorGraph, arrays: Sequence) -> Points:
    """Return the points of locations' data.

    An element that is masked, or of multiplicity 0, has weight 0.
    """
    latent = graph.latents[locations.latent]
    shape = math.prod(latent.shape), locations.entries.shape[1]
    numbers, values, weights = [], [], []
    for looked_up, features in zip(locations.looked_up, locations.features, strict=True):
        term = graph.terms[looked_up.term]
        number, value, weight = _data(looked_up, arrays, term, features, shape)
        numbers.append(number)
        values.append(value)
        weights.append(weight)
    number, value, weight = map(jnp.concatenate, (numbers, values, weights))
    # known where nothing is missing: XLA would scatter them while it compiles, for seconds
    number, weight = jax.lax.optimization_barrier((number, weight))
    mean, total = _means(number, value, weight, math.prod(shape))
    is_seen = (total > 0).reshape(shape)
    multiplicity = jnp.asarray(filled(graph.multiplicities[locations.latent], arrays).array)
    multiplicity = jnp.broadcast_to(multiplicity, latent.shape).reshape(-1)
    # an element without a datum has no point, and must not become a seed
    multiplicity = jnp.where(is_seen.any(-1), multiplicity, 0)
    return _completed(jnp.where(is_seen, mean.reshape(shape), 0), is_seen, multiplicity)


def _means(number, value, weight, size: int):
    """Return the weighted mean of the values of each number below `size`, and their weight."""
    is_seen = weight > 0
    seen = jnp.where(is_seen, value, -jnp.inf)
    reference = jnp.full(size, -jnp.inf).at[number].max(seen, mode="drop")
    total = jnp.zeros(size).at[number].add(weight, mode="drop")
    # deviations from one of them: the mean of one datum is that datum, to the last digit
    deviation = value - reference[jnp.minimum(number, size - 1)]
    deviation = jnp.where(is_seen, weight * deviation, 0)
    sums = jnp.zeros(size).at[number].add(deviation, mode="drop")
    return reference + sums / jnp.where(total > 0, total, 1), total


def _completed(values, is_seen: Bool[Array, "sample feature"], weights) -> Points:
    """Return the points with each feature's mean where it was not seen."""
    each = jnp.where(is_seen, weights[:, None], 0)
    total = jnp.where(each.sum(0) > 0, each.sum(0), 1)
    mean = (each * values).sum(0) / total
    values = jnp.where(is_seen, values, mean)
    deviation = jnp.sqrt((each * (values - mean) ** 2).sum(0) / total)
    return Points(values, (values - mean) / jnp.where(deviation > 0, deviation, 1), weights)


def _data(
    looked_up: LocationTerm,
    arrays: Sequence,
    term: Term,
    features: np.ndarray,
    shape: tuple[int, int],
) -> list:
    """Return, for each datum of a term, its number among (sample, feature), value and weight."""
    term, (axis,) = filled_term(term, arrays), filled_axes((looked_up.sample,), arrays)
    rank, event, family = len(term.elements), len(term.site.event), term.family
    statistics = term.statistics.formed(term.elements)
    first, counted = without_rows(statistics[0].value), without_rows(statistics[-1].value)
    elements, weight = first.shape[:rank], _widened(counted, jnp.max, event)
    if elements == term.elements:
        value = without_rows(transformed(family, term.value, rank, event)).array
    else:
        # repeated measurements are added up already
        count = _widened(counted, jnp.sum, event)
        mean = _widened(first, jnp.sum, 0) / jnp.where(count != 0, count, 1)
        value = without_rows(term.origin).array + mean
    if lacks_coordinates(family):
        # coordinates that are missing say nothing
        observed = without_rows(statistics[1].value).array
        value, weight = jnp.where(observed, value, 0), weight * observed
    # counted where the program runs: it would be as long as the data
    sample = by_datum(axis.index.computed(term.elements), term)
    feature = feature_numbers(looked_up, term, features)
    number = jnp.where(feature != NONE, sample * shape[1] + feature, math.prod(shape))
    full_shape = elements + tuple(term.site.event)
    return [jnp.broadcast_to(part, full_shape).reshape(-1) for part in (number, value, weight)]


def _widened(value: Named, reduced: Callable, event: int):
    """Return an array over elements, and `event` axes of length 1.

    `reduced` takes the latents out that may take part in it (a gate).
    """
    array = reduced(jnp.asarray(value.array), tuple(range(len(value.axes))))
    return array.reshape(array.shape + (1,) * event)


def factors_of(
    locations: Locations,
    graph: FactorGraph,
    arrays: Sequence,
    log_q: Float[Array, "sample value"],
) -> list[Factor]:
    """Return factors of which the product is, for each element of the latent, q of its values."""
    places = []
    for looked_up in locations.looked_up:
        term = graph.terms[looked_up.term]
        kept = [d for d, varies in enumerate(looked_up.sample.varies) if varies]
        axes = tuple(axis.placed(kept) for axis in filled_axes(looked_up.axes, arrays))
        (sample,) = filled_axes((looked_up.sample,), arrays)
        shape = tuple(term.elements[d] for d in kept)
        number = jnp.broadcast_to(sample.placed(kept).index.computed(shape), shape)
        places.append((axes, shape, number))
    # several sites, or rows, read one element: each of them has its share of q
    count = sum(jnp.bincount(number.reshape(-1), length=len(log_q)) for *_, number in places)
    share = log_q / jnp.maximum(count, 1)[:, None]
    factors = []
    for axes, shape, number in places:
        table = share[number].reshape(shape + tuple(axis.size for axis in axes))
        factors.append(Factor(axes, shape, Cells(table), without_multiplicity=True))
    return factors
