"""Free parameters, information criteria, cross-validation, and models side by side: held to
formulas, brute force, plain loops and scikit-learn.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

import emjax
from emjax import EM, Candidate, Choice, Criteria, CrossValidation, EMResult, Status
from emjax.models import gaussian_mixture, hidden_markov

KEY = jax.random.key(0)
IRIS = load_iris().data[::5]
X = np.array([-2.1, 1.9, -1.6, 2.7, -2.9, 1.2, -2.3, 2.2, -1.1, 3.1, -1.8, 1.6])
COUNTS = np.array([[1, 5, 0, 7], [0, 6, 2, 3], [4, 1, 2, 8]])
CHAIN = {
    "initial": np.array([0.3, 0.7]),
    "transition": np.array([[0.8, 0.2], [0.4, 0.6]]),
    "rate": np.array([1.0, 5.0]),
}


def two_normals(x, count=1.0):
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.5]))
    scale = numpyro.param("scale", jnp.array(1.0), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)), numpyro.handlers.scale(scale=count):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[component], scale), obs=x)


def one_normal(x):
    loc, scale = (
        numpyro.param("loc", jnp.array(0.0)),
        numpyro.param("scale", jnp.array(1.0), constraint=constraints.positive),
    )
    with numpyro.plate("samples", len(x)):
        numpyro.sample("x", dist.Normal(loc, scale), obs=x)


def raters(item, label, num_items):
    probs = numpyro.param("probs", jnp.array([0.2, 0.7]), constraint=constraints.unit_interval)
    with numpyro.plate("items", num_items):
        truth = numpyro.sample("truth", dist.Bernoulli(0.4))
    with numpyro.plate("labels", len(label)):
        numpyro.sample("label", dist.Bernoulli(probs[truth[item]]), obs=label)


def log_normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def log_joint(params, x):
    """log p(x, z) of `two_normals`, (sample, component)."""
    weights, loc, scale = (np.asarray(params[name]) for name in ("weights", "loc", "scale"))
    return np.log(weights) + log_normal(x[:, None], loc, scale)


def log_paths(params, counts):
    """log p(counts, path) of a chain of two states, for every path."""
    rate = params["rate"]
    emission = (
        counts[:, None] * np.log(rate)
        - rate
        - np.array([math.lgamma(count + 1) for count in counts])[:, None]
    )
    return [
        np.log(params["initial"][path[0]])
        + sum(np.log(params["transition"][a, b]) for a, b in itertools.pairwise(path))
        + sum(emission[t, state] for t, state in enumerate(path))
        for path in itertools.product(range(2), repeat=len(counts))
    ]


@pytest.fixture(scope="module")
def normals():
    em = EM(two_normals, tol=1e-13)
    result = em.run(KEY, jnp.asarray(X))
    return em, result, emjax.criteria(em, result.params, jnp.asarray(X))


# ── information criteria ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_aic_and_bic_are_those_of_scikit_learn_on_the_same_parameters(covariance):
    theirs = GaussianMixture(
        3, covariance_type={"diagonal": "diag"}.get(covariance, covariance), random_state=0
    ).fit(IRIS)
    spread = (
        {"covariance": theirs.covariances_}
        if covariance in ("full", "tied")
        else {"scale": np.sqrt(theirs.covariances_)}
    )
    params = {"weights": theirs.weights_ / theirs.weights_.sum(), "loc": theirs.means_, **spread}
    ours = emjax.criteria(
        EM(partial(gaussian_mixture.program, num_components=3, covariance=covariance)), params, IRIS
    )
    assert ours.num_free_parameters == theirs._n_parameters()
    np.testing.assert_allclose(
        [ours.aic, ours.bic], [theirs.aic(IRIS), theirs.bic(IRIS)], atol=1e-8
    )
    assert (ours.num_samples, ours.plate) == (len(IRIS), "samples")


def test_icl_takes_every_latent_at_its_most_probable_value(normals):
    _, result, found = normals
    joint = log_joint(result.params, X)
    np.testing.assert_allclose(
        found.log_likelihood, np.logaddexp.reduce(joint, axis=1).sum(), rtol=1e-13
    )
    np.testing.assert_allclose(found.complete_log_likelihood, joint.max(axis=1).sum(), rtol=1e-13)
    np.testing.assert_allclose(found.icl, -2 * joint.max(axis=1).sum() + 4 * np.log(12), rtol=1e-13)
    np.testing.assert_allclose(
        [found.aic, found.bic],
        -2 * float(result.log_likelihood) + 4 * np.array([2, np.log(12)]),
        rtol=1e-13,
    )


def test_icl_of_a_chain_takes_the_most_probable_path():
    em, lengths = EM(partial(hidden_markov.poisson_program, num_states=2)), np.array([4, 4, 2])
    found = emjax.criteria(em, CHAIN, COUNTS.T, lengths)
    expected = sum(
        max(log_paths(CHAIN, counts[:length]))
        for counts, length in zip(COUNTS, lengths, strict=True)
    )
    np.testing.assert_allclose(found.complete_log_likelihood, expected, rtol=1e-12)
    assert (found.num_free_parameters, found.num_samples, found.plate) == (
        1 + 2 + 2,
        3,
        "sequences",
    )


def test_multiplicities_count_as_samples(normals):
    em, result, _ = normals
    count = np.arange(12) % 3 + 0.5
    found = emjax.criteria(em, result.params, jnp.asarray(X), count=jnp.asarray(count))
    np.testing.assert_allclose(found.num_samples, count.sum(), rtol=1e-15)
    np.testing.assert_allclose(
        found.bic,
        -2 * (count * np.logaddexp.reduce(log_joint(result.params, X), axis=1)).sum()
        + 4 * np.log(count.sum()),
        rtol=1e-13,
    )


def counted(x):
    shared = numpyro.param("shared", jnp.zeros(2))
    matrix = numpyro.param("matrix", jnp.eye(3), constraint=constraints.corr_matrix)
    numpyro.param("idle", jnp.ones(7))
    prior = numpyro.sample("prior", dist.Dirichlet(jnp.full(4, 2.0)))
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(prior))
        numpyro.sample(
            "x", dist.Normal(shared[z % 2] + shared[(z + 1) % 2] + matrix[0, 1], 1.0), obs=x
        )


def test_what_is_shared_counts_once_and_what_nothing_observed_depends_on_not_at_all():
    start = {
        "shared": np.array([0.3, 0.2]),
        "matrix": np.eye(3),
        "idle": np.ones(7),
        "prior": np.full(4, 0.25),
    }
    found = emjax.criteria(EM(counted), start, jnp.asarray(X))
    assert found.num_free_parameters == 2 + 3 + 0 + 3
    np.testing.assert_allclose(
        found.log_likelihood, log_normal(X, 0.5, 1.0).sum(), rtol=1e-13
    )  # without its prior


def test_criteria_print_what_they_are(normals):
    text = str(normals[2])
    assert "4 free parameters, 12 samples (the elements of plate 'samples')" in text
    assert [line.split()[0] for line in text.splitlines()[2:]] == [
        "AIC",
        "BIC",
        "SABIC",
        "CAIC",
        "ICL",
        "AWE",
    ]
    assert f"{normals[2].bic:.4f}" in text


def test_criteria_of_few_samples_are_their_formulas():
    """StepMix 3.0.0 has the same AIC, BIC and CAIC; its SABIC takes log(n (n + 2) / 24)."""
    found = emjax.Criteria(jnp.asarray(-22.09418473229582), jnp.asarray(-23.0), 9, 8.0, "subjects")
    expected = {
        "AIC": 62.18836946459164,
        "BIC": 62.90334333971016,
        "SABIC": 2 * 22.09418473229582 + 9 * np.log(10 / 24),
        "CAIC": 71.90334333971016,
        "ICL": 46 + 9 * np.log(8),
        "AWE": 46 + 18 * (np.log(8) + 1.5),
    }
    assert found.by_name == pytest.approx(expected, rel=1e-14)


def test_samples_and_parameters_may_be_given(normals):
    em, result, counted = normals
    found = emjax.criteria(em, result.params, jnp.asarray(X), num_samples=7, num_free_parameters=5)
    np.testing.assert_allclose(found.bic, counted.bic - 4 * np.log(12) + 5 * np.log(7), rtol=1e-13)
    assert found.plate == ""


def test_the_plate_of_the_samples_is_asked_for_where_there_are_several():
    em, data = EM(raters), (np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0]), 3)
    params = {"probs": np.array([0.2, 0.7])}
    with pytest.raises(
        ValueError,
        match=r"several outermost plates.*plate='items' \(or 'labels'\).*'items' \(3\), "
        r"'labels' \(5\)",
    ):
        _ = emjax.criteria(em, params, *data).bic
    with pytest.raises(ValueError, match=r"no plate 'rows'.*'items' \(3\), 'labels' \(5\)"):
        emjax.criteria(em, params, *data, plate="rows")
    assert emjax.criteria(em, params, *data, plate="labels").num_samples == 5
    for name in ("num_samples", "num_free_parameters"):
        with pytest.raises(ValueError, match=f"{name} must be a number of at least 0, not -1"):
            emjax.criteria(em, params, *data, **{name: -1})
    with pytest.raises(ValueError, match="no samples"):
        emjax.criteria(em, params, *data, num_samples=0)


def test_a_program_without_a_plate_and_a_constraint_without_a_dimension_are_errors():
    def no_plate(x):
        direction = numpyro.param("direction", jnp.array([0.6, 0.8]), constraint=constraints.sphere)
        numpyro.sample("x", dist.Normal(direction[0], 1.0), obs=x)

    params = {"direction": jnp.array([0.6, 0.8])}
    found = emjax.criteria(EM(no_plate), params, jnp.asarray(0.3), num_free_parameters=1)
    with pytest.raises(ValueError, match="no plate"):
        _ = found.icl
    # what no sample enters is defined all the same
    np.testing.assert_allclose(found.aic, -2 * log_normal(0.3, 0.6, 1.0) + 2, rtol=1e-12)
    assert "no other: The program has no plate" in str(found)
    with pytest.raises(ValueError, match=r"'direction'.*num_free_parameters="):
        emjax.criteria(EM(no_plate), params, jnp.asarray(0.3), num_samples=1)


def test_sites_that_count_different_numbers_of_samples_are_an_error():
    def uneven(x):
        loc = numpyro.param("loc", jnp.array(0.0))
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)
            with numpyro.handlers.scale(scale=2.0):
                numpyro.sample("y", dist.Normal(loc, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"'x' 12, 'y' 24.*num_samples="):
        _ = emjax.criteria(EM(uneven), {"loc": 0.0}, jnp.asarray(X)).bic


# ── single samples ────────────────────────────────────────────────────────────────────────────────


def test_log_likelihood_of_every_sample_is_that_of_the_mixture(normals):
    em, result, _ = normals
    found = emjax.pointwise_log_likelihood(em, result.params, jnp.asarray(X))
    np.testing.assert_allclose(
        found, np.logaddexp.reduce(log_joint(result.params, X), axis=1), rtol=1e-12
    )


def test_rows_of_another_plate_count_with_the_element_that_they_belong_to():
    item, label, probs = (
        np.array([2, 0, 1, 1, 0, 2]),
        np.array([0, 1, 1, 1, 0, 0]),
        np.array([0.2, 0.7]),
    )
    em = EM(raters)
    found = emjax.pointwise_log_likelihood(
        em, {"probs": probs}, item, label, 3, plate="items", rows={"labels": item}
    )
    each = np.log(np.where(label[:, None] == 1, probs, 1 - probs))
    joint = np.log([0.6, 0.4]) + np.stack([each[item == i].sum(0) for i in range(3)])
    np.testing.assert_allclose(found, np.logaddexp.reduce(joint, axis=1), rtol=1e-12)
    for plate, rows in (("labels", None), ("items", {"labels": np.roll(item, 1)})):
        with pytest.raises(
            ValueError, match=rf"elements of plate '{plate}'.* are not independent.*rows="
        ):
            emjax.pointwise_log_likelihood(
                em, {"probs": probs}, item, label, 3, plate=plate, rows=rows
            )
    with pytest.raises(
        ValueError,
        match=r"rows\['labels'\] must say, for each of the 6 elements.*of the 3 elements "
        r"of 'items'",
    ):
        emjax.pointwise_log_likelihood(
            em, {"probs": probs}, item, label, 3, plate="items", rows={"labels": item + 1}
        )


# ── cross-validation ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folds():
    em = EM(two_normals, tol=1e-13)
    return em, emjax.cross_validate(em, KEY, jnp.asarray(X), num_folds=3)


def test_cross_validation_is_a_loop_over_folds(folds):
    em, found = folds
    assert sorted(np.bincount(found.fold)) == [4, 4, 4]
    for fold in range(3):
        out = found.fold == fold
        result = em.run(KEY, jnp.asarray(X[~out]))
        expected = np.logaddexp.reduce(log_joint(result.params, X[out]), axis=1)
        np.testing.assert_allclose(np.asarray(found.pointwise)[out], expected, atol=1e-8)
        assert (found.status[fold], found.num_steps[fold]) == (result.status, result.num_steps)
        for name, value in result.params.items():
            np.testing.assert_allclose(found.params[name][fold], value, atol=1e-8)
    np.testing.assert_allclose(found.log_likelihood, np.sum(found.pointwise), rtol=1e-14)
    np.testing.assert_allclose(
        found.standard_error, np.sqrt(12) * np.std(found.pointwise, ddof=1), rtol=1e-12
    )
    assert (
        f"{found.log_likelihood:.4f} ± {found.standard_error:.4f} nats (12 elements of plate "
        "'samples', 3 folds)" in str(found)
    )


def test_leaving_one_normal_out_by_hand():
    found = emjax.cross_validate(EM(one_normal), KEY, jnp.asarray(X), num_folds=12)
    others = [np.delete(X, n) for n in range(12)]
    expected = [log_normal(X[n], x.mean(), x.std()) for n, x in enumerate(others)]
    np.testing.assert_allclose(found.pointwise, expected, atol=1e-12)


def test_sequences_of_a_chain_are_held_out_whole():
    em, lengths = (
        EM(partial(hidden_markov.poisson_program, num_states=2), max_steps=5, tol=0),
        np.array([4, 4, 2]),
    )
    found = emjax.cross_validate(em, KEY, COUNTS.T, lengths, num_folds=3, init_params=CHAIN)
    for n in range(3):
        kept, params = np.delete(np.arange(3), n), CHAIN
        for _ in range(5):
            params = hidden_markov.poisson_hand_derived_step(
                params, COUNTS.T[:, kept], lengths[kept], 2
            )
        expected = np.logaddexp.reduce(log_paths(params, COUNTS[n, : lengths[n]]))
        np.testing.assert_allclose(found.pointwise[n], expected, atol=1e-10)
    assert list(found.status) == [Status.MAX_STEPS] * 3
    assert str(found).count("stopped at max_steps") == 3


def test_the_best_of_several_starts_is_taken_in_every_fold():
    def program(x):
        loc = numpyro.param(
            "loc",
            lambda key: jnp.where(
                jax.random.bernoulli(key, 0.7), jnp.zeros(2), jnp.array([-1.0, 1.0])
            ),
        )
        with numpyro.plate("samples", len(x)):
            component = numpyro.sample("component", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Normal(loc[component], 1.0), obs=x)

    found = emjax.cross_validate(
        EM(program, num_restarts=12), jax.random.key(1), jnp.asarray(X), num_folds=3
    )
    assert (
        np.ptp(np.asarray(found.params["loc"]), axis=1) > 1
    ).all()  # from zeros, they never part


def test_a_fold_is_short_runs_and_the_best_of_them_to_its_end():
    def program(x):
        loc = numpyro.param("loc", lambda key: 4 * jax.random.normal(key, (3,)))
        with numpyro.plate("samples", len(x)):
            component = numpyro.sample("component", dist.Categorical(jnp.ones(3) / 3))
            numpyro.sample("x", dist.Normal(loc[component], 1.0), obs=x)

    x, num_steps = np.concatenate([X, [7.0, 7.5, -8.0, -8.8, 7.1, -8.1]]), []
    # the keys of the folds' starts
    keys = jax.random.split(jax.random.split(KEY)[1], 2)
    for short_steps in (1, None):
        em = EM(program, init="program", num_restarts=4, short_steps=short_steps)
        found = emjax.cross_validate(em, KEY, x, num_folds=2)
        for fold, key in enumerate(keys):
            alone = em.run(key, x[found.fold != fold])
            np.testing.assert_allclose(found.params["loc"][fold], alone.params["loc"], rtol=1e-9)
            assert found.num_steps[fold] == alone.num_steps
        num_steps.append(found.num_steps.tolist())
    # the best after one step is another one than the best at the end
    assert num_steps[0] != num_steps[1]


def test_a_fold_whose_em_fails_is_reported_and_not_averaged_away():
    found = emjax.cross_validate(EM(one_normal), KEY, jnp.array([1.0, 1.0, 1.0, 2.0]), num_folds=4)
    failed = int(found.fold[3])  # without the 2, all are equal: the scale shrinks to zero
    assert [status == Status.NOT_FINITE for status in found.status] == [
        fold == failed for fold in range(4)
    ]
    assert np.isnan(found.pointwise).tolist() == [False, False, False, True]
    assert found.has_failed and np.isnan(found.log_likelihood)
    assert f"fold {failed}: the objective became infinite" in str(found)


def test_what_was_never_seen_is_impossible_and_swallows_no_other():
    def letters(x):
        probs = numpyro.param("probs", jnp.full(3, 1 / 3), constraint=constraints.simplex)
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Categorical(probs), obs=x)

    found = emjax.cross_validate(EM(letters), KEY, jnp.array([0, 1, 0, 1, 0, 1, 2, 0]), num_folds=2)
    pointwise, fold = np.asarray(found.pointwise), found.fold
    x = np.array([0, 1, 0, 1, 0, 1, 2, 0])
    with np.errstate(divide="ignore"):
        expected = [np.log(np.mean(x[fold != fold[n]] == x[n])) for n in range(8)]
    np.testing.assert_allclose(pointwise, expected, rtol=1e-12)
    assert np.isneginf(found.log_likelihood) and not found.has_failed
    assert "1 of the elements are impossible under the estimate" in str(found)


def test_a_program_that_looks_at_its_data_is_cross_validated():
    def letters(x):
        size = int(x.max()) + 1
        probs = numpyro.param("probs", jnp.full(size, 1 / size), constraint=constraints.simplex)
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Categorical(probs), obs=x)

    x = np.array([0, 1, 0, 1, 0, 1])
    found = emjax.cross_validate(EM(letters), KEY, x, num_folds=2)
    expected = [np.log(np.mean(x[found.fold != found.fold[n]] == x[n])) for n in range(6)]
    np.testing.assert_allclose(found.pointwise, expected, rtol=1e-12)
    assert emjax.criteria(EM(letters), {"probs": np.array([0.5, 0.5])}, x).num_samples == 6


def local_effects(x):
    with numpyro.plate("samples", len(x)):
        effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(effect, 1.0), obs=x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_folds": 1}, "num_folds must be a whole number from 2 to 12"),
        ({"num_folds": 13}, "num_folds.*not 13"),
        ({"num_folds": 2.0}, r"num_folds.*not 2\.0"),
        ({"plate": "rows"}, "no plate 'rows'"),
        ({"init_params": {"loc": [0.0, np.nan]}}, "'loc' is NaN"),
        ({"rows": {"labels": X}}, "no plate 'labels'"),
    ],
)
def test_bad_arguments_of_cross_validation_are_errors(normals, arguments, message):
    with pytest.raises(ValueError, match=message):
        emjax.cross_validate(normals[0], KEY, jnp.asarray(X), **arguments)


def test_data_in_place_of_the_key_and_effects_of_single_samples_are_errors(normals):
    with pytest.raises(
        ValueError,
        match=r"second argument is a random key.*emjax\.cross_validate\(em, jax\.random\.key\(0\)",
    ):
        emjax.cross_validate(normals[0], jnp.asarray(X))
    with pytest.raises(
        ValueError, match="'effect' has a value for each element of plate 'samples'"
    ):
        emjax.cross_validate(EM(local_effects), KEY, jnp.asarray(X))


# ── models side by side ───────────────────────────────────────────────────────────────────────────


def candidate(log_likelihood, num_free_parameters, held_out=None, status=Status.CONVERGED):
    """A candidate of these numbers: 100 samples, and (mean, standard deviation, ...) of the
    held-out log-likelihood.
    """
    value = jnp.asarray(float(log_likelihood))
    result = EMResult({}, value, np.array([float(log_likelihood)]), 3, status)
    folds = None
    if held_out is not None:
        folds = CrossValidation(
            jnp.asarray(held_out),
            np.arange(100) % 2,
            {},
            (Status.CONVERGED,) * 2,
            np.array([3, 3]),
            "samples",
            np.ones(100),
        )
    return Candidate(
        result, Criteria(value, value - 1, num_free_parameters, 100.0, "samples"), folds
    )


def test_each_criterion_chooses_its_lowest():
    found = Choice(
        {"small": candidate(-100, 2), "middle": candidate(-95, 4), "large": candidate(-92, 6)}
    )
    assert found.chosen == {
        "AIC": "large",
        "BIC": "middle",
        "SABIC": "large",
        "CAIC": "small",
        "ICL": "middle",
        "AWE": "small",
    }
    assert str(found).splitlines()[-1] == "others choose: SABIC large, CAIC small, AWE small"
    rows = [line.split() for line in str(found).splitlines()[1:4]]
    assert [row[0] for row in rows] == ["small", "middle", "large"]
    assert [[cell.endswith("*") for cell in row[-3:]] for row in rows] == [
        [False] * 3,
        [False, True, True],
        [True, False, False],
    ]
    assert rows[0][-3:] == ["204.00", "209.21", "211.21"]


def test_the_simplest_within_one_standard_error_of_the_difference_is_chosen():
    noise = np.where(
        np.arange(100) % 2 == 0, 1.0, -1.0
    )  # a difference of mean m and this noise has the standard error 10.05
    best = np.linspace(-3, -1, 100)
    near, far = best - 0.09 + noise, best - 0.11 + noise
    found = Choice(
        {
            "far": candidate(-100, 1, far),
            "near": candidate(-99, 2, near),
            "best": candidate(-98, 9, best),
        }
    )
    assert (found.chosen["CV"], found.chosen["CV, 1 SE"]) == ("best", "near")
    cells = [line.split("  ")[-1] for line in str(found).splitlines()[1:4]]
    assert [(cell.endswith("*"), cell.endswith("°")) for cell in cells] == [
        (False, False),
        (False, True),
        (True, False),
    ]


def test_a_candidate_that_failed_is_shown_so_and_never_chosen():
    broken = candidate(1e6, 2, np.full(100, 1e6), Status.NOT_FINITE)
    nan_fold = candidate(-50, 3, np.where(np.arange(100) == 0, np.nan, 0.0))
    nan_fold = eqx_replace(nan_fold, (Status.NOT_FINITE, Status.CONVERGED))
    found = Choice(
        {"broken": broken, "fold": nan_fold, "good": candidate(-90, 3, np.full(100, -1.0))}
    )
    assert found.chosen == {
        "AIC": "fold",
        "BIC": "fold",
        "SABIC": "fold",
        "CAIC": "fold",
        "ICL": "fold",
        "AWE": "fold",
        "CV": "good",
        "CV, 1 SE": "good",
    }
    lines = str(found).splitlines()
    assert lines[1].split() == ["broken", "not", "finite", "3", "–", "2", "–", "–", "–", "–"]
    assert lines[2].endswith("failed in 1 of 2 folds")
    assert "candidate fold: of 2 folds EM came to no maximum in 1 (not finite in 1)" in str(found)
    assert Choice({"broken": broken}).chosen == {}


def eqx_replace(found, status):
    folds = found.cross_validation
    folds = CrossValidation(
        folds.pointwise,
        folds.fold,
        folds.params,
        status,
        folds.num_steps,
        folds.plate,
        folds.multiplicity,
    )
    return Candidate(found.result, found.criteria, folds)


def test_models_are_compared_on_the_same_folds(normals):
    em, result, alone = normals
    found = emjax.choose({1: one_normal, "two": em}, KEY, jnp.asarray(X), num_folds=3)
    assert list(found.candidates) == [1, "two"]
    two = found.candidates["two"]
    np.testing.assert_array_equal(two.result.params["loc"], result.params["loc"])
    np.testing.assert_allclose(
        [two.criteria.aic, two.criteria.icl], [alone.aic, alone.icl], rtol=1e-12
    )
    np.testing.assert_allclose(
        found.candidates[1].criteria.log_likelihood,
        log_normal(X, X.mean(), X.std()).sum(),
        rtol=1e-9,
    )
    np.testing.assert_array_equal(
        two.cross_validation.fold, found.candidates[1].cross_validation.fold
    )
    assert found.chosen["AIC"] == "two"
    assert len(str(found).splitlines()) == 6


def test_what_nobody_says_the_samples_of_is_chosen_by_aic_alone():
    def no_plate(x, scale):
        loc = numpyro.param("loc", jnp.array(0.0))
        numpyro.sample("x", dist.Normal(loc, scale), obs=x)

    candidates = {scale: partial(no_plate, scale=scale) for scale in (1.0, 2.0, 9.0)}
    found = emjax.choose(candidates, KEY, jnp.asarray(0.3), num_folds=None)
    assert found.chosen == {"AIC": 1.0}
    assert str(found).splitlines()[1].split()[-3:] == ["3.84*", "–", "–"]
    with pytest.raises(
        ValueError, match=r"Candidate 1.0: .*no plate.*choose\(\.\.\., num_folds=None"
    ):
        emjax.choose(candidates, KEY, jnp.asarray(0.3))


def test_estimates_that_do_not_maximize_the_likelihood_are_no_rivals_of_those_that_do():
    def of(temperature, height, num_samples=100.0):
        value = jnp.asarray(height)
        result = EMResult({}, value, np.array([height]), 3, Status.CONVERGED)
        values = Criteria(value, value, 2, num_samples, "samples", temperature=temperature)
        return Candidate(result, values, None)

    mixed = Choice({"soft": of(1.0, -90.0), "hard": of(0.0, -80.0)})
    assert set(mixed.chosen.values()) == {"soft"}
    assert "The E-steps are soft and hard" in str(mixed) and mixed.findings[0].where == "hard"
    alike = Choice({"small": of(0.0, -90.0), "large": of(0.0, -80.0)})
    assert alike.chosen["BIC"] == "large" and "The E-step is hard" in str(alike)
    assert Choice({"soft": of(1.0, -90.0)}).findings == ()
    # what is masked in one model is data in the other
    other = Choice({"all": of(1.0, -90.0), "some": of(1.0, -80.0, 90.0)})
    assert other.chosen == {"AIC": "some"}
    assert "all: 100, some: 90" in str(other)


def test_criteria_of_a_hard_e_step_say_that_it_is_none_of_a_maximum():
    em = EM(two_normals, e_step="hard")
    found = emjax.criteria(em, em.run(KEY, X), X)
    assert "The E-step is hard" in str(found)
    assert emjax.criteria(EM(two_normals), em.run(KEY, X), X).findings == ()


def test_a_component_that_has_collapsed_is_never_chosen():
    def mixture(x, floor):
        loc = numpyro.param("loc", jnp.array([0.0, 9.0]))
        bound = constraints.greater_than(floor)
        scale = numpyro.param("scale", jnp.ones(2), constraint=bound)
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    x = np.concatenate([X, np.full(8, 9.0)])
    models = {"none": partial(mixture, floor=1e-7), "floor": partial(mixture, floor=0.1)}
    found = emjax.choose(models, KEY, x, num_folds=None)
    assert found.candidates["none"].result.status == Status.COLLAPSED
    # its likelihood is higher, as high as one likes
    values = [each.criteria.log_likelihood for each in found.candidates.values()]
    assert values[0] > values[1]
    assert set(found.chosen.values()) == {"floor"}


def test_candidates_that_are_none_are_errors(normals):
    for wrong in ({}, [normals[0]]):
        with pytest.raises(
            ValueError, match=r"candidates must be a dictionary \{label: EM or program\}"
        ):
            emjax.choose(wrong, KEY, jnp.asarray(X))
    with pytest.raises(ValueError, match="Candidate 'b' must be an EM or a program, not 3"):
        emjax.choose({"b": 3}, KEY, jnp.asarray(X))
    with pytest.raises(ValueError, match=r"Candidate 'a': .*no plate 'rows'"):
        emjax.choose({"a": normals[0]}, KEY, jnp.asarray(X), plate="rows")


def test_a_fold_does_not_choose_a_start_whose_scale_has_collapsed():
    def mixture(x):
        loc = numpyro.param("loc", jnp.array([0.0, 1.0]))
        scale = numpyro.param(
            "scale", jnp.ones(2), constraint=constraints.greater_than(1e-7)
        )  # a floor that is none
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(-2, 1, 20), rng.normal(2, 1, 20), np.full(8, 9.0)]
    )  # equal data: a component alone with them collapses
    found = emjax.cross_validate(
        EM(mixture, init="data", num_restarts=8), jax.random.key(0), x, num_folds=3
    )
    assert np.asarray(found.params["scale"]).min() > 1e-3
