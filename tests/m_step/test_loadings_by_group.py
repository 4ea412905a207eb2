"""Loadings that rows of data pick: a table for each group, read at the group of the row."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from emjax import EM

GROUP = np.array([0, 2, 1, 1, 0, 2])
RNG = np.random.default_rng(0)
X, LOADINGS = RNG.normal(size=(6, 3)), RNG.normal(size=(3, 3, 2))


def program(x, group):
    loadings = numpyro.param("loadings", jnp.asarray(LOADINGS))
    with numpyro.plate("rows", len(x)):
        factor = numpyro.sample("factor", dist.Normal(0, 1).expand([2]).to_event(1))
        location = (loadings[group] @ factor[..., None])[..., 0]
        numpyro.sample("x", dist.Normal(location, 1.0).to_event(1), obs=x)


def test_loadings_by_group_are_least_squares_and_the_likelihood_is_that_of_the_joint_normal():
    em = EM(program, integrate={"factor"})
    assert em.plan(X, GROUP).method("loadings") == "least squares"
    covariance = LOADINGS @ LOADINGS.transpose(0, 2, 1) + np.eye(3)
    rows = dist.MultivariateNormal(jnp.zeros(3), covariance_matrix=covariance[GROUP])
    expected = rows.log_prob(X).sum()
    actual = em.log_likelihood({"loadings": LOADINGS}, X, GROUP)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
