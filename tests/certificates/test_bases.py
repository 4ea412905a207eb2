"""Rotations of factors are named, spoil no other standard error, and count as no parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import multivariate_normal
from numpyro.distributions import constraints

import emjax
from emjax import EM
from emjax.certificates.bases import bases_at
from emjax.certificates.estimate import Estimate

RNG = np.random.default_rng(5)
LOADINGS = np.array([[1.0, 0.3], [-0.8, 0.9], [0.5, -1.2], [1.1, 0.4], [0.2, 1.0]])
X = RNG.normal(size=(60, 2)) @ LOADINGS.T * 1.5 + RNG.normal(size=(60, 5))
KEY = jax.random.key(0)


def factor_analysis(x, covariance=None):
    loadings = numpyro.param("loadings", jnp.asarray(LOADINGS))
    mean = numpyro.param("mean", jnp.zeros(5))
    noise = numpyro.param("noise", jnp.ones(5), constraint=constraints.positive)
    if covariance is None:
        covariance = numpyro.param("S", jnp.eye(2), constraint=constraints.positive_definite)
    with numpyro.plate("samples", len(x)):
        normal = dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=covariance)
        factor = numpyro.sample("factor", normal)
        numpyro.sample("x", dist.Normal(mean + factor @ loadings.T, noise).to_event(1), obs=x)


@pytest.fixture(scope="module")
def fit():
    em = EM(factor_analysis, integrate={"factor"}, acceleration="anderson")
    return em.run(KEY, X, np.eye(2))


def parts(u):
    return u[:10].reshape(5, 2), u[10:15], jnp.exp(u[15:])


def covariance_of(loadings, noise):
    return loadings @ loadings.T + jnp.diag(noise**2)


def log_likelihood(u):
    loadings, mean, noise = parts(u)
    return multivariate_normal.logpdf(jnp.asarray(X), mean, covariance_of(loadings, noise)).sum()


@pytest.mark.usefixtures("mostly_by_numpy")
def test_standard_errors_of_what_is_identified_are_those_of_the_marginal_normal(fit):
    p = fit.params
    u = jnp.concatenate([p["loadings"].ravel(), p["mean"], jnp.log(p["noise"])])
    values, vectors = np.linalg.eigh(-jax.jit(jax.hessian(log_likelihood))(u))
    # the first is the rotation's
    inverse = vectors[:, 1:] / values[1:] @ vectors[:, 1:].T
    errors = emjax.standard_errors(fit)
    np.testing.assert_allclose(
        errors.standard_error["mean"], np.sqrt(np.diag(inverse)[10:15]), rtol=1e-6
    )
    assert np.isnan(errors.standard_error["loadings"]).all()
    assert "depends on the basis" in str(errors)

    def function(loadings, _, noise):
        return covariance_of(loadings, noise)

    slopes = jax.jit(jax.jacfwd(lambda u: function(*parts(u))))(u)
    expected = np.sqrt(np.einsum("ijk,kl,ijl->ij", slopes, inverse, slopes))
    value, error = errors.of_function(jax.jit(lambda p: covariance_of(p["loadings"], p["noise"])))
    np.testing.assert_allclose(value, covariance_of(p["loadings"], p["noise"]), rtol=1e-12)
    np.testing.assert_allclose(error, expected, rtol=1e-6)
    assert np.isnan(errors.of_function(lambda p: p["loadings"][0])[1]).all()


@pytest.mark.usefixtures("mostly_by_numpy")
def test_a_diagnosis_and_criteria_know_of_the_rotation(fit):
    diagnosis = fit.diagnose()
    assert diagnosis.verdict == "local maximum"
    assert "a change of the basis of 'factor', a rotation say, leaves a direction open" in str(
        diagnosis
    )
    # a step of EM leaves the rotation as it is, and nothing else
    assert diagnosis.rate < 0.999
    assert emjax.criteria(fit).num_free_parameters == 10 + 5 + 5 - 1


def test_refits_say_nothing_of_what_turns(fit):
    errors = emjax.standard_errors(fit, method="bootstrap", num_draws=3, rng_key=KEY)
    assert np.isnan(errors.standard_error["loadings"]).all()
    assert (errors.standard_error["mean"] > 0).all()


@pytest.mark.parametrize(
    ("covariance", "count"), [(np.eye(2), 1), (np.diag([1.0, 2.0]), 1), (None, 4)]
)
def test_changes_of_basis_are_those_that_parameters_make_up_for(covariance, count):
    em = EM(factor_analysis, integrate={"factor"})
    params = {"loadings": LOADINGS, "mean": np.zeros(5), "noise": np.ones(5)}
    if covariance is None:
        params["S"] = np.array([[1.0, 0.3], [0.3, 0.7]])
    bases = bases_at(Estimate.of(em.on(X, covariance), params))
    assert (bases.count, bases.latents) == (count, ("factor",))


def test_what_a_basis_leaves_open_depends_on_no_unit():
    group = jnp.repeat(jnp.arange(3), 2)

    def intercepts(y):
        between = numpyro.param("between", 1.0, constraint=constraints.positive)
        with numpyro.plate("groups", 3):
            effect = numpyro.sample("effect", dist.Normal(0, between))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(effect[group], 1), obs=y)

    em = EM(intercepts, integrate={"effect"})
    # a variance of hundreds beside the coefficient, which is 1
    params = {"between": np.asarray(30.0)}
    assert bases_at(Estimate.of(em.on(jnp.arange(6.0)), params)).count == 0
