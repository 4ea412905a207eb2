"""z, p and intervals of single entries against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM

RNG = np.random.default_rng(5)
N = 60
FRAME = pd.DataFrame({"age": RNG.normal(size=N), "income": RNG.normal(size=N)})
Y = 0.5 + 0.3 * FRAME["age"].to_numpy() + RNG.normal(size=N)
COUNTS = RNG.poisson(3.0, N)
Z_95 = 1.959963984540054


def program(x, y, counts):
    intercept = numpyro.param("intercept", 0.0)
    coefficient = numpyro.param("coefficient", jnp.zeros(2))
    sd = numpyro.param("sd", 1.0, constraint=constraints.positive)
    rate = numpyro.param("rate", 1.0, constraint=constraints.positive)
    known = numpyro.param("known", 0.0)
    shrunk = numpyro.sample("shrunk", dist.Normal(0.0, 1.0))
    p = numpyro.param("p", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(intercept + x @ coefficient + known, sd), obs=y)
        numpyro.sample("count", dist.Poisson(rate), obs=counts)
        numpyro.sample("residual", dist.Normal(shrunk, 1.0), obs=y)
        numpyro.sample("kind", dist.Categorical(p), obs=jnp.zeros(len(y), int))


@pytest.fixture(scope="module")
def fit():
    em = EM(program, fixed={"known"})
    return em.run(jax.random.key(0), FRAME, Y, COUNTS)


def test_a_linear_regression_has_the_z_p_and_intervals_of_its_closed_form(fit):
    """b = (XᵀX)⁻¹ Xᵀy, its covariance σ² (XᵀX)⁻¹ with σ² = mean of squared residuals (ML)."""
    errors = emjax.standard_errors(fit)
    design = np.column_stack([np.ones(N), FRAME])
    b = np.linalg.solve(design.T @ design, design.T @ Y)
    variance = np.mean((Y - design @ b) ** 2)
    se = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    frame = errors.to_frame().set_index("entry")
    rows = frame.loc[["intercept", "coefficient[age]", "coefficient[income]"]]
    np.testing.assert_allclose(rows["estimate"], b, rtol=1e-6)
    np.testing.assert_allclose(rows["standard_error"], se, rtol=1e-6)
    np.testing.assert_allclose(rows["z_value"], b / se, rtol=1e-6)
    p = [math.erfc(abs(z) / math.sqrt(2)) for z in b / se]
    np.testing.assert_allclose(rows["p_value"], p, rtol=1e-5)
    np.testing.assert_allclose(rows["low"], b - Z_95 * se, rtol=1e-5)
    np.testing.assert_allclose(rows["high"], b + Z_95 * se, rtol=1e-5)


def test_a_rate_has_the_interval_of_its_logarithm_and_no_z(fit):
    """λ exp(± z / √(n λ)): the standard error of log λ is 1 / √(Σ x)."""
    errors = emjax.standard_errors(fit, level=0.8)
    row = errors.to_frame().set_index("entry").loc["rate"]
    rate, z = COUNTS.mean(), 1.2815515655446004
    ends = rate * np.exp(np.array([-z, z]) / np.sqrt(COUNTS.sum()))
    np.testing.assert_allclose([row["low"], row["high"]], ends, rtol=1e-6)
    assert np.isnan(row["z_value"]) and "80 % from" in str(errors)


def test_no_z_of_what_is_held_shrunk_bounded_or_on_the_boundary(fit):
    errors = emjax.standard_errors(fit)
    frame = emjax.summary(fit, standard_errors=errors).to_frame().set_index("entry")
    has_z = frame["z_value"].notna()
    assert set(frame.index[has_z]) == {"intercept", "coefficient[age]", "coefficient[income]"}
    assert frame.loc[["known", "p[0]", "p[1]"], "low"].isna().all()
    assert frame.loc[["sd", "rate", "shrunk"], "low"].notna().all()
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        emjax.standard_errors(fit, level=95)


def test_variances_and_correlations_have_intervals_within_what_they_may_be():
    """log s² ± z √(2/n) of a variance; a covariance on its own scale."""
    x = RNG.multivariate_normal([0, 0], [[1, 0.6], [0.6, 2]], size=40)

    def normal(x):
        covariance = numpyro.param(
            "covariance", jnp.eye(2), constraint=constraints.positive_definite
        )
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(2), covariance), obs=x)

    fit = EM(normal).run(jax.random.key(0), x)
    frame = emjax.standard_errors(fit).to_frame()
    # each of a symmetric matrix's entries once
    assert list(frame["entry"]) == [f"covariance[{i}]" for i in ("0, 0", "0, 1", "1, 1")]
    variance = np.mean(x**2, axis=0)
    ends = variance[:, None] * np.exp(Z_95 * np.sqrt(2 / 40) * np.array([-1, 1]))
    np.testing.assert_allclose(frame.loc[[0, 2], ["low", "high"]], ends, rtol=1e-6)
    assert frame["z_value"].isna().all()


def test_a_latent_may_be_called_as_a_statistic_is():
    def mixture(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    fit = EM(mixture, max_steps=2).run(jax.random.key(0), np.array([-1.2, -0.9, 1.1, 0.8]))
    errors = emjax.standard_errors(fit)
    for table in (errors, emjax.summary(fit, standard_errors=errors)):
        frame = table.to_frame()
        assert list(frame["z"]) == [0, 1]
        np.testing.assert_allclose(frame["z_value"], frame["estimate"] / frame["standard_error"])
