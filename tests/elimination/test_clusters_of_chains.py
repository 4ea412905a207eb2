"""Chains with a latent for each sequence: a mixture of hidden Markov models."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from emjax import EM
from tests.oracles.brute_force import joint_table

TRANSITION = jnp.array([[[0.9, 0.1], [0.3, 0.7]], [[0.2, 0.8], [0.6, 0.4]]])
LOC = jnp.array([[-1.0, 1.0], [0.5, 2.0]])


def mixture_of_chains(x):
    """x: (time, sequence)."""
    num = x.shape[1]
    with numpyro.plate("sequences", num):
        cluster = numpyro.sample("cluster", dist.Categorical(jnp.array([0.3, 0.7])))

    def step(previous, value):
        with numpyro.plate("sequences", num):
            z = numpyro.sample("z", dist.Categorical(TRANSITION[cluster, previous]))
            numpyro.sample("x", dist.Normal(LOC[cluster, z], 1.0), obs=value)
        return z, None

    scan(step, jnp.zeros(num, int), x)


def chains_beside_one_another(x):
    """x: (time, sequence). A unit axis for features that sequences do not have."""
    num = x.shape[1]
    with numpyro.plate("sequences", num, dim=-2):
        cluster = numpyro.sample("cluster", dist.Categorical(jnp.array([0.3, 0.7])))

    def step(previous, value):
        with numpyro.plate("sequences", num, dim=-2):
            z = numpyro.sample("z", dist.Categorical(TRANSITION[cluster, previous]))
            with numpyro.plate("features", 2, dim=-1):
                loc = LOC[cluster, z] + jnp.array([0.0, 0.3])
                numpyro.sample("x", dist.Normal(loc, 1.0), obs=value[:, None])
        return z, None

    last, _ = scan(step, jnp.zeros((num, 1), int), x)
    with numpyro.plate("sequences", num, dim=-2):
        numpyro.sample("end", dist.Normal(LOC[0][last], 1.0), obs=x[:1].T)


@pytest.mark.parametrize("program", [mixture_of_chains, chains_beside_one_another])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cluster_of_each_sequence_is_brute_force(program, length):
    x = jnp.array([[0.3, -0.7], [1.9, 0.1], [0.4, 0.8]])[:length]
    found = EM(program).log_likelihood({}, x)
    np.testing.assert_allclose(found, joint_table(program, {}, x).log_likelihood, rtol=1e-10)


def test_many_sequences_with_clusters_are_not_taken_element_by_element():
    x = jnp.linspace(-1.0, 2.0, 6).reshape(3, 2)
    once, often = EM(mixture_of_chains).log_likelihood({}, jnp.tile(x, (1, 50))), 50.0
    expected = often * EM(mixture_of_chains).log_likelihood({}, x)
    np.testing.assert_allclose(once, expected, rtol=1e-10)
