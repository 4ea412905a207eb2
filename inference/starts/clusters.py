"""Starts of programs whose latents choose locations: data points, points far apart, clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.maximizer import Maximizer
from emjax.starts.locations import Locations, locations_of
from emjax.starts.points import Points, factors_of, points_of
from emjax.starts.posteriors import indifferent_instance, maximum_under
from emjax.starts.responsibilities import random_factors
from emjax.starts.seeding import FAR_APART, LLOYD, RANDOM, TIGHTEST, Scheme, clusters

# How much of all the data each cluster has: with a hundredth, a scale is at least a tenth of the
# data's, and from there EM comes back in a few steps.
MIXED = 0.01


def various_clusters(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
    number: ArrayLike,
) -> dict[str, Array]:
    """Return start `number` of several that are to differ: 0 is that of k-means.

    Those that follow are, in turn, of k-means++ seeds, of random points, and of Lloyd's iterations
    from one seeding: the tightest clusters alone would lead to one place all the time.
    """
    number = jnp.asarray(number)
    turn = jnp.where(number == 0, 0, 1 + (number - 1) % 3)
    schemes = zip(TIGHTEST, FAR_APART, RANDOM, LLOYD, strict=True)
    scheme = Scheme(*(jnp.asarray(numbers)[turn] for numbers in schemes))
    labels = partial(clusters, scheme=scheme)
    return maximum_of_clusters("k-means", labels, graph, maximizers, rng_key, params, constants)


def maximum_of_clusters(
    name: str,
    clustered: Callable,
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters after one M-step in which each element is of its cluster.

    `clustered`: (key, standardized points, weights, number) → the cluster of each point; `name`:
    the strategy. Several latents that a location reads are taken jointly: one cluster for each
    joint value; those that choose no location have responsibilities drawn at random. An element's
    data are all of its coordinates (`to_event`, rows), each a mean where measurements are repeated;
    a coordinate that is masked is the mean of all elements' where it is not. An element of
    multiplicity w counts as w elements do; one that is masked or of multiplicity 0 does not.
    """
    served = _served(name, graph)
    if not served:
        return dict(params)
    instance = indifferent_instance(graph, params, constants, rng_key)
    arrays = graph.arrays(params, constants)
    chosen = {axis.source for of in served for term in of.looked_up for axis in term.axes}
    others = [latent for name, latent in instance.latents.items() if name not in chosen]
    *keys, key_of_others = jax.random.split(rng_key, len(served) + 1)
    factors = random_factors(key_of_others, others)
    for locations, key in zip(served, keys, strict=True):
        points = points_of(locations, graph, arrays)
        log_q = _log_q(key, locations, points, clustered)
        factors += factors_of(locations, graph, arrays, log_q)
    return maximum_under(instance, factors, maximizers, params, constants)


def _log_q(
    rng_key: Array, locations: Locations, points: Points, clustered: Callable
) -> Float[Array, "sample value"]:
    """Return log q of the values of each sample: of its cluster, and a little of all others.

    q = (1 − ε) · [n is of cluster k] + ε · π_k, with π_k the cluster's share: its statistics are
    those of its members and, for a part ε, those of all the data, whatever its size. So no
    scale is zero where the data have one, no probability is, and neither depends on a unit.
    """
    num, groups = locations.num_values, locations.num_groups
    weights = _weights_of_groups(locations, points.weights)

    def of_group(key, weights):
        labels = clustered(key, points.standardized, weights, num)
        is_member = labels[:, None] == jnp.arange(num)
        # of a cluster without members, as much as of one with a single member
        share = jnp.maximum(weights @ is_member, 1)
        return labels, share / share.sum()

    labels, shares = jax.vmap(of_group)(jax.random.split(rng_key, groups), weights)
    if groups == 1:
        labels, shares = labels[0], shares
    else:
        group = locations.group_of_sample
        labels, shares = jnp.take_along_axis(labels, group[None], 0)[0], shares[group]
    is_member = labels[:, None] == jnp.arange(num)
    q = jnp.where((points.weights > 0)[:, None], is_member, shares)
    return jnp.log((1 - MIXED) * q + MIXED * shares)


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
