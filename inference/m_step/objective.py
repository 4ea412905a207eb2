"""Q(θ), what an M-step climbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import term_naturals
from emjax.m_step.unconstrained import Unconstrained
from emjax.numerics.guards import or_number


def expected_log_likelihood(
    graph: FactorGraph,
    params: Mapping[str, Any],
    constants: Sequence,
    statistics: Sequence,
    terms: Sequence[int] | None = None,
) -> Array:
    """Return Q(θ) = Σ ⟨T, η(θ)⟩ in nats, up to what does not depend on θ.

    `terms`: the numbers of those that are summed (None: all). Impossible cells, of which T = 0 are
    expected, count 0.
    """
    arrays = graph.arrays(params, constants)
    total = jnp.zeros(())
    for number in range(len(graph.terms)) if terms is None else terms:
        tables = term_naturals(graph.terms[number], arrays)
        total = total + _inner(statistics[number], tables)
    return total


def _inner(statistics: Sequence, naturals: Sequence):
    tables = []
    for expected, table in zip(statistics, naturals, strict=True):
        is_expected = expected != 0
        # the logarithm of an impossible cell is no finite number
        tables.append(or_number(is_expected, jnp.asarray(table.array), 0))
    return inner_products(statistics, tables)


def inner_products(statistics: Sequence, tables: Sequence) -> Array:
    """Return Σ ⟨T, η⟩ over all statistics and their tables, of the same shapes."""
    products = []
    for expected, table in zip(statistics, tables, strict=True):
        # in `lax`: of `jax.numpy`, each shape would be traced by itself
        product = lax.mul(expected, jnp.asarray(table, expected.dtype))
        products.append(lax.reduce_sum(product, axes=range(product.ndim)))
    return sum(products[1:], products[0])


def along_unconstrained(
    graph: FactorGraph,
    names: Sequence[str],
    params: Mapping[str, Any],
    constants: Sequence,
    statistics: Sequence,
    terms: Sequence[int],
) -> tuple[Array, Callable, Callable]:
    """Return the unconstrained vector of some parameters, its way back, and Q as a function of it.

    The way back leaves the parameters where they are if the vector is not finite.
    """
    start, back = Unconstrained(graph.parameters, names).around(params)

    def rebuild(vector):
        is_number = jnp.isfinite(vector).all()
        values = back(vector)
        return {name: jnp.where(is_number, values[name], params[name]) for name in values}

    def objective(vector):
        there = {**params, **back(vector)}
        return expected_log_likelihood(graph, there, constants, statistics, terms)

    # what climbs calls it at several places: it is traced once
    return start, rebuild, jax.jit(objective)
