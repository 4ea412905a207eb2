"""The E-step: log Z and every posterior expectation, from one reverse pass.

With η the natural-parameter tables of all terms,  ∂ log Z / ∂ η = E[t(x) 1{z = k} | x, θ], the
expected statistics. Source: Darwiche (2003), J. ACM 50(3), theorem 1; Eisner (2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from emjax.e_step.blocks import Instance, blocks_of, can_be_cut, cut, cut_term
from emjax.e_step.products import cells, inner_product
from emjax.elimination.algebra import TableAlgebra
from emjax.elimination.factors import Cells, Deferred, Factor, Variable
from emjax.elimination.log_partition import log_partition
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled, filled_term
from emjax.graph.statistics import Statistic
from emjax.graph.terms import Term, naturals_of
from emjax.numerics.guards import IMPOSSIBLE, FastForms
from emjax.tables.indices import Affine
from emjax.tables.lifting import lift_events
from emjax.tables.named import Axis, Named


def instance_of(
    graph: FactorGraph,
    arrays: Sequence,
    which: Callable | None = None,
    temperature: ArrayLike = 1.0,
    predicted: bool = False,
) -> Instance:
    """Return the instance at the parameters that the arrays were computed at. `which`: a filter on
    terms; `predicted`: with the latents that no observation depends on.
    """
    terms = [
        term
        for term in (*graph.terms, *(graph.predicted if predicted else ()))
        if which is None or which(term)
    ]
    left_out = set() if predicted else {term.site.name for term in graph.predicted}
    latents = {
        name: _variable(graph, name, order, arrays)
        for order, name in enumerate(graph.latents)
        if name not in left_out
    }
    filled_terms = tuple(filled_term(term, arrays) for term in terms)
    constant = sum(
        (_constant(term, temperature) for term in filled_terms if term.base_is_constant),
        jnp.zeros(()),
    )
    return Instance(
        filled_terms, tuple(map(naturals_of, filled_terms)), latents, constant, graph.chains
    )


def _constant(term: Term, temperature: ArrayLike):
    """Return Σ log h(x). A latent's is −log K for each masked element, of K equal values, which is
    to make τ log Σ exp zero at any temperature.
    """
    base = jnp.asarray(term.base.array).reshape(())
    return temperature * base if term.site.is_latent else base


def _variable(graph: FactorGraph, name: str, order: int, arrays) -> Variable:
    latent, multiplicity = graph.latents[name], filled(graph.multiplicities[name], arrays)
    is_one = multiplicity.is_static and bool((multiplicity.array == 1).all())
    array = (
        None
        if is_one
        else jnp.asarray(multiplicity.array).reshape(
            (1,) * (len(latent.shape) - multiplicity.array.ndim) + multiplicity.array.shape
        )
    )
    return Variable(
        name,
        latent.support.shape[0],
        latent.shape,
        array,
        graph.multiplicities[name].root,
        frozenset(latent.plates),
        order,
    )


def e_step(
    graph: FactorGraph,
    arrays: Sequence,
    temperature: ArrayLike = 1.0,
    tables: Sequence | None = None,
    plain: bool = False,
):
    """Return log Z in nats and the expected statistics, arrays of the shapes of the
    natural-parameter tables.

    `tables`: those of the instance at `arrays`, if they are at hand; `plain`: take no fast form,
    since these have no forward derivatives.
    """
    whole = instance_of(graph, arrays, temperature=temperature)
    if tables is not None:
        naturals = [
            [replace(n, array=a) for n, a in zip(named, own, strict=True)]
            for named, own in zip(whole.naturals, tables, strict=True)
        ]
        whole = replace(whole, naturals=tuple(naturals))
    return _over_blocks(whole, temperature, with_gradient=True, plain=plain)


def log_partition_of(
    graph: FactorGraph,
    arrays: Sequence,
    which: Callable | None = None,
    temperature: float | int = 1.0,
):
    """Return log Z in nats. `which`: a filter on terms."""
    return _over_blocks(
        instance_of(graph, arrays, which, temperature), temperature, with_gradient=False
    )[0]


def _over_blocks(whole: Instance, temperature: ArrayLike, with_gradient: bool, plain: bool = False):
    """Return log Z and, if asked for, its gradient with respect to the tables (else None), over
    blocks of the data.
    """
    blocks = blocks_of(whole)
    if blocks is None and not with_gradient:
        total, gradient = log_z(whole, whole.tables, temperature), None
    elif blocks is None:
        total, gradient = value_and_gradient(
            lambda tables, fast: log_z(whole, tables, temperature, fast=fast),
            whole.tables,
            plain,
        )
    else:

        def summed(fast: FastForms | None):
            def function(part: Instance, tables):
                own = None if fast is None else FastForms()
                value = log_z(part, tables, temperature, fast=own)
                if own is not None:
                    fast.margins.extend(own.margins)
                return value, jnp.inf if own is None else own.margin

            total, margin, gradient = blocks.summed(function, with_gradient)
            return (total, gradient), margin

        total, gradient = (
            _fast_first(summed, FastForms()) if with_gradient and not plain else summed(None)[0]
        )
    return jnp.where(
        total < IMPOSSIBLE, -jnp.inf, jnp.where(total > -IMPOSSIBLE, jnp.inf, total)
    ), gradient


def value_and_gradient(function: Callable, argument, plain: bool = False):
    """Return the value and the gradient of function(argument, fast), in the `plain` form
    (fast is None) or in the cheapest that is right.
    """

    def found(fast: FastForms | None):
        if fast is None:
            return jax.value_and_grad(lambda argument: function(argument, None))(argument), jnp.inf

        def perturbed(argument, epsilon):
            fast.epsilon = epsilon
            value = function(argument, fast)
            return value, fast.margin

        (value, margin), (gradient, lost) = jax.value_and_grad(
            perturbed, argnums=(0, 1), has_aux=True
        )(argument, jnp.zeros(()))
        return (value, gradient), jnp.minimum(margin, 1 / lost)

    return found(None)[0] if plain else _fast_first(found, FastForms())


def _fast_first(function: Callable, fast: FastForms):
    """Return what function(fast) = (result, margin) does if no fast form loses anything, else
    what function(None) does.
    """
    found, margin = function(fast)
    if not fast.is_taken:
        return found
    limits = jnp.finfo(jnp.result_type(float))
    return jax.lax.cond(margin > limits.tiny / limits.eps, lambda: found, lambda: function(None)[0])


def log_z(
    part: Instance,
    tables: Sequence,
    temperature: ArrayLike = 1.0,
    more: Sequence[Factor] = (),
    fast: FastForms | None = None,
):
    """Return log Z in nats as a function of the natural-parameter tables.

    `more`: factors beside those of the terms; `fast`: see `log_partition`.
    """
    factors = [*more]
    for term, named, own in zip(part.terms, part.naturals, tables, strict=True):
        dim = _time_axis(term, part) if part.chains == "checkpointed" else None
        factors.append(
            term_factor(
                term, [replace(n, array=a) for n, a in zip(named, own, strict=True)], fast, dim
            )
        )
    return part.constant + log_partition(
        factors, part.latents, TableAlgebra(temperature, fast, part.chains)
    )


def _time_axis(term: Term, part: Instance) -> int | None:
    """Return the axis of a term's elements along which all latents that it reads step on by one row
    of their elements, if it can be cut there.
    """
    found = set()
    for axis in term.latent_axes:
        if not isinstance(axis.index, Affine) or axis.source not in part.latents:
            return None
        inner = math.prod(part.latents[axis.source].shape[1:])
        found |= {
            d
            for d, stride in enumerate(axis.index.strides)
            if abs(stride) == inner and term.elements[d] > 1
        } or {None}
    tables = part.naturals[next(i for i, own in enumerate(part.terms) if own is term)]
    if (
        len(found) != 1
        or found == {None}
        or any(table.compact[dim] != 1 for dim in found for table in tables)
    ):
        return None
    (dim,) = found
    return dim if can_be_cut(term, tables, dim) else None


def term_factor(
    term: Term, tables: Sequence[Named], fast: FastForms | None = None, defer: int | None = None
) -> Factor:
    """Return the factor that a term is on its latents: Σ_i ⟨η_i, t_i⟩, and log h where that is not
    a constant.

    `fast`: see `log_partition`; `defer`: the axis of its elements along which it is to be
    computed a stretch at a time, if it is no lookup.
    """
    rank, pairs = len(term.elements), products(term, tables)
    if not term.base_is_constant:
        pairs.append((Named(np.ones((1,) * rank), term.base.shape), Statistic(term.base), 0))
    axes, shape = (
        tuple(axis.placed(term.kept) for axis in term.latent_axes),
        tuple(term.elements[d] for d in term.kept),
    )
    found = (
        cells(*pairs[0][:2], term.latent_axes, term.kept, term.elements)
        if len(pairs) == 1
        else None
    )
    if found is not None:
        return Factor(axes, shape, found, term.without_multiplicity)
    if defer is not None:

        def part(start, rows: int):
            return term_factor(
                cut_term(term, defer, start, rows),
                [cut(table, defer, start, rows) for table in tables],
            ).array

        return Factor(
            axes,
            shape,
            Cells(Deferred(part, term.kept.index(defer), term.elements[defer])),
            term.without_multiplicity,
        )
    return Factor(
        axes,
        shape,
        Cells(inner_product(pairs, term.latent_axes, term.kept, rank, fast)),
        term.without_multiplicity,
    )


def statistics_with(whole: Instance, factors: Sequence[Factor]) -> list:
    """Return the expected statistics, arrays of the shapes of the natural-parameter tables, under
    the posterior that these factors take part in, too.
    """
    return value_and_gradient(
        lambda tables, fast: log_z(whole, tables, 1.0, factors, fast), whole.tables
    )[1]


def products(term: Term, tables: Sequence[Named]) -> list[tuple[Named, Statistic, int]]:
    """Return the pairs η_i, t_i, and the number of their event axes, whose inner products add up to
    a term.

    Where events lack coordinates, that is log ∫ exp(Σ ⟨η_i, t_i(x)⟩) dx_missing, and how often it
    counts.
    """
    formed, rank = term.statistics.formed(term.elements), len(term.elements)
    if term.family is None or term.family.lookup:
        return list(zip(tables, formed, [0], strict=True))
    if term.family.marginal is None:
        return list(zip(tables, formed, term.family.event_dims, strict=True))
    x, observed, weight = formed
    inputs = [*zip(tables, term.family.event_dims, strict=True), (x.value, 1), (observed.value, 1)]
    (density,) = lift_events(lambda *arrays: (term.family.marginal(*arrays),), inputs, rank)
    return [(density, weight, 0)]


def posterior(graph: FactorGraph, arrays, temperature: ArrayLike = 1.0) -> dict:
    """Return p(z | x, θ) for every latent: its elements' shape, then its support."""
    latents = instance_of(graph, arrays, predicted=True).latents
    axes = {name: (_along(latent, 0),) for name, latent in latents.items()}
    return _marginals(
        graph, arrays, temperature, axes, {name: latent.shape for name, latent in latents.items()}
    )


def pairwise_posterior(graph: FactorGraph, arrays, temperature: ArrayLike = 1.0) -> dict:
    """Return p(z_t, z_{t+1} | x, θ) for every latent within a scan: (time − 1, its elements at one
    step), then its support twice.
    """
    latents = {
        name: latent
        for name, latent in instance_of(graph, arrays, predicted=True).latents.items()
        if graph.latents[name].is_series and latent.shape[0] > 1
    }
    shapes = {name: (latent.shape[0] - 1, *latent.shape[1:]) for name, latent in latents.items()}
    axes = {name: (_along(latent, 0), _along(latent, 1)) for name, latent in latents.items()}
    return _marginals(graph, arrays, temperature, axes, shapes)


def _along(latent: Variable, steps: int) -> Axis:
    """Return the axis that reads every element of a latent, or the one that is some steps later."""
    index = Affine.identity(latent.shape)
    return Axis(
        latent.name, latent.size, Affine(steps * math.prod(latent.shape[1:]), index.strides)
    )


def _marginals(
    graph: FactorGraph,
    arrays,
    temperature,
    axes: Mapping[str, tuple[Axis, ...]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict:
    """Return the posterior of latents along `axes`: the derivative of log Z with respect to a
    factor of their own that is zero.
    """
    whole = instance_of(graph, arrays, predicted=True)
    zeros = {
        name: jnp.zeros((*shapes[name], *(axis.size for axis in own)), jnp.result_type(float))
        for name, own in axes.items()
    }

    def function(tables, fast):
        return log_z(
            whole,
            whole.tables,
            temperature,
            [Factor(own, shapes[name], Cells(tables[name])) for name, own in axes.items()],
            fast,
        )

    _, found = value_and_gradient(function, zeros)
    return {
        name: m / m.sum(tuple(range(m.ndim - len(axes[name]), m.ndim)), keepdims=True)
        for name, m in found.items()
    }
