"""What a constant mask excludes is not there: no prior, no observation, and closed forms stay."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from tests.oracles.brute_force import joint_table

X = jnp.array([0.1, 2.0, 3.0, -0.5, 1.8])
START = {"weights": jnp.array([0.4, 0.6]), "loc": jnp.array([0.0, 1.0])}


def mixture(x, mask):
    with handlers.mask(mask=mask):
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([3.0, 3.0])))
        with numpyro.plate("components", 2):
            loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)
    with handlers.mask(mask=mask):
        numpyro.sample("y", dist.StudentT(3.0, loc[0], 1.0), obs=jnp.array(3.0))


def without_priors(x):
    weights = numpyro.param("weights", START["weights"], constraint=constraints.simplex)
    loc = numpyro.param("loc", START["loc"])
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


@pytest.mark.parametrize("mask", [False, np.False_, np.zeros(2, bool)], ids=["bool", "0-d", "1-d"])
def test_a_constant_mask_leaves_no_prior(mask):
    def program(x):
        mixture(x, mask if np.ndim(mask) == 0 else False)
        with handlers.mask(mask=mask), numpyro.plate("nobody", 2):
            numpyro.sample("nothing", dist.StudentT(3.0, 0.0, 1.0), obs=jnp.ones(2))

    plan = {parameter.name: parameter for parameter in EM(program).plan(X).parameters}
    assert {plan[name].method for name in START} == {"closed form"}
    assert not any(plan[name].is_prior for name in START)


def test_what_a_constant_mask_leaves_is_the_program_without_it():
    key = jax.random.key(0)
    masked = EM(lambda x: mixture(x, False)).run(key, X, init_params=START)
    plain = EM(without_priors).run(key, X, init_params=START)
    np.testing.assert_allclose(masked.objective, plain.objective, rtol=1e-12)
    np.testing.assert_allclose(masked.params["loc"], plain.params["loc"], rtol=1e-10)


def test_a_mask_of_true_is_nothing():
    methods = []
    for mask in (True, np.True_, np.ones(2, bool)):

        def program(x, mask=mask):
            with handlers.mask(mask=mask), numpyro.plate("components", 2):
                loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
            with numpyro.plate("rows", len(x)):
                z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
                numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

        (parameter,) = EM(program).plan(X).parameters
        methods.append((parameter.method, parameter.is_prior))
    assert methods == [("closed form", True)] * 3


def test_masked_sites_of_a_scan_are_brute_force():
    def program(x):
        stay = numpyro.param("stay", jnp.array(0.8), constraint=constraints.unit_interval)

        def step(previous, value):
            z = numpyro.sample("z", dist.Bernoulli(jnp.where(previous == 1, stay, 0.3)))
            numpyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=value)
            with handlers.mask(mask=False):
                numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=value)
            return z, None

        scan(step, 0, x)
        with handlers.mask(mask=False):
            scan(lambda carry, v: (carry, numpyro.sample("w", dist.Normal(carry), obs=v)), 0.0, x)

    params = {"stay": jnp.array(0.7)}
    table = joint_table(program, params, X[:3])
    found = EM(program).log_likelihood(params, X[:3])
    np.testing.assert_allclose(found, table.log_likelihood, rtol=1e-10)
