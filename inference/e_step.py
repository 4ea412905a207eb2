"""The E-step: log Z and every posterior expectation, from one reverse pass.

With η the natural-parameter tables of all terms,  ∂ log Z / ∂ η = E[t(x) 1{z = k} | x, θ], the expected statistics.
Source: Darwiche (2003), J. ACM 50(3), theorem 1; Eisner (2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from emjax.elimination import Factor, Variable, log_partition
from emjax.graph import (
    FactorGraph,
    Term,
    filled,
    filled_axes,
    identity,
    read_at,
    term_naturals,
)
from emjax.named import Axis, Named, without_rows
from emjax.numerics import IMPOSSIBLE


def naturals(graph: FactorGraph, arrays: Sequence) -> list[list]:
    """Return the natural-parameter tables of every term, as plain arrays."""
    return [[table.array for table in term_naturals(term, arrays)] for term in graph.terms]


def e_step(graph: FactorGraph, arrays: Sequence, temperature: float | int = 1.0, which=None):
    """Return log Z in nats and the expected statistics, arrays of the shapes of the natural-parameter tables."""
    templates = [term_naturals(term, arrays) for term in graph.terms]

    def log_z(tables):
        return log_partition_of(graph, templates, tables, arrays, temperature, which)

    return jax.value_and_grad(log_z)([[jnp.asarray(t.array) for t in tables] for tables in templates])


def log_partition_of(graph: FactorGraph, templates, tables, arrays, temperature: float | int, which=None, unaries=None):
    """Return log Z as a function of the natural-parameter tables. `which`: a filter on terms."""
    factors = []
    for term, named, own in zip(graph.terms, templates, tables, strict=True):
        if which is None or which(term):
            factors.append(term_factor(term, [replace(n, array=a) for n, a in zip(named, own, strict=True)], arrays))
    variables = {}
    for order, (name, latent) in enumerate(graph.latents.items()):
        scale = filled(graph.scales[name], arrays)
        known = scale.is_static and bool((scale.array == 1).all())
        size = latent.support.shape[0]
        variables[name] = Variable(name, size, latent.shape, None if known else jnp.asarray(scale.array).reshape(
            (1,) * (len(latent.shape) - scale.array.ndim) + scale.array.shape), graph.scales[name].root, frozenset(latent.plates), order)
        if unaries is not None:
            factors.append(Factor((Axis(name, size, identity(latent.shape)),), latent.shape, unaries[name]))
    total = log_partition(factors, variables, temperature)
    return jnp.where(total < IMPOSSIBLE, -jnp.inf, jnp.where(total > -IMPOSSIBLE, jnp.inf, total))


def term_factor(term: Term, tables: Sequence[Named], arrays) -> Factor:
    """Return the factor that a term is on its latents: Σ_i ⟨η_i, t_i⟩ + log h."""
    axes, rank = filled_axes(term.latent_axes, arrays), len(term.elements)
    if term.family is not None and term.family.lookup:
        tables = [read_at(tables[0], filled(term.value, arrays), term.elements)]
    events = [0] if term.family is None or term.family.lookup else term.family.event_dims
    pairs = [(table, filled(s, arrays), event) for table, s, event in zip(tables, term.statistics, events, strict=True)]
    total = sum(contracted(table, s, event, axes, term.kept, rank) for table, s, event in pairs)
    base = filled(term.base, arrays)
    if not (base.is_static and not base.array.any()):
        one = Named(np.ones((1,) * rank), base.shape)
        total = total + contracted(one, base, 0, axes, term.kept, rank)
    return Factor(tuple(axis.placed(term.kept) for axis in axes), tuple(term.elements[d] for d in term.kept), total)


def contracted(table: Named, statistic: Named, event: int, axes: Sequence[Axis], kept: Sequence[int], rank: int):
    """Return Σ ⟨η, t⟩ over everything but the kept elements and the latents: one matrix product.

    The result has the kept element axes first, then one axis for each of `axes`, of length 1 where neither varies.
    """
    table, statistic = without_rows(table), without_rows(statistic)
    keys = [axis.key for axis in axes]
    letters = {("axis", key): chr(97 + i) for i, key in enumerate(keys)}
    letters |= {d: chr(97 + len(keys) + d) for d in range(rank + event)}
    out = [*kept, *(("axis", key) for key in keys)]
    sizes: dict = {}
    times, operands, specs = 1, [], []
    both = [_labeled(value, rank) for value in (table, statistic)]
    for d in range(rank):
        if d not in kept and all(d not in labels for _, labels in both):
            times *= statistic.shape[d]
    for array, labels in both:
        specs.append("".join(letters[label] for label in labels))
        operands.append(array)
        sizes |= dict(zip(labels, array.shape, strict=True))
    present = [label for label in out if label in sizes]
    product = jnp.einsum(f"{specs[0]},{specs[1]}->{''.join(letters[label] for label in present)}", *operands)
    return times * product.reshape([sizes.get(label, 1) for label in out])


def _labeled(value: Named, rank: int):
    """Return a table without its axes of length 1, and the labels of the others."""
    labels = [("axis", axis.fitted(rank).key) for axis in value.axes] + list(range(len(value.shape)))
    kept = [i for i, size in enumerate(value.array.shape) if size != 1]
    return jnp.asarray(value.array).reshape([value.array.shape[i] for i in kept]), [labels[i] for i in kept]


def posterior(graph: FactorGraph, arrays, temperature: float | int = 1.0) -> dict:
    """Return p(z | x, θ) for every latent: its elements' shape, then its support.

    A latent's marginal is the derivative of log Z with respect to a term of its own that is zero.
    """
    templates = [term_naturals(term, arrays) for term in graph.terms]
    tables = [[jnp.asarray(t.array) for t in named] for named in templates]
    dtype = jnp.result_type(float)
    zeros = {name: jnp.zeros(latent.shape + latent.support.shape[:1], dtype) for name, latent in graph.latents.items()}
    marginals = jax.grad(lambda u: log_partition_of(graph, templates, tables, arrays, temperature, None, u))(zeros)
    return {name: m / m.sum(-1, keepdims=True) for name, m in marginals.items()}
