"""What is as long as the data is not held twice: neither the data, nor their distance to a mean."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM

X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)


def mixture(x):
    weights = numpyro.param("weights", jnp.array([0.3, 0.7]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    covariance = numpyro.param(
        "covariance", jnp.eye(2)[None].repeat(2, 0), constraint=constraints.positive_definite
    )
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[z], covariance[z]), obs=x)


@pytest.mark.parametrize("is_start", [True, False])
def test_constants_hold_the_data_themselves_and_nothing_else_as_large(is_start):
    bound = EM(mixture).on(jnp.asarray(X))
    compiled, data = bound.compiled, bound.data
    if is_start:
        key, given = jax.random.key(0), compiled.given({})
        constants = compiled.start(key, data, given)[1]
    else:
        constants = compiled.prepare(data)
    expected = compiled.graph.prepare(data)
    for ours, own in zip(constants, expected, strict=True):
        np.testing.assert_allclose(ours, own, rtol=1e-6)
    large = [each for each in constants if each.size >= X.size]
    assert [each is data[0] for each in large] == [True]
