"""A chain whose sequences end at different times, in each way that `chains=` sums it out."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan

from emjax import EM
from tests.oracles.brute_force import joint_table

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")
NUMBERS = np.random.default_rng(4)
FIRST_ORDER = jnp.array([[0.8, 0.2], [0.35, 0.65]])
SECOND_ORDER = jnp.array(NUMBERS.dirichlet(np.ones(2), size=(2, 2)))
X = jnp.array(NUMBERS.normal(size=(5, 3)))
# one sequence is whole, one ends early, one has a gap
SEEN = jnp.array([[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 1]], bool)


def first_order(loc):
    def step(previous, inputs):
        value, is_seen = inputs
        with numpyro.plate("sequences", 3), handlers.mask(mask=is_seen):
            z = numpyro.sample("z", dist.Categorical(FIRST_ORDER[previous]))
            numpyro.sample("x", dist.Normal(loc[z], 0.7), obs=value)
        return z, None

    return step, jnp.zeros(3, int)


def second_order(loc):
    def step(carry, inputs):
        (before, previous), (value, is_seen) = carry, inputs
        with numpyro.plate("sequences", 3), handlers.mask(mask=is_seen):
            z = numpyro.sample("z", dist.Categorical(SECOND_ORDER[before, previous]))
            numpyro.sample("x", dist.Normal(loc[z] + 0.3 * previous, 0.7), obs=value)
        return (previous, z), None

    return step, (jnp.zeros(3, int), jnp.ones(3, int))


def masked(order):
    def program(x, seen):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        step, start = order(loc)
        scan(step, start, (x, seen))

    return program


@pytest.mark.sampled
@pytest.mark.parametrize("order", [first_order, second_order], ids=lambda order: order.__name__)
@pytest.mark.parametrize("chains", ["sequential", "checkpointed", "parallel"])
def test_a_masked_chain_is_brute_force(order, chains):
    program, params = masked(order), {"loc": jnp.array([-0.6, 0.9])}
    table = joint_table(program, params, X, SEEN)
    bound = EM(program, chains=chains).on(X, SEEN)
    tolerance = {"rtol": 1e-10, "atol": 1e-12, "err_msg": f"{order.__name__}, {chains}"}
    log_likelihood = bound.log_likelihood(params)
    np.testing.assert_allclose(log_likelihood, table.log_likelihood, **tolerance)
    posterior = bound.posterior(params)["z"]
    np.testing.assert_allclose(posterior, table.posterior["z"], **tolerance)
    pairwise = bound.pairwise_posterior(params)["z"]
    np.testing.assert_allclose(pairwise, table.pairwise_posterior("z"), **tolerance)
    mode = table.complete_log_likelihood_at(bound.decode(params))
    np.testing.assert_allclose(mode, table.mode_log_likelihood, **tolerance)
