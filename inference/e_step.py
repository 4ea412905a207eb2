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
from emjax.elimination import log_partition
from emjax.factors import Factor, Variable
from emjax.graph import (
    FactorGraph,
    Term,
    filled,
    filled_term,
    naturals_of,
)
from emjax.indices import Affine
from emjax.named import Axis, Named
from emjax.numerics import IMPOSSIBLE
from emjax.products import inner_product, looked_up
from emjax.statistics import Statistic


def problem(graph: FactorGraph, arrays: Sequence, which: Callable | None = None) -> Problem:
    """Return the problem at the parameters that the arrays were computed at. `which`: a filter on terms."""
    terms = [term for term in graph.terms if which is None or which(term)]
    latents = {name: _variable(graph, name, order, arrays) for order, name in enumerate(graph.latents)}
    filled_terms = tuple(filled_term(term, arrays) for term in terms)
    constant = sum((jnp.asarray(term.base.array).reshape(()) for term in filled_terms if term.base_is_constant), jnp.zeros(()))
    return Problem(filled_terms, tuple(map(naturals_of, filled_terms)), latents, constant)


def _variable(graph: FactorGraph, name: str, order: int, arrays) -> Variable:
    latent, scale = graph.latents[name], filled(graph.scales[name], arrays)
    is_one = scale.is_static and bool((scale.array == 1).all())
    array = None if is_one else jnp.asarray(scale.array).reshape((1,) * (len(latent.shape) - scale.array.ndim) + scale.array.shape)
    return Variable(name, latent.support.shape[0], latent.shape, array, graph.scales[name].root, frozenset(latent.plates), order)


def e_step(graph: FactorGraph, arrays: Sequence, temperature: float | int = 1.0, tables: Sequence | None = None):
    """Return log Z in nats and the expected statistics, arrays of the shapes of the natural-parameter tables.

    `tables`: those of the problem at `arrays`, if they are at hand.
    """
    whole = problem(graph, arrays)
    if tables is not None:
        naturals = [[replace(n, array=a) for n, a in zip(named, own, strict=True)] for named, own in zip(whole.naturals, tables, strict=True)]
        whole = replace(whole, naturals=tuple(naturals))
    return _over_blocks(whole, temperature, with_gradient=True)


def log_partition_of(graph: FactorGraph, arrays: Sequence, which: Callable | None = None):
    """Return log Z in nats at temperature one. `which`: a filter on terms."""
    return _over_blocks(problem(graph, arrays, which), 1.0, with_gradient=False)[0]


def _over_blocks(whole: Problem, temperature: float | int, with_gradient: bool):
    """Return log Z and, if asked for, its gradient with respect to the tables (else None), over blocks of the data.

    With the gradient, cheaper forms are tried first that need probabilities away from zero; if one comes near, all is done again.
    """
    blocks = blocks_of(whole)
    tried: list = []

    def result(cheaper: bool):
        def function(part: Problem, tables):
            margins: list | None = [] if cheaper else None
            value = log_z(part, tables, temperature, None, margins)
            tried.extend(margins or [])
            return value, jnp.min(jnp.stack(margins)) if margins else jnp.full((), jnp.inf)

        if blocks is not None:
            return blocks.summed(function, with_gradient)
        if with_gradient:
            (value, margin), gradient = jax.value_and_grad(lambda tables: function(whole, tables), has_aux=True)(whole.tables)
            return value, margin, gradient
        return *function(whole, whole.tables), None

    found = result(cheaper=with_gradient)
    if tried:
        limits = jnp.finfo(found[0].dtype)
        found = jax.lax.cond(found[1] > limits.tiny / limits.eps, lambda: found, lambda: result(cheaper=False))
    total, _, gradient = found
    return jnp.where(total < IMPOSSIBLE, -jnp.inf, jnp.where(total > -IMPOSSIBLE, jnp.inf, total)), gradient


def log_z(part: Problem, tables: Sequence, temperature: float | int = 1.0, unaries: Mapping | None = None, margins: list | None = None):
    """Return log Z in nats as a function of the natural-parameter tables.

    `unaries`: log-densities to add to each latent's own; `margins`: see `log_partition`.
    """
    factors = []
    for term, named, own in zip(part.terms, part.naturals, tables, strict=True):
        factors.append(term_factor(term, [replace(n, array=a) for n, a in zip(named, own, strict=True)], margins))
    for name, array in (unaries or {}).items():
        variable = part.latents[name]
        factors.append(Factor((Axis(name, variable.size, Affine.identity(variable.shape)),), variable.shape, array))
    return part.constant + log_partition(factors, part.latents, temperature, margins)


def term_factor(term: Term, tables: Sequence[Named], margins: list | None = None) -> Factor:
    """Return the factor that a term is on its latents: Σ_i ⟨η_i, t_i⟩, and log h where that is not a constant. `margins`: see
    `log_partition`."""
    rank = len(term.elements)
    is_table = term.family is None or term.family.lookup
    pairs = list(zip(tables, term.statistics.formed(term.elements), [0] if is_table else term.family.event_dims, strict=True))
    if not term.base_is_constant:
        pairs.append((Named(np.ones((1,) * rank), term.base.shape), Statistic(term.base), 0))
    axes, shape = tuple(axis.placed(term.kept) for axis in term.latent_axes), tuple(term.elements[d] for d in term.kept)
    rows = looked_up(*pairs[0][:2], term.latent_axes, term.kept, term.elements) if len(pairs) == 1 else None
    if rows is not None:
        return Factor(axes, shape, rows[0], term.per_copy, rows[1])
    return Factor(axes, shape, inner_product(pairs, term.latent_axes, term.kept, rank, margins), term.per_copy)


def posterior(graph: FactorGraph, arrays, temperature: float | int = 1.0) -> dict:
    """Return p(z | x, θ) for every latent: its elements' shape, then its support.

    A latent's marginal is the derivative of log Z with respect to a term of its own that is zero.
    """
    whole = problem(graph, arrays)
    dtype = jnp.result_type(float)
    zeros = {name: jnp.zeros((*latent.shape, latent.size), dtype) for name, latent in whole.latents.items()}
    marginals = jax.grad(lambda unaries: log_z(whole, whole.tables, temperature, unaries))(zeros)
    return {name: m / m.sum(-1, keepdims=True) for name, m in marginals.items()}
