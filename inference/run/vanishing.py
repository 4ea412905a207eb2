"""Variances that go to zero where the likelihood stays bounded: estimates on the boundary.

That of a Gaussian latent may: the data then vary no more than they would without it. So may that of
the noise of a column which factors explain without rest (Heywood, 1931). EM crawls there, the more
slowly the nearer it is, and stops at some small number: so it is asked whether a tenth of that is
as good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emjax.families.conjugate import COVARIANCE, PRECISION, SCALE_TRIL, Conjugate
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.maximizer import Maximizer
from emjax.run import endings
from emjax.run.collapse import owners_of
from emjax.run.compiled import CompiledProgram
from emjax.run.findings import Finding

# a standard deviation is asked about that is so small a part of another, of its start, or of the
# data's
SMALL = 0.1
# the part of a standard deviation at which the objective is looked at
NEARER = 0.1
# entries that are asked about: the objective is evaluated for each
MOST_ASKED = 20


@dataclass(frozen=True, eq=False)
class Variance:
    """A parameter that is the scale of a Gaussian latent, or of data that depend on some.

    - `sites`: those whose scale it is.
    - `latents`: the latents that it is the scale of, or that these sites depend on.
    """

    name: str
    conjugacy: Conjugate
    sites: tuple[str, ...]
    latents: tuple[str, ...]

    @property
    def is_of_latent(self) -> bool:
        """Whether it is the scale of latents."""
        return set(self.sites) <= set(self.latents)

    def deviations(self, value: np.ndarray) -> np.ndarray:
        """Return the least standard deviation of each entry: of a matrix, beside its diagonal's."""
        if not self.conjugacy.event_dim:
            return np.asarray(np.abs(value))
        unit, (values, _) = _principal(self.conjugacy, value)
        return np.asarray(np.sqrt(np.maximum(values[..., 0], 0)) * unit.max(-1))

    def nearer(self, value: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
        """Return the value with an entry that is a tenth, in the direction where it is least."""
        moved = np.array(value)
        if not self.conjugacy.event_dim:
            moved[index] *= NEARER
            return moved
        unit, (values, vectors) = _principal(self.conjugacy, value[index])
        values[0] *= NEARER**2
        covariance = (vectors * values) @ vectors.T * unit * unit[:, None]
        back = {COVARIANCE: np.asarray, PRECISION: np.linalg.inv, SCALE_TRIL: np.linalg.cholesky}
        moved[index] = back[self.conjugacy](covariance)
        return moved


def _principal(conjugacy: Conjugate, value: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return the standard deviations of matrices, and the eigenvectors of their correlations."""
    covariance = value
    if conjugacy is PRECISION:
        covariance = np.linalg.inv(value)
    if conjugacy is SCALE_TRIL:
        covariance = value @ value.swapaxes(-1, -2)
    unit = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return unit, np.linalg.eigh(covariance / (unit[..., None] * unit[..., None, :]))


def variances(graph: FactorGraph, maximizers: Sequence[Maximizer]) -> list[Variance]:
    """Return the scales that may go to zero though the likelihood stays bounded."""
    read: dict[str, dict[str, None]] = {}
    for term in graph.terms:
        sources = (str(axis.source) for axis in term.reads)
        read.setdefault(term.site.name, {}).update(dict.fromkeys(sources))
    found = []
    for maximizer in maximizers:
        uses = maximizer.uses
        conjugacy = uses[0].conjugacy if uses else None
        if conjugacy is None or not conjugacy.is_scale:
            continue
        if conjugacy.event_dim and conjugacy not in (COVARIANCE, PRECISION, SCALE_TRIL):
            continue
        sites = tuple(dict.fromkeys(graph.terms[use.term].site.name for use in uses))
        latents = tuple(dict.fromkeys(name for site in sites for name in read[site]))
        if latents:
            found.append(Variance(maximizer.names[0], conjugacy, sites, latents))
    return found


def vanished(
    compiled: CompiledProgram,
    data: Sequence,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    sharpness: Sequence,
) -> list[Finding]:
    """Return which variances have gone to zero, or are on their way.

    `before`, `after`: the parameters at the start and at the end of a run; `sharpness`: there, of
    what `compiled.watch` watches.
    """
    scales = variances(compiled.graph, compiled.maximizers)
    ratios = {}
    for scale in scales:
        beside = _beside_others(scale, scales, before, after)
        if not scale.is_of_latent:
            beside = np.minimum(beside, _beside_data(compiled, scale, beside, sharpness))
        ratios[scale.name] = beside
    gains, found = _gains(compiled, data, after, scales, ratios), []
    for scale in scales:
        if of_entries := gains[scale.name]:
            gain = max(*of_entries.values(), 0.0)
            say = endings.no_variance if scale.is_of_latent else endings.no_noise
            is_matrix = scale.conjugacy.event_dim > 0
            found.append(
                say(scale.name, list(of_entries), scale.sites, scale.latents, gain, is_matrix)
            )
    return found


def at_zero(
    compiled: CompiledProgram, data: Sequence, params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return which entries of parameters are standard deviations that go to zero, by parameter.

    Of an estimate, which is on the boundary there. A matrix has no such entries.
    """
    scales = [
        s for s in variances(compiled.graph, compiled.maximizers) if not s.conjugacy.event_dim
    ]
    ratios = {scale.name: _beside_others(scale, scales, params, params) for scale in scales}
    where = {}
    for name, gains in _gains(compiled, data, params, scales, ratios).items():
        where[name] = np.zeros(ratios[name].shape, bool)
        for index in gains:
            where[name][index] = True
    return where


def _gains(
    compiled: CompiledProgram,
    data: Sequence,
    params: Mapping[str, Any],
    scales: Sequence[Variance],
    ratios: Mapping[str, np.ndarray],
) -> dict[str, dict[tuple[int, ...], float]]:
    """Return the entries of scales that go to zero, and how much higher the objective is nearer.

    `ratios`: how large each entry is; those are asked about that are small.
    """
    asked = []
    for scale in scales:
        for index, ratio in np.ndenumerate(ratios[scale.name]):
            asked += [(ratio, scale, index)] if ratio <= SMALL else []
    gains: dict[str, dict[tuple[int, ...], float]] = {scale.name: {} for scale in scales}
    if not asked:
        return gains
    objective = compiled.function("objective", lambda: _objective_of(compiled))
    here = np.asarray(objective(params, data))
    # of what is nearly zero, densities have lost half of their digits
    part = max(compiled.pure.numbers.tol, np.sqrt(np.finfo(here.dtype).eps))
    tolerance = float(part * (1 + abs(here)))
    for _, scale, index in sorted(asked, key=lambda entry: entry[0])[:MOST_ASKED]:
        value = np.asarray(params[scale.name])
        moved = {**params, scale.name: scale.nearer(value, index)}
        gain = float(objective(moved, data) - here)
        # where it gains more, nothing holds it: it has collapsed, which is said elsewhere
        if -tolerance <= gain < 1:
            gains[scale.name][index] = gain
    return gains


def _beside_others(
    scale: Variance, scales: Sequence[Variance], before: Mapping, after: Mapping
) -> np.ndarray:
    """Return the standard deviations of a scale's entries beside the largest, or their starts."""
    largest = max(each.deviations(np.asarray(after[each.name])).max() for each in scales)
    at_start = scale.deviations(np.asarray(before[scale.name]))
    return np.asarray(
        scale.deviations(np.asarray(after[scale.name])) / np.maximum(largest, at_start)
    )


def _beside_data(
    compiled: CompiledProgram, scale: Variance, ratios: np.ndarray, sharpness: Sequence
) -> np.ndarray:
    """Return the standard deviations of a scale's entries beside those of its data."""
    graph = compiled.graph
    beside = np.full(ratios.size, np.inf)
    first = graph.offsets()[scale.name]
    size = math.prod(graph.parameters[scale.name].shape) // max(ratios.size, 1)
    for watch, (sharp, _) in zip(compiled.watch.watched, sharpness, strict=True):
        if watch.entries is not None and scale.name in watch.parameters:
            numbers = (owners_of(watch.entries) - first) // size
            is_own = (numbers >= 0) & (numbers < ratios.size)
            np.minimum.at(beside, numbers[is_own], np.exp(-np.ravel(sharp)[is_own]))
    return beside.reshape(ratios.shape)


def _objective_of(compiled: CompiledProgram) -> Callable:
    """Return (params, data) → the objective in nats."""

    def objective(params, data):
        return compiled.pure.objective(params, compiled.graph.prepare(data))

    return objective
