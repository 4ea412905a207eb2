"""The E-step: log Z and every posterior expectation, from one reverse pass.

With η the natural-parameter tables of all terms,

    ∂ log Z / ∂ η = E[t(x) 1{z = k} | x, θ],

the expected statistics. Source: Darwiche (2003), J. ACM 50(3), theorem 1; Eisner (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from emjax.e_step.blocks import Blocks, blocks_of
from emjax.e_step.expected import Expected
from emjax.e_step.fallback import fast_or_plain, value_and_gradient
from emjax.e_step.incomplete import by_pattern, by_pattern_and_back
from emjax.e_step.instance import Instance, instance_of
from emjax.e_step.summed import summed
from emjax.e_step.term_factors import log_z
from emjax.elimination.factors import Factor
from emjax.graph.factor_graph import FactorGraph
from emjax.numerics.fast_forms import FastForms
from emjax.numerics.guards import IMPOSSIBLE


def e_step(
    graph: FactorGraph,
    arrays: Sequence,
    temperature: ArrayLike = 1.0,
    tables: Sequence | None = None,
    plain: bool = False,
) -> Expected:
    """Return log Z in nats and the expected statistics, its gradient.

    `tables`: the natural-parameter tables at `arrays`, if they are at hand; `plain`: take no fast
    form, since these have no forward derivatives.
    """
    instance = instance_of(graph, arrays, temperature=temperature, tables=tables)
    return expected_of(instance, temperature, plain)


def expected_of(
    instance: Instance,
    temperature: ArrayLike = 1.0,
    plain: bool = False,
    is_often: bool = False,
) -> Expected:
    """Return log Z in nats and the expected statistics of an instance; see `e_step`.

    `is_often`: see `FastForms`.
    """
    # forms by pattern have no forward derivatives, as fast ones have none
    instance, pulled = (instance, list) if plain else by_pattern_and_back(instance)
    blocks = blocks_of(instance)
    if blocks is not None:
        expected = _over_blocks(blocks, temperature, plain)
    else:
        expected = _at_once(instance, temperature, plain, is_often)
    return Expected(with_infinities(expected.log_partition), pulled(expected.statistics))


def log_partition_of(
    graph: FactorGraph,
    arrays: Sequence,
    which: Callable | None = None,
    temperature: float | int = 1.0,
    tables: Sequence | None = None,
) -> Array:
    """Return log Z in nats. `which`: a filter on terms; `tables`: as in `e_step`, of these."""
    instance = by_pattern(instance_of(graph, arrays, which, temperature, tables=tables))
    blocks = blocks_of(instance)
    if blocks is None:
        return with_infinities(log_z(instance, instance.tables, temperature))
    rest = Expected(log_z(blocks.rest, blocks.rest.tables, temperature), [])
    of_block = _log_z_of_block(temperature, None)
    expected, _ = summed(blocks, of_block, rest, with_statistics=False)
    return with_infinities(expected.log_partition)


def statistics_with(instance: Instance, factors: Sequence[Factor]) -> list:
    """Return the expected statistics under the posterior that these factors take part in, too.

    It is asked for once, where a run starts.
    """
    _, statistics = value_and_gradient(
        lambda tables, fast: log_z(instance, tables, 1.0, factors, fast),
        instance.tables,
        is_once=True,
    )
    return statistics


def _at_once(
    instance: Instance, temperature: ArrayLike, plain: bool, is_often: bool = False
) -> Expected:
    def function(tables, fast: FastForms | None):
        return log_z(instance, tables, temperature, fast=fast)

    return Expected(*value_and_gradient(function, instance.tables, plain, is_often))


def _over_blocks(blocks: Blocks, temperature: ArrayLike, plain: bool) -> Expected:
    # what is not cut is in no loop, and may take every fast form: a chain beside a plate is there
    rest = _at_once(blocks.rest, temperature, plain)

    def derived(fast: FastForms | None):
        log_z_of_block = _log_z_of_block(temperature, fast, blocks.size // blocks.rows)
        return summed(blocks, log_z_of_block, rest, with_statistics=True)

    return derived(None)[0] if plain else fast_or_plain(derived)


def _log_z_of_block(
    temperature: ArrayLike, fast: FastForms | None, num_blocks: int = 1
) -> Callable:
    """Return a function of a block, its tables and ε: log Z and the margin of fast forms."""

    def function(block: Instance, tables, epsilon):
        if fast is None:
            return log_z(block, tables, temperature), jnp.inf
        of_block = FastForms(epsilon=epsilon, num_blocks=num_blocks)
        value = log_z(block, tables, temperature, fast=of_block)
        # to say that a form was taken; its value stays inside the loop over blocks
        fast.margins.extend(of_block.margins)
        fast.is_perturbed |= of_block.is_perturbed
        return value, of_block.margin

    return function


def with_infinities(log_partition) -> Array:
    """Return log Z with ±∞ in place of what contains the logarithm of a zero."""
    is_infinite = log_partition > -IMPOSSIBLE
    return jnp.where(
        log_partition < IMPOSSIBLE, -jnp.inf, jnp.where(is_infinite, jnp.inf, log_partition)
    )
