"""What observed sites are drawn from under each value of the latents that choose it, and their
data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpyro.distributions as dist

from emjax.families.family import lacks_coordinates
from emjax.fit import Fit
from emjax.graph.slots import filled_term
from emjax.graph.terms import Term
from emjax.naming.axes import support_values
from emjax.plot.rows import (
    CannotShow,
    computed,
    data_of,
    elements_of,
    features_of,
    one_for_all,
    row_axes,
)
from emjax.program.records import Site
from emjax.run.bound import Bound
from emjax.tables.named import Named


@dataclass(frozen=True, eq=False)
class Emission:
    """An observed site whose distribution latents choose, the same for all rows of its data.

    - `site`: the site.
    - `latents`: those that choose, by name.
    - `values`: which value of each latent every joint value is, (joint, latent).
    - `mean`, `covariance`: under each joint value, (joint, feature) and (joint, feature, feature);
      NaN where the distribution is none that has them here.
    - `distribution`: NumPyro's, of batch shape (joint, *feature axes); of a `Select`, its first.
    - `data`: (row, feature), NaN where nothing is observed.
    - `elements`: which element of each latent a row belongs to, {latent: (row,)}.
    - `features`: what its features are called.
    """

    site: Site
    latents: tuple[str, ...]
    values: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    distribution: Any
    data: np.ndarray
    elements: Mapping[str, np.ndarray]
    features: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """How many numbers a row has."""
        return self.data.shape[1]

    @property
    def num_values(self) -> int:
        """How many joint values the latents have."""
        return len(self.values)


def emissions_of(fit: Fit, bound: Bound, latent: str) -> tuple[list[Emission], list[str]]:
    """Return the observed sites that a latent chooses, and why others are not among them."""
    graph, found, reasons = bound.compiled.graph, [], []
    arrays = graph.arrays(bound.checked(fit.params), bound.constants())
    terms = [filled_term(term, arrays) for term in graph.terms]
    by_site: dict[str, list[Term]] = {}
    for term in terms:
        if term.site.is_observed:
            by_site.setdefault(term.site.name, []).append(term)
    for several in by_site.values():
        if not any(latent in [axis.source for axis in term.latent_axes] for term in several):
            continue
        try:
            found.append(_emission(bound, several, terms, latent))
        except CannotShow as reason:
            reasons.append(str(reason))
    return found, reasons


def _emission(bound: Bound, terms: Sequence[Term], of_all: Sequence[Term], latent: str) -> Emission:
    """Return how the terms of a site are chosen by a latent.

    There are several of what a `Select` chooses among, and of one that Gaussian latents enter.
    """
    plain = [term for term in terms if term.family is not None and not term.reads]
    if not plain:
        kind = terms[0].site.distribution.__name__
        raise CannotShow(f"of {kind} at '{terms[0].site.name}' emjax knows the density alone")
    axes = {}
    for term in terms:
        for table in _tables(term).values():
            axes |= {axis.source: axis for axis in table.latent_axes if axis.source not in axes}
    if latent not in axes:
        raise CannotShow(f"'{plain[0].site.name}' does not depend on '{latent}'")
    joint = {source: axis.size for source, axis in axes.items()}
    parts = [_part(bound, term, joint) for term in plain]
    mean, covariance = parts[0].mean, parts[0].covariance
    for part in parts[1:]:
        mean = np.where(np.isnan(mean), part.mean, mean)
        covariance = np.where(np.isnan(covariance), part.covariance, covariance)
    for term in terms:
        if term.reads:
            shift, more = _integrated(term, of_all, joint)
            mean, covariance = mean + shift, covariance + more
    first, rows = plain[0], row_axes(plain[0])
    data = data_of(bound, first, rows)
    elements = {}
    for axis in first.latent_axes:
        elements[str(axis.source)] = elements_of(axis, first.elements, rows)
    names = features_of(bound, first.site, rows, data.shape[1])
    found = {"mean": mean, "covariance": covariance, "data": data}
    return replace(parts[0], elements=elements, features=names, **found)


def _tables(term: Term) -> dict[str, Named]:
    """Return the arguments of a term's distribution, and what says where it is chosen."""
    rank = len(term.elements)
    tables = {name: table.fitted(rank) for name, table in term.arguments.items()}
    if term.gate is not None:
        tables["gate"] = term.gate.fitted(rank)
    return tables


def _part(bound: Bound, term: Term, joint: Mapping[Any, int]) -> Emission:
    """Return a term as an emission without data. `joint`: the latents' numbers of values."""
    site, rows, tables = term.site, row_axes(term), {}
    for name, table in _tables(term).items():
        tables[name] = over_joint(table, joint, rows, f"the {name} of '{site.name}'")
    gate = tables.pop("gate", None)
    if lacks_coordinates(term.family):
        distribution = dist.MultivariateNormal(**tables, validate_args=False)
    else:
        for name in term.family.given:
            given = computed(bound, site.outputs.args[name])
            tables[name] = one_for_all(given, term, rows, name)
        distribution = site.distribution(**tables, validate_args=False)
    values = np.array(list(itertools.product(*map(range, joint.values()))))
    others = [size for d, size in enumerate(term.elements) if d not in rows]
    mean, covariance = _moments(distribution, len(values), math.prod([*others, *site.event]))
    if gate is not None:
        is_chosen = gate.reshape(len(values), -1).all(axis=1)
        mean = np.where(is_chosen[:, None], mean, np.nan)
        covariance = np.where(is_chosen[:, None, None], covariance, np.nan)
    nothing = np.zeros((0, 0))
    latents = tuple(map(str, joint))
    return Emission(site, latents, values, mean, covariance, distribution, nothing, {}, ())


def _moments(distribution: Any, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of distributions, (joint, feature), and their covariances."""
    try:
        mean = np.asarray(distribution.mean, float)
        variance = np.asarray(distribution.variance, float)
    # a distribution that has none
    except NotImplementedError:
        return np.full((number, size), np.nan), np.full((number, size, size), np.nan)
    mean = np.broadcast_to(mean.reshape(len(mean), -1), (number, size))
    matrix = getattr(distribution, "covariance_matrix", None)
    if matrix is not None and np.shape(matrix)[-1] == size:
        matrix = np.asarray(matrix, float).reshape(-1, size, size)
        return mean, np.broadcast_to(matrix, (number, size, size))
    variance = np.broadcast_to(variance.reshape(len(variance), -1), (number, size))
    return mean, variance[:, :, None] * np.eye(size)


def _integrated(
    term: Term, terms: Sequence[Term], joint: Mapping[Any, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what Gaussian latents add to the mean and the covariance of a site that reads them.

    x = a + Λ f with f ~ N(m, C) adds Λ m and Λ C Λᵀ; the coefficients of a term are −Λ.
    """
    shift, more = 0.0, 0.0
    for number, axis in enumerate(term.reads):
        name = f"coefficients {number}"
        coefficients = term.arguments[name].fitted(len(term.elements))
        what = f"what '{axis.source}' is multiplied with"
        table = over_joint(coefficients, joint, row_axes(term), what)
        size = table.shape[-1]
        table = table.reshape(len(table), -1, size)
        own = [one for one in terms if one.site.name == axis.source]
        if len(own) > 2 or any(one.latent_axes for one in own if not one.reads):
            raise CannotShow(f"'{term.site.name}' reads '{axis.source}', which reads others")
        mean, covariance = _own_moments(own[0], size)
        shift = shift - table @ mean
        more = more + table @ covariance @ table.transpose(0, 2, 1)
    return np.asarray(shift), np.asarray(more)


def _own_moments(term: Term, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the covariance of a Gaussian latent's elements, which are all alike."""
    tables = {}
    for name, table in term.arguments.items():
        array, event = np.asarray(table.array), term.site.arg_constraints[name].event_dim
        own = array.shape[array.ndim - event :]
        # one number for all coordinates, or one for each
        batch = array.size // math.prod(own)
        if table.row_axes or batch not in ((1, size) if event == 0 else (1,)):
            raise CannotShow(f"the {name} of '{term.site.name}' differs from element to element")
        tables[name] = array.reshape((*([] if batch == 1 else [batch]), *own))
    distribution = term.site.distribution(**tables, validate_args=False)
    mean = np.broadcast_to(np.asarray(distribution.mean, float), (size,))
    matrix = getattr(distribution, "covariance_matrix", None)
    if matrix is not None:
        return mean, np.asarray(matrix, float)
    variance = np.broadcast_to(np.asarray(distribution.variance, float), (size,))
    return mean, np.diag(variance)


def over_joint(
    table: Named, joint: Mapping[Any, int], rows: Sequence[int], what: str
) -> np.ndarray:
    """Return a table as (joint value, *what is left of its own axes).

    `joint`: how many values each latent has; `rows`: those of its own axes that number the rows of
    data. Errors: `CannotShow` if it varies there, or reads several elements of a latent.
    """
    own = {axis.source: number for number, axis in enumerate(table.latent_axes)}
    if len(own) < len(table.latent_axes):
        raise CannotShow(f"{what} depends on several elements of one latent")
    if table.row_axes or math.prod(table.compact[d] for d in rows) > 1:
        raise CannotShow(f"{what} differs from row to row")
    lead = len(own)
    order = [own[source] for source in joint if source in own]
    array = np.asarray(table.array)
    array = array.transpose([*order, *range(lead, array.ndim)])
    array = np.squeeze(array, axis=tuple(lead + d for d in rows))
    left = array.shape[lead:]
    # of what some latent does not choose, every value of it has the same
    array = array.reshape(*(size if s in own else 1 for s, size in joint.items()), *left)
    return np.broadcast_to(array, (*joint.values(), *left)).reshape(-1, *left)


# ── names ─────────────────────────────────────────────────────────────────────────────────────────


def category_log_probs(emission: Emission) -> np.ndarray:
    """Return the log-probability of each category, (category, joint, feature).

    Of a site whose values are the whole numbers from 0 on.
    """
    kind = emission.distribution
    levels = np.arange(len(kind.enumerate_support(expand=False)))
    log_probs = np.asarray(kind.log_prob(levels.reshape(-1, *(1,) * len(kind.batch_shape))))
    return log_probs.reshape(len(levels), emission.num_values, -1)


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
