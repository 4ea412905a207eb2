"""Locations that latents choose between, and the data that each element of a latent has to say of
them, as points.

Of `Normal(loc[z], …)`, and of `Select(z, [Normal(loc, …), …])`, a *feature* is what reads the same
entries of parameters under every value of the latents: one for each coordinate of `loc`, also where
several sites, the steps of a scan, or repeated measurements read them. The point of an element of
the latent is the mean of its data, feature by feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emjax.elimination.factors import Cells, Factor
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled, filled_axes, filled_term
from emjax.graph.sufficient import transformed
from emjax.graph.terms import Term
from emjax.m_step.wiring_view import WiringView
from emjax.numerics.guards import LOG_ZERO
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Named, constant, spread, union, without_rows

# of a value of a latent that is not the one asked for: below any log-density, above what the
# program excludes
UNWANTED = 1e-5 * LOG_ZERO


@dataclass(frozen=True, eq=False)
class Looked:
    """A term whose location is looked up by latents: its number, their axes (those of one latent in
    order), the axis that tells the elements apart, and the entry of the parameters that each cell
    reads: (value, row …, axis of the elements …, event …), −1: none.
    """

    term: int
    axes: tuple[Axis, ...]
    sample: Axis
    entries: np.ndarray

    @property
    def cells(self) -> np.ndarray:
        """The entries as (value, cell)."""
        return self.entries.reshape(len(self.entries), -1)


@dataclass(frozen=True, eq=False)
class Locations:
    """What the joint values of some latents choose: `entries` (value, feature) numbers the
    parameters' entries; `features[i]` is the feature of each cell of looked-up term i, −1: none;
    `problem_of_feature`, `problem_of_sample`: what belongs to separate problems (`loc[group, z]`),
    each of its own clusters.
    """

    looked: tuple[Looked, ...]
    entries: np.ndarray
    features: tuple[np.ndarray, ...]
    problem_of_feature: np.ndarray
    problem_of_sample: np.ndarray

    @property
    def num_values(self) -> int:
        return len(self.entries)

    @property
    def num_problems(self) -> int:
        return int(self.problem_of_feature.max()) + 1

    @property
    def latent(self) -> str:
        return self.looked[0].sample.source


def locations_of(graph: FactorGraph) -> tuple[list[Locations], list[str]]:
    """Return the locations that latents choose between, those of the same latents together; and why
    others cannot be set.
    """
    view = WiringView(graph)
    found: dict[tuple, list[Looked]] = {}
    reasons = []
    for i, term in enumerate(graph.terms):
        if (
            not term.site.is_observed
            or term.family is None
            or not term.family.centered
            or term.value.latent_axes
        ):
            continue
        table = term.arguments[term.family.centered]
        if not table.latent_axes and term.gate is None:
            continue
        looked = _looked(view, i, term, table)
        if isinstance(looked, str):
            reasons.append(f"the {term.family.centered} of '{term.site.name}': {looked}")
        else:
            found.setdefault(tuple(axis.source for axis in looked.axes), []).append(looked)
    return [
        one for looked in found.values() if (one := _together(graph, looked)) is not None
    ], reasons


def _looked(view: WiringView, number: int, term: Term, table: Named) -> Looked | str:
    """Return how a term looks its location up, or why it cannot be set."""
    entries, reason = _entries_set(view, table)
    if (entries < 0).all():
        return reason
    rank = len(term.elements)
    gate = constant(np.ones((1,) * rank, bool)) if term.gate is None else term.gate
    if gate.row_axes or not gate.is_static:
        return "data take part in what chooses a component"
    table, gate = (
        replace(value, axes=tuple(axis.fitted(rank) for axis in value.axes))
        for value in (replace(table, array=entries), gate)
    )
    axes = sorted(
        (axis for axis in union([table, gate]) if axis.is_latent), key=lambda axis: str(axis.source)
    )
    varies = np.any([axis.varies for axis in axes], axis=0)
    sample = next((axis for axis in axes if (np.array(axis.varies, bool) == varies).all()), None)
    if sample is None:
        return "its latents cross each other"
    count, values = (
        math.prod(view.graph.latents[sample.source].shape),
        math.prod(axis.size for axis in axes),
    )
    if count < values:
        return f"latent '{sample.source}' has {count} elements for {values} values"
    order = (*axes, *table.row_axes)
    entries = np.where(
        spread(gate.with_event(len(table.shape) - rank), order), spread(table, order), -1
    )
    return Looked(number, tuple(axes), sample, entries.reshape(values, *entries.shape[len(axes) :]))


def _entries_set(view: WiringView, table: Named) -> tuple[np.ndarray, str]:
    """Return which entry of a parameter that can be set each cell of a location's table reads, −1:
    none; and why others cannot be set.
    """
    wire = view.wire(table)
    if wire.entries is None:
        none = np.full(np.shape(table.array), -1)
        if not wire.parameters:
            return none, "it is no parameter"
        return none, view.uses(min(wire.parameters))[1]
    is_set, reason = np.zeros(wire.entries.shape, bool), "it is no parameter"
    for name in sorted(wire.parameters):
        uses, why = view.uses(name)
        if uses is None or not uses[0].form.is_location:
            reason = why
            continue
        start = view.offsets[name]
        is_set |= (wire.entries >= start) & (
            wire.entries < start + math.prod(view.graph.parameters[name].shape)
        )
    return np.where(is_set, wire.entries, -1), reason


def _together(graph: FactorGraph, looked: Sequence[Looked]) -> Locations | None:
    """Return locations that the same latents choose between, side by side."""
    cells = np.concatenate([one.cells for one in looked], axis=1)
    is_chosen = (cells != cells[:1]).any(0)
    if not is_chosen.any():
        return None
    entries, inverse = np.unique(cells[:, is_chosen], axis=1, return_inverse=True)
    features = np.full(cells.shape[1], -1)
    features[is_chosen] = inverse.reshape(-1)
    ends = np.cumsum([one.cells.shape[1] for one in looked])
    features = tuple(np.split(features, ends[:-1]))
    return Locations(
        tuple(looked), entries, features, *_problems(graph, looked, features, entries.shape[1])
    )


def _problems(
    graph: FactorGraph, looked, features, num_features: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which problem each feature and each element of the latent belongs to: those that share
    no element are separate.

    One, unless each element of the latent reads rows of its own that are known beforehand.
    """
    of_feature, of_sample = (
        np.zeros(num_features, int),
        np.zeros(math.prod(graph.latents[looked[0].sample.source].shape), int),
    )
    pairs = []
    for one, own in zip(looked, features, strict=True):
        term = graph.terms[one.term]
        if term.arguments[term.family.centered].row_axes or not isinstance(
            one.sample.index, Affine
        ):
            return of_feature, of_sample
        pairs.append((_sample_numbers(one.sample, term), _feature_numbers(one, term, own)))
    if not any(
        n > 1 and f > 1
        for pair in pairs
        for n, f in zip(*(numbers.shape for numbers in pair), strict=True)
    ):
        return of_feature, of_sample
    wide = [np.broadcast_arrays(*pair) for pair in pairs]
    samples = np.concatenate([sample[feature >= 0] for sample, feature in wide])
    numbers = np.concatenate([feature[feature >= 0] for _, feature in wide])
    of_feature = np.arange(num_features)
    while True:
        of_sample[:] = num_features
        np.minimum.at(of_sample, samples, of_feature[numbers])
        after = of_feature.copy()
        np.minimum.at(after, numbers, of_sample[samples])
        if (after == of_feature).all():
            names, of_feature = np.unique(of_feature, return_inverse=True)
            return of_feature, np.minimum(np.searchsorted(names, of_sample), len(names) - 1)
        of_feature = after


def _sample_numbers(axis: Axis, term: Term):
    """Return which element of the latent each datum belongs to, over (axis of the elements …, event
    …).
    """
    index = axis.index.dense(term.elements)
    return index.reshape(index.shape + (1,) * len(term.site.event))


def _feature_numbers(one: Looked, term: Term, features):
    """Return the feature of each datum, over (axis of the elements …, event …); −1: none."""
    own, table = features.reshape(one.entries.shape[1:]), term.arguments[term.family.centered]
    if not table.row_axes:
        return own
    rank, event = len(term.elements), len(term.site.event)
    picks = [jnp.asarray(axis.index.dense(table.shape)) for axis in table.row_axes]
    picks = [pick.reshape(pick.shape[:rank] + (1,) * event) for pick in picks]
    inner = [
        np.arange(n).reshape([-1 if i == d else 1 for i in range(rank + event)])
        for d, n in enumerate(own.shape[len(picks) :])
    ]
    return jnp.asarray(own)[(*picks, *inner)]


# ── points ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Points:
    """The data of each element of a latent: their mean, feature by feature (the feature's mean
    where there is none), and how often the element counts.

    `standardized`: each feature less its mean, over its standard deviation.
    """

    values: Float[Array, "sample feature"]
    standardized: Float[Array, "sample feature"]
    weights: Float[Array, "sample"]


def points_of(locations: Locations, graph: FactorGraph, arrays: Sequence) -> Points:
    """Return the points of locations' data; an element that is masked, or of multiplicity 0, has
    weight 0.
    """
    latent = graph.latents[locations.latent]
    shape = math.prod(latent.shape), locations.entries.shape[1]
    found = [
        _data(one, arrays, graph.terms[one.term], own, shape)
        for one, own in zip(locations.looked, locations.features, strict=True)
    ]
    number, value, weight = (jnp.concatenate(part) for part in zip(*found, strict=True))
    size = math.prod(shape)
    reference = (
        jnp.full(size, -jnp.inf).at[number].max(jnp.where(weight > 0, value, -jnp.inf), mode="drop")
    )
    total = jnp.zeros(size).at[number].add(weight, mode="drop")
    # deviations from one of them: the mean of one datum is that datum, to the last digit
    deviation = jnp.where(
        weight > 0, weight * (value - reference[jnp.minimum(number, size - 1)]), 0
    )
    mean = reference + jnp.zeros(size).at[number].add(deviation, mode="drop") / jnp.where(
        total > 0, total, 1
    )
    seen = (total > 0).reshape(shape)
    scale = jnp.asarray(filled(graph.multiplicities[locations.latent], arrays).array)
    weights = jnp.where(seen.any(-1), jnp.broadcast_to(scale, latent.shape).reshape(-1), 0)
    return _completed(jnp.where(seen, mean.reshape(shape), 0), seen, weights)


def _completed(values, seen: Bool[Array, "sample feature"], weights) -> Points:
    """Return the points with each feature's mean where it was not seen."""
    each = jnp.where(seen, weights[:, None], 0)
    total = jnp.where(each.sum(0) > 0, each.sum(0), 1)
    mean = (each * values).sum(0) / total
    values = jnp.where(seen, values, mean)
    deviation = jnp.sqrt((each * (values - mean) ** 2).sum(0) / total)
    return Points(values, (values - mean) / jnp.where(deviation > 0, deviation, 1), weights)


def _data(
    one: Looked, arrays: Sequence, term: Term, features: np.ndarray, shape: tuple[int, int]
) -> list:
    """Return, for each datum of a term, its number among (sample, feature), its value and its
    weight.
    """
    term, (axis,) = filled_term(term, arrays), filled_axes((one.sample,), arrays)
    rank, event, family = len(term.elements), len(term.site.event), term.family
    statistics = term.statistics.formed(term.elements)
    first, counted = (without_rows(statistics[i].value) for i in (0, -1))
    elements, weight = first.shape[:rank], _widened(counted, jnp.max, event)
    if elements == term.elements:
        value = without_rows(transformed(family, term.value, rank, event)).array
    else:  # repeated measurements are added up already
        count = _widened(counted, jnp.sum, event)
        value = without_rows(term.origin).array + _widened(first, jnp.sum, 0) / jnp.where(
            count != 0, count, 1
        )
    if family.marginal is not None:  # coordinates that are missing
        observed = without_rows(statistics[1].value).array
        value, weight = jnp.where(observed, value, 0), weight * observed
    sample, feature = _sample_numbers(axis, term), _feature_numbers(one, term, features)
    number = jnp.where(feature >= 0, sample * shape[1] + feature, math.prod(shape))
    whole = elements + tuple(term.site.event)
    return [jnp.broadcast_to(part, whole).reshape(-1) for part in (number, value, weight)]


def _widened(value: Named, reduced: Callable, event: int):
    """Return an array over elements, and `event` axes of length 1, from one that latents take part
    in (a gate).
    """
    array = reduced(jnp.asarray(value.array), tuple(range(len(value.axes))))
    return array.reshape(array.shape + (1,) * event)


def wanted(
    locations: Locations,
    graph: FactorGraph,
    arrays: Sequence,
    values: Int[Array, "sample"],
    weights: Float[Array, "sample"],
) -> list[Factor]:
    """Return factors under which each element of positive weight takes the joint value
    asked for.
    """
    factors = []
    for one in locations.looked:
        term = graph.terms[one.term]
        kept = [d for d, varies in enumerate(one.sample.varies) if varies]
        axes = tuple(axis.placed(kept) for axis in filled_axes(one.axes, arrays))
        (sample,) = filled_axes((one.sample,), arrays)
        shape = tuple(term.elements[d] for d in kept)
        number = jnp.broadcast_to(sample.placed(kept).index.dense(shape), shape)
        is_other = (values[number][..., None] != jnp.arange(locations.num_values)) & (
            weights[number] > 0
        )[..., None]
        table = jnp.where(is_other, UNWANTED, 0.0).reshape(
            shape + tuple(axis.size for axis in axes)
        )
        factors.append(Factor(axes, shape, Cells(table), without_multiplicity=True))
    return factors
