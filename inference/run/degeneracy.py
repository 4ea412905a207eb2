"""What goes wrong with components: a scale that collapses, a component that dies, a probability
that reaches zero and stays there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.families.family import lacks_coordinates
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.recipes import Statistic
from emjax.graph.slots import filled_term
from emjax.graph.terms import Term
from emjax.graph.wiring import NONE
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.wiring_view import Use
from emjax.run import findings
from emjax.run.boundary import boundary_findings
from emjax.run.findings import Finding
from emjax.tables.named import full, without_rows

# the spread where no data count: less than any
UNCOUNTED = -1.0


def smallest_variance(dtype) -> float:
    """Return the part of the data's variance below which a variance has collapsed."""
    return float(np.sqrt(np.finfo(dtype).eps) / 100)


class DegeneracyWatch:
    """Knows which parameters of a program are scales, and which are the proportions of its
    components.

    A scale has collapsed when its variance is below √ε / 100 of that of the data (1e-10 in double
    precision, 3e-6 in single): so near to its singularity the likelihood has lost its digits. A
    component is dead when no more than √ε elements are expected to belong to it.
    """

    def __init__(self, graph: FactorGraph, maximizers: Sequence[Maximizer]):
        self.graph, self.maximizers = graph, maximizers
        self.uses: list[tuple[str, Use]] = []
        for maximizer in maximizers:
            self.uses += [(maximizer.names[0], use) for use in maximizer.uses]
        self.scales = [(name, use) for name, use in self.uses if self._is_scale(use)]

    def _is_scale(self, use: Use) -> bool:
        """Whether an argument is a scale of data whose spread is known."""
        family = self.graph.terms[use.term].family
        return use.conjugacy.is_scale and (
            family.centered is not None or len(family.arguments) == 1
        )

    # ── scales ────────────────────────────────────────────────────────────────────────────────────

    def spreads(self, constants: Sequence) -> list[Array]:
        """Return the standard deviation of the data that each scale is of; traced.

        Each is of shape (*elements or 1 …, *event), without the event for scales of one number.
        """
        # spreads depend on the data alone: any parameters do
        ones = {name: jnp.ones(p.shape, p.dtype) for name, p in self.graph.parameters.items()}
        arrays = self.graph.arrays(ones, constants)
        spreads = []
        for _, use in self.scales:
            term = filled_term(self.graph.terms[use.term], arrays)
            spread = _pooled(term, use) if term.family.centered is None else _spread(term)
            # one number stands for all coordinates of an event: it is held against the widest
            if not use.conjugacy.event_dim:
                spread = spread.max(tuple(range(len(term.elements), spread.ndim)))
            spreads.append(spread)
        return spreads

    def variances(self, params: Mapping[str, Any], spreads: Sequence[Array]) -> list[Array]:
        """Return the variances of each scale's entries over those of the data; traced.

        Infinite for an entry that no cell reads. What `is_collapsed` and `collapsed` go by.
        """
        return [
            _relative_variances(jnp.asarray(params[name]), use, spread)
            for (name, use), spread in zip(self.scales, spreads, strict=True)
        ]

    def is_collapsed(self, variances: Sequence) -> Any:
        """Return whether a scale has collapsed, of variances (…, entry): (…); traced or not."""
        flag: Any = np.zeros((), bool)
        for (name, _), variance in zip(self.scales, variances, strict=True):
            flag = flag | ~(variance > self._limit(name)).all(-1)  # true of NaN, too
        return flag

    def collapsed(self, variances: Sequence) -> list[Finding]:
        """Return the scales that have collapsed, of variances (entry)."""
        # a scale that several terms read is named once
        by_entry: dict[tuple[str, int], Finding] = {}
        for (name, use), variance in zip(self.scales, variances, strict=True):
            variance = np.asarray(variance)
            site = self.graph.terms[use.term].site.name
            for entry in map(int, np.flatnonzero(~(variance > self._limit(name)))):
                ratio = float(np.sqrt(np.maximum(variance[entry], 0)))
                by_entry[name, entry] = findings.collapsed(
                    name, self._index(name, entry, use), self._owner(name, use, entry), ratio, site
                )
        return list(by_entry.values())

    def _limit(self, name: str) -> float:
        return smallest_variance(self.graph.parameters[name].dtype)

    def _owner(self, name: str, use: Use, entry: int) -> str:
        """Return which values of which latents an entry belongs to, in words."""
        axes = self.graph.terms[use.term].arguments[use.argument].axes
        cells = np.argwhere(use.rows == entry)
        parts = []
        for number, axis in enumerate(axes):
            values = np.unique(cells[:, number])
            if axis.source in self.graph.latents and len(values) == 1:
                value = self.graph.latents[axis.source].support[values[0]]
                parts.append(f"component {value} of '{axis.source}'")
        return " and ".join(parts) or f"parameter '{name}'"

    def _index(self, name: str, entry: int, use: Use) -> str:
        shape = self.graph.parameters[name].shape
        lead = shape[: len(shape) - use.conjugacy.event_dim]
        return f"[{', '.join(map(str, np.unravel_index(entry, lead)))}]" if lead else ""

    # ── probabilities ─────────────────────────────────────────────────────────────────────────────

    def dead(self, params: Mapping[str, Any]) -> list[Finding]:
        """Return the values of latents of which every stated probability has gone to zero."""
        dead = []
        for latent in self.graph.latents.values():
            uses = [(name, use) for name, use in self.uses if self._is_of(use, latent.name)]
            if not uses or not self._says_all(latent.name, [use for _, use in uses]):
                continue
            names = tuple(dict.fromkeys(name for name, _ in uses))
            largest = _largest_probabilities([np.asarray(params[name]) for name in names])
            count = float(np.prod(latent.shape, dtype=float))
            # fewer expected elements than that are none
            none = np.sqrt(np.finfo(largest.dtype).eps)
            for k in np.flatnonzero(largest * count <= none):
                value, probability = latent.support[k], float(largest[k])
                dead.append(findings.dead(latent.name, value, names, probability))
        return dead

    def _is_of(self, use: Use, name: str) -> bool:
        """Whether an argument is the probabilities of a latent's values."""
        term = self.graph.terms[use.term]
        # of a lookup, whose entries are probabilities or their logarithms, the former reach zero
        is_probability = term.family.lookup and use.conjugacy.may_reach_zero
        return term.site.is_latent and term.site.name == name and is_probability

    def _says_all(self, name: str, uses: Sequence[Use]) -> bool:
        """Whether every probability of a latent is an entry of these parameters."""
        stated: dict[int, np.ndarray] = {}
        for use in uses:
            stated[use.term] = stated.get(use.term, False) | (use.rows != NONE)
        terms = set()
        for number, term in enumerate(self.graph.terms):
            if term.site.is_latent and term.site.name == name:
                terms.add(number)
        return set(stated) == terms and all(is_stated.all() for is_stated in stated.values())

    def findings(
        self,
        before: Mapping[str, Any],
        reported: Mapping[str, Any],
        last: Mapping[str, Any],
        variances: Sequence,
    ) -> tuple[Finding, ...]:
        """Return what is wrong with the end of a run.

        `before`, `reported`: the parameters at its start and end; `last`: those at which the
        objective was evaluated last, though it was not finite, and their `variances`.
        """
        collapsed = self.collapsed(variances)
        # a scale that has collapsed explains what is no number
        numbers = {} if collapsed else last
        not_numbers = []
        for name, value in numbers.items():
            # an infinite logarithm of a probability is an estimate: the objective is finite there
            is_estimate = np.array_equal(value, reported[name])
            if np.isnan(value).any() or (np.isinf(value).any() and not is_estimate):
                not_numbers.append(findings.not_a_number(name))
        explained = {finding.site for finding in collapsed}
        boundary = boundary_findings(
            self.graph.parameters, self.maximizers, before, reported, explained
        )
        return (*collapsed, *not_numbers, *self.dead(reported), *boundary)


def _largest_probabilities(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Return the largest probability that tables (…, value) give each value: (value)."""
    largest = [table.reshape(-1, table.shape[-1]).max(0) for table in tables]
    return np.max(largest, axis=0)


# ── the spread of data ────────────────────────────────────────────────────────────────────────────


def _relative_variances(value: Array, use: Use, spread: Array) -> Array:
    """Return the variances of a scale's entries over those of the data: (entry)."""
    conjugacy = use.conjugacy
    entries = value.reshape((-1,) + value.shape[value.ndim - conjugacy.event_dim :])
    is_counted = spread != UNCOUNTED
    unit = jnp.where(spread > 0, spread, 1)
    is_read = np.isin(np.arange(len(entries)), use.rows)
    if conjugacy.event_dim:
        # one unit for each coordinate, that of the elements which spread most
        unit = jnp.where(is_counted, unit, 0).reshape(-1, spread.shape[-1]).max(0)
        variances = conjugacy.least_variance(entries, jnp.where(unit > 0, unit, 1))
    else:
        rows, unit, is_counted = jnp.broadcast_arrays(use.rows, unit, is_counted)
        of_cell = conjugacy.least_variance(entries[jnp.maximum(rows, 0)], unit)
        # of no data nothing is said; and cells that read no entry would count from the end
        rows = jnp.where((rows != NONE) & is_counted, rows, len(entries))
        nothing = jnp.full(len(entries), -jnp.inf, of_cell.dtype)
        variances = nothing.at[rows].max(of_cell, mode="drop")
        is_read = is_read & (variances > -jnp.inf)
    return jnp.where(is_read, variances, jnp.inf)


def _spread(term: Term) -> Array:
    """Return the standard deviation of a term's data about their own mean, by coordinate."""
    first, second, count = _moments(term)
    location, rank = term.arguments[term.family.centered], len(term.elements)
    # a family that is alike in all coordinates keeps one second power, of all of them together
    coordinates = tuple(range(second.ndim, first.ndim))
    second = second.reshape(second.shape + (1,) * len(coordinates))
    # elements that share a location are one cloud
    over = [d for d in range(rank) if location.compact[d] == 1]
    if not over:
        # each datum has a location of its own (a regression), and its own value as the origin
        value = jnp.asarray(without_rows(term.value).array, count.dtype)
        data = term.family.transform(jnp.where(count > 0, value, 1))
        over, first, second, coordinates = list(range(rank)), count * data, count * data**2, ()
    moments = jnp.broadcast_arrays(first, second, count)
    first, second, count = (moment.sum(tuple(over), keepdims=True) for moment in moments)
    counted = (count > 0).any(coordinates, keepdims=True)
    count = jnp.where(count > 0, count, 1)
    square_of_mean = ((first / count) ** 2).sum(coordinates, keepdims=True)
    num_coordinates = math.prod(first.shape[d] for d in coordinates)
    variance = (second / count - square_of_mean) / num_coordinates
    return jnp.where(counted, jnp.sqrt(jnp.maximum(variance, 0)), UNCOUNTED)


def _moments(term: Term) -> tuple[Array, Array, Array]:
    """Return Σ x, Σ x² and Σ 1 of a term's data, weighted: each (elements or 1 …, event …).

    They are taken coordinate by coordinate, from an origin in the midst of the data.
    """
    formed, event = term.statistics.formed(term.elements), len(term.site.event)
    if lacks_coordinates(term.family):
        x, observed, weight = (_dense(statistic) for statistic in formed)
        weight = weight[..., None] * observed
        return weight * x, weight * x**2, weight
    count = _dense(formed[-1])
    count = count.reshape(count.shape + (1,) * event)
    second = _dense(formed[1])
    if term.family.squares:
        second = second**2 if formed[1].square else jnp.diagonal(second, axis1=-2, axis2=-1)
    return _dense(formed[0]), second, count


def _dense(statistic: Statistic) -> Array:
    """Return a statistic over (elements or 1 …, event …), whatever its latents are."""
    value = without_rows(statistic.value)
    return jnp.asarray(full(value)).sum(tuple(range(len(value.axes))))


def _pooled(term: Term, use: Use) -> Array:
    """Return the standard deviation that one scale alone would have for all data of a term.

    Without a location, the family knows no other measure of spread than its own maximizer.
    """
    conjugacy, rank = use.conjugacy, len(term.elements)
    totals = []
    for statistic in term.statistics.formed(term.elements):
        total = _dense(statistic)
        if statistic.square:
            total = total[..., :, None] * total[..., None, :]
        totals.append(total.sum(tuple(range(rank))))

    def along(features):
        naturals = term.family.naturals(**{use.argument: features})
        return sum((total * eta).sum() for total, eta in zip(totals, naturals, strict=True))

    table = term.arguments[use.argument]
    event = table.shape[len(table.shape) - conjugacy.event_dim :]
    one = jnp.ones((1, *event), jnp.result_type(float))
    zeros = [jnp.zeros(f.shape, f.dtype) for f in jax.eval_shape(conjugacy.features, one)]
    scale = conjugacy.maximize(tuple(jax.grad(along)(zeros)), one)
    unit = jnp.ones(event[:1], one.dtype)
    spread = jnp.sqrt(conjugacy.least_variance(scale, unit)) * unit
    return spread.reshape((1,) * rank + event[:1])
