"""What is computed of Gaussian latents, and what data lack under them, by expectations."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from emjax import EM

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3))
X[1, 0] = X[2, 1] = X[2, 2] = np.nan
LOADINGS, WEIGHTS = RNG.normal(size=(2, 3, 1)), np.array([0.3, 0.7])
OBSERVED = ~np.isnan(X)


def program(x, computed):
    """A mixture of factor analyzers whose cells may be missing."""
    mean = numpyro.param("mean", jnp.ones(3))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(WEIGHTS))
        factor = numpyro.sample("factor", dist.Normal(0, 1).expand([1]).to_event(1))
        numpyro.deterministic("computed", computed(z, factor))
        location = mean + jnp.einsum("ndk,nk->nd", jnp.asarray(LOADINGS)[z], factor)
        law = dist.Normal(location, 0.5).mask(OBSERVED).to_event(1)
        numpyro.sample("x", law, obs=jnp.nan_to_num(x))


def by_the_joint_normal(row, observed):
    """Return E[x], and E[2 factor + 1{z = 1}], given what is observed of a row."""
    log_density, cells, computed = [], [], []
    for loadings in LOADINGS:
        covariance = loadings @ loadings.T + 0.25 * np.eye(3)
        of_observed = covariance[np.ix_(observed, observed)]
        normal = dist.MultivariateNormal(jnp.ones(observed.sum()), covariance_matrix=of_observed)
        log_density.append(np.log(WEIGHTS[len(cells)]) + float(normal.log_prob(row[observed])))
        solved = np.linalg.solve(of_observed, row[observed] - 1)
        cells.append(1 + covariance[:, observed] @ solved)
        computed.append(2 * loadings[observed, 0] @ solved + len(computed))
    weights = np.exp(log_density - np.logaddexp(*log_density))
    return weights @ np.array(cells), weights @ np.array(computed)


def test_expectations_are_those_of_the_joint_normal():
    fit = EM(program, integrate={"factor"}, max_steps=0).run(
        jax.random.key(0), X, lambda z, factor: 2 * factor[:, 0] + z
    )
    completed, computed = fit.impute()["x"], fit.deterministic()["computed"]
    for number, (row, observed) in enumerate(zip(X, OBSERVED, strict=True)):
        cells, of_row = by_the_joint_normal(row, observed)
        expected = np.where(observed, row, cells)
        np.testing.assert_allclose(completed[number], expected, rtol=1e-10)
        np.testing.assert_allclose(computed[number], of_row, rtol=1e-10)
