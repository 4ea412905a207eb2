"""Posterior probabilities of latents: derivatives of log Z, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike

from emjax.e_step.fallback import value_and_gradient
from emjax.e_step.instance import Instance, instance_of
from emjax.e_step.term_factors import log_z
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.graph.factor_graph import FactorGraph
from emjax.tables.indices import Affine
from emjax.tables.named import Axis


def posterior(graph: FactorGraph, arrays: Sequence, temperature: ArrayLike = 1.0) -> dict:
    """Return p(z | x, θ) for every latent: (its elements…, its support)."""
    # a latent that no observation depends on has a posterior, too
    instance = instance_of(graph, arrays, predicted=True)
    factors = {}
    for name, latent in instance.latents.items():
        factors[name] = _blank((_along(latent, 0),), latent.shape)
    return _marginals(instance, factors, temperature)


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
        more = []
        for name, factor in factors.items():
            more.append(Factor(factor.axes, factor.shape, Cells(arrays[name])))
        return log_z(instance, instance.tables, temperature, more, fast)

    zeros = {name: factor.array for name, factor in factors.items()}
    _, marginals = value_and_gradient(function, zeros)
    posteriors = {}
    for name, marginal in marginals.items():
        # a marginal counts each element as often as its multiplicity says, a posterior once
        over = tuple(range(len(factors[name].shape), marginal.ndim))
        posteriors[name] = marginal / marginal.sum(over, keepdims=True)
    return posteriors
