"""The E-step: log Z and every posterior expectation, from one reverse pass.

With η the natural-parameter tables of all terms,  ∂ log Z / ∂ η = E[t(x) 1{z = k} | x, θ], the expected statistics.
Source: Darwiche (2003), J. ACM 50(3), theorem 1; Eisner (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from emjax.blocks import Problem, blocks_of
from emjax.elimination import Factor, Variable, log_partition
from emjax.graph import (
    FactorGraph,
    Term,
    filled,
    filled_term,
    identity,
    read_at,
    term_naturals,
)
from emjax.named import Axis, Named
from emjax.numerics import IMPOSSIBLE
from emjax.products import inner_product
from emjax.statistics import Statistic


def problem(graph: FactorGraph, arrays: Sequence, which: Callable | None = None) -> Problem:
    """Return the problem at the parameters that the arrays were computed at. `which`: a filter on terms."""
    terms = [term for term in graph.terms if which is None or which(term)]
    latents = {name: _variable(graph, name, order, arrays) for order, name in enumerate(graph.latents)}
    filled_terms = tuple(filled_term(term, arrays) for term in terms)
    constant = sum((jnp.asarray(term.base.array).reshape(()) for term in filled_terms if term.base_is_constant), jnp.zeros(()))
    return Problem(filled_terms, tuple(term_naturals(term, arrays) for term in terms), latents, constant)


def _variable(graph: FactorGraph, name: str, order: int, arrays) -> Variable:
    latent, scale = graph.latents[name], filled(graph.scales[name], arrays)
    is_one = scale.is_static and bool((scale.array == 1).all())
    array = None if is_one else jnp.asarray(scale.array).reshape((1,) * (len(latent.shape) - scale.array.ndim) + scale.array.shape)
    return Variable(name, latent.support.shape[0], latent.shape, array, graph.scales[name].root, frozenset(latent.plates), order)


def e_step(graph: FactorGraph, arrays: Sequence, temperature: float | int = 1.0):
    """Return log Z in nats and the expected statistics, arrays of the shapes of the natural-parameter tables."""
    return _over_blocks(problem(graph, arrays), jax.value_and_grad(lambda tables, part: log_z(part, tables, temperature)))


def log_partition_of(graph: FactorGraph, arrays: Sequence, which: Callable | None = None):
    """Return log Z in nats at temperature one. `which`: a filter on terms."""
    return _over_blocks(problem(graph, arrays, which), lambda tables, part: (log_z(part, tables), None))[0]


def _over_blocks(whole: Problem, function: Callable):
    """Return function(tables, problem) = (log Z, its gradient with respect to the tables, or None), summed over blocks of the data."""
    blocks = blocks_of(whole)
    total, gradient = function(whole.tables, whole) if blocks is None else blocks.summed(function)
    return jnp.where(total < IMPOSSIBLE, -jnp.inf, jnp.where(total > -IMPOSSIBLE, jnp.inf, total)), gradient


def log_z(part: Problem, tables: Sequence, temperature: float | int = 1.0, unaries: Mapping | None = None):
    """Return log Z in nats as a function of the natural-parameter tables. `unaries`: log-densities to add to each latent's own."""
    factors = []
    for term, named, own in zip(part.terms, part.naturals, tables, strict=True):
        factors.append(term_factor(term, [replace(n, array=a) for n, a in zip(named, own, strict=True)]))
    for name, array in (unaries or {}).items():
        variable = part.latents[name]
        factors.append(Factor((Axis(name, variable.size, identity(variable.shape)),), variable.shape, array))
    return part.constant + log_partition(factors, part.latents, temperature)


def term_factor(term: Term, tables: Sequence[Named]) -> Factor:
    """Return the factor that a term is on its latents: Σ_i ⟨η_i, t_i⟩, and log h where that is not a constant."""
    rank = len(term.elements)
    is_table = term.family is None or term.family.lookup
    if term.family is not None and term.family.lookup:
        tables = [read_at(tables[0], term.value, term.elements)]
    pairs = list(zip(tables, term.statistics.formed(term.elements), [0] if is_table else term.family.event_dims, strict=True))
    if not term.base_is_constant:
        pairs.append((Named(np.ones((1,) * rank), term.base.shape), Statistic(term.base), 0))
    total = inner_product(pairs, term.latent_axes, term.kept, rank)
    return Factor(tuple(axis.placed(term.kept) for axis in term.latent_axes), tuple(term.elements[d] for d in term.kept), total)


def posterior(graph: FactorGraph, arrays, temperature: float | int = 1.0) -> dict:
    """Return p(z | x, θ) for every latent: its elements' shape, then its support.

    A latent's marginal is the derivative of log Z with respect to a term of its own that is zero.
    """
    whole = problem(graph, arrays)
    dtype = jnp.result_type(float)
    zeros = {name: jnp.zeros((*latent.shape, latent.size), dtype) for name, latent in whole.latents.items()}
    marginals = jax.grad(lambda unaries: log_z(whole, whole.tables, temperature, unaries))(zeros)
    return {name: m / m.sum(-1, keepdims=True) for name, m in marginals.items()}
