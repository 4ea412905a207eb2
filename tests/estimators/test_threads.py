"""Estimators that are fitted in several threads at once."""

import sys
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax.sklearn import EMEstimator

X = np.array([[0.0], [0.2], [0.1], [3.0], [3.1], [2.9]])


def clouds(X, num_clouds):
    weights = numpyro.param(
        "weights", jnp.ones(num_clouds) / num_clouds, constraint=constraints.simplex
    )
    loc = numpyro.param("loc", jnp.arange(num_clouds) * 1.0)
    with numpyro.plate("samples", len(X)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], 1), obs=X[:, 0])


def fitted(num_clouds):
    return EMEstimator(clouds, arguments={"num_clouds": num_clouds}).fit(X)


@pytest.fixture
def threads_that_alternate():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_fits_in_threads_are_those_in_turn(threads_that_alternate):
    # NumPyro keeps the handlers of all threads in one stack
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(fitted, (1, 2, 3)))
    for num_clouds, model in zip((1, 2, 3), together, strict=True):
        alone = fitted(num_clouds)
        assert model.lower_bound_ == alone.lower_bound_
        np.testing.assert_array_equal(model.params_["loc"], alone.params_["loc"])
