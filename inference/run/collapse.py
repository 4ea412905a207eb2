"""How sharp the densities of observed sites are, beside what their data resolve.

A likelihood without a maximum is one that a density at some datum makes as large as one likes: its
component has shrunk onto that datum. Where a family has an argument that is a scale, that says it:
a variance, beside that of the data. Elsewhere the density at the data does, times their spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.families.conjugate import Conjugate
from emjax.graph.data_statistics import sufficient, transformed
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled_term
from emjax.graph.terms import Term, naturals_of
from emjax.graph.wiring import NONE
from emjax.m_step.wiring_view import WiringView
from emjax.numerics.guards import as_float
from emjax.tables.lifting import lift_events
from emjax.tables.named import Named, spread, without_rows

# By so many nats a density of several coordinates may exceed that of one, for each more of them:
# each may be a hundredth of its data's spread without anything being wrong.
FURTHER_COORDINATE = 4.0


def sharpest(dtype: Any) -> float:
    """Return the sharpness beyond which a component has collapsed, in nats.

    There its variance is √ε / 100 of that of the data (1e-10 in double precision, 3e-6 in single):
    so near to its singularity the likelihood has lost its digits.
    """
    return -0.5 * math.log(math.sqrt(np.finfo(dtype).eps) / 100)


@dataclass(frozen=True, eq=False)
class Watched:
    """A density, or an argument of it that is a scale.

    - `term`: the number of its term.
    - `parameters`: what it depends on.
    - `argument`: the scale; "" where it is the density itself.
    - `entries`: the number of the parameter entry that each cell of the scale is (−1: none), over
      all parameters; None where it is computed.
    - `is_integrated`: whether it is of data that depend on Gaussian latents. What these explain
      without rest may have a scale of zero, and the likelihood a maximum there.
    """

    term: int
    parameters: tuple[str, ...]
    argument: str = ""
    entries: np.ndarray | None = None
    is_integrated: bool = False


def watched(graph: FactorGraph, held: Sequence[str]) -> list[Watched]:
    """Return what may collapse: of each observed density, its scale, else itself.

    `held`: the parameters that are not estimated.
    """
    view, watches = WiringView(graph), []
    integrated = {term.site.name for term in graph.terms if term.reads}
    for number, term in enumerate(graph.terms):
        # an interaction with Gaussian latents is beside the density that it belongs to
        if not term.site.is_observed or term.site.is_discrete or term.reads:
            continue
        scales = {}
        for name, table in term.arguments.items():
            conjugacy = None if term.family is None else term.family.arguments[name]
            if conjugacy is not None and conjugacy.is_scale:
                scales[name] = (conjugacy, table)
        for name, (conjugacy, table) in scales.items():
            wire = view.wire(table)
            free = tuple(sorted(wire.parameters - set(held)))
            if free:
                entries = None if wire.entries is None else _first(wire.entries, conjugacy)
                is_integrated = term.site.name in integrated
                watches.append(Watched(number, free, name, entries, is_integrated))
        read = set().union(*(view.wire(table).parameters for table in term.arguments.values()))
        # what statistics take beside the data is not at hand
        is_known = term.family is None or not (term.family.given or term.family.squares)
        if not scales and is_known and read - set(held):
            watches.append(Watched(number, tuple(sorted(read - set(held)))))
    return watches


def _first(entries: np.ndarray, conjugacy: Conjugate) -> np.ndarray:
    """Return the first number of each cell's entry."""
    lead = entries.shape[: entries.ndim - conjugacy.event_dim]
    return entries.reshape(*lead, -1)[..., 0]


def sharpness(
    graph: FactorGraph, watch: Watched, params: Mapping, start: Mapping, constants: Sequence
) -> tuple[Array, Array]:
    """Return how sharp a watched density is, in nats, and which columns of its data are constant.

    A scale's is −½ log of its variance over that of the data, for each entry, or each value of
    latents and column of data. A density's is its logarithm at the datum that suits it best, in
    units of the data's spread, likewise. What has no data (`numpyro.factor`) has no unit: its
    sharpness is how much it has grown since the start, at some row.
    """
    arrays = graph.arrays(params, constants)
    term = filled_term(graph.terms[watch.term], arrays)
    if not math.prod(term.site.event):
        before = filled_term(graph.terms[watch.term], graph.arrays(start, constants))
        return _growth(before, term), jnp.zeros((), bool)
    over = _pooled_dims(term, watch)
    of_data = _spread(term, over)
    if not watch.argument:
        return _of_density(term, of_data, over), of_data.is_constant
    return _of_scale(term, watch, of_data, over), of_data.is_constant


# ── scales ────────────────────────────────────────────────────────────────────────────────────────


def _of_scale(term: Term, watch: Watched, of_data: Spread, over: Sequence[int]) -> Array:
    rank, table = len(term.elements), term.arguments[watch.argument]
    conjugacy, unit = _scale_of(term, watch.argument), of_data.unit
    if conjugacy.event_dim:
        # one unit for each coordinate, that of the elements which spread most
        unit = unit.reshape(-1, unit.shape[-1]).max(0)
    else:
        # one number stands for all coordinates of an event: it is held against the widest
        unit = unit.max(tuple(range(rank, unit.ndim)))
    is_counted = unit > 0
    variance = conjugacy.least_variance(as_float(table.array), jnp.where(is_counted, unit, 1))
    sharp = -0.5 * jnp.log(variance)
    if not conjugacy.event_dim:
        sharp = jnp.where(is_counted, sharp, -jnp.inf)
    if watch.entries is not None:
        return _by_entry(sharp, watch.entries)
    axes = tuple(axis.fitted(rank) for axis in table.axes)
    return _highest(Named(sharp, table.shape[:rank], axes), over)


def _scale_of(term: Term, argument: str) -> Conjugate:
    assert term.family is not None
    conjugacy = term.family.arguments[argument]
    assert conjugacy is not None
    return conjugacy


def _by_entry(sharp: Array, entries: np.ndarray) -> Array:
    """Return how sharp each entry is that is a scale, in the cell where it is least so."""
    owners, rows = owners_of(entries), np.broadcast_to(entries, sharp.shape)
    # where each cell is the entry of its own number, as in most programs, there is no lookup
    if np.array_equal(rows.ravel(), owners):
        return sharp.ravel()
    # cells that are no entry of a parameter would count from the end
    number = np.where(rows == NONE, len(owners), np.searchsorted(owners, rows))
    nothing = jnp.full(len(owners), jnp.inf, sharp.dtype)
    return nothing.at[number].min(sharp, mode="drop")


def owners_of(entries: np.ndarray) -> np.ndarray:
    """Return the numbers of the parameter entries among cells, each once."""
    return np.unique(entries[entries != NONE])


# ── densities ─────────────────────────────────────────────────────────────────────────────────────


def _of_density(term: Term, of_data: Spread, over: Sequence[int]) -> Array:
    rank, event = len(term.elements), tuple(term.site.event)
    unit = jnp.broadcast_to(of_data.unit, of_data.unit.shape[:rank] + event)
    log_unit = jnp.log(unit).sum(tuple(range(rank, unit.ndim)))
    further = FURTHER_COORDINATE * (math.prod(event) - 1)
    density = dense_log_density(term)
    # by the values of all its latents, in their order
    array = spread(density, term.latent_axes) + log_unit - further
    return array.max(tuple(len(term.latent_axes) + d for d in over), keepdims=True)


def dense_log_density(term: Term) -> Named:
    """Return log p of each element under each value of its latents; −∞ where it does not count."""
    density = without_rows(log_density(term))
    # what a mask leaves out is a density of one
    counts = density.array != 0
    rank = len(term.elements)
    for mask in term.counted:
        array = without_rows(mask).array
        counts = counts & array.any(tuple(range(rank, array.ndim)))
    return replace(density, array=jnp.where(counts, density.array, -jnp.inf))


def log_density(term: Term) -> Named:
    """Return log p of each element under each value of its latents, in nats."""
    family, naturals, rank = term.family, naturals_of(term), len(term.elements)
    if family is None:
        return naturals[0]
    event = len(term.site.event)
    data = transformed(family, term.value, rank, event)
    origin = term.origin if family.centered else None
    statistics = [t.value for t in sufficient(family, data, origin, [], rank, event)]

    def density(x, *arrays):
        total = family.base(x)
        for eta, t, axes in zip(arrays, arrays[len(naturals) :], family.event_dims, strict=False):
            product = eta * t
            total = total + product.sum(tuple(range(product.ndim - axes, product.ndim)))
        return (total,)

    pairs = [
        (table, axes)
        for tables in (naturals, statistics)
        for table, axes in zip(tables, family.event_dims, strict=True)
    ]
    return lift_events(density, [(data, event), *pairs], rank)[0]


def _growth(before: Term, after: Term) -> Array:
    """Return by how much a density has grown most, under its best value of latents."""
    old, new = (without_rows(log_density(term)) for term in (before, after))
    latents = tuple(range(len(old.axes)))
    return (new.array - old.array.max(latents, keepdims=True)).max()


# ── the spread of data ────────────────────────────────────────────────────────────────────────────


class Spread(NamedTuple):
    """How far the data of a term spread: (elements or 1 …, event …).

    - `unit`: their standard deviation about their own mean; where they are constant, their size;
      0 where none count.
    - `is_constant`: where they are all one number.
    """

    unit: Array
    is_constant: Array


def _spread(term: Term, over: Sequence[int]) -> Spread:
    """Return the spread of a term's data, of which those along some axes are together."""
    dims = tuple(over)
    data = without_rows(term.value).array
    counts = jnp.ones((1,) * data.ndim, bool)
    for mask in term.counted:
        counts = counts & without_rows(mask).array
    # what does not count may be anything
    data = as_float(jnp.where(counts, data, 1))
    if term.family is not None:
        data = term.family.transform(data)
    data, counts = jnp.broadcast_arrays(data, counts)
    # from one of them, so that numbers which are all equal have no rounding
    top = jnp.where(counts, data, -jnp.inf).max(dims, keepdims=True)
    step = jnp.where(counts, data - top, 0)
    count = counts.sum(dims, keepdims=True)
    mean = step.sum(dims, keepdims=True) / jnp.maximum(count, 1)
    # of the data, not of the steps: XLA would keep these for both sums, and they are as long
    square = jnp.where(counts, data - (top + mean), 0) ** 2
    deviation = jnp.sqrt(square.sum(dims, keepdims=True) / jnp.maximum(count, 1))
    is_constant = (count > 0) & (deviation == 0)
    size = jnp.where(top == 0, 1, jnp.abs(top))
    unit = jnp.where(is_constant, size, deviation)
    return Spread(jnp.where(count > 0, unit, 0), is_constant)


def _pooled_dims(term: Term, watch: Watched) -> tuple[int, ...]:
    """Return the axes of a term's elements along which its data are one cloud."""
    every = tuple(range(len(term.elements)))
    if not watch.argument:
        return term.kept or every
    tables = [term.arguments[watch.argument]]
    if term.family is not None and term.family.centered:
        tables.insert(0, term.arguments[term.family.centered])
    # elements that share a location are, and columns that have scales of their own are none; each
    # datum may have a location of its own (a regression)
    for several in (tables, tables[:1]):
        dims = tuple(d for d in every if all(table.compact[d] == 1 for table in several))
        if dims:
            return dims
    return every


def _highest(values: Named, over: Sequence[int]) -> Array:
    """Return the highest value along axes of elements: (values of latents …, elements or 1 …)."""
    dense = without_rows(values)
    lead = len(dense.axes)
    return jnp.asarray(dense.array).max(tuple(lead + d for d in over), keepdims=True)
