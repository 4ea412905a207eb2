"""Starts that a program excludes, however it declares what a value may be."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM

X = jnp.array([[-1.0, 0.5], [0.2, 1.5], [2.0, -0.4]])


@pytest.mark.parametrize(
    "constraint", [constraints.positive, constraints.independent(constraints.positive, 1)]
)
def test_a_scale_of_zero_is_no_start_however_its_constraint_is_declared(constraint):
    def normals(x):
        scale = numpyro.param("scale", jnp.ones(2), constraint=constraint)
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Normal(0.0, scale).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"Parameter 'scale' must satisfy .* at index"):
        EM(normals).run(jax.random.key(0), X, init_params={"scale": jnp.array([0.0, 1.0])})


@pytest.mark.parametrize("given", [np.array([1.0, 2.0]), [1.0, 2.0], 0.5])
def test_a_start_that_is_no_dictionary_is_told_what_to_be(given):
    def normals(x):
        scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Normal(0.0, scale).to_event(1), obs=x)

    em, key = EM(normals), jax.random.key(0)
    with pytest.raises(ValueError, match="Parameters are a dictionary"):
        em.run(key, X, init_params=given)
    with pytest.raises(ValueError, match="Parameters are a dictionary"):
        emjax.cross_validate(em, key, X, num_folds=2, init_params=given)


def test_a_scale_of_zero_is_none_above_an_open_bound_but_one_at_its_floor_is():
    def normals(x, floor):
        constraint = constraints.greater_than(floor)
        scale = numpyro.param("scale", jnp.ones(2), constraint=constraint)
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Normal(0.0, scale).to_event(1), obs=x)

    with pytest.raises(ValueError, match=r"Parameter 'scale' must satisfy .* at index \(0,\)"):
        EM(normals).log_likelihood({"scale": jnp.array([0.0, 1.0])}, X, 0.0)
    # EM's own estimates lie at a floor that binds
    at_floor = {"scale": jnp.array([0.1, 1.0])}
    assert jnp.isfinite(EM(normals).log_likelihood(at_floor, X, 0.1))


def test_a_rate_of_zero_is_an_estimate():
    def counts(x):
        rate = numpyro.param("rate", jnp.ones(2), constraint=constraints.greater_than(0.0))
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    x = jnp.array([[0.0, 2.0], [0.0, 1.0]])
    assert jnp.isfinite(EM(counts).log_likelihood({"rate": jnp.array([0.0, 1.5])}, x))
