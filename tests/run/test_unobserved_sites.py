"""What no observation depends on is not asked for, and is imputed."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
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


def test_missing_observations_are_imputed_by_their_means():
    x, em = np.nan_to_num(X), EM(mixture)
    posterior = em.posterior(PARAMS, x, KNOWN)
    imputed = posterior["x_unobserved"]
    assert imputed.shape == x.shape
    np.testing.assert_allclose(imputed, posterior["z"] @ PARAMS["loc"], rtol=1e-12)
    decoded = em.decode(PARAMS, x, KNOWN)
    assert list(decoded) == ["z"]
    hard = EM(mixture, e_step="hard").posterior(PARAMS, x, KNOWN)["x_unobserved"]
    np.testing.assert_allclose(hard, PARAMS["loc"][decoded["z"]], rtol=1e-12)


def test_missing_steps_of_a_chain_are_imputed_by_all_others():
    """Vectors, with a multiplicity."""
    loc = jnp.array([[-1.0, 0.0], [2.0, 1.0]])

    def chain(x, known):
        transition = jnp.array([[0.9, 0.1], [0.2, 0.8]])

        def step(state, x_known):
            x, known = x_known
            with numpyro.plate("copies", 1), numpyro.handlers.scale(scale=2.0):
                state = numpyro.sample("state", dist.Categorical(transition[state]))
                law = dist.MultivariateNormal(loc[state], jnp.eye(2))
                numpyro.sample("x", law, obs=x, obs_mask=known)
            return state, None

        scan(step, jnp.zeros(1, int), (x, known))

    x = np.array([[[-1.1, 0.2]], [[0.0, 0.0]], [[2.2, 0.9]], [[1.9, 1.2]]])
    known = np.array([[True], [False], [True], [False]])
    posterior = EM(chain).posterior({}, x, known)
    assert posterior["x_unobserved"].shape == x.shape
    np.testing.assert_allclose(posterior["x_unobserved"], posterior["state"] @ loc, rtol=1e-12)


def test_what_has_no_mean_is_not_a_number():
    def program(x, known):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Cauchy(1.0 * z, 1.0), obs=x, obs_mask=known)
            numpyro.sample("next", dist.Normal(z, 1.0))

    posterior = EM(program).posterior({}, np.array([0.3, 0.0]), np.array([True, False]))
    assert np.isnan(posterior["x_unobserved"]).all()
    np.testing.assert_allclose(posterior["next"], posterior["z"][:, 1], rtol=1e-12)
