"""Equal rows as one row with a multiplicity: the same likelihood, the same steps."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, compress

ANSWERS = np.random.default_rng(0).integers(2, size=(200, 4))


def program(answers, count=1.0):
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=constraints.simplex)
    probs = numpyro.param(
        "probs",
        jnp.asarray(np.random.default_rng(1).uniform(0.3, 0.7, (2, 4))),
        constraint=constraints.unit_interval,
    )
    with numpyro.plate("subjects", len(answers)), numpyro.handlers.scale(scale=count):
        kind = numpyro.sample("kind", dist.Categorical(weights))
        numpyro.sample("answer", dist.Bernoulli(probs[kind]).to_event(1), obs=answers)


def test_distinct_rows_are_the_data_again():
    (answers, score), count, rows = compress(ANSWERS, ANSWERS.sum(1) / 3)
    assert len(answers) == len(np.unique(ANSWERS, axis=0)) == len(count) and count.sum() == 200
    np.testing.assert_array_equal(answers[rows], ANSWERS)
    np.testing.assert_array_equal(score[rows], ANSWERS.sum(1) / 3)
    np.testing.assert_array_equal(np.bincount(rows), count)
    assert answers.dtype == ANSWERS.dtype


def test_rows_keep_the_order_of_their_first_appearance():
    (values,), count, rows = compress(np.array([3.0, 1.0, 3.0, 2.0]))
    np.testing.assert_array_equal(values, [3.0, 1.0, 2.0])
    np.testing.assert_array_equal(count, [2, 1, 1])
    np.testing.assert_array_equal(rows, [0, 1, 0, 2])


def test_weights_add_up_and_compressing_twice_changes_nothing():
    weight = np.random.default_rng(2).uniform(1, 2, 200)
    (answers,), count, rows = compress(ANSWERS, weight=weight)
    np.testing.assert_allclose(count, np.bincount(rows, weight), rtol=1e-15)
    again = compress(answers, weight=count)
    np.testing.assert_array_equal(again.count, count)
    np.testing.assert_array_equal(again.arrays[0], answers)


def test_nan_equals_nan_and_zero_equals_minus_zero():
    (values,), count, _ = compress(np.array([np.nan, 0.0, -0.0, -np.nan, 1.0]))
    np.testing.assert_array_equal(count, [2, 2, 1])
    np.testing.assert_array_equal(values, [np.nan, 0.0, 1.0])


def test_em_on_distinct_rows_takes_the_same_steps():
    (answers,), count, rows = compress(ANSWERS)
    em = EM(program, max_steps=30, tol=0)
    whole = em.run(jax.random.key(0), jnp.asarray(ANSWERS))
    short = em.run(jax.random.key(0), jnp.asarray(answers), count=jnp.asarray(count, float))
    np.testing.assert_allclose(short.objective, whole.objective, rtol=1e-12)
    for name, value in whole.params.items():
        np.testing.assert_allclose(short.params[name], value, atol=1e-11)
    posterior = em.posterior(short.params, jnp.asarray(answers), count=jnp.asarray(count, float))[
        "kind"
    ]
    np.testing.assert_allclose(
        posterior[rows], em.posterior(whole.params, jnp.asarray(ANSWERS))["kind"], atol=1e-10
    )


@pytest.mark.parametrize(
    ("arrays", "weight", "message"),
    [
        ((), None, "one or more arrays"),
        ((np.array(3.0),), None, "one or more arrays"),
        ((np.ones(3), np.ones(4)), None, "3, 4"),
        ((np.ones(3),), np.ones(2), "3, 2"),
    ],
)
def test_bad_input_is_an_error(arrays, weight, message):
    with pytest.raises(ValueError, match=message):
        compress(*arrays, weight=weight)


def test_no_rows_and_no_columns_are_allowed():
    assert len(compress(np.zeros((0, 3))).count) == 0
    assert compress(np.zeros((4, 0))).count.tolist() == [4]
