"""New data from a program at an estimate: of its distribution, in the shapes of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from scipy import stats

from emjax import labeled, weighted
from emjax.distributions import PartiallyObserved
from tests.answers.test_imputation import fit_at

KEY = jax.random.key(6)
TRANSITION = jnp.array([[0.8, 0.2], [0.3, 0.7]])


def regressions(x, covariate, lengths):
    """A hidden Markov model whose observations depend on a covariate; sequences end early."""
    slope = numpyro.param("slope", jnp.zeros(2))
    scale = numpyro.sample("scale", dist.Gamma(2.0, 2.0))

    def step(carry, inputs):
        before, time = carry
        value, covariate = inputs
        with numpyro.plate("sequences", 30), handlers.mask(mask=time < lengths):
            z = numpyro.sample("z", dist.Categorical(TRANSITION[before]))
            law = dist.Normal(slope[z] * covariate, scale)
            numpyro.sample("x", law, obs=value)
        return (z, time + 1), None

    scan(step, (jnp.zeros(30, int), 0), (x, covariate))


def test_new_data_follow_the_program_at_the_estimate():
    numbers = np.random.default_rng(3)
    covariate, lengths = jnp.array(numbers.normal(size=(60, 30))), jnp.arange(30) + 31
    params = {"slope": jnp.array([-1.0, 2.0]), "scale": jnp.array(0.5)}
    fit = fit_at(params, regressions, jnp.zeros((60, 30)), covariate, lengths)
    new = jax.device_get(fit.sample(KEY))
    assert {name: value.shape for name, value in new.items()} == dict.fromkeys("zx", (60, 30))
    z, noise = new["z"], (new["x"] - np.array([-1.0, 2.0])[new["z"]] * covariate) / 0.5
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    before = np.concatenate([np.zeros((1, 30), int), z[:-1]])
    for state in (0, 1):
        after = z[before == state]
        count = [(after == 0).sum(), (after == 1).sum()]
        assert stats.chisquare(count, len(after) * TRANSITION[state]).pvalue > 1e-3
    several = fit.sample(KEY, num_samples=9)["x"]
    assert several.shape == (9, 60, 30)
    assert len(np.unique(several[:, 0, 0])) == 9


def test_masks_weights_and_labels_take_nothing_from_new_data():
    def program(x, known):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("y", dist.Normal(5.0 * z, 0.1), obs=x[:, 0], obs_mask=known)
            whole = dist.MultivariateNormal(5.0 * z[:, None] * jnp.ones(2), 0.01 * jnp.eye(2))
            numpyro.sample("x", PartiallyObserved(whole, observed=~jnp.isnan(x)), obs=x)
        numpyro.sample("once", dist.Normal(0.0, 0.1), obs=x[:, 1])

    x, known = jnp.full((6, 2), jnp.nan), jnp.zeros(6, bool)
    model = weighted(labeled(program, "z"), "rows")
    fit = fit_at({}, model, jnp.zeros(6), jnp.full(6, -1), x, known)
    new = jax.device_get(fit.sample(KEY))
    assert set(new) == {"z", "z_label", "y", "x", "once"}
    np.testing.assert_array_equal(new["z_label"], new["z"])
    np.testing.assert_allclose(new["y"], 5.0 * new["z"], atol=0.5)
    np.testing.assert_allclose(new["x"], np.stack([5.0 * new["z"]] * 2, 1), atol=0.5)
    # as many as there are data of it, though the program states one
    assert new["once"].shape == (6,) and (np.abs(new["once"]) < 0.5).all()


def test_a_factor_is_no_data():
    def program(x):
        loc = numpyro.param("loc", 0.0)
        numpyro.factor("penalty", -(loc**2))
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    fit = fit_at({"loc": jnp.array(0.0)}, program, jnp.zeros(()))
    with pytest.raises(ValueError, match="'penalty' is a"):
        fit.sample(KEY)
    with pytest.raises(ValueError, match="The first argument is a random key"):
        fit.sample(3)
    with pytest.raises(ValueError, match="num_samples=0 must be"):
        fit.sample(KEY, num_samples=0)
