"""How many elements each value of a latent explains, and which values no data could tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from emjax.e_step.instance import instance_of
from emjax.e_step.marginals import posterior
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term

# A value that explains less than one element has no datum of its own to determine anything by.
FEWEST_ELEMENTS = 1.0
# Two values are duplicates if giving both one distribution would cost less than this, in nats, even
# were the latents known. Chance alone parts two values
# that are fitted apart by half a nat for each parameter; what is so much closer started equal, or
# is still on its way to a common limit.
SAME = 0.01


def expected_counts(graph: FactorGraph, arrays: Sequence, statistics: Sequence) -> dict:
    """Return Σ p(z_i = k | x, θ) over the elements of each latent, with their multiplicity;
    (values,). Masked elements of a categorical are left out.
    """
    found, missing = {}, []
    for name in graph.latents:
        own = [
            (i, _own_axis(term)) for i, term in enumerate(graph.terms) if _is_site_of(term, name)
        ]
        known = [(i, axis) for i, axis in own if axis is not None]
        if own and len(known) == len(own):
            found[name] = sum(
                jnp.moveaxis(statistics[i][0], axis, 0)
                .reshape(graph.latents[name].support.shape[0], -1)
                .sum(1)
                for i, axis in known
            )
        else:
            missing.append(name)
    if missing:
        latents, posteriors = (
            instance_of(graph, arrays, predicted=True).latents,
            posterior(graph, arrays),
        )
        for name in missing:
            scale, marginal = latents[name].multiplicity, posteriors[name]
            copies = jnp.ones((1,) * (marginal.ndim - 1)) if scale is None else scale
            found[name] = (copies[..., None] * marginal).reshape(-1, marginal.shape[-1]).sum(0)
    return found


def _is_site_of(term: Term, name: str) -> bool:
    return term.site.is_latent and term.site.name == name


def _own_axis(term: Term) -> int | None:
    """Return the axis of a latent's own table, of probabilities, that stands for its own value."""
    if term.family is None or not term.family.lookup:
        return None
    rank = len(term.elements)
    own = {
        axis.fitted(rank).key
        for axis in term.value.axes
        if axis.is_latent and axis.source == term.site.name
    }
    return next(
        (i for i, axis in enumerate(term.natural_axes[0]) if axis.fitted(rank).key in own), None
    )


def empty_values(counts: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Return the values of each latent that explain less than one element."""
    return {
        name: tuple(int(k) for k in np.flatnonzero(own < FEWEST_ELEMENTS))
        for name, own in counts.items()
    }


def duplicates(
    graph: FactorGraph, tables: Sequence, statistics: Sequence, counts: Mapping[str, np.ndarray]
) -> dict[str, tuple]:
    """Return the pairs of values of each latent that give all that depends on them the same
    distribution; empty values aside.

    With t̄_k the mean statistics of the elements of value k, n_k their number, giving k and l one
    distribution would lower the complete-data log-likelihood by ½ n_k n_l / (n_k + n_l) · ⟨η_k −
    η_l, t̄_k − t̄_l⟩ nats, to second order; less than `SAME` is nothing. The probabilities of k and
    l themselves may differ. Source: ours; the inner product is Jeffreys's divergence where t̄ are
    the moments of η. `tables`: the natural-parameter tables.
    """
    empty = empty_values(counts)
    found = {}
    for name in graph.latents:
        rows = _rows(graph, name, tables, statistics)
        used = [k for k in range(len(counts[name])) if k not in empty[name]]
        found[name] = tuple(
            (k, j)
            for i, k in enumerate(used)
            for j in used[i + 1 :]
            if rows and _cost(rows, counts[name], k, j) < SAME
        )
    return found


def _rows(
    graph: FactorGraph, name: str, tables: Sequence, statistics: Sequence
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each table that reads a latent as a parent, the table and its expected statistics
    as (values, …).
    """
    rows = []
    for term, arrays, expected in zip(graph.terms, tables, statistics, strict=True):
        own = _own_axis(term) if _is_site_of(term, name) else None
        if _is_site_of(term, name) and own is None:
            continue
        for axes, *pair in zip(term.natural_axes, arrays, expected, strict=True):
            rows += [
                tuple(np.moveaxis(np.asarray(a, float), j, 0).reshape(axis.size, -1) for a in pair)
                for j, axis in enumerate(axes)
                if axis.source == name and j != own
            ]
    return rows


def _cost(rows, count: np.ndarray, k: int, j: int) -> float:
    """Return what giving two values one distribution costs, in nats."""
    apart = sum(float((eta[k] - eta[j]) @ (t[k] / count[k] - t[j] / count[j])) for eta, t in rows)
    return 0.5 * count[k] * count[j] / (count[k] + count[j]) * max(apart, 0.0)
