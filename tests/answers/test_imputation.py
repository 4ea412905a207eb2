"""What data lack, and what a program computes: expectations in closed form, and draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from scipy.stats import binom, norm, poisson

from emjax import EM, EMResult, Status
from emjax.distributions import PartiallyObserved, Select
from emjax.fit import Fit
from tests.oracles.brute_force import joint_table

KEY = jax.random.key(2)
NUM_DRAWS = 3000
NUMBERS = np.random.default_rng(15)


def fit_at(params, model, *args):
    """Return a fit that is not one: a program at parameters that are given."""
    em = EM(model)
    result = EMResult(params, jnp.zeros(()), np.zeros(1), 0, Status.CONVERGED)
    return Fit.of(em, em.on(*args), result)


def assert_means(draws, expected, deviation):
    """The means of draws are within five standard errors of what is expected."""
    error = np.abs(np.asarray(draws).mean(0) - expected)
    assert (error < 5 * deviation / np.sqrt(NUM_DRAWS)).all(), error


LOC, COVARIANCE = np.array([[-1.0, 0.0], [1.0, 2.0]]), np.array([[2.0, 0.5], [0.5, 1.0]])
POINTS = np.array([[1.0, 2.0], [np.nan, 2.5], [-1.5, np.nan], [np.nan, np.nan]])


def mixture(x):
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        whole = dist.MultivariateNormal(loc[z], COVARIANCE)
        numpyro.sample("x", PartiallyObserved(whole, observed=~jnp.isnan(x)), obs=x)
    numpyro.deterministic("twice", 2 * loc)


def test_missing_coordinates_are_conditional_normals_mixed_over_the_posterior():
    fit = fit_at({"loc": jnp.array(LOC)}, mixture, jnp.array(POINTS))
    means, deviations = POINTS.copy(), np.ones(POINTS.shape)
    for row, lacks, known in ((1, 0, 1), (2, 1, 0)):
        weights = [0.3, 0.7] * norm.pdf(
            POINTS[row, known], LOC[:, known], COVARIANCE[known, known] ** 0.5
        )
        slope = COVARIANCE[0, 1] / COVARIANCE[known, known]
        given = LOC[:, lacks] + slope * (POINTS[row, known] - LOC[:, known])
        means[row, lacks] = weights @ given / weights.sum()
        within = COVARIANCE[lacks, lacks] - slope * COVARIANCE[0, 1]
        between = weights @ given**2 / weights.sum() - means[row, lacks] ** 2
        deviations[row, lacks] = (within + between) ** 0.5
    means[3] = [0.3, 0.7] @ LOC
    deviations[3] = 2.0
    np.testing.assert_allclose(fit.impute()["x"], means, rtol=1e-12)
    draws = fit.impute(rng_key=KEY, num_samples=NUM_DRAWS)["x"]
    assert_means(draws, means, deviations)
    np.testing.assert_allclose(draws.std(0)[[1, 2], [0, 1]], deviations[[1, 2], [0, 1]], rtol=0.06)
    kept = ~np.isnan(POINTS)
    np.testing.assert_array_equal(draws[:, kept], np.broadcast_to(POINTS[kept], (NUM_DRAWS, 4)))
    # rows of which nothing is known have the correlation of the mixture
    spread = COVARIANCE + 0.21 * np.outer(LOC[1] - LOC[0], LOC[1] - LOC[0])
    np.testing.assert_allclose(np.cov(draws[:, 3].T), spread, rtol=0.1)
    np.testing.assert_allclose(fit.deterministic()["twice"], 2 * LOC)


X, KNOWN = jnp.array([-1.0, 0.3, 1.2, 4.0]), jnp.array([True, False, True, False])
COUNTS = jnp.array([0, 2, 1, 5])


def three_kinds(x, counts, known):
    with numpyro.plate("rows", 4):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Normal(3.0 * z - 1, 1.0), obs=x, obs_mask=known)
        chance = jnp.array([0.2, 0.8])[z]
        numpyro.sample("many", dist.Poisson(4 * chance).mask(~known), obs=counts)
        with handlers.mask(mask=jnp.array([True, False, True, True])):
            numpyro.sample("few", dist.Binomial(2, chance), obs=jnp.minimum(counts, 2))
        either = Select(z, [dist.Normal(0.0, 1.0), dist.Exponential(0.5)])
        numpyro.sample("none", either.mask(False), obs=x)


def test_masked_sites_are_filled_in_by_means_and_by_most_probable_values():
    fit = fit_at({}, three_kinds, X, COUNTS, KNOWN)
    weights = np.array([0.4, 0.6]) * np.where(KNOWN[:, None], norm.pdf(X[:, None], [-1, 2]), 1)
    weights *= np.where(KNOWN[:, None], 1, poisson.pmf(COUNTS[:, None], [0.8, 3.2]))
    few = np.minimum(COUNTS, 2)
    weights *= np.where([[1], [0], [1], [1]], binom.pmf(few[:, None], 2, [0.2, 0.8]), 1)
    weights /= weights.sum(1, keepdims=True)
    x = np.where(KNOWN, X, weights @ [-1, 2])
    many = np.where(KNOWN, weights @ [0.8, 3.2], COUNTS)
    chances = weights[1] @ binom.pmf(np.arange(3), 2, [[0.2], [0.8]])
    found = fit.impute()
    assert set(found) == {"x", "many", "few", "none"}
    np.testing.assert_allclose(found["x"], x, rtol=1e-12)
    np.testing.assert_allclose(found["many"], many, rtol=1e-12)
    np.testing.assert_allclose(found["none"], weights @ [0, 2], rtol=1e-12)
    np.testing.assert_array_equal(
        found["few"], np.where(np.arange(4) == 1, np.argmax(chances), few)
    )
    draws = fit.impute(rng_key=KEY, num_samples=NUM_DRAWS)
    assert_means(draws["x"], x, 2.0)
    assert_means(draws["many"], many, 2.0)
    assert_means(draws["none"], weights @ [0, 2], 2.0)
    often = [(draws["few"][:, 1] == value) for value in range(3)]
    assert_means(np.stack(often, 1), chances, 0.5)
    one = fit.impute(rng_key=KEY)
    assert one["x"].shape == (4,) and one["few"].dtype == draws["few"].dtype == COUNTS.dtype


TRANSITION = jnp.array([[0.9, 0.1], [0.3, 0.7]])
SERIES, SEEN = jnp.array(NUMBERS.normal(size=(4, 2))), jnp.array(NUMBERS.random((4, 2)) > 0.4)


def backward(x, seen, is_masked=False):
    """A chain that runs from the last of its data to the first; what is missing, in two ways."""
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))

    def step(before, inputs):
        value, is_seen = inputs
        with numpyro.plate("sequences", 2):
            z = numpyro.sample("z", dist.Categorical(TRANSITION[before]))
            law = dist.Normal(loc[z], 1.0)
            if is_masked:
                numpyro.sample("x", law.mask(is_seen), obs=value)
            else:
                numpyro.sample("x", law, obs=value, obs_mask=is_seen)
        numpyro.deterministic("stays", 1.0 * (z == before))
        return z, None

    scan(step, jnp.zeros(2, int), (x, seen), reverse=True)


def test_a_chain_that_runs_backward_is_filled_in_where_it_lacks_data():
    params = {"loc": jnp.array([-1.0, 2.0])}
    fit = fit_at(params, backward, SERIES, SEEN)
    table = joint_table(backward, params, SERIES, SEEN, True)
    expected = np.where(SEEN, SERIES, table.posterior["z"] @ params["loc"])
    np.testing.assert_allclose(fit.impute()["x"], expected, rtol=1e-10)
    unobserved = fit.posterior()["x_unobserved"]
    np.testing.assert_allclose(unobserved, table.posterior["z"] @ params["loc"], rtol=1e-10)
    z = np.concatenate([table.index["z"], 0 * table.index["z"][:, :1]], 1)
    stays = np.tensordot(table.probability, z[:, 1:] == z[:, :-1], 1)
    np.testing.assert_allclose(fit.deterministic()["stays"], stays, rtol=1e-10)
    draws = fit.impute(rng_key=KEY, num_samples=NUM_DRAWS)["x"]
    assert_means(draws, expected, 2.0)


def test_what_has_no_expectation_says_what_to_do():
    def program(x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        numpyro.deterministic("total", z.sum())

    few, many = fit_at({}, program, X), fit_at({}, program, jnp.zeros(50))
    expected = few.posterior()["z"][:, 1].sum()
    np.testing.assert_allclose(few.deterministic()["total"], expected, rtol=1e-12)
    with pytest.raises(MemoryError, match=r"total.*fit\.sample_posterior"):
        many.deterministic()
    with pytest.raises(ValueError, match="State what is missing"):
        few.impute()
    with pytest.raises(ValueError, match="rng_key is a random key"):
        few.impute(num_samples=3)


def partly_seen(x, known):
    loc = numpyro.param("loc", jnp.array([-1.0, 2.0]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x, obs_mask=known)


def test_what_data_lacked_is_no_parameter_of_other_data():
    """The fit has an `x_unobserved` for each of the rows that were fitted."""
    fit = EM(partly_seen).run(jax.random.key(0), X, KNOWN)
    x, known = np.array([0.5, 1.5]), np.array([False, True])
    loc = np.asarray(fit.params["loc"])
    weights = np.array([0.4, 0.6]) * np.where(known[:, None], norm.pdf(x[:, None], loc), 1)
    weights /= weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(fit.posterior(x, known)["z"], weights, rtol=1e-10)
    expected = np.where(known, x, weights @ loc)
    np.testing.assert_allclose(fit.impute(x, known)["x"], expected, rtol=1e-10)
