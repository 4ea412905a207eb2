"""Draws from the joint posterior of all latents: the reverse pass of log Z, of draws."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from emjax.e_step.instance import instance_of
from emjax.e_step.marginals import blank_factors, with_arrays
from emjax.e_step.term_factors import log_z
from emjax.elimination.reductions import Drawn
from emjax.graph.factor_graph import FactorGraph


def joint_draws(graph: FactorGraph, arrays: Sequence, keys: Array) -> dict[str, Array]:
    """Return draws of all latents from p(z | x, θ), (key, elements…): places in their supports.

    Each key draws all of them jointly. What goes forward is computed once for all keys.
    """
    instance = instance_of(graph, arrays, predicted=True)
    factors = blank_factors(instance)
    zeros = {name: factor.array for name, factor in factors.items()}

    def draw(key):
        def function(tables):
            more = with_arrays(factors, tables)
            return log_z(instance, instance.tables, more=more, drawn=Drawn(key))

        indicators = jax.grad(function)(zeros)
        return {name: jnp.argmax(indicator, -1) for name, indicator in indicators.items()}

    return jax.vmap(draw)(keys)
