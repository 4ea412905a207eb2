"""Random subsets: a few elements stand for each value of a latent, for every program.

Expected statistics add up. Those of a few elements for each value, the *seeds*, and a small share
of everybody's, whom no value claims, are what one M-step starts from:

    T = 1 / (1 + c) Σ_seeds w_n t(x_n) 1{z_n = label_n} + c / (1 + c) Σ_n E_q[t(x_n)],

with c = `EVERYBODY`, Σ w_n = N, and a q that has no opinion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from emjax.e_step.e_step import statistics_with
from emjax.e_step.instance import Instance
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.families.family import lacks_coordinates
from emjax.graph.data_statistics import COUNTS, Weight
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.recipes import StatisticsRecipe
from emjax.graph.terms import Term
from emjax.m_step.maximizer import Maximizer
from emjax.starts.posteriors import indifferent_instance, maximum_at, maximum_under
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Named, without_rows

# Measured on latent classes, regressions and chains: of single seeds two may be alike, and EM rests
# at the saddle between their values; of sixteen all values start near the mean of all.
SEEDS = 4
# what everybody weighs beside the seeds: enough that no count is zero and no fit is singular
EVERYBODY = 0.3
# a state of a chain lasts: so many steps, or fewer, are seeds together
STRETCH = 10
# a chain's seeds are at most one in so many of its steps: of all, states would start alike
SPARSENESS = 2
# log q of a value that is not a seed's own: all others are 0, and its exponential is zero
UNWANTED = -1e4
WEIGHT = "weight of seeds"


class Seeds(NamedTuple):
    """What is asked of the elements of a latent.

    - `label`: the value that a seed stands for, −1 where an element is no seed.
    - `weight`: how much the element counts.
    """

    label: Int[Array, "*element"]
    weight: Float[Array, "*element"]


def random_subsets(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
    num_seeds: int = SEEDS,
) -> dict[str, Array]:
    """Return the parameters after one M-step from a few elements for each value, and all others.

    For each value of a latent `num_seeds` elements are drawn without replacement; the others are of
    every value alike, and all elements together weigh `EVERYBODY` times what seeds do: no count is
    zero that the program does not exclude, and a unit of measurement makes no difference. Latents
    of the same elements are taken jointly. Of a latent in a scan, stretches of up to `STRETCH`
    steps are seeds together, so that its states last. An element of multiplicity w is drawn as w
    elements are, and counts as one; one that is masked, of multiplicity 0, or without data is not
    drawn. What the program excludes at its own values stays impossible. Source: ours; of single
    elements, Forgy (1965) and McLachlan & Peel (2000), section 2.12.2; the draw,
    Efraimidis & Spirakis (2006).
    """
    instance = indifferent_instance(graph, params, constants, rng_key)
    series = {name for name in instance.latents if graph.latents[name].is_series}
    # of one value a latent is none, and there is nothing to draw
    if not instance.latents:
        return maximum_under(instance, [], maximizers, params, constants)
    # in turn, by one function that is compiled once
    both = _seeds_and_everybody(instance, series, rng_key, num_seeds)
    parts = jax.lax.map(lambda seeds: _statistics(instance, seeds), both)
    total = jax.tree.map(lambda part: part.sum(0), parts)
    return maximum_at(total, maximizers, params, constants)


def _statistics(instance: Instance, seeds: Mapping[str, Seeds]) -> list:
    """Return the expected statistics of elements that count as much as seeds do."""
    weighed = replace(instance, terms=tuple(_weighed(term, seeds) for term in instance.terms))
    factors = [_factor(instance.latents[name], label) for name, (label, _) in seeds.items()]
    return statistics_with(weighed, factors)


def _factor(latent: Variable, label: Int[Array, "*element"]) -> Factor:
    """Return log q of the values that seeds stand for; of other elements it has no opinion."""
    is_other = label[..., None] != jnp.arange(latent.size)
    is_unwanted = is_other & (label >= 0)[..., None]
    axis = Axis(latent.name, latent.size, Affine.identity(latent.shape))
    table = jnp.where(is_unwanted, UNWANTED, 0.0)
    return Factor((axis,), latent.shape, Cells(table), without_multiplicity=True)


# ── which elements ────────────────────────────────────────────────────────────────────────────────


def _seeds_and_everybody(
    instance: Instance, series: set[str], rng_key: Array, num_seeds: int
) -> dict[str, Seeds]:
    """Return the seeds of each latent, and all its elements alike: (2, *element).

    Together they count as often as the elements do. `series`: the latents that are chains in time.
    """
    alike: dict[tuple, list[Variable]] = {}
    for name, latent in instance.latents.items():
        alike.setdefault((latent.shape, name in series), []).append(latent)
    both: dict[str, Seeds] = {}
    keys = jax.random.split(rng_key, max(len(alike), 1))
    for key, ((_, is_series), latents) in zip(keys, alike.items(), strict=False):
        of_each = _joint_seeds(instance, latents, is_series, key, num_seeds)
        for latent, seeds in zip(latents, of_each, strict=True):
            nobody = jnp.full_like(seeds.label, -1)
            label = jnp.stack([seeds.label, nobody])
            weight = jnp.stack([seeds.weight, jnp.full_like(seeds.weight, EVERYBODY)])
            both[latent.name] = Seeds(label, weight / (1 + EVERYBODY))
    return both


def _joint_seeds(
    instance: Instance,
    latents: Sequence[Variable],
    is_series: bool,
    rng_key: Array,
    num_seeds: int,
) -> list[Seeds]:
    """Return the seeds of latents that have the same elements: so many for each joint value."""
    multiplicity = _multiplicity(instance, latents)
    num_values = math.prod(latent.size for latent in latents)
    joint = _joint_labels(multiplicity, num_values, num_seeds * num_values, is_series, rng_key)
    is_seed = joint >= 0
    # a seed counts as one, however often its element does
    share = jnp.where(is_seed, 1 / jnp.where(is_seed, multiplicity, 1), 0)
    weight = share * multiplicity.sum() / jnp.maximum(is_seed.sum(), 1)
    seeds, stride = [], num_values
    for latent in latents:
        stride //= latent.size
        label = jnp.where(is_seed, joint // stride % latent.size, -1)
        seeds.append(Seeds(label, weight))
    return seeds


def _joint_labels(
    multiplicity: Float[Array, "*element"],
    num_values: int,
    wanted: int,
    is_series: bool,
    rng_key: Array,
) -> Int[Array, "*element"]:
    """Return the joint value that each seed stands for, −1 elsewhere. `wanted`: how many seeds."""
    shape, count = multiplicity.shape, multiplicity.size
    steps = min(max(count // (SPARSENESS * wanted), 1), STRETCH, shape[0]) if is_series else 1
    # elements as (stretch, step, sequence): the steps that are left over are no seeds
    length = shape[0] if is_series else count
    laid_out = multiplicity.reshape(length, -1)
    length = length // steps * steps
    by_stretch = laid_out[:length].reshape(length // steps, steps, -1).sum(1)
    flat = by_stretch.reshape(-1)
    num = min(wanted, flat.size)
    # the largest of log w + Gumbel noise are drawn in proportion to w, without replacement
    noise = jax.random.gumbel(rng_key, flat.shape, flat.dtype)
    _, numbers = jax.lax.top_k(jnp.log(flat) + noise, num)
    labels = jnp.full(flat.size, -1).at[numbers].set(jnp.arange(num) % num_values)
    labels = jnp.repeat(labels.reshape(by_stretch.shape), steps, axis=0)
    left_over = jnp.full((len(laid_out) - length, laid_out.shape[1]), -1)
    labels = jnp.concatenate([labels, left_over]).reshape(shape)
    return jnp.where(multiplicity > COUNTS, labels, -1)


def _multiplicity(instance: Instance, latents: Sequence[Variable]) -> Float[Array, "*element"]:
    """Return how often each element counts: not at all without data, if others have some."""
    shape = latents[0].shape
    multiplicity = jnp.ones(shape)
    for latent in latents:
        if latent.multiplicity is not None:
            multiplicity = multiplicity * latent.multiplicity
    has_data: Any = np.zeros(math.prod(shape), bool)
    for latent in latents:
        for term in instance.terms:
            if term.site.is_observed:
                has_data = has_data | _is_seen(term, latent)
    if isinstance(has_data, np.ndarray) and has_data.all():
        return multiplicity
    # a latent that is seen through other latents alone has data at none of its elements
    counts = has_data.reshape(shape) | ~has_data.any()
    return jnp.where(counts, multiplicity, 0)


def _is_seen(term: Term, latent: Variable) -> Bool[ArrayLike, "element"]:
    """Return of which elements of a latent a term has a datum that counts."""
    counts, is_seen = _counts(term), np.zeros(latent.count, bool)
    for axis in term.latent_axes:
        if axis.source != latent.name:
            continue
        numbers = axis.index.dense(term.elements)
        if isinstance(numbers, np.ndarray) and isinstance(counts, np.ndarray):
            # what is known is not left to the compiler, which would be slow to compute it
            np.maximum.at(is_seen, *np.broadcast_arrays(numbers, counts))
        else:
            numbers, counted = jnp.broadcast_arrays(numbers, counts)
            is_seen = jnp.asarray(is_seen).at[numbers].max(counted)
    return is_seen


def _counts(term: Term) -> Bool[ArrayLike, "*element"]:
    """Return where a term's data count: not all of their statistics are zero there."""
    rank = len(term.elements)
    statistics = term.statistics.formed(term.elements)
    # of events that lack coordinates, the last one alone says how often they count
    statistics = statistics[-1:] if lacks_coordinates(term.family) else statistics
    counts: Any = np.zeros((1,) * rank, bool)
    for statistic in statistics:
        value = without_rows(statistic.value)
        # whatever a latent chooses, and in any coordinate
        first = len(value.axes)
        others = [d for d in range(value.array.ndim) if not first <= d < first + rank]
        counts = counts | (value.array != 0).any(tuple(others))
        # known to count: there is nothing to compute
        if isinstance(counts, np.ndarray) and counts.all():
            break
    return counts


# ── how much they count ───────────────────────────────────────────────────────────────────────────


def _weighed(term: Term, seeds: Mapping[str, Seeds]) -> Term:
    """Return a term whose statistics count as much as the seeds that it is about do."""
    # along axes that no latent varies along all is summed already
    weights: dict[Any, Any] = {}
    for axis in term.latent_axes:
        weight = seeds[axis.source].weight.reshape(-1)[axis.index.computed(term.elements)]
        before = weights.get(axis.source)
        # a step from one element to the next is a seed's where both are
        weights[axis.source] = weight if before is None else jnp.minimum(before, weight)
    if not weights:
        return term
    # of latents that have elements of their own, whoever is a seed
    weight, *others = weights.values()
    for other in others:
        weight = jnp.maximum(weight, other)
    recipe, family = term.statistics, term.family

    def function(inputs, elements):
        inputs = dict(inputs)
        weighed = Weight(inputs.pop(WEIGHT), None)
        formed = recipe.function(inputs, elements)
        if lacks_coordinates(family):
            # the last one says how often an element counts, the others are the data themselves
            return [*formed[:-1], weighed.weighted(formed[-1], elements)]
        return [weighed.weighted(statistic, elements) for statistic in formed]

    # among what is kept of the data, so that it is cut where these are
    inputs = {**recipe.inputs, WEIGHT: Named(weight, term.elements)}
    return replace(term, statistics=StatisticsRecipe(inputs, function))
