"""Sizes of classes and how well they are told apart: against StepMix's numbers and Bayes's rule."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import emjax
from emjax import EM
from emjax.models import latent_class

WEIGHTS = np.array([0.4, 0.6])
PROBS = np.array([[0.8, 0.7, 0.9, 0.2], [0.2, 0.4, 0.1, 0.6]])
PARAMS = {"weights": WEIGHTS, "probs": PROBS}
ANSWERS = np.array(
    [
        [1, 1, 1, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 1],
        [0, 1, 0, 1],
        [1, 1, 0, 0],
        [0, 0, 1, 1],
        [1, 1, 1, 1],
        [0, 0, 0, 0],
    ]
)


def two_classes(answers, counts=None):
    if counts is None:
        latent_class.program(answers, num_classes=2)
        return
    with numpyro.handlers.scale(scale=counts):
        latent_class.program(answers, num_classes=2)


def bayes(answers=ANSWERS):
    """p(class | answers), by Bayes's rule."""
    likelihood = np.prod(np.where(answers[:, None] == 1, PROBS, 1 - PROBS), axis=-1)
    joint = WEIGHTS * likelihood
    return joint / joint.sum(1, keepdims=True)


def test_classification_is_that_of_stepmix():
    """StepMix 3.0.0, with these parameters set: relative_entropy, entropy, compute_bch_matrix."""
    found = emjax.classification(EM(two_classes), PARAMS, ANSWERS)
    np.testing.assert_allclose(found.relative_entropy, 0.6679817598476244, rtol=1e-12)
    np.testing.assert_allclose(found.entropy, 1.8411000564487516, rtol=1e-12)
    of_bch = [[0.93597266, 0.06402734], [0.13920163, 0.86079837]]
    np.testing.assert_allclose(found.modal_given_class, of_bch, atol=1e-8)


def test_sizes_and_tables_are_those_of_rows_written_out():
    counts = np.array([3.0, 1, 2, 1, 1, 4, 1, 2])
    em, posterior = EM(two_classes), np.repeat(bayes(), counts.astype(int), axis=0)
    sizes = emjax.class_sizes(em, PARAMS, ANSWERS, counts=counts)
    np.testing.assert_allclose(sizes.expected, posterior.sum(0), rtol=1e-12)
    modal = posterior.argmax(1)
    np.testing.assert_array_equal(sizes.modal, np.bincount(modal))
    np.testing.assert_allclose(sizes.proportions.sum(), 1, rtol=1e-12)
    found = emjax.classification(em, PARAMS, ANSWERS, counts=counts)
    np.testing.assert_allclose(found.entropy, -np.sum(posterior * np.log(posterior)), rtol=1e-12)
    for c in (0, 1):
        mean = posterior[modal == c].mean(0)
        np.testing.assert_allclose(found.average_posterior[c], mean, rtol=1e-12)
    share, right = posterior.mean(0)[0], posterior[modal == 0].mean(0)[0]
    odds = right / (1 - right) / (share / (1 - share))
    np.testing.assert_allclose(found.odds_of_correct_classification[0], odds, rtol=1e-12)
    np.testing.assert_allclose(found.error, 1 - posterior.max(1).mean(), rtol=1e-10)


def test_tables_print():
    em = EM(two_classes)
    assert str(emjax.class_sizes(em, PARAMS, ANSWERS)).splitlines() == [
        "sizes of the classes, of 8 samples",
        "  latent_class  expected   share  modal   share",
        "  0                 3.62  0.4528      4  0.5000",
        "  1                 4.38  0.5472      4  0.5000",
    ]
    assert str(emjax.classification(em, PARAMS, ANSWERS)).splitlines() == [
        "classification by 'latent_class' of 8 samples: entropy 1.8411 nats, relative entropy "
        "0.6680, expected error 0.1052",
        "mean posterior of each class by modal class",
        "  modal  samples       0       1",
        "  0            4  0.8477  0.1523",
        "  1            4  0.0580  0.9420",
    ]


def pairs(x):
    with numpyro.plate("rows", len(x)):
        first = numpyro.sample("first", dist.Bernoulli(0.5))
        second = numpyro.sample("second", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(first + 2.0 * second, 1.0), obs=x)


def shared(x):
    z = numpyro.sample("z", dist.Bernoulli(0.5))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(jnp.where(z == 1, 1.0, 0.0), 1.0), obs=x)


def alone(x):
    loc = numpyro.param("loc", 0.0)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)


X = np.array([0.1, 2.3, 0.7])


@pytest.mark.parametrize(
    ("program", "params", "latent", "message"),
    [
        (pairs, {}, None, "several discrete latents, 'first', 'second': name the one"),
        (pairs, {}, "third", "latent='third' is no discrete latent of the program; it has"),
        (shared, {}, None, "Latent 'z' (one of them) is not one number for each element"),
        (alone, {"loc": 0.0}, None, "no discrete latent, and so no classes: numpyro.sample('z'"),
    ],
    ids=["several", "unknown", "one for all", "none"],
)
def test_what_has_no_classes_says_so(program, params, latent, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        emjax.class_sizes(EM(program), params, X, latent=latent)


def test_a_fit_alone_is_asked_of_its_own_data():
    em = EM(two_classes, max_steps=2)
    fit = em.run(jax.random.key(0), ANSWERS, init_params=PARAMS)
    of_em = emjax.class_sizes(em, fit, ANSWERS)
    np.testing.assert_array_equal(emjax.class_sizes(fit).expected, of_em.expected)
    assert emjax.classification(fit, ANSWERS[:5]).num_samples == 5


def test_named_latent_is_the_one_that_is_counted():
    sizes = emjax.class_sizes(EM(pairs), {}, X, latent="second")
    posterior = EM(pairs).posterior({}, X)["second"]
    np.testing.assert_allclose(sizes.expected, np.asarray(posterior).sum(0), rtol=1e-12)


def test_rows_of_which_nothing_is_observed_count_none():
    def masked(answers, seen):
        weights, probs = jnp.asarray(WEIGHTS), jnp.asarray(PROBS)
        with numpyro.plate("subjects", len(answers)):
            z = numpyro.sample("z", dist.Categorical(weights))
            with numpyro.handlers.mask(mask=seen):
                numpyro.sample("answers", dist.Bernoulli(probs[z]).to_event(1), obs=answers)

    seen = np.arange(8) != 3
    sizes = emjax.class_sizes(EM(masked), {}, ANSWERS, seen)
    np.testing.assert_allclose(sizes.expected, bayes()[seen].sum(0), rtol=1e-12)
    assert jax.numpy.isclose(sizes.num_samples, 7)
