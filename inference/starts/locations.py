"""Locations that latents choose between: which entries of which parameters they are.

Of `Normal(loc[z], …)`, and of `Select(z, [Normal(loc, …), …])`, a *feature* is what reads the same
entries of parameters under every value of the latents: one for each coordinate of `loc`, also where
several sites, the steps of a scan, or repeated measurements read them.

Of `loc[z]` with three rows and D = 2 columns, a latent value k chooses the entries 2k and 2k + 1:

    entries = [[0, 1], [2, 3], [4, 5]]      (value, feature)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.graph.wiring import NONE
from emjax.m_step.least_squares import is_linear_in
from emjax.m_step.wiring_view import WiringView
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Named, constant, spread, union


@dataclass(frozen=True, eq=False)
class LocationTerm:
    """A term whose location latents look up.

    - `term`: its number.
    - `axes`: the axes of the latents, in the order of their names.
    - `sample`: that of them which tells the elements apart.
    - `entries`: which entry of the parameters each cell reads, `NONE`: none;
      (value, row …, axis of the elements …, event …).
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
    """What the joint values of some latents choose.

    - `looked_up`: the terms that read them.
    - `entries`: the numbers of the parameters' entries, (value, feature).
    - `features`: of each term, the feature of each cell, `NONE`: none.
    - `group_of_feature`, `group_of_sample`: groups (`loc[group, z]`) have no location in common,
      and each has clusters of its own.
    """

    looked_up: tuple[LocationTerm, ...]
    entries: np.ndarray
    features: tuple[np.ndarray, ...]
    group_of_feature: np.ndarray
    group_of_sample: np.ndarray

    @property
    def num_values(self) -> int:
        """How many joint values the latents have."""
        return len(self.entries)

    @property
    def num_groups(self) -> int:
        """How many groups have locations of their own."""
        return int(self.group_of_feature.max()) + 1

    @property
    def latent(self) -> str:
        """The latent whose elements are the samples."""
        source: Any = self.looked_up[0].sample.source
        return source


def locations_of(graph: FactorGraph) -> tuple[list[Locations], list[str]]:
    """Return the locations that latents choose between, and why others cannot be set.

    Those of the same latents are together.
    """
    view = WiringView(graph)
    by_latents: dict[tuple, list[LocationTerm]] = {}
    reasons = []
    for number, term in enumerate(graph.terms):
        if not _may_look_up(term):
            continue
        looked_up = _looked_up(view, number, term)
        if isinstance(looked_up, str):
            reasons.append(f"the {term.family.centered} of '{term.site.name}': {looked_up}")
        else:
            latents = tuple(axis.source for axis in looked_up.axes)
            by_latents.setdefault(latents, []).append(looked_up)
    together = [_together(graph, several) for several in by_latents.values()]
    return [locations for locations in together if locations is not None], reasons


def _may_look_up(term: Term) -> bool:
    """Whether a term is of data about a location that latents choose."""
    if not term.site.is_observed or term.family is None or not term.family.centered:
        return False
    # a value that latents choose is no point: it is not the same under all of them
    is_chosen = bool(term.arguments[term.family.centered].latent_axes) or term.gate is not None
    return is_chosen and not term.value.latent_axes


def _looked_up(view: WiringView, number: int, term: Term) -> LocationTerm | str:
    """Return how a term looks its location up, or why it cannot be set."""
    rank, table = len(term.elements), term.arguments[term.family.centered]
    entries, reason = _entries_set(view, table)
    # some entries may be computed and others not: what can be set is
    if (entries == NONE).all():
        return reason
    gate = constant(np.ones((1,) * rank, bool)) if term.gate is None else term.gate
    if gate.row_axes or not gate.is_static:
        return "data take part in what chooses a component"
    table = replace(table, array=entries).fitted(rank)
    gate = gate.fitted(rank)
    axes = [axis for axis in union([table, gate]) if axis.is_latent]
    # locations that the same latents choose are to meet, in whatever order their axes were
    axes.sort(key=lambda axis: str(axis.source))
    sample = _axis_that_varies_most(axes)
    if sample is None:
        return "its latents cross each other"
    num_elements = math.prod(view.graph.latents[sample.source].shape)
    num_values = math.prod(axis.size for axis in axes)
    # each value is to get an element of its own
    if num_elements < num_values:
        return f"latent '{sample.source}' has {num_elements} elements for {num_values} values"
    order = (*axes, *table.row_axes)
    is_chosen = spread(gate, order)
    # the entries of a vector are chosen together
    is_chosen = is_chosen.reshape(*is_chosen.shape, *(1,) * (len(table.shape) - rank))
    entries = np.where(is_chosen, spread(table, order), NONE)
    entries = entries.reshape(num_values, *entries.shape[len(axes) :])
    return LocationTerm(number, tuple(axes), sample, entries)


def _axis_that_varies_most(axes: Sequence[Axis]) -> Axis | None:
    """Return the axis that varies wherever any of them does."""
    varies = np.any([axis.varies for axis in axes], axis=0)
    for axis in axes:
        if (np.array(axis.varies, bool) == varies).all():
            return axis
    return None


def _entries_set(view: WiringView, table: Named) -> tuple[np.ndarray, str]:
    """Return which entry that can be set each cell of a location's table reads, `NONE`: none.

    And why others cannot be set.
    """
    wire = view.wire(table)
    reason = "it is no parameter"
    if wire.entries is None:
        if wire.parameters:
            _, reason = view.uses(min(wire.parameters))
        return np.full(np.shape(table.array), NONE), reason
    is_set = np.zeros(wire.entries.shape, bool)
    for name in sorted(wire.parameters):
        uses, why = view.uses(name)
        # beside coefficients of Gaussian latents, it is set together with these
        is_beside = uses is None and view.graph.gaussians and is_linear_in(view, name)
        if not is_beside and (uses is None or not uses[0].conjugacy.is_location):
            reason = why
            continue
        start = view.offsets[name]
        stop = start + math.prod(view.graph.parameters[name].shape)
        is_set |= (wire.entries >= start) & (wire.entries < stop)
    return np.where(is_set, wire.entries, NONE), reason


def _together(graph: FactorGraph, looked_up: Sequence[LocationTerm]) -> Locations | None:
    """Return locations that the same latents choose between, side by side."""
    cells = np.concatenate([of_term.cells for of_term in looked_up], axis=1)
    # what all values read alike is no choice between them
    is_chosen = (cells != cells[:1]).any(0)
    if not is_chosen.any():
        return None
    entries, inverse = np.unique(cells[:, is_chosen], axis=1, return_inverse=True)
    numbers = np.full(cells.shape[1], NONE)
    numbers[is_chosen] = inverse.reshape(-1)
    ends = np.cumsum([of_term.cells.shape[1] for of_term in looked_up])
    features = tuple(np.split(numbers, ends[:-1]))
    num_features = entries.shape[1]
    of_feature, of_sample = _groups(graph, looked_up, features, num_features)
    return Locations(tuple(looked_up), entries, features, of_feature, of_sample)


# ── groups ────────────────────────────────────────────────────────────────────────────────────────


def _groups(
    graph: FactorGraph,
    looked_up: Sequence[LocationTerm],
    features: Sequence[np.ndarray],
    num_features: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which group each feature and each element of the latent belongs to.

    There is one, unless each element of the latent reads rows of its own that are known beforehand.
    """
    num_samples = math.prod(graph.latents[looked_up[0].sample.source].shape)
    one_group = np.zeros(num_features, int), np.zeros(num_samples, int)
    pairs = []
    for of_term, features_of_term in zip(looked_up, features, strict=True):
        term = graph.terms[of_term.term]
        has_row_axes = bool(term.arguments[term.family.centered].row_axes)
        # rows that data pick are not known yet, and neither are their groups
        if has_row_axes or not isinstance(of_term.sample.index, Affine):
            return one_group
        sample = by_datum(of_term.sample.index.dense(term.elements), term)
        pairs.append((sample, feature_numbers(of_term, term, features_of_term)))
    if not any(_vary_together(sample, feature) for sample, feature in pairs):
        return one_group
    samples, numbers = [], []
    for sample, feature in pairs:
        sample, feature = np.broadcast_arrays(sample, feature)
        samples.append(sample[feature != NONE])
        numbers.append(feature[feature != NONE])
    return _connected(np.concatenate(samples), np.concatenate(numbers), num_samples, num_features)


def _vary_together(sample: np.ndarray, feature: np.ndarray) -> bool:
    """Whether elements read features that others do not: both vary along one axis."""
    sizes = zip(sample.shape, feature.shape, strict=True)
    return any(of_sample > 1 and of_feature > 1 for of_sample, of_feature in sizes)


def _connected(
    samples: np.ndarray, features: np.ndarray, num_samples: int, num_features: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of the graph whose edges are pairs of a feature and a sample.

    The least number of a component spreads along the edges until nothing changes.
    """
    of_feature = np.arange(num_features)
    while True:
        of_sample = np.full(num_samples, num_features)
        np.minimum.at(of_sample, samples, of_feature[features])
        after = of_feature.copy()
        np.minimum.at(after, features, of_sample[samples])
        if (after == of_feature).all():
            break
        of_feature = after
    names, of_feature = np.unique(of_feature, return_inverse=True)
    # a sample that reads no feature is beyond the last name: any group will do
    return of_feature, np.minimum(np.searchsorted(names, of_sample), len(names) - 1)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def by_datum(index, term: Term):
    """Return an index over the axes of a term's elements as one over (element …, event …)."""
    return index.reshape(index.shape + (1,) * len(term.site.event))


def feature_numbers(looked_up: LocationTerm, term: Term, features: np.ndarray):
    """Return the feature of each datum of a term, `NONE`: none.

    Over (axis of the elements …, event …); known, or traced where data pick the rows.
    """
    table = term.arguments[term.family.centered]
    features = features.reshape(looked_up.entries.shape[1:])
    if not table.row_axes:
        return features
    rank, event = len(term.elements), len(term.site.event)
    picks = []
    for axis in table.row_axes:
        pick = jnp.asarray(axis.index.dense(table.shape))
        picks.append(pick.reshape(pick.shape[:rank] + (1,) * event))
    inner = np.ix_(*(np.arange(size) for size in features.shape[len(picks) :]))
    return jnp.asarray(features)[(*picks, *inner)]
