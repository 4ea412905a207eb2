"""Three-step estimation: against StepMix's numbers, the formula of its likelihood, one step, and
what is left of it where nothing is assigned wrongly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

import emjax
from emjax import EM, three_step, weighted
from emjax.models import latent_class

KEY = jax.random.key(0)
RNG = np.random.default_rng(11)
SIZE = 150
X = np.round(RNG.normal(size=SIZE), 2)
GROUP = RNG.integers(0, 2, SIZE)
COVARIATES = {"x": X, "group": GROUP}
DESIGN = np.stack([np.ones(SIZE), X, GROUP], axis=1)
COEFFICIENTS = np.array([[0, 0, 0], [0.3, 1.2, -0.5], [-0.5, -1.2, 1.0]])
ODDS = np.exp(DESIGN @ COEFFICIENTS.T)
BELOW = (ODDS / ODDS.sum(1, keepdims=True)).cumsum(1)
CLASS = (RNG.random(SIZE)[:, None] > BELOW).sum(1)
PROBS = np.array([[0.85] * 5, [0.2] * 2 + [0.8] * 3, [0.15] * 5])
ANSWERS = (RNG.random((SIZE, 5)) < PROBS[CLASS]).astype(int)
OUTCOME = np.round(np.array([1.0, 0.0, -1.0])[CLASS] + RNG.normal(size=SIZE), 2)
KIND = np.array(["low", "middle", "high"])[np.digitize(OUTCOME, [-0.7, 0.7])]
WEIGHTS = np.array([0.35, 0.3, 0.35])
PARAMS = {"weights": WEIGHTS, "probs": PROBS}
MEASURED = EM(latent_class.program), PARAMS, ANSWERS, 3


def posterior(answers=ANSWERS):
    """p(class | answers), by Bayes's rule."""
    joint = WEIGHTS * np.prod(np.where(answers[:, None] == 1, PROBS, 1 - PROBS), axis=-1)
    return joint / joint.sum(1, keepdims=True)


STEPMIX = {
    ("none", "modal"): (
        [[0.237572, 0.24973, -0.527153], [-0.530248, -1.475756, 1.054484]],
        [0.691818, 0.117551, -1.096842],
    ),
    ("bch", "modal"): (
        [[0.457824, 0.82777, -1.243147], [-0.873036, -1.899634, 1.370453]],
        [0.862447, 0.134073, -1.204351],
    ),
    ("ml", "modal"): ([[0.564458, 0.515381, -0.986357], [-0.680618, -1.614465, 1.183133]], None),
    ("none", "proportional"): (
        [[0.335613, 0.246497, -0.331618], [-0.230613, -1.143687, 0.756634]],
        [0.611898, 0.134625, -1.026201],
    ),
    ("bch", "proportional"): (
        [[0.332033, 1.067697, -1.119314], [-0.77128, -1.719377, 1.187464]],
        [0.806777, 0.174112, -1.202004],
    ),
}


@pytest.mark.parametrize(("correction", "assignment"), STEPMIX)
def test_coefficients_and_means_are_those_of_stepmix(correction, assignment):
    """StepMix 3.0.0 with n_steps=3, its measurement model set to these parameters.

    Its outcome by ML holds the sizes of classes, and its proportional ML is of another formula.
    """
    of_covariates, of_outcome = STEPMIX[correction, assignment]
    options = {"correction": correction, "assignment": assignment}
    found = three_step(*MEASURED, covariates=COVARIATES, **options)
    np.testing.assert_allclose(found.estimate, of_covariates, atol=2e-5)
    if of_outcome is not None:
        found = three_step(*MEASURED, outcome=OUTCOME, **options)
        np.testing.assert_allclose(found.estimate[:, 0], of_outcome, atol=2e-6)


def log_likelihood(terms, assigned, errors):
    """Σ_is w_is log Σ_t p(t, y_i) p(s | t), with log p(t, y_i) = terms."""
    of_class = np.exp(terms)[:, :, None] * errors
    return (assigned * np.log(of_class.sum(1))).sum()


def test_by_maximum_likelihood_no_neighbor_is_higher():
    found = three_step(*MEASURED, covariates=COVARIATES, assignment="proportional", correction="ml")
    assigned = posterior()
    errors = assigned.T @ assigned / assigned.sum(0)[:, None]
    np.testing.assert_allclose(found.errors, errors, rtol=1e-10)

    def at(coefficients):
        logits = np.concatenate([np.zeros((SIZE, 1)), DESIGN @ coefficients.reshape(2, 3).T], 1)
        terms = logits - np.logaddexp.reduce(logits, 1)[:, None]
        return log_likelihood(terms, assigned, errors)

    top, step = found.estimate.ravel(), 1e-4
    for direction in np.eye(6):
        slope = (at(top + step * direction) - at(top - step * direction)) / (2 * step)
        assert abs(slope) < 1e-3


def test_by_maximum_likelihood_categories_are_those_of_weights():
    """Shares are free in each class, so that both corrections solve the same equations."""
    options = {"outcome": KIND}
    ml = three_step(*MEASURED, **options, correction="ml")
    bch = three_step(*MEASURED, **options, correction="bch")
    np.testing.assert_allclose(ml.estimate, bch.estimate, atol=1e-5)
    np.testing.assert_allclose(ml.standard_error, bch.standard_error, rtol=1e-4)
    assert ml.terms == ("share of high", "share of low", "share of middle")
    is_high = three_step(*MEASURED, outcome=KIND == "high")
    np.testing.assert_allclose(is_high.estimate[:, 0], bch.estimate[:, 0], rtol=1e-12)
    of_two = three_step(*MEASURED, outcome=KIND == "high", correction="ml")
    np.testing.assert_allclose(of_two.standard_error, is_high.standard_error, rtol=1e-4)
    assert "some shares are not between 0 and 1" in str(
        three_step(*MEASURED, outcome=ANSWERS[:, 0] * ANSWERS[:, 4])
    )


def far_apart(x):
    sizes = numpyro.param("sizes", jnp.full(3, 1 / 3), constraint=constraints.simplex)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(sizes))
        numpyro.sample("x", dist.Normal(100.0 * z, 1.0), obs=x)


def logit(kind, design):
    coefficients = numpyro.param("coefficients", jnp.zeros((2, design.shape[1])))
    with numpyro.plate("rows", len(kind)):
        logits = jnp.concatenate([jnp.zeros((len(kind), 1)), design @ coefficients.T], 1)
        numpyro.sample("kind", dist.Categorical(logits=logits), obs=kind)


def test_where_nothing_is_assigned_wrongly_nothing_is_corrected():
    measured = EM(far_apart), {"sizes": WEIGHTS}, 100.0 * CLASS
    plain = EM(logit, tol=1e-13)
    result = plain.run(KEY, CLASS, DESIGN)
    errors = emjax.standard_errors(plain, result, CLASS, DESIGN, method="linearization")
    groups = [OUTCOME[k == CLASS] for k in range(3)]
    errors_of_means = [np.sqrt(y.var() / len(y) * SIZE / (SIZE - 1)) for y in groups]
    for correction in ("none", "bch", "ml"):
        found = three_step(*measured, covariates=COVARIATES, correction=correction)
        np.testing.assert_allclose(found.estimate, result.params["coefficients"], atol=1e-5)
        expected = errors.standard_error["coefficients"]
        np.testing.assert_allclose(found.standard_error, expected, rtol=1e-4)
        found = three_step(*measured, outcome=OUTCOME, correction=correction)
        np.testing.assert_allclose(found.estimate[:, 0], [y.mean() for y in groups], atol=1e-6)
        np.testing.assert_allclose(found.standard_error[:, 0], errors_of_means, rtol=1e-5)


def test_corrections_come_closer_to_what_one_step_finds():
    rng = np.random.default_rng(3)
    rows = rng.integers(0, SIZE, 2000)
    chosen = (rng.random(2000)[:, None] > BELOW[rows]).sum(1)
    answers = (rng.random((2000, 5)) < PROBS[chosen]).astype(int)

    def one_step(answers, design):
        coefficients = numpyro.param("coefficients", jnp.zeros((2, 3)))
        with numpyro.plate("rows", len(answers)):
            logits = jnp.concatenate([jnp.zeros((len(answers), 1)), design @ coefficients.T], 1)
            z = numpyro.sample("z", dist.Categorical(logits=logits))
            # the measurement model is known: three steps take it so, too
            numpyro.sample(
                "answers", dist.Bernoulli(jnp.asarray(PROBS)[z]).to_event(1), obs=answers
            )

    together = EM(one_step).run(KEY, answers, DESIGN[rows]).params["coefficients"]
    sizes = np.bincount(chosen) / 2000
    measured = EM(latent_class.program), {"weights": sizes, "probs": PROBS}, answers, 3
    covariates, found = {"x": X[rows], "group": GROUP[rows]}, {}
    for correction in ("none", "bch", "ml"):
        found[correction] = three_step(*measured, covariates=covariates, correction=correction)
    for correction in ("bch", "ml"):
        off = (found[correction].estimate - together) / found[correction].standard_error
        assert np.abs(off).max() < 1.5
    slopes = np.abs(found["none"].estimate[:, 1] / together[:, 1])
    assert (slopes < 0.9).all()


def test_weights_of_a_survey_are_rows_that_are_there_as_often():
    count = np.where(np.arange(SIZE) % 3 == 0, 2, 1)
    rows = np.repeat(np.arange(SIZE), count)
    sampled = EM(weighted(latent_class.program, "subjects", kind="sampling"))
    repeated = {name: column[rows] for name, column in COVARIATES.items()}
    for correction in ("bch", "ml"):
        found = three_step(
            sampled, PARAMS, 1.0 * count, ANSWERS, 3, covariates=COVARIATES, correction=correction
        )
        expected = three_step(
            EM(latent_class.program),
            PARAMS,
            ANSWERS[rows],
            3,
            covariates=repeated,
            correction=correction,
            clusters=rows,
        )
        np.testing.assert_allclose(found.estimate, expected.estimate, atol=1e-5)
        np.testing.assert_allclose(found.standard_error, expected.standard_error, rtol=1e-4)
    assert expected.degrees_of_freedom == SIZE - 1


def test_it_prints_a_table_and_tests_what_is_alike():
    found = three_step(*MEASURED, covariates=COVARIATES, correction="bch")
    statistic, degrees, p = found.wald("x")
    entries = np.ix_([1, 4], [1, 4])
    values = found.estimate[:, 1]
    np.testing.assert_allclose(
        statistic, values @ np.linalg.inv(found.covariance[entries]) @ values
    )
    np.testing.assert_allclose((degrees, p), (2, stats.chi2.sf(statistic, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.p_value, 2 * stats.norm.sf(np.abs(found.z)), rtol=1e-9)
    means = three_step(*MEASURED, outcome=OUTCOME, correction="none")
    # samples of one class each: the means are independent, and the test is that of their spread
    precision = 1 / means.standard_error[:, 0] ** 2
    center = (precision * means.estimate[:, 0]).sum() / precision.sum()
    expected = (precision * (means.estimate[:, 0] - center) ** 2).sum()
    np.testing.assert_allclose(means.wald("mean of outcome")[0], expected, rtol=1e-9)
    lines = str(found).splitlines()
    assert lines[0].startswith("logits against class 0 of 'latent_class', 150 samples, modal assi")
    assert lines[2].split()[:2] == ["1", "intercept"] and "x: χ² = " in lines[-2]
    assert len(found.to_frame()) == 6


def test_what_cannot_be_related_is_an_error():
    def fails(match, **given):
        with pytest.raises(ValueError, match=match):
            three_step(*MEASURED, **given)

    fails("one of them", covariates=X, outcome=X)
    fails(
        "correction must be one of 'ml', 'bch', 'none', not 'BCH'", covariates=X, correction="BCH"
    )
    fails("Covariate 'x0' has shape .3,., and there are 150 samples", covariates=X[:3])
    fails("Covariate 'kind' is not of numbers.*get_dummies", covariates={"kind": KIND})
    fails(
        "Covariate 'x' is missing for 1 sample",
        covariates={"x": np.where(np.arange(SIZE) == 7, np.nan, X)},
    )
    fails("assignment must be one of 'modal', 'pro.*, not 'm'", covariates=X, assignment="m")
    fails(
        "Outcome 'outcome' is infinite for sample 0",
        outcome=np.where(np.arange(SIZE) == 0, np.inf, X),
    )
    fails("'a', 'b'|a, b say the same", covariates={"a": GROUP, "b": 1 - GROUP})
    fails("no maximum in the covariates", covariates=1.0 * (ANSWERS.sum(1) > 4), correction="none")
    with pytest.raises(ValueError, match="Latent 'latent_class' counts copies"):
        em = EM(weighted(latent_class.program, "subjects"))
        three_step(em, PARAMS, np.ones(SIZE), ANSWERS, 3, covariates=X)
