"""Responsibilities drawn at random, for every program."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.factors import Cells, Factor, Variable
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.maximizer import Maximizer
from emjax.starts.posteriors import indifferent_instance, maximum_under
from emjax.tables.indices import Affine
from emjax.tables.named import Axis


def random_responsibilities(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters after one M-step under responsibilities drawn at random.

    For each element n of each latent, q_n ~ Dirichlet(1, …, 1). The q_n are independent of one
    another and of the data, except that what the program excludes at its own values (a probability
    of zero, a value outside a support) stays impossible. Expected statistics under q are the
    gradient of log Z of the program whose natural parameters are all zero, with one more factor, q,
    for each latent. Where N is large, the components all start near the mean of the data. Takes
    memory for N × K. Source: McLachlan & Peel (2000), section 2.12.2.
    """
    instance = indifferent_instance(graph, params, constants, rng_key)
    factors = random_factors(rng_key, instance.latents.values())
    return maximum_under(instance, factors, maximizers, params, constants)


def random_factors(rng_key: Array, latents: Collection[Variable]) -> list[Factor]:
    """Return log q of each element of some latents, q ~ Dirichlet(1, …, 1)."""
    factors = []
    keys = jax.random.split(rng_key, max(len(latents), 1))
    for key, latent in zip(keys, latents, strict=False):
        # minus a Gumbel variable is the logarithm of an exponential one, and K of these over their
        # sum are Dirichlet(1, …, 1)
        shape = (*latent.shape, latent.size)
        log_q = jax.nn.log_softmax(-jax.random.gumbel(key, shape, jnp.result_type(float)))
        axis = Axis(latent.name, latent.size, Affine.identity(latent.shape))
        factors.append(Factor((axis,), latent.shape, Cells(log_q), without_multiplicity=True))
    return factors
