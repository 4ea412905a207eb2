"""Factor analysis agrees with scikit-learn's, attribute by attribute, and takes missing values."""

import numpy as np
import pytest
from sklearn.decomposition import FactorAnalysis as Theirs
from sklearn.utils.estimator_checks import estimator_checks_generator

from emjax.sklearn import FactorAnalysis

rng = np.random.default_rng(1)
X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + 3
X += rng.normal(size=X.shape) * rng.uniform(0.7, 1.5, 6)
# where the likelihood is right to 1e-12 of its 2,000 nats, parameters are right to the root of that
NEAR = {"rtol": 0, "atol": 1e-3}
CHEAP = {
    "check_complex_data",
    "check_dict_unchanged",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_set_params",
    "check_transformers_unfitted",
}


@pytest.mark.sampled
@pytest.mark.parametrize("rotation", [None, "varimax", "quartimax"])
def test_fit_and_answers_are_those_of_scikit_learn(rotation):
    theirs = Theirs(2, tol=1e-13, max_iter=10**5, svd_method="lapack", rotation=rotation).fit(X)
    ours = FactorAnalysis(2, tol=1e-15, rotation=rotation).fit(X)
    assert ours.score(X) == pytest.approx(theirs.score(X), rel=1e-10)
    signs = np.sign((ours.components_ * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.components_, signs[:, None] * theirs.components_, **NEAR)
    np.testing.assert_allclose(ours.noise_variance_, theirs.noise_variance_, **NEAR)
    np.testing.assert_allclose(ours.transform(X), signs * theirs.transform(X), **NEAR)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), **NEAR)
    np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), **NEAR)
    np.testing.assert_allclose(ours.get_precision(), theirs.get_precision(), **NEAR)
    np.testing.assert_allclose(ours.mean_, theirs.mean_, rtol=1e-10)


def test_missing_values_are_integrated_out():
    holes = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    model = FactorAnalysis(2).fit(holes)
    assert model.converged_
    assert model.score(holes) == pytest.approx(model.lower_bound_, rel=1e-10)
    # factors are what emjax says of its own, up to a rotation
    own = np.asarray(model.fit_.posterior()["factor"]["mean"])
    seen = own @ np.asarray(model.fit_.params["loadings"]).T
    np.testing.assert_allclose(model.transform(holes) @ model.components_, seen, atol=1e-8)


def test_weights_are_repeated_samples():
    counts = rng.integers(0, 3, len(X))
    weighted = FactorAnalysis(2).fit(X, sample_weight=counts)
    repeated = FactorAnalysis(2).fit(np.repeat(X, counts, axis=0))
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=1e-10)
    np.testing.assert_allclose(weighted.components_, repeated.components_, **NEAR)


def test_factor_analysis_is_an_estimator_of_scikit_learn():
    # all of check_estimator is `python -m experiments.benchmarks.face --checks`
    passed = set()
    for estimator, check in estimator_checks_generator(FactorAnalysis(1)):
        if check.func.__name__ in CHEAP:
            check(estimator)
            passed.add(check.func.__name__)
    assert passed == CHEAP
