"""Hidden Markov models agree with hmmlearn's, attribute by attribute, from the same start."""

import pickle

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import estimator_checks_generator

from emjax.sklearn import CategoricalHMM, GaussianHMM, PoissonHMM

hmm = pytest.importorskip("hmmlearn.hmm")

rng = np.random.default_rng(0)
LENGTHS = [20, 1, 9]
STATES = np.repeat([0, 1, 2, 1, 0, 2], 5)
POINTS = np.array([[-2, 0], [1, 1], [0, 3]])[STATES] + rng.normal(size=(30, 2))
COUNTS = np.abs(POINTS).round().clip(0, 4).astype(int)
LOC = np.array([[-1.0, 0.0], [0.5, 0.5], [0.0, 2.0]])
SPREADS = {
    "spherical": np.ones(3),
    "diag": np.ones((3, 2)),
    "full": np.tile(np.eye(2), (3, 1, 1)),
    "tied": np.eye(2),
}
NO_PRIOR = {"covars_prior": 0, "covars_weight": 0, "min_covar": 0}
# hmmlearn stops at no gain, and EM of emjax at no gain that is larger than rounding
THEIRS = {"n_iter": 12, "tol": -np.inf, "init_params": "", "implementation": "scaling"}
OURS = {"n_iter": 12, "tol": 0.0, "init_params": ""}


def started(model, **emissions):
    model.startprob_ = np.array([0.5, 0.3, 0.2])
    model.transmat_ = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]])
    for name, value in emissions.items():
        setattr(model, name, value)
    return model


def gaussian(covariance_type):
    emissions = {"means_": LOC, "covars_": SPREADS[covariance_type]}
    theirs = hmm.GaussianHMM(3, covariance_type, **NO_PRIOR, **THEIRS)
    ours = GaussianHMM(3, covariance_type, **OURS)
    return started(theirs, **emissions), started(ours, **emissions), POINTS, ["means_", "covars_"]


def poisson():
    rates = {"lambdas_": LOC + 1.5}
    theirs, ours = hmm.PoissonHMM(3, **THEIRS), PoissonHMM(3, **OURS)
    return started(theirs, **rates), started(ours, **rates), COUNTS, ["lambdas_"]


def categorical():
    rows = {"emissionprob_": np.random.default_rng(1).dirichlet(np.ones(5), 3)}
    theirs, ours = hmm.CategoricalHMM(3, n_features=5, **THEIRS), CategoricalHMM(3, **OURS)
    return started(theirs, **rows), started(ours, **rows), COUNTS[:, :1], ["emissionprob_"]


PAIRS = {
    "diag": lambda: gaussian("diag"),
    "full": lambda: gaussian("full"),
    "spherical": lambda: gaussian("spherical"),
    "tied": lambda: gaussian("tied"),
    "poisson": poisson,
    "categorical": categorical,
}


def fitted(kind):
    theirs, ours, X, attributes = PAIRS[kind]()
    theirs.fit(X, LENGTHS)
    if kind == "spherical":
        # once it is fitted, hmmlearn's own has K · D variances, and K · D matrices in covars_
        theirs.covars_ = theirs._covars_[:, 0]
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        ours.fit(X, lengths=LENGTHS)
    return theirs, ours, X, attributes


@pytest.mark.sampled
@pytest.mark.parametrize("kind", PAIRS)
def test_fit_is_that_of_hmmlearn(kind):
    theirs, ours, _, attributes = fitted(kind)
    for name in ("startprob_", "transmat_", *attributes):
        expected = getattr(theirs, name)
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=1e-8, atol=1e-10)
    # hmmlearn's history lacks the log-likelihood at the end
    np.testing.assert_allclose(ours.monitor_.history[:-1], theirs.monitor_.history)
    assert not ours.monitor_.converged and ours.monitor_.iter == 12
    drawn, their_drawn = ours.sample(9, random_state=0), theirs.sample(9, random_state=0)
    np.testing.assert_allclose(drawn[0], their_drawn[0], rtol=1e-8)
    np.testing.assert_array_equal(drawn[1], their_drawn[1])
    assert ours._num_parameters() == sum(theirs._get_n_fit_scalars_per_param().values())


def test_answers_are_those_of_hmmlearn():
    theirs, ours, X, _ = fitted("diag")
    log_prob, posterior = ours.score_samples(X, LENGTHS)
    their_log_prob, their_posterior = theirs.score_samples(X, LENGTHS)
    assert log_prob == pytest.approx(their_log_prob, rel=1e-10)
    np.testing.assert_allclose(posterior, their_posterior, rtol=1e-8, atol=1e-10)
    for algorithm in ("viterbi", "map"):
        height, states = ours.decode(X, LENGTHS, algorithm)
        their_height, their_states = theirs.decode(X, LENGTHS, algorithm)
        assert height == pytest.approx(their_height, rel=1e-8)
        np.testing.assert_array_equal(states, their_states)
    assert ours.bic(X, LENGTHS) == pytest.approx(theirs.bic(X, LENGTHS), rel=1e-10)
    stationary = ours.get_stationary_distribution()
    np.testing.assert_allclose(stationary @ ours.transmat_, stationary, atol=1e-12)


@pytest.fixture(scope="module")
def categorical_model():
    model = CategoricalHMM(2, n_features=5, random_state=0)
    return model.fit(COUNTS, lengths=LENGTHS)


def test_a_missing_value_is_summed_out(categorical_model):
    X = COUNTS[:3].astype(float)
    X[1, 0] = np.nan
    likelihoods = []
    for symbol in range(5):
        X[1, 0] = symbol
        likelihoods.append(categorical_model.score(X))
    X[1, 0] = np.nan
    assert categorical_model.score(X) == pytest.approx(np.logaddexp.reduce(likelihoods), rel=1e-10)


def test_columns_are_independent_given_the_state(categorical_model):
    assert categorical_model.emissionprob_.shape == (2, 2, 5)
    x = COUNTS[:1]
    of_states = categorical_model.emissionprob_[:, [0, 1], x[0]].prod(axis=1)
    likelihood = categorical_model.startprob_ @ of_states
    assert categorical_model.score(x) == pytest.approx(np.log(likelihood), rel=1e-10)


def test_pickled_chain_and_held_parameters(categorical_model):
    again = pickle.loads(pickle.dumps(categorical_model))
    np.testing.assert_array_equal(again.predict(COUNTS), categorical_model.predict(COUNTS))
    again.set_params(params="e", init_params="e", n_iter=3, tol=1.0).fit(COUNTS, lengths=LENGTHS)
    np.testing.assert_array_equal(again.transmat_, categorical_model.transmat_)
    assert again.converged_


# Of check_estimator those that compile nothing: all of it, which takes minutes, is
# `python -m experiments.benchmarks.face --checks`.
CHEAP = {
    "check_complex_data",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
}


@pytest.mark.parametrize("kind", [CategoricalHMM, GaussianHMM, PoissonHMM])
def test_chains_are_estimators_of_scikit_learn(kind):
    for estimator, check in estimator_checks_generator(kind(2)):
        if check.func.__name__ in CHEAP:
            check(estimator)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"X": COUNTS, "y": LENGTHS}, "pass lengths by name"),
        ({"X": COUNTS, "lengths": [20, 9]}, "add up to the 30 rows"),
        ({"X": COUNTS - 1}, "Negative values"),
        ({"X": COUNTS + 0.5}, "whole numbers"),
        ({"X": COUNTS + 5}, "n_features=10"),
    ],
)
def test_data_that_make_no_sense_are_refused(data, says):
    with pytest.raises(ValueError, match=says):
        CategoricalHMM(2, n_features=5).fit(**data)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"covariance_type": "diagonal"}, "must be one of spherical, diag"),
        ({"params": "stx"}, "letters are 'stmc'"),
        ({"n_components": 0}, "n_components == 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, says):
    with pytest.raises(ValueError, match=says):
        GaussianHMM(**parameters).fit(POINTS)
