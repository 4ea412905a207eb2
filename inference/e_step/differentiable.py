"""log Z with derivatives of every order, of which the first costs one E-step.

With η(θ) the natural-parameter tables and T = E[t(x) | x, θ] the expected statistics,

    d log Z = ⟨T, dη⟩,    d² log Z = ⟨T, d²η⟩ + ⟨dT, dη⟩.

T is an E-step's, in its fast forms; dT is taken of the plain form, since fast forms have no forward
derivatives. Source of the first: Fisher's identity; Louis (1982), JRSS B 44(2), of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from emjax.e_step.e_step import expected_of, log_partition_of
from emjax.e_step.expected import Expected
from emjax.e_step.instance import Instance, instance_of
from emjax.graph.factor_graph import FactorGraph


def differentiable_log_z(graph: FactorGraph, which: Callable) -> Callable[[Sequence], Array]:
    """Return the function of a graph's arrays that is log Z in nats. `which`: a filter on terms."""

    def at(tables, arrays) -> Instance:
        return instance_of(graph, arrays, which).at(tables)

    @jax.custom_jvp
    def expected(tables, arrays) -> Expected:
        return expected_of(at(tables, arrays), is_often=True)

    @expected.defjvp
    def expected_along(primals, tangents):
        tables, arrays = primals

        def plainly(tables):
            return expected_of(at(tables, arrays), plain=True)

        return jax.jvp(plainly, (tables,), tangents[:1])

    @jax.custom_jvp
    def log_z(tables, arrays) -> Array:
        return log_partition_of(graph, arrays, which, tables=tables)

    @log_z.defjvp
    def log_z_along(primals, tangents):
        here = expected(*primals)
        along = jax.tree.map(_product, here.statistics, tangents[0])
        return here.log_partition, sum(jax.tree.leaves(along), jnp.zeros(()))

    def of_arrays(arrays: Sequence) -> Array:
        tables = instance_of(graph, arrays, which).tables
        # what depends on the parameters is in the tables alone
        return log_z(tables, jax.lax.stop_gradient(list(arrays)))

    return of_arrays


def _product(statistics: Array, change: Array) -> Array:
    # the logarithm of an impossible cell, of which nothing is expected, has no finite derivative
    return jnp.sum(jnp.where(statistics == 0, 0, statistics * change))
