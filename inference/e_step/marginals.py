"""Posterior probabilities of latents: derivatives of log Z, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from emjax.e_step.fallback import value_and_gradient
from emjax.e_step.instance import Instance, instance_of
from emjax.e_step.term_factors import log_z
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled
from emjax.numerics.guards import as_float
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Coordinates, Named, full


def posterior(graph: FactorGraph, arrays: Sequence, temperature: ArrayLike = 1.0) -> dict:
    """Return p(z | x, θ) for every latent: (its elements…, its support)."""
    # a latent that no observation depends on has a posterior, too
    instance = instance_of(graph, arrays, predicted=True)
    return _marginals(instance, blank_factors(instance), temperature)


def posterior_means(graph: FactorGraph, arrays: Sequence, temperature: ArrayLike = 1.0) -> dict:
    """Return E[y | x, θ] of each continuous latent that no observation depends on: of its shape.

    With m(z) its mean given the latents, ∂ log Z / ∂ w of a factor w · m(z), at w = 0.
    """
    sums = []
    for stretches in graph.means.values():
        for mean in stretches:
            sums += [filled(part, arrays) for part in mean]
    read = [part for part in sums if part.axes]
    expected = iter(_expected(instance_of(graph, arrays, predicted=True), read, temperature))
    # along no axis there is nothing to expect
    each = iter([next(expected) if part.axes else as_float(full(part)) for part in sums])
    found = {}
    for name, stretches in graph.means.items():
        over_time = [sum(next(each) for _ in mean) for mean in stretches]
        found[name] = over_time[0] if len(over_time) == 1 else jnp.concatenate(over_time)
    return found


def _expected(instance: Instance, values: Sequence[Named], temperature: ArrayLike) -> list:
    """Return what is expected of values that latents choose, or that are linear in them."""
    if not values:
        return []

    def function(weights, fast):
        more = []
        for weight, value in zip(weights, values, strict=True):
            # an entry of an event is an element of its own
            axes = tuple(axis.fitted(len(value.shape)) for axis in value.axes)
            first = len(axes)
            table = jnp.moveaxis(as_float(value.array), range(first), range(-first, 0))
            # a Cauchy has no mean, and 0 · NaN is no zero
            table = jnp.where(jnp.isfinite(table), table, 0)
            of_value, of_one = (each[(..., *[None] * first)] for each in weight)
            cells = of_value * table
            if not _is_linear(value):
                cells = cells + of_one
            more.append(Factor(axes, value.shape, Cells(cells)))
        return log_z(instance, instance.tables, temperature, more, fast)

    zeros = [[jnp.zeros(value.shape, jnp.result_type(float))] * 2 for value in values]
    _, sums = value_and_gradient(function, zeros)
    expected = []
    for value, (total, count) in zip(values, sums, strict=True):
        exists = jnp.isfinite(value.array).all(tuple(range(len(value.axes))))
        # an element counts as often as its multiplicity says, an expectation once
        mean = total if _is_linear(value) else total / count
        expected.append(jnp.where(exists, mean, jnp.nan))
    return expected


def _is_linear(value: Named) -> bool:
    """Whether a value is linear in a Gaussian latent."""
    return any(isinstance(axis, Coordinates) for axis in value.axes)


def pairwise_posterior(graph: FactorGraph, arrays: Sequence, temperature: ArrayLike = 1.0) -> dict:
    """Return p(z_t, z_{t+1} | x, θ) for every latent within a scan.

    Each is (time − 1, its elements at one step, its support, its support).
    """
    instance = instance_of(graph, arrays, predicted=True)
    factors = {}
    for name, latent in instance.latents.items():
        if graph.latents[name].is_series and latent.shape[0] > 1:
            shape = (latent.shape[0] - 1, *latent.shape[1:])
            factors[name] = _blank((_along(latent, 0), _along(latent, 1)), shape)
    return _marginals(instance, factors, temperature)


def blank_factors(instance: Instance) -> dict[str, Factor]:
    """Return a factor of every latent that is zero everywhere, over all its elements."""
    factors = {}
    for name, latent in instance.latents.items():
        factors[name] = _blank((_along(latent, 0),), latent.shape)
    return factors


def with_arrays(factors: Mapping[Any, Factor], arrays: Mapping[Any, Array]) -> list[Factor]:
    """Return factors with other values, by key."""
    return [replace(factor, cells=Cells(arrays[name])) for name, factor in factors.items()]


def _along(latent: Variable, steps: int) -> Axis:
    """Return the axis that reads every element of a latent, or the one that is some steps later."""
    offset = steps * math.prod(latent.shape[1:])
    strides = Affine.identity(latent.shape).strides
    return Axis(latent.name, latent.size, Affine(offset, strides))


def _blank(axes: tuple[Axis, ...], shape: tuple[int, ...]) -> Factor:
    """Return a factor of latents that is zero everywhere."""
    zeros = jnp.zeros((*shape, *(axis.size for axis in axes)), jnp.result_type(float))
    return Factor(axes, shape, Cells(zeros))


def _marginals(instance: Instance, factors: Mapping[str, Factor], temperature: ArrayLike) -> dict:
    """Return the posteriors of latents: the derivatives of log Z with respect to factors of theirs.

    `factors`: zero, along the axes that are asked for.
    """

    def function(arrays, fast):
        more = with_arrays(factors, arrays)
        return log_z(instance, instance.tables, temperature, more, fast)

    zeros = {name: factor.array for name, factor in factors.items()}
    _, marginals = value_and_gradient(function, zeros)
    posteriors = {}
    for name, marginal in marginals.items():
        # a marginal counts each element as often as its multiplicity says, a posterior once
        over = tuple(range(len(factors[name].shape), marginal.ndim))
        posteriors[name] = marginal / marginal.sum(over, keepdims=True)
    return posteriors
