"""One registry, every property: what docs/design.md promises of EM, for every program in
`emjax.models`.
"""

from dataclasses import replace
from math import lgamma

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from emjax import EM, compare_updates
from emjax.models import (
    annotators,
    coins,
    dawid_skene,
    gaussian_mixture,
    grades,
    hidden_markov,
    k_means,
    latent_class,
    mixture_emission_hmm,
    motif,
    record_linkage,
    topics,
)
from tests.models.registry import (
    CHAINS,
    HEADS,
    LATENT,
    MODELS,
    NUM_STEPS,
    SOFT,
    SYMMETRIC,
    assert_close,
    every,
    latent_class_answers,
    padded_sequences,
    update_of,
)
from tests.oracles.brute_force import joint_table
from tests.oracles.by_numpy import evaluated

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")

# ---------------------------------------------------------------- every model


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def test_every_program_is_listed():
    modules = (
        annotators,
        coins,
        dawid_skene,
        gaussian_mixture,
        grades,
        hidden_markov,
        k_means,
        latent_class,
        mixture_emission_hmm,
        motif,
        record_linkage,
        topics,
    )
    programs = {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.endswith("program")
    }
    assert programs == {model.program for model in MODELS.values()}


@every(MODELS)
def test_em_is_the_update_derived_by_hand(model):
    comparison = compare_updates(
        model.em, model.step, model.start, *model.args, num_steps=NUM_STEPS
    )
    assert set(comparison.differences) == set(model.start)
    assert all(len(differences) == NUM_STEPS for differences in comparison.differences.values())
    assert comparison.largest <= 1e-10
    assert "they agree" in str(comparison)


@pytest.mark.sampled
@every(MODELS)
def test_the_objective_never_decreases(model):
    params, objectives = model.params, []
    for _ in range(NUM_STEPS):
        params, objective = model.update(params)
        objectives.append(float(objective))
    assert np.all(np.diff(objectives) >= -1e-9 * np.abs(objectives[:-1]))
    assert objectives[-1] > objectives[0]


@pytest.mark.sampled
@every(LATENT)
def test_every_posterior_sums_to_one(model):
    latents = {latent.name: latent for latent in model.em.plan(*model.args).latents}
    posteriors = model.em.posterior(model.params, *model.args)
    assert set(posteriors) == set(latents)
    for name, posterior in posteriors.items():
        assert posterior.shape == (*latents[name].shape, latents[name].num_values)
        assert np.all(posterior >= 0)
        np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-12)


def traced(model, params, latents):
    substituted = handlers.substitute(model.program, data={**params, **latents})
    with numpyro.validation_enabled(False):
        trace = handlers.trace(handlers.seed(substituted, jax.random.key(0))).get_trace(*model.args)
    return {name: site for name, site in trace.items() if site["type"] == "sample"}


def expected_log_likelihood(model, params, posterior):
    """Return Σ_k p(z = k | x) log p(x, z = k | params) with NumPyro's own densities."""
    if not posterior:
        return sum(
            jnp.sum(site["scale"] * site["fn"].log_prob(site["value"]))
            for site in traced(model, params, {}).values()
        )
    ((name, probability),) = (
        (name, p) for name, p in posterior.items() if name not in model.implied
    )
    total = 0.0
    for k in range(probability.shape[-1]):
        weight = probability[..., k]
        values = {name: jnp.full(weight.shape, k)}
        values |= {other: value(values[name]) for other, value in model.implied.items()}
        for observed, site in traced(model, params, values).items():
            scale = 1.0 if site["scale"] is None else site["scale"]
            of_row = weight[model.parent[observed]] if observed in model.parent else weight
            density = jnp.broadcast_to(of_row, site["fn"].batch_shape) * scale
            log_prob = site["fn"].log_prob(site["value"])
            total += jnp.where(
                density > 0, density * jnp.where(density > 0, log_prob, 0.0), 0.0
            ).sum()
    return total


CONSTRAINTS = {
    "mu": constraints.real,
    "loc": constraints.real,
    "sigma": constraints.positive,
    "scale": constraints.positive,
    "pi": constraints.unit_interval,
    "bias": constraints.unit_interval,
    "theta": constraints.interval(0, 0.5),
    "weights": constraints.simplex,
    "words": constraints.simplex,
    "covariance": constraints.positive_definite,
    "prevalence": constraints.simplex,
    "confusion": constraints.simplex,
    "background": constraints.simplex,
    "motif": constraints.simplex,
    "occurrence": constraints.unit_interval,
    "match_rate": constraints.unit_interval,
    **dict.fromkeys(("m_name", "u_name", "m_city", "u_city"), constraints.simplex),
}


@pytest.mark.sampled
@every({name: model for name, model in SOFT.items() if "floor" not in name and name not in CHAINS})
def test_fishers_identity(model):
    laws = CONSTRAINTS | ({"theta": constraints.simplex} if "words" in model.start else {})
    laws |= {
        "probs": constraints.simplex
        if model.program is latent_class.categorical_program
        else constraints.unit_interval
    }
    bijections = {name: biject_to(laws[name]) for name in model.start}
    start = {name: bijections[name].inv(value) for name, value in model.params.items()}
    rng = np.random.default_rng(12)
    point = {name: value + 0.3 * rng.normal(size=value.shape) for name, value in start.items()}

    def constrained(unconstrained):
        return {name: bijections[name](value) for name, value in unconstrained.items()}

    posterior = model.em.posterior(constrained(point), *model.args)

    def slopes(point):
        likelihood = jax.value_and_grad(
            lambda u: model.em.log_likelihood(constrained(u), *model.args)
        )(point)
        q = jax.grad(lambda u: expected_log_likelihood(model, constrained(u), posterior))(point)
        return likelihood, q

    (log_likelihood, actual), expected = evaluated(slopes, point)
    np.testing.assert_allclose(
        model.update(constrained(point))[1], log_likelihood, rtol=1e-12
    )  # at what enters
    size = max(np.abs(value).max() for value in expected.values())
    assert size > 0.1
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-9, atol=1e-9 * size, err_msg=name)


@pytest.mark.sampled
@every(MODELS)
def test_repeated_data_double_the_log_likelihood_and_leave_the_update_alone(model):
    once, objective = model.update(model.params)
    args = model.twice(*model.args)
    twice, doubled = update_of(model.em, args)(model.params)
    np.testing.assert_allclose(doubled, 2 * objective, rtol=1e-12)
    assert_close(twice, once)


@pytest.mark.sampled
@every(SYMMETRIC)
def test_renumbering_the_values_of_the_latent_renumbers_the_results(model):
    def renumbered(params):
        return {
            name: jnp.flip(value, model.components[name]) if name in model.components else value
            for name, value in params.items()
        }

    here, objective = model.update(model.params)
    there, same = model.update(renumbered(model.params))
    np.testing.assert_allclose(same, objective, rtol=1e-12)
    assert_close(there, renumbered(here))
    posteriors = model.em.posterior(model.params, *model.args)
    for name, flipped in model.em.posterior(renumbered(model.params), *model.args).items():
        np.testing.assert_allclose(flipped, np.flip(posteriors[name], -1), rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------- edge sizes


def one_component(name):
    model = MODELS[name]
    start = dict(model.start)
    for key, axes in model.components.items():
        for axis in np.atleast_1d(axes):
            start[key] = np.take(start[key], [0], axis)
    normalized = ("weights", "theta", "initial", "transition")
    start = {
        key: value / value.sum(-1, keepdims=True) if key in normalized else value
        for key, value in start.items()
    }
    at = 1 if name.startswith("mixture") else 2 if name in CHAINS else len(model.args) - 1
    args = (*model.args[:at], 1, *model.args[at + 1 :])
    return replace(model, args=args, start=start)


ONE_COMPONENT = {
    name: one_component(name)
    for name in (
        "weighted coins",
        "mixture, full",
        "mixture, diagonal",
        "topics, one a document",
        "topics, one a document, on rows",
        "topics, one a word",
        "latent class",
        "latent class, long form",
        "latent class, categorical",
        "hidden Markov, categorical",
        "hidden Markov, diagonal",
        "hidden Markov, full",
        "hidden Markov, Poisson",
    )
}


@pytest.mark.sampled
@every(ONE_COMPONENT)
def test_one_component_is_maximum_likelihood_in_one_step(model):
    once, _ = model.update(model.params)
    twice, _ = model.update(once)
    assert_close(twice, once)
    assert_close(once, model.step(model.start, *model.args))


def one_row(name, *args):
    return replace(MODELS[name], args=args)


def mixture_of_one_row(covariance):
    """One component: the program itself starts from as many rows. The scale ends at its floor."""
    start = {"weights": np.ones(1), "loc": np.array([[0.0, 1.0]]), "scale": np.ones(1)}
    return replace(
        MODELS[f"mixture, {covariance}"],
        args=(np.array([[0.3, 0.1]]), 1, covariance, 0.7),
        start=start,
    )


ONE_ROW = {
    "coins": one_row("coins", HEADS[:1], 10),
    "weighted coins": one_row("weighted coins", HEADS[:1], 10, 3),
    "topics, one a document": one_row("topics, one a document", np.array([[3, 0, 1, 2]]), 3),
    "topics, one a document, on rows": one_row(
        "topics, one a document, on rows", *np.array([[0], [2], [3]]), 1, 4, 3
    ),
    "mixture, spherical": mixture_of_one_row("spherical"),
    "Dawid-Skene": one_row("Dawid-Skene", *np.array([[0], [2], [1]]), 1, 5, 3),
    "latent class": one_row("latent class", np.array([[1, 0, 0, 1]]), 3),
    "latent class, long form": one_row(
        "latent class, long form", *np.array([[0], [2], [1]]), 1, 4, 3
    ),
    "hidden Markov, categorical": one_row(
        "hidden Markov, categorical", np.array([[1]]), np.array([1]), 3, 4
    ),
    "hidden Markov, Poisson": one_row("hidden Markov, Poisson", np.array([[4]]), np.array([1]), 3),
    "motif, one occurrence": one_row("motif, one occurrence", padded_sequences()[:1], 3),
    "motif, zero or one": one_row("motif, zero or one", padded_sequences()[:1], 3),
    "motif, as long as the sequence": one_row("motif, zero or one", padded_sequences()[3:4, :3], 3),
}


@pytest.mark.sampled
@every(ONE_ROW)
def test_one_observation_is_the_update_derived_by_hand(model):
    after, objective = model.update(model.params)
    assert np.isfinite(objective)
    assert_close(after, model.step(model.start, *model.args))


# ---------------------------------------------------------------- k-means


def test_k_means_is_the_hard_e_step():
    model = MODELS["k-means"]
    data, num_components = model.args
    squared = ((data[:, None] - model.start["loc"]) ** 2).sum(-1)
    nearest = squared.argmin(1)
    posterior = model.em.posterior(model.params, *model.args)["component"]
    np.testing.assert_array_equal(posterior, np.eye(num_components)[nearest])
    np.testing.assert_array_equal(model.em.decode(model.params, *model.args)["component"], nearest)
    _, objective = model.update(model.params)
    constant = len(data) * (-np.log(num_components) - np.log(2 * np.pi))
    np.testing.assert_allclose(objective, constant - 0.5 * squared.min(1).sum(), rtol=1e-12)


# ---------------------------------------------------------------- motifs
MOTIFS = {name: model for name, model in MODELS.items() if name.startswith("motif")}


@every(MOTIFS)
def test_motifs_are_brute_force_over_the_starts(model):
    letters, width = model.args
    args = letters[1:4], width
    table = joint_table(model.program, model.params, *args)
    np.testing.assert_allclose(
        model.em.log_likelihood(model.params, *args), table.log_likelihood, rtol=1e-12
    )
    for name, posterior in model.em.posterior(model.params, *args).items():
        np.testing.assert_allclose(
            posterior, table.posterior[name], rtol=1e-10, atol=1e-15, err_msg=name
        )


@every(MOTIFS)
def test_places_past_the_end_of_every_sequence_change_nothing(model):
    letters, width = model.args
    longer = np.pad(letters, ((0, 0), (0, 3)), constant_values=-1)
    expected = trajectory(model.em, model.start, *model.args)
    assert_same_trajectory(trajectory(model.em, model.start, longer, width), expected)


def test_where_every_sequence_has_an_occurrence_zero_or_one_is_one():
    one, zero_or_one = MOTIFS["motif, one occurrence"], MOTIFS["motif, zero or one"]
    expected = trajectory(one.em, one.start, *one.args)
    actual = trajectory(zero_or_one.em, one.start | {"occurrence": 1.0}, *one.args)
    assert_same_trajectory(actual, [after | {"occurrence": 1.0} for after in expected])


def test_a_sequence_shorter_than_the_motif_is_an_error():
    with pytest.raises(
        ValueError,
        match="'start': the probs of Categorical must be probabilities that sum to one; they "
        "sum to 0",
    ):
        EM(motif.program).run(
            jax.random.key(0), padded_sequences(), 4
        )  # the fourth has three letters


# ---------------------------------------------------------------- long form


def trajectory(em, start, *args, num_steps=10):
    """Return the parameters and the objective after each of a few steps."""
    update, params, visited = (
        update_of(em, args),
        {name: jnp.asarray(value) for name, value in start.items()},
        [],
    )
    for _ in range(num_steps):
        params, objective = update(params)
        visited.append(params | {"objective": objective})
    return visited


def assert_same_trajectory(actual, expected, constant=0.0):
    for there, here in zip(actual, expected, strict=True):
        assert_close(there, here | {"objective": here["objective"] + constant})


def masked_latent_class(answers, given, num_classes):
    """Every answer is in the table, and those that were not given are masked."""
    weights = numpyro.param(
        "weights", jnp.full(num_classes, 1 / num_classes), constraint=constraints.simplex
    )
    probs = numpyro.param(
        "probs",
        jnp.full((num_classes, answers.shape[1]), 0.5),
        constraint=constraints.unit_interval,
    )
    with numpyro.plate("subjects", len(answers)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("answers", dist.Bernoulli(probs[z]).mask(given).to_event(1), obs=answers)


def partly_observed_latent_class(answers, given, num_classes):
    """Every answer is in the table, and those that were not given are latent."""
    weights = numpyro.param(
        "weights", jnp.full(num_classes, 1 / num_classes), constraint=constraints.simplex
    )
    probs = numpyro.param(
        "probs",
        jnp.full((num_classes, answers.shape[1]), 0.5),
        constraint=constraints.unit_interval,
    )
    with numpyro.plate("subjects", len(answers), dim=-2):
        z = numpyro.sample("z", dist.Categorical(weights))
        with numpyro.plate("items", answers.shape[1], dim=-1):
            numpyro.sample("answers", dist.Bernoulli(probs[z[:, 0]]), obs=answers, obs_mask=given)


def test_an_answer_that_is_absent_is_an_answer_that_is_masked():
    absent = MODELS["latent class, long form"]
    expected = trajectory(absent.em, absent.start, *absent.args)
    assert_same_trajectory(
        trajectory(EM(masked_latent_class), absent.start, *latent_class_answers(2), 3), expected
    )


def test_an_answer_that_is_latent_teaches_nothing_and_is_imputed():
    absent, (answers, given) = MODELS["latent class, long form"], latent_class_answers(2)
    em, args = EM(partly_observed_latent_class), (answers, given, 3)
    assert_same_trajectory(
        trajectory(em, absent.start, *args), trajectory(absent.em, absent.start, *absent.args)
    )
    r = np.asarray(absent.em.posterior(absent.start, *absent.args)["latent_class"])
    imputed = em.posterior(absent.start, *args)["answers_unobserved"][..., 1]
    np.testing.assert_allclose(imputed[~given], (r @ absent.start["probs"])[~given], rtol=1e-10)


def test_where_every_answer_is_given_the_long_form_is_the_dense_form():
    dense, long = MODELS["latent class"], MODELS["latent class, long form"]
    (answers, num_classes) = dense.args
    subject, item = np.indices(answers.shape).reshape(2, -1)
    args = subject, item, answers.reshape(-1), *answers.shape, num_classes
    assert_same_trajectory(
        trajectory(long.em, dense.start, *args), trajectory(dense.em, dense.start, *dense.args)
    )


def test_two_answers_are_the_binary_latent_classes():
    binary, general = MODELS["latent class, long form"], MODELS["latent class, categorical"]
    *rows, num_subjects, num_items, num_classes = binary.args
    ones = binary.start["probs"]
    start = binary.start | {"probs": np.stack([1 - ones, ones], -1)}
    actual = trajectory(general.em, start, *rows, num_subjects, num_items, 2, num_classes)
    expected = trajectory(binary.em, binary.start, *binary.args)
    assert_same_trajectory(
        [after | {"probs": after["probs"][..., 1]} for after in actual], expected
    )


def test_an_annotator_is_an_item_of_latent_classes_whose_answers_are_labels():
    by_label, by_answer = MODELS["Dawid-Skene"], MODELS["latent class, categorical"]
    *rows, num_items, num_annotators, num_classes = by_label.args
    start = {
        "weights": by_label.start["prevalence"],
        "probs": by_label.start["confusion"].swapaxes(0, 1),
    }
    actual = trajectory(
        by_answer.em, start, *rows, num_items, num_annotators, num_classes, num_classes
    )
    expected = [
        {
            "weights": after["prevalence"],
            "probs": after["confusion"].swapaxes(0, 1),
            "objective": after["objective"],
        }
        for after in trajectory(by_label.em, by_label.start, *by_label.args)
    ]
    assert_same_trajectory(actual, expected)


def masked_labels(labels, given, num_classes):
    """Labels in a table (item, annotator), where those that were not given are masked."""
    num_items, num_annotators = labels.shape
    prevalence = numpyro.param(
        "prevalence", jnp.full(num_classes, 1 / num_classes), constraint=constraints.simplex
    )
    confusion = numpyro.param(
        "confusion",
        jnp.full((num_annotators, num_classes, num_classes), 1 / num_classes),
        constraint=constraints.simplex,
    )
    with numpyro.plate("items", num_items, dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with numpyro.plate("annotators", num_annotators, dim=-1), handlers.mask(mask=given):
            numpyro.sample(
                "label", dist.Categorical(confusion[jnp.arange(num_annotators), truth]), obs=labels
            )


def test_a_label_that_is_absent_is_a_label_that_is_masked():
    model = MODELS["Dawid-Skene"]
    item, annotator, label, num_items, num_annotators, num_classes = model.args
    once = slice(0, -1)  # the table has no room for a second label
    labels, given = (
        np.zeros((num_items, num_annotators), int),
        np.zeros((num_items, num_annotators), bool),
    )
    labels[item[once], annotator[once]], given[item[once], annotator[once]] = label[once], True
    absent = item[once], annotator[once], label[once], num_items, num_annotators, num_classes
    expected = trajectory(model.em, model.start, *absent)
    assert_same_trajectory(
        trajectory(EM(masked_labels), model.start, labels, given, num_classes), expected
    )


def test_topics_on_rows_are_topics_on_counts():
    dense, sparse = MODELS["topics, one a document"], MODELS["topics, one a document, on rows"]
    counts, num_topics = dense.args
    document, word = np.nonzero(counts)
    args = document, word, counts[document, word], *counts.shape, num_topics
    orders = sum(lgamma(total + 1) for total in counts.sum(1)) - sum(
        lgamma(n + 1) for n in counts.ravel()
    )
    expected = trajectory(dense.em, dense.start, *dense.args)
    assert_same_trajectory(trajectory(sparse.em, dense.start, *args), expected, -orders)


@pytest.mark.parametrize("name", ["topics, one a document, on rows", "topics, one a word"])
def test_a_row_is_as_many_tokens_as_it_counts_and_none_changes_nothing(name):
    model = MODELS[name]
    document, word, count, num_documents, num_words, num_topics = model.args
    counts = np.zeros((num_documents, num_words), int)
    np.add.at(counts, (document, word), count)
    tokens = (*(np.repeat(index, count) for index in (document, word)), np.ones(count.sum(), int))
    dense = (*np.indices(counts.shape).reshape(2, -1), counts.reshape(-1))
    sizes = num_documents, num_words, num_topics
    expected = trajectory(model.em, model.start, *model.args)
    assert (counts == 0).any()
    for rows in (tokens, dense):
        assert_same_trajectory(trajectory(model.em, model.start, *rows, *sizes), expected)


def test_where_no_label_of_a_class_is_expected_the_row_of_the_annotator_stays():
    model = MODELS["Dawid-Skene"]
    entering = model.start | {"prevalence": np.array([0.6, 0.0, 0.4])}
    after, _ = model.update({name: jnp.asarray(value) for name, value in entering.items()})
    assert_close(after, model.step(entering, *model.args))
    np.testing.assert_allclose(after["prevalence"][1], 0, atol=0)
    np.testing.assert_allclose(
        after["confusion"][:, 1], entering["confusion"][:, 1], rtol=1e-15
    )  # nobody's label
    np.testing.assert_allclose(
        after["confusion"][-1], entering["confusion"][-1], rtol=1e-15
    )  # who labeled nothing


def test_probabilities_of_an_item_without_answers_stay():
    for name in ("latent class, long form", "latent class, categorical"):
        model = MODELS[name]
        after, _ = model.update(model.params)
        np.testing.assert_allclose(after["probs"][:, 3], model.start["probs"][:, 3], rtol=1e-15)


def test_the_start_of_dawid_skene_is_a_soft_majority_vote():
    item, annotator, label = (
        np.array([0, 0, 0, 1, 2]),
        np.array([0, 1, 2, 0, 1]),
        np.array([2, 2, 0, 1, 0]),
    )
    em, args = EM(dawid_skene.program), (item, annotator, label, 4, 3, 3)
    start = em.init(jax.random.key(0), *args).params
    votes = np.zeros((4, 3))
    np.add.at(votes, (item, label), 1)
    odds = 4.0**votes
    np.testing.assert_allclose(
        em.posterior(start, *args)["truth"], odds / odds.sum(1, keepdims=True), rtol=1e-12
    )
