"""What observed sites are drawn from under each value of the latents that choose it, and their
data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emjax.fit import Fit
from emjax.graph.slots import filled_term
from emjax.graph.terms import Term
from emjax.naming.axes import program_axes, support_values
from emjax.program.records import Site
from emjax.run.bound import Bound
from emjax.tables.named import Axis, Named, spread, union


@dataclass(frozen=True, eq=False)
class Emission:
    """An observed site whose distribution latents choose, the same for all rows of its data.

    - `site`: the site.
    - `latents`: those that choose, by name.
    - `values`: which value of each latent every joint value is, (joint, latent).
    - `arguments`: of its distribution, {name: (joint, *feature axes, *event)}.
    - `is_chosen`: the joint values under which it is this distribution, (joint,).
    - `data`: (row, feature), NaN where nothing is observed.
    - `elements`: which element of each latent a row belongs to, {latent: (row,)}.
    - `features`: what its features are called.
    """

    site: Site
    latents: tuple[str, ...]
    values: np.ndarray
    arguments: Mapping[str, np.ndarray]
    is_chosen: np.ndarray
    data: np.ndarray
    elements: Mapping[str, np.ndarray]
    features: tuple[str, ...]

    @cached_property
    def distribution(self) -> Any:
        """The distributions as one of NumPyro's, of batch shape (joint, *feature axes)."""
        return self.site.distribution(**self.arguments, validate_args=False)

    @property
    def mean(self) -> np.ndarray:
        """Their means, (joint, feature)."""
        mean = np.asarray(self.distribution.mean)
        return np.broadcast_to(mean.reshape(len(mean), -1), (len(self.values), self.num_features))

    @property
    def covariance(self) -> np.ndarray:
        """Their covariances, (joint, feature, feature)."""
        matrix = getattr(self.distribution, "covariance_matrix", None)
        number, size = len(self.values), self.num_features
        if matrix is not None and np.shape(matrix)[-1] == size:
            return np.broadcast_to(np.asarray(matrix).reshape(-1, size, size), (number, size, size))
        variance = np.asarray(self.distribution.variance)
        variance = np.broadcast_to(variance.reshape(len(variance), -1), (number, size))
        return variance[:, :, None] * np.eye(size)

    @property
    def num_features(self) -> int:
        """How many numbers a row has."""
        return self.data.shape[1]


def arrays_of(fit: Fit, bound: Bound) -> list[Any]:
    """Return the array of every slot of a program's graph, at a fit."""
    return bound.compiled.graph.arrays(bound.checked(fit.params), bound.constants())


def emissions_of(fit: Fit, bound: Bound, latent: str) -> tuple[list[Emission], list[str]]:
    """Return the observed sites that a latent chooses, and why others are not among them."""
    graph, found, reasons = bound.compiled.graph, [], []
    arrays = arrays_of(fit, bound)
    for term in graph.terms:
        touches = latent in [axis.source for axis in term.latent_axes]
        if not term.site.is_observed or not touches:
            continue
        emission = _emission(bound, filled_term(term, arrays), latent)
        if isinstance(emission, str):
            reasons.append(emission)
        else:
            found.append(emission)
    return found, reasons


def _emission(bound: Bound, term: Term, latent: str) -> Emission | str:
    """Return how a term is chosen by a latent, or why it cannot be shown."""
    site, rank = term.site, len(term.elements)
    if term.family is None:
        return f"emjax knows {site.distribution.__name__} at '{site.name}' by its density alone"
    if term.reads:
        return f"'{site.name}' reads a Gaussian latent"
    tables = {name: term.arguments[name].fitted(rank) for name in term.family.reads}
    gate = [] if term.gate is None else [term.gate.fitted(rank)]
    axes = [axis.fitted(rank) for axis in union([*tables.values(), *gate]) if axis.is_latent]
    if latent not in [axis.source for axis in axes]:
        return f"'{site.name}' does not depend on '{latent}'"
    sample = sorted({d for axis in axes for d in range(rank) if axis.varies[d]})
    others = [d for d in range(rank) if d not in sample]
    for name, table in tables.items():
        along = [table.compact[d] for d in sample]
        if table.row_axes or math.prod(along) > 1:
            return f"the {name} of '{site.name}' differs from row to row"
    arguments = {name: _over_joint(table, axes, sample) for name, table in tables.items()}
    values = np.array(list(itertools.product(*(range(axis.size) for axis in axes))))
    is_chosen = np.ones(len(values), bool)
    for one in gate:
        array = np.asarray(_over_joint(one, axes, sample))
        is_chosen = array.reshape(len(values), -1).all(axis=1)
    data = _data(term, sample, others)
    elements = {str(axis.source): _elements(axis, term.elements, sample) for axis in axes}
    names = _features(bound, site, others, data.shape[1])
    latents = tuple(str(axis.source) for axis in axes)
    return Emission(site, latents, values, arguments, is_chosen, data, elements, names)


def _over_joint(table: Named, axes: Sequence[Axis], sample: Sequence[int]) -> np.ndarray:
    """Return a table as (joint value, *what is left of its own axes)."""
    array, lead = np.asarray(spread(table, axes)), len(axes)
    # of what some latent does not choose, every value of it has the same
    array = np.broadcast_to(array, (*(axis.size for axis in axes), *array.shape[lead:]))
    array = np.squeeze(array, axis=tuple(lead + d for d in sample))
    return array.reshape(-1, *array.shape[lead:])


def _data(term: Term, sample: Sequence[int], others: Sequence[int]) -> np.ndarray:
    """Return what is observed, (row, feature); NaN where it does not count."""
    rank, event = len(term.elements), len(term.site.event)
    shape = (*term.elements, *term.site.event)
    value = np.broadcast_to(np.asarray(term.value.array, float), shape)
    for mask in term.counted:
        where = np.asarray(mask.array).astype(bool)
        where = where.reshape(where.shape + (1,) * (value.ndim - where.ndim))
        value = np.where(np.broadcast_to(where, shape), value, np.nan)
    order = [*sample, *others, *range(rank, rank + event)]
    rows = math.prod(term.elements[d] for d in sample)
    return value.transpose(order).reshape(rows, -1)


def _elements(axis: Axis, elements: tuple[int, ...], sample: Sequence[int]) -> np.ndarray:
    """Return which element of a latent each row reads."""
    index = np.asarray(axis.index.dense(elements))
    others = tuple(d for d in range(len(elements)) if d not in sample)
    index = np.squeeze(index, axis=others)
    return np.broadcast_to(index, [elements[d] for d in sample]).reshape(-1)


def _features(bound: Bound, site: Site, others: Sequence[int], size: int) -> tuple[str, ...]:
    """Return what the features of a site are called: its columns, or its name and numbers."""
    if size == 1:
        return (site.name,)
    axes = program_axes(bound).of_site(site)
    along = [axes[d] for d in (*others, *range(len(site.elements), len(axes)))]
    labels = [list(map(str, axis.labels)) if axis.are_words else None for axis in along]
    sizes = [len(axis.labels) for axis in along]
    names = []
    for index in itertools.product(*map(range, sizes)):
        words = [str(i) if of is None else of[i] for i, of in zip(index, labels, strict=True)]
        is_named = any(of is not None for of in labels)
        names.append(", ".join(words) if is_named else f"{site.name}[{', '.join(words)}]")
    return tuple(names)


def posterior_of(fit: Fit, latent: str) -> np.ndarray:
    """Return p(latent | data) of its elements, (element, value)."""
    posterior = np.asarray(fit.posterior()[latent], float)
    return posterior.reshape(-1, posterior.shape[-1])


def names_of_joint(bound: Bound, emission: Emission) -> list[str]:
    """Return what the joint values of an emission's latents are called."""
    names = []
    for values in emission.values:
        words = []
        for latent, value in zip(emission.latents, values, strict=True):
            words.append(f"{latent} {support_values(bound.compiled.graph, latent)[value]}")
        names.append(", ".join(words))
    return names
