"""How many elements each value of a latent explains, and which values no data could tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.e_step.instance import instance_of
from emjax.e_step.marginals import posterior
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term

# A value that explains less than one element has no datum of its own to determine anything by.
FEWEST_ELEMENTS = 1.0
# Two values are duplicates if giving both one distribution would cost less than this, in nats, even
# were the latents known. Chance alone parts two values that are fitted apart by half a nat for each
# parameter; what is so much closer started equal, or is still on its way to a common limit.
SAME = 0.01


def expected_counts(graph: FactorGraph, arrays: Sequence, statistics: Sequence) -> dict[str, Any]:
    """Return Σ p(z_i = k | x, θ) over the elements of each latent, with their multiplicity.

    {latent: (values,)}. Masked elements of a categorical are left out.
    """
    counts, unread = {}, []
    for name in graph.latents:
        count = _count_in_tables(graph, name, statistics)
        if count is None:
            unread.append(name)
        else:
            counts[name] = count
    # the others take a posterior, which the E-step has not computed
    return counts | counts_in_posterior(graph, arrays, unread)


def counts_in_posterior(
    graph: FactorGraph, arrays: Sequence, names: Sequence[str]
) -> dict[str, Any]:
    """Return Σ p(z_i = k | x, θ) over the elements of some latents, with their multiplicity."""
    if not names:
        return {}
    latents = instance_of(graph, arrays, predicted=True).latents
    posteriors = posterior(graph, arrays)
    return {
        name: _count_in_posterior(posteriors[name], latents[name].multiplicity) for name in names
    }


def _count_in_tables(graph: FactorGraph, name: str, statistics: Sequence) -> Any:
    """Return the counts of a latent, if its own tables are of probabilities, which expect them."""
    counts = []
    for term, expected in zip(graph.terms, statistics, strict=True):
        if not _is_site_of(term, name):
            continue
        axis = _value_axis(term)
        if axis is None:
            return None
        others = tuple(d for d in range(expected[0].ndim) if d != axis)
        counts.append(expected[0].sum(others))
    return sum(counts) if counts else None


def _count_in_posterior(marginal: Any, multiplicity: Any) -> Any:
    if multiplicity is None:
        multiplicity = jnp.ones((1,) * (marginal.ndim - 1))
    return (multiplicity[..., None] * marginal).reshape(-1, marginal.shape[-1]).sum(0)


def _is_site_of(term: Term, name: str) -> bool:
    return term.site.is_latent and term.site.name == name


def _value_axis(term: Term) -> int | None:
    """Return the axis of a latent's own table, of probabilities, that stands for its own value."""
    if term.family is None or not term.family.lookup:
        return None
    rank = len(term.elements)
    keys = set()
    for axis in term.value.axes:
        if axis.is_latent and axis.source == term.site.name:
            keys.add(axis.fitted(rank).key)
    for number, axis in enumerate(term.natural_axes[0]):
        if axis.fitted(rank).key in keys:
            return number
    return None


def empty_values(counts: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Return the values of each latent that explain less than one element."""
    empty = {}
    for name, count in counts.items():
        empty[name] = tuple(int(value) for value in np.flatnonzero(count < FEWEST_ELEMENTS))
    return empty


def duplicates(
    graph: FactorGraph, tables: Sequence, statistics: Sequence, counts: Mapping[str, np.ndarray]
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the pairs of values of each latent with one distribution of all that depends on them.

    With t̄_k the mean statistics of the elements of value k, n_k their number, giving k and l one
    distribution would lower the complete-data log-likelihood, to second order, by

        ½ n_k n_l / (n_k + n_l) · ⟨η_k − η_l, t̄_k − t̄_l⟩ nats;

    less than `SAME` is nothing. The probabilities of k and l themselves may differ. Empty values
    are left out. `tables`: the natural-parameter tables; `counts`: of the latents to look at.
    Source: ours; the inner product is Jeffreys's divergence where t̄ are the moments of η.
    """
    empty, pairs = empty_values(counts), {}
    for name in counts:
        rows = _rows(graph, name, tables, statistics)
        same = []
        for first, second in _comparable(graph, name, empty[name]):
            # a latent on which nothing depends has no distributions to compare
            if rows and _cost(rows, counts[name], first, second) < SAME:
                same.append((first, second))
        pairs[name] = tuple(same)
    return pairs


def copies(
    graph: FactorGraph, tables: Sequence, statistics: Sequence
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the `duplicates` of those latents of which everything is at hand.

    `tables`, `statistics`: of each term, in NumPy; None where they are too large to be kept.
    """
    return duplicates(graph, tables, statistics, counts_at_hand(graph, statistics))


def nearest_values(
    graph: FactorGraph, tables: Sequence, statistics: Sequence
) -> dict[str, tuple[float, tuple[int, int]]]:
    """Return the two values of each latent that are least apart, and by how much.

    That is ⟨η_k − η_l, t̄_k − t̄_l⟩ for an element, in nats, with the terms of `duplicates`; of
    those latents of which everything is at hand. Empty values are left out.
    """
    counts, nearest = counts_at_hand(graph, statistics), {}
    for name, empty in empty_values(counts).items():
        count, rows = counts[name], _rows(graph, name, tables, statistics)
        pairs = _comparable(graph, name, empty)
        if rows and pairs:
            nearest[name] = min((_apart(rows, count, *pair), pair) for pair in pairs)
    return nearest


def _comparable(graph: FactorGraph, name: str, empty: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of values of a latent of which neither is empty.

    Values for which a `Select` takes different components have no parameters in common.
    """
    size = graph.latents[name].support.shape[0]
    chosen = [np.zeros((size, 0))]
    for term in graph.terms:
        # a gate that data take part in may be any
        if term.gate is not None and term.gate.is_static:
            for number, axis in enumerate(term.gate.axes):
                if axis.source == name:
                    chosen.append(_by_value(term.gate.array, number, axis.size))
    by_value = np.concatenate(chosen, axis=1)
    used = [value for value in range(size) if value not in empty]
    pairs = itertools.combinations(used, 2)
    return [(k, j) for k, j in pairs if np.array_equal(by_value[k], by_value[j])]


def counts_at_hand(graph: FactorGraph, statistics: Sequence) -> dict[str, np.ndarray]:
    """Return the counts of those latents of which everything is at hand, as `copies` has it."""
    counts = {}
    for name in graph.latents:
        terms = zip(graph.terms, statistics, strict=True)
        read = [expected for term, expected in terms if name in _sources(term)]
        if all(expected is not None for expected in read):
            count = _count_in_tables(graph, name, statistics)
            if count is not None:
                counts[name] = np.asarray(count, float)
    return counts


def _sources(term: Term) -> set:
    """Return the latents that a term reads, its own among them."""
    return {axis.source for axes in term.natural_axes for axis in axes if axis.is_latent}


def _rows(
    graph: FactorGraph, name: str, tables: Sequence, statistics: Sequence
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the tables that read a latent as a parent, each with its expected statistics.

    Both are of shape (values, …).
    """
    rows = []
    for term, arrays, expected in zip(graph.terms, tables, statistics, strict=True):
        if name not in _sources(term):
            continue
        value_axis = None
        if _is_site_of(term, name):
            value_axis = _value_axis(term)
            # how probable each value is may differ, and here no axis tells that apart
            if value_axis is None:
                continue
        for axes, table, statistic in zip(term.natural_axes, arrays, expected, strict=True):
            for number, axis in enumerate(axes):
                if axis.source == name and number != value_axis:
                    eta = _by_value(table, number, axis.size)
                    rows.append((eta, _by_value(statistic, number, axis.size)))
    return rows


def _by_value(array: Any, axis: int, size: int) -> np.ndarray:
    return np.moveaxis(np.asarray(array, float), axis, 0).reshape(size, -1)


def _cost(rows, count: np.ndarray, k: int, j: int) -> float:
    """Return what giving two values one distribution costs, in nats; infinite of no data."""
    return 0.5 * count[k] * count[j] / (count[k] + count[j]) * _apart(rows, count, k, j)


def _apart(rows, count: np.ndarray, k: int, j: int) -> float:
    """Return Jeffreys's divergence between two values, for an element; infinite of no data."""
    if not any(t[k].any() or t[j].any() for _, t in rows):
        return np.inf
    apart = 0.0
    for eta, t in rows:
        apart += float((eta[k] - eta[j]) @ (t[k] / count[k] - t[j] / count[j]))
    return max(apart, 0.0)
