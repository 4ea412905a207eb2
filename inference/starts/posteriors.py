"""A start from a chosen posterior: expected statistics under it, then one M-step.

A strategy that has an opinion on latents says so by factors, log q of the values of each element:

    T = E_q[t(x)],  θ = argmax ⟨T, η(θ)⟩ + log p(θ)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.e_step.e_step import statistics_with
from emjax.e_step.instance import Instance, instance_of
from emjax.e_step.perturbed import GAUSSIAN, at_draws
from emjax.elimination.factors import Factor
from emjax.families.family import Family, lacks_coordinates
from emjax.graph.condensed import Condensed
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.m_step import m_step
from emjax.m_step.maximizer import Maximizer
from emjax.numerics.guards import IMPOSSIBLE, INFINITE, LOG_ZERO
from emjax.tables.named import Named


def indifferent_instance(
    graph: FactorGraph, params: Mapping[str, Any], constants: Sequence, rng_key: Array
) -> Instance:
    """Return the program at which every posterior is q: what it allows is equally probable.

    What the program excludes at these parameters (a probability of zero, a value outside a
    support) stays impossible. Coordinates that are missing are expected at these parameters.
    Gaussian latents are known, drawn from what the program says of them before any data: at their
    means, zero as a rule, coefficients of zero are the maximum, and EM stays there.
    """
    # a few rows that stand for many have factors of their own, which fit them too well
    whole = replace(graph, condensed=Condensed())
    instance = instance_of(whole, graph.arrays(params, constants))
    return _indifferent(at_draws(instance, jax.random.fold_in(rng_key, GAUSSIAN)))


def maximum_under(
    instance: Instance,
    factors: Sequence[Factor],
    maximizers: Sequence[Maximizer],
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters after one M-step under the posterior that factors choose."""
    return maximum_at(statistics_with(instance, factors), maximizers, params, constants)


def maximum_at(
    statistics: Sequence,
    maximizers: Sequence[Maximizer],
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters after one M-step at expected statistics."""
    params = {name: jnp.asarray(value) for name, value in params.items()}
    states = [maximizer.init(params) for maximizer in maximizers]
    return m_step(maximizers, params, states, constants, statistics)[0]


def _indifferent(instance: Instance) -> Instance:
    """Return the instance in which everything that is possible is equally probable."""
    terms, naturals = [], []
    for term, tables in zip(instance.terms, instance.naturals, strict=True):
        # a base is weighted already: what is impossible is no smaller than a total
        base = _flat(term.base, -INFINITE)
        terms.append(replace(term, base=base, family=_flat_family(term.family)))
        # where coordinates are missing, they are expected at the program's own parameters: at
        # natural parameters of zero they could be anything
        is_kept = lacks_coordinates(term.family)
        naturals.append([t if is_kept else _flat(t, IMPOSSIBLE) for t in tables])
    return replace(instance, terms=tuple(terms), naturals=tuple(naturals))


def _flat(table: Named, impossible: float) -> Named:
    """Return a table of zeros, but for what is below a limit."""
    # opinions go, exclusions stay: the program's zeros are part of its structure
    is_impossible = jnp.asarray(table.array) < impossible
    return replace(table, array=jnp.where(is_impossible, LOG_ZERO, 0.0))


def _flat_family(family: Family | None) -> Family | None:
    """Return the family with a marginal that is zero, but has its derivatives."""
    if not lacks_coordinates(family):
        return family

    def marginal(*arrays):
        density = family.marginal(*arrays)
        return density - jax.lax.stop_gradient(density)

    return replace(family, marginal=marginal, patterns=None)
