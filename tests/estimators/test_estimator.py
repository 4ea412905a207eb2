"""Any program behind scikit-learn's interface: it answers what emjax answers."""

import pickle

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import emjax
from emjax.models import gaussian_mixture
from emjax.sklearn import EMEstimator

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")

X = np.random.default_rng(0).normal([[0, 0], [4, 4]], size=(30, 2, 2)).reshape(-1, 2)
START = {
    "weights": np.array([0.5, 0.5]),
    "loc": np.array([[0.0, 0.5], [3.0, 4.0]]),
    "scale": np.array([1.0, 1.0]),
}
ARGUMENTS = {"num_components": 2, "covariance": "spherical"}


def estimator(**parameters):
    defaults = {"arguments": ARGUMENTS, "init_params": START, "random_state": 0}
    return EMEstimator(gaussian_mixture.program, **{**defaults, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return estimator().fit(X)


@pytest.mark.compiled
def test_estimator_says_what_emjax_says(fitted):
    em = emjax.EM(gaussian_mixture.program)
    fit = em.run(jax.random.key(0), X, init_params=START, **ARGUMENTS)
    np.testing.assert_array_equal(fitted.params_["loc"], fit.params["loc"])
    posterior = fit.posterior()["component"]
    np.testing.assert_allclose(fitted.predict_proba(X), posterior, rtol=1e-12)
    np.testing.assert_array_equal(fitted.predict(X), posterior.argmax(1))
    each = fit.pointwise_log_likelihood()
    np.testing.assert_allclose(fitted.score_samples(X), each, rtol=1e-12)
    assert fitted.score(X) == pytest.approx(float(each.mean()), rel=1e-12)
    assert fitted.bic(X[:40]) == pytest.approx(emjax.criteria(fit, X[:40], **ARGUMENTS).bic)
    assert fitted.lower_bound_ == pytest.approx(float(fit.objective[-1]) / len(X))
    assert fitted.converged_ and fitted.n_iter_ == fit.num_steps


def test_arguments_of_the_program_are_parameters(fitted):
    assert fitted.get_params()["arguments__num_components"] == 2
    other = clone(fitted).set_params(arguments__num_components=3)
    assert other.arguments["num_components"] == 3 and fitted.arguments["num_components"] == 2
    model = estimator(init_params="k-means", max_iter=50)
    search = GridSearchCV(model, {"arguments__num_components": [1, 2]}, cv=2).fit(X)
    assert search.best_params_ == {"arguments__num_components": 2}


def test_pickled_estimator_leaves_its_data_behind(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert fitted.fit_.bound is not None and again.fit_.bound is None
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_weights_are_repeated_samples():
    counts = np.arange(len(X)) % 3
    weighted = estimator().fit(X, sample_weight=counts)
    repeated = estimator().fit(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(weighted.params_["loc"], repeated.params_["loc"], rtol=1e-8)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=1e-10)


def test_labels_are_known_values_of_the_latent():
    labels = np.full(len(X), -1)
    # against what the data say: sample 0 is of the first cluster
    labels[0] = 1
    em = emjax.EM(emjax.labeled(gaussian_mixture.program, "component"))
    fit = em.run(jax.random.key(0), labels, X, init_params=START, **ARGUMENTS)
    found = estimator().fit(X, labels)
    np.testing.assert_allclose(found.params_["loc"], fit.params["loc"], rtol=1e-12)
    # without an unknown one, y is what scikit-learn's mixtures ignore, unless it is asked for
    y = np.zeros(len(X), int)
    assert estimator().fit(X, y).params_["weights"].min() > 0.4
    known = estimator(semi_supervised=True).fit(X, y)
    np.testing.assert_allclose(known.params_["weights"], [1, 0], atol=1e-12)


def test_samples_of_an_estimate_are_of_its_clusters(fitted):
    points, values = fitted.sample(200)
    assert points.shape == (200, 2) and set(values) == {0, 1}
    assert (fitted.predict(points) == values).mean() > 0.95


def test_pipeline_and_names_of_what_is_transformed(fitted):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["height", "weight"])
    model = estimator(init_params="k-means")
    pipeline = make_pipeline(StandardScaler(), model).set_output(transform="pandas")
    found = pipeline.fit_transform(frame)
    assert list(found.columns) == ["emestimator0", "emestimator1"]
    assert list(pipeline[-1].feature_names_in_) == ["height", "weight"]
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_warns_if_em_did_not_converge():
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        assert not estimator(max_iter=1).fit(X).converged_


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"arguments": 3}, "arguments must be"),
        ({"latent": "cluster"}, "no latent 'cluster'"),
        ({"max_iter": -1}, "max_iter == -1"),
        ({"semi_supervised": "yes"}, "semi_supervised must be"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, says):
    with pytest.raises(ValueError, match=says):
        estimator(**parameters).fit(X)
