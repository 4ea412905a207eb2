"""Draws of Gaussian latents have the moments of the joint normal, mixed over discrete latents."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.stats import multivariate_normal

from emjax import EM

NUM = 6400
GROUP, ITEM = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 1, 0, 1, 1, 0])
Y = np.array([0.3, -1.2, 2.0, 1.1, 0.4, -0.7])
X = np.array([0.5, -0.3, 1.2, 0.1, -1.0, 0.8])
IS_SEEN = np.array([True, True, True, False, True, True])
COVARIANCE = np.array([[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.0]]])
LOC = np.array([[-1.0, 0.2], [1.0, 0.5]])


def slopes_and_items(y):
    """Random slopes of groups, all of one of two kinds, crossed with effects of items."""
    kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.4, 0.6])))
    with numpyro.plate("groups", 2):
        normal = dist.MultivariateNormal(
            jnp.asarray(LOC)[kind], covariance_matrix=jnp.asarray(COVARIANCE)[kind]
        )
        slope = numpyro.sample("slope", normal)
    with numpyro.plate("items", 2):
        effect = numpyro.sample("effect", dist.Normal(0.1, 0.7))
    with numpyro.plate("rows", len(y)):
        location = slope[GROUP, 0] + X * slope[GROUP, 1] + effect[ITEM]
        numpyro.sample("y", dist.Normal(location, 0.5).mask(IS_SEEN), obs=y)


def joint_normals():
    """Return log p(y, kind), and the mean and covariance of (slope, effect), given each kind."""
    design = np.zeros((len(Y), 6))
    for n, (g, i, x) in enumerate(zip(GROUP, ITEM, X, strict=True)):
        design[n, 2 * g : 2 * g + 2] = 1, x
        design[n, 4 + i] = 1
    design, y, found = design[IS_SEEN], Y[IS_SEEN], []
    for kind, probability in enumerate([0.4, 0.6]):
        mean = np.concatenate([LOC[kind], LOC[kind], [0.1, 0.1]])
        prior = np.zeros((6, 6))
        prior[:4, :4] = np.kron(np.eye(2), COVARIANCE[kind])
        prior[4:, 4:] = 0.49 * np.eye(2)
        marginal = design @ prior @ design.T + 0.25 * np.eye(len(y))
        gain = prior @ design.T @ np.linalg.inv(marginal)
        log_p = multivariate_normal(design @ mean, marginal).logpdf(y) + np.log(probability)
        found.append((log_p, mean + gain @ (y - design @ mean), prior - gain @ design @ prior))
    return found


def test_draws_of_mixed_slopes_crossed_with_effects_are_of_the_joint_posterior():
    em = EM(slopes_and_items, integrate={"slope", "effect"})
    draws = em.sample_posterior(jax.random.key(3), {}, Y, num_samples=NUM)
    joint = np.concatenate([draws["slope"].reshape(NUM, 4), draws["effect"]], -1)
    normals = joint_normals()
    log_z = np.logaddexp.reduce([log_p for log_p, *_ in normals])
    for kind, (log_p, mean, covariance) in enumerate(normals):
        is_here = np.asarray(draws["kind"]) == kind
        probability = np.exp(log_p - log_z)
        assert 0.05 < probability < 0.95
        error = np.sqrt(probability * (1 - probability) / NUM)
        assert abs(is_here.mean() - probability) < 4 * error
        count = is_here.sum()
        residuals = joint[is_here] - mean
        variances = np.diag(covariance)
        limits = 4 * np.sqrt(variances / count) + 1e-9
        assert (abs(residuals.mean(0)) < limits).all()
        # the standard error of a product of normals
        spread = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
        assert (abs(residuals.T @ residuals / count - covariance) < 4.5 * spread + 1e-9).all()


def test_a_draw_is_the_same_whatever_is_drawn_beside_it():
    em = EM(slopes_and_items, integrate={"slope", "effect"})
    many = em.sample_posterior(jax.random.key(3), {}, Y, num_samples=20)
    few = em.sample_posterior(jax.random.key(3), {}, Y, num_samples=2)
    for name, values in few.items():
        np.testing.assert_allclose(values, many[name][:2], rtol=1e-9, atol=1e-12)


def weighed(y, weights):
    with numpyro.plate("rows", len(y)), handlers.scale(scale=weights):
        level = numpyro.sample("level", dist.Normal(0, 2.0))
        numpyro.sample("y", dist.Normal(level, 1.0), obs=y)


def test_a_draw_of_an_element_that_counts_several_times_is_of_one_of_its_copies():
    em = EM(weighed, integrate={"level"})
    draws = em.sample_posterior(jax.random.key(0), {}, Y, np.full(6, 3.0), num_samples=NUM)
    variance = 1 / (1 + 1 / 4)
    assert abs(draws["level"].var(0) / variance - 1).max() < 4 * np.sqrt(2 / NUM)
    assert abs(draws["level"].mean(0) - variance * Y).max() < 4 * np.sqrt(variance / NUM)


def nested(y, weights):
    level = numpyro.sample("level", dist.Normal(0, 2.0))
    with numpyro.plate("rows", len(y)), handlers.scale(scale=weights):
        effect = numpyro.sample("effect", dist.Normal(level, 1.0))
        numpyro.sample("y", dist.Normal(effect, 1.0), obs=y)


def test_draws_of_copies_within_one_element_are_refused():
    em = EM(nested, integrate={"level", "effect"})
    with pytest.raises(ValueError, match="'effect' count several times within each of 'level'"):
        em.sample_posterior(jax.random.key(0), {}, Y, np.full(6, 3.0))
