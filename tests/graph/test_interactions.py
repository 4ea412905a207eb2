"""Rows that are condensed, or added up by element, once, against the dense marginal normal."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from scipy.stats import multivariate_normal

from emjax import EM
from emjax.e_step.instance import instance_of
from emjax.e_step.interactions import conditional_of
from emjax.graph.condensed import FEWEST_ROWS

RNG = np.random.default_rng(0)


def two_blocks(x, y, loadings, by_y):
    """Two sites that read one latent of each row, whose mean is not zero."""
    mean = numpyro.param("mean", jnp.array([0.3, -0.2]))
    covariance = numpyro.param(
        "covariance", jnp.array([[1.0, 0.3], [0.3, 0.5]]), constraint=constraints.positive_definite
    )
    noise = numpyro.param("noise", jnp.full(3, 0.7), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        f = numpyro.sample("f", dist.MultivariateNormal(mean, covariance))
        numpyro.sample("x", dist.Normal(0.5 + f @ loadings, noise).to_event(1), obs=x)
        numpyro.sample("y", dist.Normal(f @ by_y, 1.0), obs=y)


def test_few_condensed_rows_are_as_good_as_all():
    size = FEWEST_ROWS
    x, y = RNG.normal(2.0, 1.0, (size, 3)), RNG.normal(size=size)
    loadings, by_y = RNG.normal(size=(2, 3)), RNG.normal(size=2)
    em = EM(two_blocks, integrate={"f"}, max_steps=1)
    bound = em.on(x, y, loadings, by_y)
    graph = bound.compiled.graph
    assert graph.condensed.shapes == {"f": (5,)}
    params = {
        "mean": jnp.array([0.3, -0.2]),
        "covariance": jnp.array([[1.0, 0.3], [0.3, 0.5]]),
        "noise": jnp.full(3, 0.7),
    }
    design = np.concatenate([loadings, by_y[:, None]], 1)
    covariance = design.T @ params["covariance"] @ design + np.diag([0.49, 0.49, 0.49, 1.0])
    center = params["mean"] @ design + np.array([0.5, 0.5, 0.5, 0])
    both = np.concatenate([x, y[:, None]], 1)
    expected = multivariate_normal(center, covariance).logpdf(both).sum()
    np.testing.assert_allclose(bound.log_likelihood(params), expected, rtol=1e-12)
    # a step by hand: the moments of all rows
    gain = np.asarray(params["covariance"]) @ design @ np.linalg.inv(covariance)
    means = np.asarray(params["mean"]) + (both - np.asarray(center)) @ gain.T
    left = np.asarray(params["covariance"]) - gain @ design.T @ np.asarray(params["covariance"])
    after = em.update(em.init(jax.random.key(0), x, y, loadings, by_y), x, y, loadings, by_y)[0]
    np.testing.assert_allclose(after.params["mean"], means.mean(0), rtol=1e-11)
    spread = np.cov(means.T, bias=True) + left
    np.testing.assert_allclose(after.params["covariance"], spread, rtol=1e-11)
    residual = x - 0.5 - means @ loadings
    variance = (residual**2).mean(0) + np.diag(loadings.T @ left @ loadings)
    np.testing.assert_allclose(after.params["noise"], np.sqrt(variance), rtol=1e-11)
    # what is asked of single rows is of all of them
    np.testing.assert_allclose(bound.posterior(params)["f"]["mean"], means, rtol=1e-11)


def one_factor(x):
    scale = numpyro.param("scale", jnp.array(0.7), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        f = numpyro.sample("f", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(f, scale), obs=x)


def test_a_step_on_condensed_rows_is_as_little_work_as_they_are_and_a_mean_of_zero_is_known():
    bound = EM(one_factor, integrate={"f"}).on(RNG.normal(size=FEWEST_ROWS))
    pieces, graph = bound._runner.pieces, bound.compiled.graph
    # or runs on many rows would be in pieces, and hand on all rows from one to the next
    assert pieces._work < 50
    means = []

    def means_of(params, data):
        instance = instance_of(graph, graph.arrays(params, graph.prepare(data)))
        term = next(t for t in instance.terms if t.reads and t.site.is_integrated)
        means.append(conditional_of(term, instance.gaussians["f"]).mean.array)
        return 0

    jax.eval_shape(means_of, {"scale": jnp.array(0.7)}, bound.data)
    assert isinstance(means[0], np.ndarray) and not means[0].any()


def slopes(y, x, z, group, num_groups):
    beta = numpyro.param("beta", jnp.array([0.3, 0.4]))
    sigma = numpyro.param("sigma", 0.8, constraint=constraints.positive)
    covariance = numpyro.param(
        "covariance", jnp.array([[1.0, 0.2], [0.2, 0.5]]), constraint=constraints.positive_definite
    )
    with numpyro.plate("groups", num_groups):
        b = numpyro.sample("b", dist.MultivariateNormal(jnp.zeros(2), covariance))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(x @ beta + (z * b[group]).sum(-1), sigma), obs=y)


def test_coefficients_that_are_data_are_added_up_by_group():
    size, num_groups = 12, 3
    group, x = RNG.integers(0, num_groups, size), RNG.normal(size=(size, 2))
    z, y = np.stack([np.ones(size), x[:, 0]], 1), RNG.normal(size=size)
    bound = EM(slopes, integrate={"b"}).on(y, x, z, group, num_groups)
    observed = [term for term in bound.compiled.graph.terms if term.reads and term.site.is_observed]
    # z y and z zᵀ by group once; z x β by row, in every step
    assert [term.elements for term in observed] == [(num_groups,), (size,)]
    params = {
        "beta": jnp.array([0.3, 0.4]),
        "sigma": jnp.asarray(0.8),
        "covariance": jnp.array([[1.0, 0.2], [0.2, 0.5]]),
    }
    design = np.zeros((size, 2 * num_groups))
    for i in range(size):
        design[i, 2 * group[i] : 2 * group[i] + 2] = z[i]
    of_groups = np.kron(np.eye(num_groups), params["covariance"])
    covariance = design @ of_groups @ design.T + 0.64 * np.eye(size)
    expected = multivariate_normal(x @ params["beta"], covariance).logpdf(y)
    np.testing.assert_allclose(bound.log_likelihood(params), expected, rtol=1e-12)


def test_rows_of_a_mixed_model_are_added_up_by_group():
    size, num_groups = 1000, 300
    group, x = RNG.integers(0, num_groups, size), RNG.normal(size=(size, 2)) + [1e5, 0]
    z, y = np.stack([np.ones(size), x[:, 1]], 1), RNG.normal(size=size) + 1e5
    em = EM(slopes, integrate={"b"}, max_steps=1)
    bound = em.on(y, x, z, group, num_groups)
    observed = [term for term in bound.compiled.graph.terms if term.site.is_observed]
    sizes = [term.statistics.formed(term.elements)[0].value.array.shape for term in observed]
    assert sizes == [(1,), (num_groups, 2)]
    params = {
        "beta": jnp.array([0.9, 0.4]),
        "sigma": jnp.asarray(0.8),
        "covariance": jnp.array([[1.0, 0.2], [0.2, 0.5]]),
    }
    expected, means, spreads = 0.0, np.zeros((num_groups, 2)), np.zeros((num_groups, 2, 2))
    for number in range(num_groups):
        rows = group == number
        covariance = z[rows] @ params["covariance"] @ z[rows].T + 0.64 * np.eye(rows.sum())
        residual = y[rows] - x[rows] @ params["beta"]
        gain = np.asarray(params["covariance"]) @ z[rows].T @ np.linalg.inv(covariance)
        means[number] = gain @ residual
        spreads[number] = params["covariance"] - gain @ z[rows] @ params["covariance"]
        if rows.any():
            expected += multivariate_normal(np.zeros(rows.sum()), covariance).logpdf(residual)
    np.testing.assert_allclose(bound.log_likelihood(params), expected, rtol=1e-10)
    state = em.init(jax.random.key(0), y, x, z, group, num_groups)
    after = em.update(eqx.tree_at(lambda s: s.params, state, params), y, x, z, group, num_groups)[
        0
    ].params
    left = y - (z * means[group]).sum(1)
    beta = np.linalg.lstsq(x, left)[0]
    np.testing.assert_allclose(after["beta"], beta, rtol=1e-9)
    spread = np.einsum("ni,nij,nj->n", z, spreads[group], z)
    sigma = np.sqrt(((left - x @ beta) ** 2 + spread).mean())
    np.testing.assert_allclose(after["sigma"], sigma, rtol=1e-9)


def read_at_two_steps(x, y):
    """The first step reads its own state alone; others read x times the one before it, too."""
    w = numpyro.param("w", 1.0)

    def step(before, now):
        f = numpyro.sample("f", dist.Normal(0.9 * before, 1.0))
        numpyro.sample("y", dist.Normal(now[0] * before + w * f, 0.5), obs=now[1])
        return f, None

    scan(step, jnp.zeros(()), (x, y))


def test_coefficients_of_the_first_step_are_not_those_of_the_others():
    """What is estimated at the first step is not among the data because it is so later."""
    x, y = RNG.normal(size=(2, 5))
    graph = EM(read_at_two_steps, integrate={"f"}).on(x, y).compiled.graph
    estimated = []
    for term in graph.terms:
        if term.site.name == "y" and term.reads:
            estimated.append({i for product in term.products for i in product.estimated})
    assert estimated == [{0}, {1}]
