"""Latent classes agree with StepMix's, from the same start, step by step."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import estimator_checks_generator

from emjax.models import latent_class
from emjax.sklearn import LatentClass

rng = np.random.default_rng(0)
CLASSES = rng.integers(0, 2, 60)
ROWS = rng.dirichlet(np.ones(3), (2, 4))
X = (rng.random((60, 4, 1)) > ROWS[CLASSES].cumsum(axis=-1)).sum(axis=-1).clip(0, 2).astype(float)
# the first item has two answers, the others three
X[:, 0] = X[:, 0] > 0
HOLES = np.where(rng.random(X.shape) < 0.1, np.nan, X)
WEIGHTS = np.array([0.6, 0.4])
PROBS = rng.dirichlet(np.ones(3), (2, 4))
PROBS[:, 0] = [[0.4, 0.6, 0], [0.7, 0.3, 0]]
START = {"weights": WEIGHTS, "probs": PROBS}

CHEAP = {
    "check_complex_data",
    "check_dict_unchanged",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_sample_weights_shape",
    "check_set_params",
}


def steps_by_hand(answers, number):
    """Return the parameters after steps of emjax.models.latent_class, by its equations."""
    subject, item = np.nonzero(~np.isnan(answers))
    rows = subject, item, answers[subject, item].astype(int)
    params = START
    for _ in range(number):
        params = latent_class.categorical_hand_derived_step(params, *rows, 60, 4, 3, 2)
    return params


def test_missing_answers_are_the_rows_that_a_long_form_lacks():
    expected = steps_by_hand(HOLES, 10)
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        model = LatentClass(2, init_params=START, max_iter=10, rel_tol=0.0).fit(HOLES)
    np.testing.assert_allclose(model.weights_, expected["weights"], rtol=1e-10)
    np.testing.assert_allclose(model.probs_, expected["probs"], rtol=1e-8, atol=1e-12)
    assert model.n_outcomes_.tolist() == [2, 3, 3, 3]
    answers, classes = model.sample(50)
    assert answers.shape == (50, 4) and answers[:, 0].max() == 1 and set(classes) == {0, 1}
    with pytest.raises(ValueError, match="Item 0 has the answer 2, and had none above 1"):
        model.predict(X + [1, 0, 0, 0])


@pytest.mark.parametrize("kind", ["categorical", "categorical_nan"])
def test_fit_is_that_of_stepmix(kind):
    stepmix = pytest.importorskip("stepmix")

    class FromStart(stepmix.StepMix):
        """StepMix at the given start; its own choices are k-means and random posteriors."""

        def _initialize_parameters(self, X, random_state):
            shape = {"max_n_outcomes": 3, "total_outcomes": 11}
            pis = {"pis": PROBS.reshape(2, -1).copy(), **shape}
            self.set_parameters({"weights": WEIGHTS, "measurement_in": 4, "measurement": pis})

    answers = HOLES if kind == "categorical_nan" else X
    theirs = FromStart(2, measurement=kind, abs_tol=0, max_iter=10, progress_bar=0)
    ours = LatentClass(2, init_params=START, max_iter=10, rel_tol=0.0)
    with pytest.warns(Warning, match=r"max_iter|max_steps"):
        theirs.fit(answers)
        ours.fit(answers)
    found = theirs.get_parameters()
    np.testing.assert_allclose(ours.weights_, found["weights"], rtol=1e-8)
    np.testing.assert_allclose(ours.probs_.reshape(2, -1), found["measurement"]["pis"], atol=1e-10)
    assert ours.score(answers) == pytest.approx(theirs.score(answers), rel=1e-10)
    assert ours.bic(answers) == pytest.approx(theirs.bic(answers), rel=1e-10)
    probas = theirs.predict_proba(answers)
    np.testing.assert_allclose(ours.predict_proba(answers), probas, atol=1e-10)


def test_latent_class_is_an_estimator_of_scikit_learn():
    # all of check_estimator is `python -m experiments.benchmarks.face --checks`
    passed = set()
    for estimator, check in estimator_checks_generator(LatentClass(2)):
        if check.func.__name__ in CHEAP:
            check(estimator)
            passed.add(check.func.__name__)
    assert passed == CHEAP
