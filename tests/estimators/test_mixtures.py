"""`GaussianMixture` is scikit-learn's where both can be asked, and what it states where not."""

import pickle

import numpy as np
import pytest
import scipy.stats
from sklearn import mixture
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from emjax.sklearn import GaussianMixture
from tests.compilations import compilations

rng = np.random.default_rng(0)
X = rng.normal([[0, 0], [3, 1], [0, 4]], [[1, 0.5], [1, 1], [2, 0.7]], size=(25, 3, 2))
Z = np.tile(np.arange(3), 25)
X = X.reshape(-1, 2)
COVARIANCES = ("full", "tied", "diag", "spherical")
LEARNED = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
SOME_MISSING = np.where(rng.uniform(size=X.shape) < 0.2, np.nan, X)


@pytest.mark.sampled
@pytest.mark.parametrize("covariance_type", COVARIANCES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_from_one_start_it_is_scikit_learns(covariance_type):
    given = {"covariance_type": covariance_type, "max_iter": 15, "tol": 0.0, "random_state": 1}
    theirs = mixture.GaussianMixture(3, reg_covar=0, **given).fit(X)
    ours = GaussianMixture(3, **given).fit(X)
    for name in LEARNED:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10)
    assert ours.n_iter_ == theirs.n_iter_ == 15
    new = X[:20] + 0.3
    for asked in ("predict", "predict_proba", "score_samples", "score", "aic", "bic"):
        found, expected = getattr(ours, asked)(new), getattr(theirs, asked)(new)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    started = {name.replace("_", "_init"): getattr(theirs, name) for name in LEARNED[:2]}
    started |= {"precisions_init": theirs.precisions_, **given, "max_iter": 1}
    theirs = mixture.GaussianMixture(3, reg_covar=0, **started).fit(X)
    ours = GaussianMixture(3, **started).fit(X)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-10)


@pytest.mark.parametrize("init_params", ["k-means++", "random", "random_from_data"])
def test_starts_are_drawn_as_scikit_learn_draws_them(init_params):
    given = {"init_params": init_params, "random_state": 2, "n_init": 2, "tol": 1e-5}
    theirs = mixture.GaussianMixture(3, max_iter=300, **given)
    with np.errstate(all="ignore"):
        theirs.fit(X)
    ours = GaussianMixture(3, **{**given, "tol": 1e-9}).fit(X)
    # a component that begins with one sample has the spread of all here, and almost none there
    assert ours.score(X) > theirs.score(X) - 1e-6


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_what_is_missing_is_integrated_out(covariance_type):
    model = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(SOME_MISSING)
    assert model.converged_
    densities = np.zeros((len(X), 2))
    for k in range(2):
        covariance = model.covariances_[k]
        covariance = covariance if covariance.ndim == 2 else np.diag(covariance)
        for n, row in enumerate(SOME_MISSING):
            seen = np.flatnonzero(~np.isnan(row))
            if len(seen):
                normal = scipy.stats.multivariate_normal(
                    model.means_[k, seen], covariance[np.ix_(seen, seen)]
                )
                densities[n, k] = normal.logpdf(row[seen])
    expected = np.logaddexp.reduce(densities + np.log(model.weights_), axis=1)
    np.testing.assert_allclose(model.score_samples(SOME_MISSING), expected, rtol=1e-9, atol=1e-12)
    # complete data are not another model's
    assert model.predict_proba(X[:5]).shape == (5, 2)


def test_floor_bounds_variances():
    model = GaussianMixture(3, covariance_type="diag", variance_floor=0.9, random_state=0).fit(X)
    assert model.covariances_.min() == pytest.approx(0.9) and model.covariances_.max() > 1.5


def test_map_estimates_are_those_of_the_priors_that_are_stated():
    scatter = np.cov(X.T, bias=True) * len(X)
    prior = np.array([[3.0, 1.0], [1.0, 2.0]])
    full = GaussianMixture(covariance_prior=prior).fit(X)
    # ν = D + 2, and the density of an inverse Wishart has ν + D + 1
    np.testing.assert_allclose(full.covariances_[0], (scatter + prior) / (len(X) + 7), rtol=1e-8)
    given = {"covariance_prior": [3.0, 2.0], "degrees_of_freedom_prior": 5.0}
    diagonal = GaussianMixture(covariance_type="diag", **given).fit(X)
    expected = (np.diag(scatter) + [3.0, 2.0]) / (len(X) + 7)
    np.testing.assert_allclose(diagonal.covariances_[0], expected, rtol=1e-6)
    weighted = GaussianMixture(3, weight_concentration_prior=10.0, random_state=0).fit(X)
    expected = weighted.predict_proba(X).sum(axis=0) + 9
    np.testing.assert_allclose(weighted.weights_, expected / expected.sum(), rtol=1e-4)


def test_labels_number_the_components():
    y = np.where(np.arange(len(X)) < 12, (Z + 1) % 3, -1)
    model = GaussianMixture(3, random_state=0).fit(X, y)
    assert (model.predict(X) == (Z + 1) % 3).mean() > 0.9
    assert adjusted_rand_score(model.predict(X), Z) > 0.75


def test_samples_without_spread_are_no_convergence():
    # 1 and 1 only: a component of no variance
    points = np.repeat([[1.0, 1.0], [5.0, 2.0]], 5, axis=0)
    with pytest.warns(ConvergenceWarning):
        assert not GaussianMixture(2, random_state=0).fit(points).converged_


def test_second_fit_of_a_shape_compiles_nothing():
    model = GaussianMixture(3, random_state=1)
    model.fit(X).predict(X)
    with compilations() as compiled:
        GaussianMixture(3, random_state=4, tol=1e-6).fit(X[::-1] + 1).predict(X)
    assert not compiled.compiled


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"reg_covar": 1e-6}, "State a floor"),
        ({"covariance_type": "round"}, "covariance_type must be"),
        ({"n_components": 0}, "n_components == 0"),
        ({"init_params": "best"}, "init must be one of"),
        ({"n_components": 100}, "Expected n_samples >= n_components"),
        ({"degrees_of_freedom_prior": 3}, "whose scale is missing"),
        ({"variance_floor": 0.1}, "state a prior"),
        (
            {"variance_floor": 0.1, "covariance_prior": [1, 1], "covariance_type": "diag"},
            "Either variance_floor",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, says):
    with pytest.raises(ValueError, match=says):
        GaussianMixture(**parameters).fit(X)


def test_batches_one_after_another_come_near_the_fit_to_all():
    many = np.tile(X, (4, 1))[rng.permutation(4 * len(X))]
    labels = np.full(len(many), -1)
    model = GaussianMixture(2, covariance_type="diag", random_state=0)
    for batch, y in zip(np.split(many, 4), np.split(labels, 4), strict=True):
        model.partial_fit(batch, y)
    # the state is kept, in double precision, by pickles
    again = pickle.loads(pickle.dumps(model)).partial_fit(many[:60])
    model.partial_fit(many[:60])
    np.testing.assert_allclose(again.means_, model.means_, rtol=1e-10)
    assert (model.n_iter_, model.converged_) == (5, False)
    whole = GaussianMixture(2, covariance_type="diag", random_state=0).fit(many)
    assert whole.score(many) - 0.1 < model.score(many) < whole.score(many)
    assert not hasattr(model.fit(X), "_online")
    unlabeled = GaussianMixture(2, covariance_type="diag", random_state=0).partial_fit(X)
    with pytest.raises(ValueError, match="first batch had no labels"):
        unlabeled.partial_fit(X, labels[: len(X)])
