"""Changes of the basis of Gaussian latents that leave the likelihood as it is: rotations, say.

A latent f has the same law of the data as f + A f, to first order, if parameters make up for it:
coefficients R of what reads f change by −R A, its mean m by A m, its covariance Σ by A Σ + Σ Aᵀ,
what it is drawn about, C g, by A C − C A_g, and nothing else changes. Of f ~ N(0, I), A is then
skew: of q factors there are q (q − 1) / 2 rotations. Source: Anderson & Rubin (1956), section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.e_step.instance import instance_of
from emjax.e_step.interactions import conditional_of
from emjax.graph.residuals import coefficients_name
from emjax.graph.slots import filled_term

# numbers in the derivatives of all tables up to which they are formed: 128 MB
LARGEST = 2**24
# of singular values, relative to the largest: what is below is zero
SMALLEST = 1e-6
# of the largest entry: entries below are zero, but for rounding
ROUNDING = 1e-14


@dataclass(frozen=True, eq=False)
class Bases:
    """Directions along which the likelihood is flat, since latents change their basis.

    - `directions`: orthonormal, (coordinate, direction).
    - `latents`: the names of those whose basis changes.
    """

    directions: np.ndarray
    latents: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return self.directions.shape[1]

    @property
    def complement(self) -> np.ndarray:
        """The directions that are orthogonal to all of them, orthonormal: (coordinate, …)."""
        # without any, they are the coordinates themselves
        if not self.count:
            return np.eye(len(self.directions))
        whole, _ = np.linalg.qr(self.directions, mode="complete")
        return whole[:, self.count :]


class Tables(NamedTuple):
    """What depends on parameters: what changes with a basis, and all else.

    - `read`: {(latent, number): coefficients R of a site that reads the latent, (…, q)}.
    - `drawn`: {(latent, number): (m, Σ, {other latent: C})} of a site that draws the latent.
    - `others`: natural parameters that do not change.
    """

    read: dict
    drawn: dict
    others: list


def bases_at(estimate: Estimate) -> Bases:
    """Return the changes of basis at an estimate; none where their derivatives would not fit."""
    gaussians, size = estimate.graph.gaussians, estimate.chart.size
    none = Bases(np.zeros((size, 0)), ())
    if not gaussians or not size:
        return none
    shapes = jax.tree.leaves(jax.eval_shape(lambda: _tables_of(estimate)))
    if size * sum(leaf.size for leaf in shapes) > LARGEST:
        return none
    tables, changes = jax.device_get(estimate.function("bases", _with_changes)())
    flat = [np.asarray(leaf, float).reshape(-1, size) for leaf in jax.tree.leaves(changes)]
    names = [name for name in gaussians if name not in _pinned(estimate)]
    columns, owners = [], []
    for name in names:
        q = gaussians[name].size
        for place in np.ndindex(q, q):
            basis = {name: np.zeros((q, q))}
            basis[name][place] = 1
            columns.append(_concatenated(_changed(tables, basis)))
            owners.append(name)
    if not columns:
        return none
    by_basis, by_parameters = np.stack(columns, 1), np.concatenate(flat)
    return _null(by_basis, by_parameters, owners)


def turned_at(bases: Bases, directions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return {parameter: which of its entries a change of basis moves}; none if there is no such.

    `directions`: {parameter: its derivative by each coordinate, (coordinate, …)}.
    """
    turned = {}
    for name, along in directions.items() if bases.count else ():
        moved = np.abs(np.tensordot(bases.directions.T, along, 1)).max(0)
        turned[name] = moved > SMALLEST * np.abs(along).max(0, initial=1)
    return turned


def _null(by_basis: np.ndarray, by_parameters: np.ndarray, owners: Sequence[str]) -> Bases:
    """Return the directions of parameters that make up for a change of basis."""
    system, count = np.concatenate([by_basis, -by_parameters], 1), by_basis.shape[1]
    # rows in units of their own, a variance of a million beside a coefficient of one; then columns
    system = system / _units(system, 1)
    units = _units(system, 0)
    system = system / units
    unit = units[0, count:]
    # in units of its rows, of which there may be many
    _, values, rows = np.linalg.svd(np.linalg.qr(system, mode="r"))
    rank = int((values > SMALLEST * values.max(initial=0)).sum())
    null = rows[rank:].T
    # those that change a basis; others, parameters that nothing reads, are not of it
    _, values, mixed = np.linalg.svd(null[:count], full_matrices=False)
    null = null @ mixed.T[:, values > SMALLEST]
    directions, values, _ = np.linalg.svd(null[count:] / unit[:, None], full_matrices=False)
    kept = values > SMALLEST * values.max(initial=0)
    takes_part = np.abs(null[:count]).max(1, initial=0) > SMALLEST
    names = [name for name, takes in zip(owners, takes_part, strict=True) if takes]
    return Bases(directions[:, kept], tuple(dict.fromkeys(names)) if kept.any() else ())


def _units(system: np.ndarray, axis: int) -> np.ndarray:
    """Return the largest entry of each row (axis 1) or column, 1 where it is but rounding."""
    largest = np.abs(system).max(axis, keepdims=True)
    return np.where(largest > ROUNDING * largest.max(initial=0), largest, 1)


def _pinned(estimate: Estimate) -> set[str]:
    """Return the latents of which data are coefficients, so that they have one basis."""
    pinned = set()
    for term in estimate.graph.terms:
        for product in term.products:
            pinned |= {str(term.reads[i].source) for i in product.known}
    return pinned


# ── tables and their derivatives ──────────────────────────────────────────────────────────────────


def _tables_of(estimate: Estimate) -> Tables:
    compiled = estimate.bound.compiled
    constants = estimate.graph.prepare(estimate.bound.data)
    return _tables(Neighborhood(compiled.pure, estimate.chart, estimate.params, constants))


def _tables(around: Neighborhood, vector: Any = None) -> Tables:
    """Return the tables at coordinates, by default those of the estimate."""
    graph = around.pure.graph
    here = around.at(around.vector if vector is None else vector)
    arrays = graph.arrays({**around.params, **here}, around.constants)
    read, drawn = {}, {}
    for number, term in enumerate(graph.terms):
        if not term.reads:
            continue
        term = filled_term(term, arrays)
        if term.site.is_integrated:
            name = term.site.name
            drawn[name, number] = _conditional(term, graph.gaussians[name])
            continue
        for i, axis in enumerate(term.reads):
            table = term.arguments.get(coefficients_name(i))
            if table is not None:
                read[str(axis.source), (number, i)] = jnp.asarray(table.array)
    plain = instance_of(graph, arrays, lambda term: not term.reads and not term.site.is_integrated)
    return Tables(read, drawn, jax.tree.leaves(plain.tables))


def _conditional(term: Any, latent: Any) -> tuple:
    """Return m (…, q), Σ (…, q, q), and C (…, q, q of g) of each g, of a latent's own site."""
    conditional = conditional_of(term, latent, is_held=False)
    scale = conditional.scale.array
    covariance = jnp.matmul(scale, jnp.swapaxes(scale, -1, -2), precision="highest")
    about = {}
    for number, factor in enumerate(conditional.coefficients):
        about[str(factor.axes[-1].source), number] = factor.array
    return conditional.mean.array, covariance, about


def _with_changes(around: Neighborhood) -> tuple[Tables, Tables]:
    """Return the tables, and their derivatives along the coordinates: (…, coordinate)."""

    def tables(vector):
        return _tables(around, vector)

    return tables(around.vector), jax.jacfwd(tables)(around.vector)


def _changed(tables: Tables, basis: dict) -> Tables:
    """Return by how much tables change with a basis, {latent: A}."""
    read = {}
    for (name, number), table in tables.read.items():
        table = np.asarray(table, float)
        read[name, number] = -table @ basis[name] if name in basis else 0 * table
    drawn = {}
    for (name, number), (mean, covariance, about) in tables.drawn.items():
        own = basis.get(name, np.zeros((mean.shape[-1],) * 2))
        turned = own @ np.asarray(covariance, float)
        others = {}
        for (other, place), table in about.items():
            of_other = basis.get(other, np.zeros((table.shape[-1],) * 2))
            others[other, place] = own @ table - table @ of_other
        drawn[name, number] = (
            np.asarray(mean, float) @ own.T,
            turned + np.swapaxes(turned, -1, -2),
            others,
        )
    return Tables(read, drawn, [0 * np.asarray(table, float) for table in tables.others])


def _concatenated(tables: Tables) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tables)])
