"""Rows of data that read one element of a Gaussian latent are added up, once, by that element."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from emjax import EM

GROUP, COEFFICIENTS = np.array([0, 1, 1]), np.array([1.0, 1.0, 0.5])
X = np.random.default_rng(0).normal(size=(3, 2))


def test_rows_of_several_columns_are_added_up_once():
    """Each row reads one element, and each of its columns a coordinate of it."""

    def program(x):
        with numpyro.plate("groups", 2):
            b = numpyro.sample("b", dist.Normal(0, 0.6).expand([2, 2]).to_event(1))
        location = b[GROUP] * COEFFICIENTS[:, None]
        with numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 2, dim=-1):
            numpyro.sample("x", dist.Normal(location, 0.7), obs=x)

    design = np.eye(2)[GROUP] * COEFFICIENTS[:, None]
    covariance = 0.36 * design @ design.T + 0.49 * np.eye(3)
    columns = dist.MultivariateNormal(jnp.zeros(3), covariance_matrix=covariance)
    expected = columns.log_prob(X.T).sum()
    actual = EM(program, integrate={"b"}).log_likelihood({}, X)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
