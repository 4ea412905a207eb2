"""What no answer depends on is not asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM

X = np.array([-2.0, -1.9, np.nan, 2.2, 1.8, np.nan, -2.1, 2.5])
KNOWN = ~np.isnan(X)
PARAMS = {"loc": jnp.array([-2.0, 2.0]), "weights": jnp.array([0.6, 0.4])}


def mixture(x, known):
    """Rows that are missing make NumPyro's `x_unobserved` of a continuous site."""
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    numpyro.param("unread", jnp.ones(2))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x, obs_mask=known)


def test_parameters_that_do_not_matter_need_not_be_given():
    x, em = np.nan_to_num(X), EM(mixture)
    densities = dist.Normal(PARAMS["loc"], 1.0).log_prob(x[KNOWN, None])
    expected = jax.nn.logsumexp(densities + jnp.log(PARAMS["weights"]), 1).sum()
    np.testing.assert_allclose(em.log_likelihood(PARAMS, x, KNOWN), expected, rtol=1e-12)
    posterior = em.posterior(PARAMS, x, KNOWN)["z"]
    np.testing.assert_allclose(posterior[~KNOWN], [[0.6, 0.4]] * 2, rtol=1e-12)
    assert em.diagnose(PARAMS, x, KNOWN).counts["z"].sum() == pytest.approx(len(x))
    with pytest.raises(ValueError, match="params lacks 'weights'"):
        em.log_likelihood({"loc": PARAMS["loc"]}, x, KNOWN)


def test_parameters_that_only_a_prediction_reads_are_asked_for():
    def program():
        chance = numpyro.sample("chance", dist.Beta(2.0, 2.0))
        numpyro.sample("next", dist.Bernoulli(chance))
        numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1.0), obs=1.0)

    em = EM(program)
    with pytest.raises(ValueError, match="params lacks 'chance'"):
        em.posterior({"loc": 0.0})
    posterior = em.posterior({"loc": 0.0, "chance": 0.2})["next"]
    np.testing.assert_allclose(posterior, [0.8, 0.2], rtol=1e-12)
