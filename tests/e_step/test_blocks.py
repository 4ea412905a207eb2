"""Blocks of the data give what one pass over all of it gives."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints

from emjax import EM
from emjax.e_step import blocks
from emjax.e_step.blocks import blocks_of
from emjax.e_step.e_step import e_step, log_partition_of
from emjax.e_step.instance import instance_of

RNG = np.random.default_rng(3)
X, XY = RNG.normal(size=23), RNG.normal(size=(23, 3))
WORDS, GROUP = RNG.integers(4, size=(23, 5)), RNG.integers(6, size=23)
SIMPLEX, POSITIVE = constraints.simplex, constraints.positive


def weights():
    return numpyro.param("weights", jnp.array([0.3, 0.7]), constraint=SIMPLEX)


def loc(*shape):
    return numpyro.param("loc", jnp.asarray(np.random.default_rng(0).normal(size=shape)))


def one_dimension(x):
    scale = numpyro.param("scale", jnp.array([1.0, 2.0]), constraint=POSITIVE)
    mean = loc(2)
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights()))
        numpyro.sample("x", dist.Normal(mean[z], scale[z]), obs=x)


def full_covariance(x):
    covariance = numpyro.param(
        "covariance",
        jnp.stack([jnp.eye(3), 2 * jnp.eye(3) + 0.3]),
        constraint=constraints.positive_definite,
    )
    mean = loc(2, 3)
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights()))
        numpyro.sample("x", dist.MultivariateNormal(mean[z], covariance[z]), obs=x)


def masked_elements(x):
    mean = loc(2, 3)
    with numpyro.plate("samples", len(x), dim=-2):
        z = numpyro.sample("z", dist.Categorical(weights()))
        with (
            numpyro.plate("features", 3),
            numpyro.handlers.mask(mask=jnp.abs(x) < 1),
            numpyro.handlers.scale(scale=1.0 + jnp.arange(len(x))[:, None] % 3),
        ):
            numpyro.sample("x", dist.Normal(mean[z, jnp.arange(3)], 1.0), obs=x)


def nested_latents(words):
    topic = numpyro.param(
        "topic", jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), 2)), constraint=SIMPLEX
    )
    share = numpyro.param(
        "share", jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(2), 2)), constraint=SIMPLEX
    )
    with numpyro.plate("documents", words.shape[0], dim=-2):
        kind = numpyro.sample("kind", dist.Categorical(weights()))
        with numpyro.plate("words", words.shape[1], dim=-1):
            z = numpyro.sample("z", dist.Categorical(share[kind]))
            numpyro.sample("word", dist.Categorical(topic[z]), obs=words)


def parameters_of_each_row(x):
    shift = numpyro.param("shift", jnp.asarray(np.random.default_rng(1).normal(size=len(x))))
    mean = loc(2)
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights()))
        numpyro.sample("x", dist.Normal(mean[z] + shift, 1.0), obs=x)
    numpyro.sample("total", dist.Normal(mean.sum(), 1.0), obs=0.5)


def rows_of_a_table(x, group):
    mean = loc(6, 2)
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights()))
        numpyro.sample("x", dist.Normal(mean[group, z], 1.0), obs=x)
        numpyro.sample("y", dist.StudentT(4.0, mean[group, z], 1.0), obs=x)


def no_family(x):
    mean = loc(2)
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights()))
        numpyro.sample("x", dist.StudentT(3.0, mean[z], 1.0), obs=x)


PROGRAMS = {
    one_dimension: (X,),
    full_covariance: (XY,),
    masked_elements: (XY,),
    nested_latents: (WORDS,),
    parameters_of_each_row: (X,),
    rows_of_a_table: (X, GROUP),
    no_family: (X,),
}


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("program", "rows"),
    [*((program, 4) for program in PROGRAMS), (full_covariance, 1), (nested_latents, 22)],
)
def test_blocks_add_up_to_one_pass(program, rows, monkeypatch):
    args = tuple(map(jnp.asarray, PROGRAMS[program]))
    compiled = EM(program).on(*args).compiled
    params = compiled.initial(jax.random.key(0), list(args))
    constants = compiled.prepare(list(args))

    def evaluated():
        """Return the blocks that the data are cut into, log Z twice, and the expected
        statistics.
        """
        found = []

        def evaluate(params, constants):
            arrays = compiled.graph.arrays(params, constants)
            found.append(blocks_of(instance_of(compiled.graph, arrays)))
            expected = e_step(compiled.graph, arrays)
            log_partition = log_partition_of(compiled.graph, arrays)
            return log_partition, expected.log_partition, expected.statistics

        values = jax.jit(evaluate)(params, constants)
        return *found, *values

    found, _, whole, of_whole = evaluated()
    assert found is None  # small work is not cut
    monkeypatch.setattr(blocks, "_rows_of_equal_blocks", lambda size, most: rows)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", {"cpu": 1})
    monkeypatch.setattr(blocks, "BLOCK_TABLES", 0)
    found, log_partition, value, statistics = evaluated()
    assert found is not None and found.size == 23
    np.testing.assert_allclose(value, whole, rtol=1e-13)
    np.testing.assert_allclose(
        ravel_pytree(statistics)[0], ravel_pytree(of_whole)[0], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(log_partition, whole, rtol=1e-13)


def test_blocks_are_equal_where_they_can_be():
    assert blocks._rows_of_equal_blocks(200_000, 5_000) == 5_000
    assert blocks._rows_of_equal_blocks(200_000, 7_000) == 6_250
    assert blocks._rows_of_equal_blocks(23, 5) == 5
