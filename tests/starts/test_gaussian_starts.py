"""Starts of programs with Gaussian latents: EM never leaves one where these explain nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM

RNG = np.random.default_rng(1)
IS_SECOND = np.arange(18) >= 8
X = np.where(IS_SECOND, 5.0, -5.0)[:, None] + RNG.normal(size=(18, 1)) * [1.0, -1, 2]
X = X + 0.1 * RNG.normal(size=(18, 3))
KEY = jax.random.key(0)


def factor_analysis(x):
    loadings = numpyro.param("loadings", jnp.zeros(3))
    loc = numpyro.param("loc", jnp.zeros(3))
    noise = numpyro.param("noise", jnp.ones(3), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)):
        factor = numpyro.sample("factor", dist.Normal(0, 1))
        location = loc + factor[:, None] * loadings
        numpyro.sample("x", dist.Normal(location, noise).to_event(1), obs=x)


def mixture(x):
    loadings = numpyro.param("loadings", jnp.zeros((2, 3)))
    loc = numpyro.param("loc", jnp.zeros((2, 3)))
    noise = numpyro.param("noise", jnp.ones(3), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample("component", dist.Categorical(jnp.ones(2) / 2))
        factor = numpyro.sample("factor", dist.Normal(0, 1))
        location = loc[component] + factor[:, None] * loadings[component]
        numpyro.sample("x", dist.Normal(location, noise).to_event(1), obs=x)


@pytest.mark.parametrize("init", ["responsibilities", "subsets"])
def test_starts_draw_the_factors_and_leave_loadings_of_zero(init):
    bound = EM(factor_analysis, integrate={"factor"}, init=init).on(X)
    one, other = (bound.init(jax.random.key(n)).params["loadings"] for n in range(2))
    assert (abs(one) > 0.01).all()
    assert abs(one - other).max() > 0.01


def test_restarts_of_a_program_without_discrete_latents_differ():
    em = EM(factor_analysis, integrate={"factor"}, num_restarts=3, max_steps=30)
    fit = em.run(KEY, X)
    # the program's own start is the saddle, which the others leave
    assert fit.log_likelihood > fit.restarts.objective[0] + 10
    assert not any(finding.kind == "identical starts" for finding in fit.findings)


def test_k_means_sets_locations_beside_loadings():
    state = EM(mixture, integrate={"factor"}, init="k-means").on(X).init(KEY)
    loc = np.asarray(state.params["loc"])
    means = np.stack([X[IS_SECOND].mean(0), X[~IS_SECOND].mean(0)])
    assert abs(loc[np.argsort(-loc[:, 0])] - means).max() < 2
    assert (abs(np.asarray(state.params["loadings"])) > 1e-3).any()


def test_coefficients_of_zero_are_a_finding():
    em = EM(factor_analysis, integrate={"factor"}, max_steps=100)
    (finding,) = em.run(KEY, X).findings
    assert (finding.kind, finding.site) == ("saddle", "factor")
    elsewhere = em.run(KEY, X, init_params={"loadings": np.ones(3)})
    assert not any(finding.kind == "saddle" for finding in elsewhere.findings)
