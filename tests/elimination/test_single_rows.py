"""An axis of length one is an axis: a row by itself is treated as several are."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM
from tests.oracles.brute_force import joint_table

INTERVAL = constraints.unit_interval
TABLE = jnp.array([[0.1, 1.0], [2.0, 0.5]])
CHANCE = jnp.array([[0.4, 0.6], [0.2, 0.8]])


def independent(item, x):
    with numpyro.plate("items", 3):
        a = numpyro.sample("a", dist.Categorical(CHANCE[0]))
        b = numpyro.sample("b", dist.Categorical(CHANCE[1]))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(TABLE[a[item], b[item]], 1.0), obs=x)


def dependent(item, x):
    with numpyro.plate("items", 3):
        a = numpyro.sample("a", dist.Categorical(CHANCE[0]))
        b = numpyro.sample("b", dist.Categorical(CHANCE[a]))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(TABLE[a[item], b[item]], 1.0), obs=x)


def of_other_items(item, x):
    with numpyro.plate("items", 3):
        a = numpyro.sample("a", dist.Categorical(CHANCE[0]))
    with numpyro.plate("others", 2):
        b = numpyro.sample("b", dist.Categorical(CHANCE[1]))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(TABLE[a[item], b[item - 1]], 1.0), obs=x)


@pytest.mark.parametrize("program", [independent, dependent, of_other_items])
def test_a_single_row_of_two_latents_of_an_item_is_brute_force(program):
    data = jnp.array([2]), jnp.array([0.3])
    table = joint_table(program, {}, *data)
    em = EM(program)
    np.testing.assert_allclose(em.log_likelihood({}, *data), table.log_likelihood, rtol=1e-10)
    for name, posterior in em.posterior({}, *data).items():
        np.testing.assert_allclose(posterior, table.posterior[name], rtol=1e-10)


def test_fewer_rows_than_a_table_has_are_maximized():
    def program(which, x):
        chance = numpyro.param("chance", jnp.array([0.2, 0.8, 0.4]), constraint=INTERVAL)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Binomial(1, probs=chance[which]))
            numpyro.sample("x", dist.Poisson(jnp.array([1.2, 3.1])[z]), obs=x)

    which, x = jnp.array([2, 2]), jnp.array([2, 3])
    em = EM(program)
    result = em.run(jax.random.key(0), which, x)
    posterior = em.posterior(result.params, which, x)["z"][:, 1]
    np.testing.assert_allclose(result.params["chance"][2], posterior.mean(), atol=1e-4)
