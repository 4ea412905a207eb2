"""Starts of programs whose latents choose locations: data points, points far apart, clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.e_step.instance import instance_of
from emjax.families.limits import limits_of
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.wiring import NONE
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.wiring_view import Use
from emjax.starts.locations import Locations, locations_of
from emjax.starts.points import assignment_factors, points_of
from emjax.starts.posteriors import maximum_under
from emjax.starts.seeding import drawn, far_apart, split


def data_points(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters with data points, drawn without replacement, as locations.

    The location of each value of a latent is the data of one of its elements. Several latents that
    a location reads are taken jointly: one draw for each joint value. An element's data are all of
    its coordinates (`to_event`, rows), each a mean where measurements are repeated; a coordinate
    that is masked is the mean of all elements' where it is not. An element of multiplicity w is
    drawn as w elements are; one that is masked or of multiplicity 0 is not drawn. Scales,
    proportions and all else keep the program's own values. Source: Forgy (1965); McLachlan & Peel
    (2000), section 2.12.2.
    """
    return _at_seeds("data", drawn, graph, rng_key, params, constants)


def distant_points(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters with data points far from one another as locations.

    They are what `data_points` sets, drawn by k-means++. Distances are between standardized
    coordinates, so that a unit of measurement makes no difference; those of a LogNormal are taken
    of log x. Source: Arthur & Vassilvitskii (2007).
    """
    return _at_seeds("k-means++", far_apart, graph, rng_key, params, constants)


def _at_seeds(
    name: str, draw: Callable, graph: FactorGraph, rng_key, params: Mapping[str, Any], constants
) -> dict[str, Array]:
    """Return the parameters with data points as locations.

    draw(rng_key, points, weights, num) gives the points' numbers.
    """
    served, arrays = _served(name, graph), graph.arrays(params, constants)
    if not served:
        return dict(params)
    size = sum(math.prod(parameter.shape) for parameter in graph.parameters.values())
    # entries that several locations read get the mean of what these were given
    total, count = jnp.zeros(size), np.zeros(size, int)
    for locations, key in zip(served, jax.random.split(rng_key, len(served)), strict=True):
        points = points_of(locations, graph, arrays)

        def seeds(key, weights, points=points, num=locations.num_values):
            return draw(key, points.standardized, weights, num)

        keys = jax.random.split(key, locations.num_groups)
        numbers = jax.vmap(seeds)(keys, _weights_of_groups(locations, points.weights))
        of_feature = numbers[locations.group_of_feature].T
        drawn_points = points.values[of_feature, np.arange(len(locations.group_of_feature))]
        is_read = locations.entries != NONE
        total = total.at[locations.entries[is_read]].add(drawn_points[is_read])
        count += np.bincount(locations.entries[is_read], minlength=size)
    return {name: _placed(graph, name, value, total, count) for name, value in params.items()}


def _served(name: str, graph: FactorGraph) -> list[Locations]:
    """Return the locations that latents choose between; none where each latent has one value.

    Errors: `ValueError` where there are none to choose. `name`: the strategy that is asked for.
    """
    served, reasons = locations_of(graph)
    has_choice = any(latent.support.shape[0] > 1 for latent in graph.latents.values())
    if not served and (has_choice or not graph.latents):
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise ValueError(
            f"init='{name}' sets the location of an observed Normal, LogNormal or "
            "MultivariateNormal that is looked up by a latent, loc[z], and "
            f"this program has none{why}. Use init='responsibilities', which serves every program."
        )
    return served


def _weights_of_groups(locations: Locations, weights):
    """Return (group, sample): the weights of a group's samples, 0 for those of others."""
    numbers = np.arange(locations.num_groups)
    return jnp.where(locations.group_of_sample == numbers[:, None], weights, 0)


def _placed(graph: FactorGraph, name: str, value, total, count: np.ndarray) -> Array:
    """Return a parameter with the mean of what its entries were given, within its bounds.

    Entries that were given nothing stay.
    """
    value, parameter = jnp.asarray(value), graph.parameters[name]
    start = graph.offsets()[name]
    entries = slice(start, start + math.prod(parameter.shape))
    count = count[entries].reshape(parameter.shape)
    if not count.any():
        return value
    given = total[entries].reshape(parameter.shape) / np.maximum(count, 1)
    given = given.astype(value.dtype)
    limits = limits_of(parameter.constraint)
    # a mean of data may lie outside of what the program allows its location
    given = given if limits is None else limits.clipped(given)
    return jnp.where(count > 0, given, value)


def split_clusters(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters after one M-step in which each element is of its cluster.

    Clusters are found by splitting: one, then two, … as many as the latent has values, in
    standardized coordinates (`seeding.split`), the same for every key. Latents that choose no
    location have their posterior at the program's own values, given the clusters. Scales and
    proportions are set, too; the scale or covariance of a cluster that has no extent (a single
    point) keeps the program's own value. Source: Linde, Buzo & Gray (1980).
    """
    arrays = graph.arrays(params, constants)
    factors = []
    for locations in _served("splitting", graph):
        points = points_of(locations, graph, arrays)

        def clusters(weights, points=points, num=locations.num_values):
            return split(points.standardized, weights, num)

        labels = jax.vmap(clusters)(_weights_of_groups(locations, points.weights))
        labels = labels[locations.group_of_sample, np.arange(len(locations.group_of_sample))]
        factors += assignment_factors(locations, graph, arrays, labels, points.weights)
    instance = instance_of(graph, arrays)
    maximized = maximum_under(instance, factors, maximizers, params, constants)
    # a cluster of one point has a scale of zero, from which EM would not come back
    start = {}
    for maximizer in maximizers:
        for name in maximizer.names:
            own = jnp.asarray(params[name])
            start[name] = _with_extent(maximized[name], own, maximizer.uses)
    return start


def _with_extent(value, own, uses: Sequence[Use]):
    """Return a scale or a covariance with its own entries in place of those without extent.

    Their least variance is zero, or rounding beside what it was.
    """
    if not uses or not uses[0].conjugacy.is_scale:
        return value
    conjugacy = uses[0].conjugacy
    unit = jnp.ones(value.shape[value.ndim - 1 :] if conjugacy.event_dim else (), value.dtype)
    least, before = conjugacy.least_variance(value, unit), conjugacy.least_variance(own, unit)
    has_extent = least > 100 * jnp.finfo(value.dtype).eps * before
    return jnp.where(has_extent.reshape(has_extent.shape + (1,) * conjugacy.event_dim), value, own)
