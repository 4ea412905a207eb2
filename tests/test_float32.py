"""JAX's default precision gives the answers of float64 to 1e-4, far from the origin too."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import EM
from emjax.models import (
    annotators,
    coins,
    dawid_skene,
    gaussian_mixture,
    grades,
    k_means,
    latent_class,
    topics,
)

TOLERANCE = 1e-4
NUM_STEPS = 20


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def in_float32(value):
    value = np.asarray(value)
    return (
        jnp.asarray(value, jnp.float32)
        if np.issubdtype(value.dtype, np.floating)
        else jnp.asarray(value)
    )


def assert_float32_is_float64(program, hand_derived_step, start, args, unit, e_step="soft"):
    """Compare 20 steps of EM in float32 with the update derived by hand, in float64, which is EM's
    (models/test_models.py).

    `unit`: what the error of a parameter is measured in, where that is not its own largest entry.
    """
    with jax.enable_x64(False):
        single = tuple(in_float32(arg) if isinstance(arg, np.ndarray) else arg for arg in args)
        em = EM(program, e_step=e_step)
        state = em.init(jax.random.key(0), *single)
        state = replace(state, params={name: in_float32(value) for name, value in start.items()})
        update = jax.jit(lambda state: em.update(state, *single))
        for _ in range(NUM_STEPS):
            state, objective = update(state)
        assert objective.dtype == jnp.float32
    expected = {name: np.asarray(value, float) for name, value in start.items()}
    for _ in range(NUM_STEPS):
        expected = hand_derived_step(expected, *args)
    for name, value in expected.items():
        assert state.params[name].dtype == jnp.float32
        size = unit.get(name, np.abs(value).max())
        np.testing.assert_allclose(
            state.params[name], value, rtol=0, atol=TOLERANCE * size, err_msg=name
        )


RNG = np.random.default_rng(41)
GOOD = np.array([1, 1, 0, 1, 1, 0, 1])
VALUES = RNG.uniform(0.3, 0.7, 12)
SCORES = np.where(GOOD, RNG.normal(VALUES[:, None], 0.06, (12, 7)), RNG.uniform(size=(12, 7)))
WORDS = RNG.multinomial(40, RNG.dirichlet(np.ones(5), size=3)[np.arange(12) % 3])
DOCUMENT, WORD = np.nonzero(WORDS)
TRUTH, (ITEM, ANNOTATOR) = np.arange(30) % 3, np.nonzero(RNG.uniform(size=(30, 6)) < 0.7)
LABEL = np.where(RNG.uniform(size=len(ITEM)) < 0.7, TRUTH[ITEM], RNG.integers(3, size=len(ITEM)))
ANSWERS = RNG.binomial(1, np.array([[0.2, 0.8, 0.5, 0.3], [0.7, 0.1, 0.6, 0.9]])[np.arange(40) % 2])
SUBJECT, QUESTION = np.nonzero(RNG.uniform(size=ANSWERS.shape) < 0.8)
CLASSES = {"weights": np.ones(2) / 2, "probs": RNG.uniform(0.25, 0.75, size=(2, 4))}
POINTS = np.array([[-3.0, 1.0], [3.0, -1.0], [0.5, 4.0]])[np.arange(90) % 3] + RNG.normal(
    size=(90, 2)
)

LECTURES = {
    "annotators": (
        annotators.program,
        annotators.hand_derived_step,
        {"mu": VALUES, "sigma": 0.15, "pi": 0.6},
        (SCORES,),
    ),
    "coins": (
        coins.program,
        coins.hand_derived_step,
        {"bias": np.array([0.6, 0.5])},
        (np.array([5.0, 9.0, 8.0, 4.0, 7.0]), 10),
    ),
    "weighted coins": (
        coins.weighted_program,
        coins.weighted_hand_derived_step,
        {"weights": np.array([0.4, 0.6]), "bias": np.array([0.3, 0.7])},
        (np.array([5.0, 9.0, 8.0, 4.0, 7.0, 1.0, 2.0, 3.0]), 10, 2),
    ),
    "topics, one a document": (
        topics.mixture_program,
        topics.mixture_hand_derived_step,
        {"weights": np.ones(3) / 3, "words": RNG.dirichlet(np.ones(5), size=3)},
        (WORDS.astype(float), 3),
    ),
    "topics, one a word": (
        topics.plsa_program,
        topics.plsa_hand_derived_step,
        {"theta": RNG.dirichlet(np.ones(3), size=12), "words": RNG.dirichlet(np.ones(5), size=3)},
        (DOCUMENT, WORD, WORDS[DOCUMENT, WORD].astype(float), 12, 5, 3),
    ),
    "topics, one a document, on rows": (
        topics.sparse_mixture_program,
        topics.sparse_mixture_hand_derived_step,
        {"weights": np.ones(3) / 3, "words": RNG.dirichlet(np.ones(5), size=3)},
        (DOCUMENT, WORD, WORDS[DOCUMENT, WORD].astype(float), 12, 5, 3),
    ),
    "Dawid-Skene": (
        dawid_skene.program,
        dawid_skene.hand_derived_step,
        {"prevalence": np.ones(3) / 3, "confusion": np.tile((np.eye(3) + 1 / 3) / 2, (6, 1, 1))},
        (ITEM, ANNOTATOR, LABEL, 30, 6, 3),
    ),
    "latent class": (latent_class.program, latent_class.hand_derived_step, CLASSES, (ANSWERS, 2)),
    "latent class, long form": (
        latent_class.long_program,
        latent_class.long_hand_derived_step,
        CLASSES,
        (SUBJECT, QUESTION, ANSWERS[SUBJECT, QUESTION], 40, 4, 2),
    ),
    "latent class, categorical": (
        latent_class.categorical_program,
        latent_class.categorical_hand_derived_step,
        {"weights": np.ones(2) / 2, "probs": RNG.dirichlet(np.ones(2), size=(2, 4))},
        (SUBJECT, QUESTION, ANSWERS[SUBJECT, QUESTION], 40, 4, 2, 2),
    ),
    "grades": (
        grades.program,
        grades.hand_derived_step,
        {"theta": 0.31},
        (np.array([14.0, 6.0, 9.0]),),
    ),
    "grades, partial": (
        grades.partial_program,
        grades.partial_hand_derived_step,
        {"theta": 0.41},
        (np.array(7.0), np.array(30.0)),
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", LECTURES)
def test_a_lecture_model_needs_no_float64(name):
    assert_float32_is_float64(*LECTURES[name], unit={})


def spread_of(covariance, num_components):
    shared = np.cov(POINTS, rowvar=False, bias=True)
    return {
        "spherical": ("scale", np.full(num_components, 2.0)),
        "diagonal": ("scale", np.tile(POINTS.std(axis=0), (num_components, 1))),
        "full": ("covariance", np.tile(shared, (num_components, 1, 1))),
        "tied": ("covariance", shared),
    }[covariance]


@pytest.mark.sampled
@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("covariance", gaussian_mixture.COVARIANCES)
def test_a_gaussian_mixture_far_from_the_origin_needs_no_float64(covariance, mean):
    # Data that float32 can hold: at 1e4 its grid is 1e-3, and rounding the data is no error of
    # ours.
    data = np.asarray(POINTS + mean, np.float32).astype(float)
    name, spread = spread_of(covariance, 3)
    start = {"weights": np.ones(3) / 3, "loc": data[:3], name: spread}
    # A mean of 1e4 ± 1 is meant in units of the spread; float32 itself resolves 1e-3 / 2 there, and
    # the posteriors, hence the spread,
    # see means that are rounded so.
    unit = (
        {"loc": 1.0, name: 1.0} if mean == 0 else {"loc": 5e-4 / TOLERANCE, name: 5e-4 / TOLERANCE}
    )
    assert_float32_is_float64(
        gaussian_mixture.program,
        gaussian_mixture.hand_derived_step,
        start,
        (data, 3, covariance),
        unit,
    )


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_k_means_far_from_the_origin_needs_no_float64(mean):
    data = np.asarray(POINTS + mean, np.float32).astype(float)
    unit = {"loc": 1.0 if mean == 0 else 5e-4 / TOLERANCE}
    assert_float32_is_float64(
        k_means.program, k_means.hand_derived_step, {"loc": data[:3]}, (data, 3), unit, "hard"
    )


def test_a_run_in_float32_converges():
    with jax.enable_x64(False):
        data = jnp.asarray(POINTS + 1e4, jnp.float32)
        em = EM(gaussian_mixture.program, max_steps=500)
        result = em.run(jax.random.key(3), data, 3, "diagonal", init_params={"loc": data[:3]})
        assert result.status.name == "CONVERGED"
        assert all(value.dtype == jnp.float32 for value in result.params.values())
        steps = np.diff(result.objective)
        assert steps.min() >= -1e-5 * abs(result.objective[-1])
