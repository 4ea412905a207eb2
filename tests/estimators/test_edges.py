"""Estimators at the edges: few rows, small weights, single precision, latents of other shapes."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from emjax.sklearn import EMEstimator, FactorAnalysis, GaussianHMM, GaussianMixture

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")

rng = np.random.default_rng(0)
X = rng.normal([[0, 0, 0], [4, 4, 4]], size=(20, 2, 3)).reshape(-1, 3)


def thrice_a_unit(X):
    unit: Any = numpyro.param("unit", 1.5)
    with numpyro.plate("samples", len(X)):
        number = numpyro.sample("number", dist.DiscreteUniform(1, 3))
        numpyro.sample("X", dist.Normal(unit * number, 0.5), obs=X[:, 0])


def cloud_of_each_feature(X):
    loc: Any = numpyro.param("loc", jnp.array([0.0, 3.0]))
    features = numpyro.plate("features", X.shape[1], dim=-2)
    with features, numpyro.plate("samples", len(X), dim=-1):
        cloud = numpyro.sample("cloud", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("X", dist.Normal(loc[cloud], 1.0), obs=X.T)


def test_three_samples_are_scored_under_any_prior():
    plain = GaussianMixture(2, random_state=0, max_iter=200).fit(X)
    prior = {"weight_concentration_prior": [2.0, 3.0], "covariance_prior": np.eye(3)}
    model = GaussianMixture(2, random_state=0, **prior).fit(X)
    for each in (plain, model):
        assert each.score_samples(X[:3]).mean() == pytest.approx(each.score(X[:3]), rel=1e-10)


def test_weights_that_add_up_to_less_than_one_are_weights():
    weights = np.linspace(0.5, 1.5, len(X)) / (2 * len(X))
    model = GaussianMixture(2, random_state=0).fit(X, sample_weight=weights)
    assert model.lower_bound_ == pytest.approx(model.score(X, sample_weight=weights), rel=1e-10)
    with pytest.raises(ValueError, match="NaN"):
        FactorAnalysis(1).fit(X).score(X, sample_weight=np.full(len(X), np.nan))


def test_predictions_are_values_of_the_latent_and_data_in_single_precision_are_taken():
    numbers = rng.integers(1, 4, 30)
    Y = (2.0 * numbers + 0.1 * rng.normal(size=30))[:, None].astype(np.float32)
    model = EMEstimator(thrice_a_unit).fit(Y)
    np.testing.assert_array_equal(model.predict(Y), numbers)
    assert model.score_samples(Y).mean() == pytest.approx(model.score(Y), rel=1e-10)


def test_samples_come_first_where_they_have_several_latents():
    model = EMEstimator(cloud_of_each_feature, plate="samples").fit(X)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (40, 3, 2)
    np.testing.assert_array_equal(model.predict(X), model.params_["loc"].mean() < X)
    np.testing.assert_array_equal(model.transform(X), probabilities.reshape(40, 6))
    assert len(model.get_feature_names_out()) == 6


def test_a_batch_that_is_refused_leaves_no_trace():
    given = {"weights_init": [0.5, 0.5], "means_init": [[0, 0, 1], [4, 4, 3]]}
    given["precisions_init"] = [np.eye(3)] * 2
    model, other = GaussianMixture(2, **given), GaussianMixture(2, **given)
    with pytest.raises(ValueError, match="singular"):
        model.partial_fit(X[:2])
    model.partial_fit(X)
    np.testing.assert_array_equal(model.means_, other.partial_fit(X).means_)


def test_starts_are_several_where_only_the_states_are_given():
    model = GaussianHMM(2, random_state=0, n_init=3, n_iter=50, init_params="mc")
    model.startprob_ = np.array([0.5, 0.5])
    model.fit(X)
    assert len(model.fit_.restarts.objective) == 3
