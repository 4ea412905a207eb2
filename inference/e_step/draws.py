"""Draws from the joint posterior of all latents: the reverse pass of log Z, of draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from emjax.e_step.gaussian_marginals import blank_coordinates, in_shape
from emjax.e_step.instance import Instance, instance_of
from emjax.e_step.marginals import blank_factors, with_arrays
from emjax.e_step.perturbed import GAUSSIAN, Noise, noises_of, perturbed
from emjax.e_step.term_factors import log_z
from emjax.elimination.factors import Cells, Factor
from emjax.elimination.reductions import Drawn
from emjax.graph.factor_graph import FactorGraph
from emjax.numerics.guards import LOG_ZERO


def joint_draws(graph: FactorGraph, arrays: Sequence, keys: Array) -> dict[str, Array]:
    """Return draws of all latents from p(z, f | x, θ), (key, elements…).

    Of discrete ones they are places in their supports. Each key draws all of them jointly: the
    discrete ones, Gaussians integrated out, then the Gaussian ones given these. What goes forward
    is computed once for all keys.
    """
    instance = instance_of(graph, arrays, predicted=True)
    factors = blank_factors(instance)
    zeros = {name: factor.array for name, factor in factors.items()}
    noises = noises_of(instance)

    def draw(key):
        def function(tables):
            more = with_arrays(factors, tables)
            return log_z(instance, instance.tables, more=more, drawn=Drawn(key))

        indicators = jax.grad(function)(zeros)
        places = {name: jnp.argmax(indicator, -1) for name, indicator in indicators.items()}
        drawn = {}
        for name, factor in factors.items():
            size = instance.latents[name].size
            is_drawn = places[name][..., None] == jnp.arange(size)
            table = Cells(jnp.where(is_drawn, 0.0, LOG_ZERO))
            drawn[name] = replace(factor, cells=table, without_multiplicity=True)
        given = list(drawn.values())
        return places | _gaussian_draws(graph, instance, noises, given, key)

    return jax.vmap(draw)(keys)


def _gaussian_draws(
    graph: FactorGraph,
    instance: Instance,
    noises: Sequence[Noise],
    given: Sequence[Factor],
    key: Array,
) -> dict[str, Array]:
    """Return a draw of each Gaussian latent, in its shape. `given`: the discrete ones, as factors.

    `noises`: what is added to observations (see `perturbed`).
    """
    blanks = blank_coordinates(instance)
    if not blanks:
        return {}
    moved, pieces = perturbed(instance, noises, jax.random.fold_in(key, GAUSSIAN))

    def function(arrays):
        more = [*given, *pieces, *with_arrays(blanks, arrays)]
        return log_z(moved, moved.tables, more=more)

    means = jax.grad(function)({name: factor.array for name, factor in blanks.items()})
    return {name: in_shape(graph.gaussians[name], mean) for name, mean in means.items()}
