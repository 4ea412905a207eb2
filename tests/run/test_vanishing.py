"""Variances that go to zero though the likelihood stays bounded, and those that collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, Status
from emjax.certificates.estimate import Estimate
from emjax.families.conjugate import COVARIANCE, PRECISION, SCALE_TRIL
from emjax.run.vanishing import Variance

POSITIVE = constraints.positive
GROUPS, ROWS, COLUMNS = 6, 60, 3
GROUP = np.repeat(np.arange(GROUPS), ROWS // GROUPS)
NUMBERS = np.random.default_rng(4)
NOISE = NUMBERS.normal(size=ROWS)
MEANS = np.array([NOISE[g == GROUP].mean() for g in range(GROUPS)])
CENTERED = NUMBERS.normal(size=(ROWS, COLUMNS))
CENTERED -= CENTERED.mean(0)
# uncorrelated to the last digit
WHITE = CENTERED @ np.linalg.inv(np.linalg.cholesky(CENTERED.T @ CENTERED / ROWS)).T


def kinds_of(result):
    return [finding.kind for finding in result.findings]


def intercepts(y):
    scale = numpyro.param("between", 1.0, constraint=POSITIVE)
    within = numpyro.param("within", 1.0, constraint=POSITIVE)
    with numpyro.plate("groups", GROUPS):
        intercept = numpyro.sample("intercept", dist.Normal(0.0, scale))
    with numpyro.plate("rows", ROWS):
        numpyro.sample("y", dist.Normal(intercept[GROUP], within), obs=y)


def factors(x):
    mean = numpyro.param("mean", jnp.zeros(COLUMNS))
    loadings = numpyro.param("loadings", jnp.ones((COLUMNS, 1)))
    noise = numpyro.param("noise", jnp.ones(COLUMNS), constraint=POSITIVE)
    with numpyro.plate("rows", ROWS):
        factor = numpyro.sample("factor", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        numpyro.sample("x", dist.Normal(mean + factor @ loadings.T, noise).to_event(1), obs=x)


@pytest.mark.parametrize(("part", "is_zero"), [(0.9, True), (-1.0, False)])
def test_a_variance_component_that_goes_to_zero_is_on_the_boundary(part, is_zero):
    y = jnp.asarray(NOISE - part * MEANS[GROUP])
    em = EM(intercepts, integrate={"intercept"}, acceleration="anderson")
    result = em.run(jax.random.key(0), y)
    assert result.status == Status.CONVERGED
    assert kinds_of(result) == (["variance of zero"] if is_zero else [])
    if is_zero:
        assert result.findings[0].site == "between"
        assert "a variance of 'intercept'" in str(result.findings[0])
        without = -ROWS / 2 * (np.log(2 * np.pi * np.mean(y**2)) + 1)
        assert abs(result.log_likelihood - without) < 1e-3
    # certificates and standard errors are about what is free
    free = Estimate.of(em.on(y), result.params).chart
    assert free.names == (("log within",) if is_zero else ("log between", "log within"))
    assert free.on_boundary["between"] == is_zero


@pytest.mark.parametrize(("with_first", "is_heywood"), [(0.8, True), (0.6, False)])
def test_noise_that_a_factor_leaves_none_of_is_a_heywood_case(with_first, is_heywood):
    """One factor of three columns explains r₁₂ r₁₃ / r₂₃ of the first: here 1.28, or 0.72."""
    correlations = np.array(
        [[1, with_first, with_first], [with_first, 1, 0.5], [with_first, 0.5, 1]]
    )
    x = jnp.asarray(WHITE @ np.linalg.cholesky(correlations).T)
    em = EM(factors, integrate={"factor"}, acceleration="anderson", tol=1e-8)
    result = em.run(jax.random.key(0), x)
    assert kinds_of(result) == (["variance of zero"] if is_heywood else [])
    if is_heywood:
        (finding,) = result.findings
        assert (finding.site, finding.where) == ("noise", "[0]")
        assert "Heywood" in str(finding)
    else:
        np.testing.assert_allclose(result.params["noise"][0] ** 2, 0.28, rtol=1e-3)


@pytest.mark.parametrize("columns", [1, 2])
def test_noise_of_more_columns_than_factors_explain_has_collapsed(columns):
    """Two columns that are one number have a likelihood without bound; one that is a factor's has
    not.
    """
    x = np.array(WHITE)
    x[:, 1] = x[:, 0]
    params = {
        "mean": jnp.zeros(COLUMNS),
        "loadings": jnp.ones((COLUMNS, 1)),
        "noise": jnp.ones(COLUMNS).at[:columns].set(1e-6),
    }
    diagnosis = EM(factors, integrate={"factor"}).diagnose(params, jnp.asarray(x))
    assert ("collapse" in diagnosis.reason) == (columns > 1)


@pytest.mark.parametrize("conjugacy", [COVARIANCE, PRECISION, SCALE_TRIL])
def test_a_covariance_is_moved_where_its_correlations_have_the_least_variance(conjugacy):
    unit = np.array([1.0, 100.0])
    covariance = np.array([[1.0, 0.99], [0.99, 1.0]]) * unit * unit[:, None]
    given = {COVARIANCE: np.asarray, PRECISION: np.linalg.inv, SCALE_TRIL: np.linalg.cholesky}
    back = {COVARIANCE: np.asarray, PRECISION: np.linalg.inv, SCALE_TRIL: lambda c: c @ c.T}
    value = np.stack([given[conjugacy](np.eye(2)), given[conjugacy](covariance)])
    variance = Variance("sigma", conjugacy, ("b",), ("b",))
    moved = variance.nearer(value, (1,))
    np.testing.assert_array_equal(moved[0], value[0])
    found = back[conjugacy](moved[1]) / (unit * unit[:, None])
    np.testing.assert_allclose(np.linalg.eigvalsh(found), [1e-4, 1.99], rtol=1e-6)
