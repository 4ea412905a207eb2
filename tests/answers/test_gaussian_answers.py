"""What a fit of a program with Gaussian latents is asked, of data of lengths that are padded."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.handlers import block

import emjax
from emjax import EM

X = np.random.default_rng(0).normal(size=(21, 3)) + np.repeat([-3.0, 3.0], [9, 12])[:, None]
KEY = jax.random.key(0)


def mixture_of_factor_analyzers(x):
    weights = numpyro.param("weights", jnp.ones(2) / 2, constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([[-1.0, -1, -1], [1, 1, 1]]))
    loadings = numpyro.param("loadings", jnp.array([[1.0, 0.5, 0.2], [0.3, 1.0, -0.5]]))
    noise = numpyro.param("noise", jnp.ones(3), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample("component", dist.Categorical(weights))
        factor = numpyro.sample("factor", dist.Normal(0, 1))
        location = loc[component] + factor[:, None] * loadings[component]
        numpyro.sample("x", dist.Normal(location, noise).to_event(1), obs=x)


@pytest.fixture(scope="module")
def fit():
    return EM(mixture_of_factor_analyzers, integrate={"factor"}, max_steps=5).run(KEY, X)


def test_posterior_has_the_moments_of_each_component_and_no_padded_rows(fit):
    moments = fit.posterior()["factor"]
    loc, loadings, noise = (np.asarray(fit.params[name]) for name in ("loc", "loadings", "noise"))
    scaled = loadings / noise**2
    variance = 1 / (1 + (loadings * scaled).sum(-1))
    mean = variance * ((X[:, None] - loc) * scaled).sum(-1)
    np.testing.assert_allclose(moments["mean"], mean, rtol=1e-10, atol=1e-12)
    covariance = np.broadcast_to(variance, (21, 2))
    np.testing.assert_allclose(moments["covariance"], covariance, rtol=1e-10)


def test_what_is_exported_answers_as_the_fit_does(fit):
    for question, answer in (("posterior", fit.posterior()), ("decode", fit.decode())):
        served = fit.export(question).call(X)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), served, answer)


def test_a_saved_fit_integrates_what_it_integrated(fit, tmp_path):
    fit.save(tmp_path / "fit.emjax", data=True)
    loaded = emjax.load(tmp_path / "fit.emjax", mixture_of_factor_analyzers)
    assert loaded.log_likelihood_of(X) == fit.log_likelihood_of(X)
    with pytest.raises(ValueError, match=r"made with integrate=\['factor'\]"):
        emjax.load(tmp_path / "fit.emjax", EM(mixture_of_factor_analyzers))


@pytest.mark.parametrize("setting", [{"e_step": "hard"}, {"e_step": 1.5}, {"annealing": [2.0]}])
def test_powers_of_posteriors_are_refused_beside_integrals(setting):
    with pytest.raises(ValueError, match=r"raises posteriors to a power, .* integrate={'factor'}"):
        EM(mixture_of_factor_analyzers, integrate={"factor"}, **setting)


def masked_mixture(x, is_known):
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample("component", dist.Categorical(jnp.array([0.3, 0.7])))
        factor = numpyro.sample("factor", dist.Normal(0, 1))
        loc = jnp.array([-1.0, 1.0])[component] + jnp.array([0.5, 2.0])[component] * factor
        numpyro.deterministic("loc", loc)
        numpyro.deterministic("square", factor**2)
        numpyro.sample("x", dist.Normal(loc, 0.4).mask(is_known), obs=x)


def test_what_is_computed_and_missing_is_expected_over_both_kinds_of_latents():
    x, is_known = np.array([0.3, -1.5, 2.0, 9.0]), np.array([True, True, True, False])
    fit = EM(block(masked_mixture, hide=["square"]), integrate={"factor"}).run(KEY, x, is_known)
    loc, loadings = np.array([-1.0, 1.0]), np.array([0.5, 2.0])
    variance = loadings**2 + 0.16
    residual = x[:, None] - loc
    weights = np.array([0.3, 0.7]) * np.exp(-(residual**2) / 2 / variance) / np.sqrt(variance)
    weights = weights / weights.sum(-1, keepdims=True)
    expected = (weights * (loc + loadings**2 / variance * residual)).sum(-1)
    expected[3] = 0.3 * -1 + 0.7
    np.testing.assert_allclose(fit.deterministic()["loc"], expected, rtol=1e-10)
    imputed = np.where(is_known, x, expected)
    np.testing.assert_allclose(fit.impute()["x"], imputed, rtol=1e-10)


def test_what_is_not_affine_in_a_gaussian_latent_has_no_expectation():
    fit = EM(masked_mixture, integrate={"factor"}).run(KEY, X[:4, 0], np.ones(4, bool))
    with pytest.raises(ValueError, match=r"'square' is not affine .* fit.sample_posterior"):
        fit.deterministic()
