"""Weights for the elements of a plate: a weight of two is the row twice, of zero no row; within a
scan, too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM, weighted
from emjax.models import coins

KEY = jax.random.key(0)
HEADS = np.array([5, 9, 8, 4, 7])
WEIGHTS = np.array([1.0, 2.0, 0.0, 3.0, 1.0])


def weather(mood):
    start = numpyro.param("start", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    transition = numpyro.param(
        "transition", jnp.array([[0.8, 0.2], [0.3, 0.7]]), constraint=constraints.simplex
    )
    emission = numpyro.param(
        "emission", jnp.array([[0.7, 0.3], [0.2, 0.8]]), constraint=constraints.simplex
    )

    def day(carry, mood):
        yesterday, t = carry
        with numpyro.plate("diaries", len(mood)):
            today = numpyro.sample(
                "today", dist.Categorical(jnp.where(t == 0, start, transition[yesterday]))
            )
            numpyro.sample("mood", dist.Categorical(emission[today]), obs=mood)
        return (today, t + 1), None

    scan(day, (jnp.zeros(mood.shape[1], int), 0), mood)


MOOD = np.random.default_rng(0).integers(0, 2, (6, 5))
PROGRAMS = {
    "coins": (coins.program, "sets", HEADS, lambda rows: HEADS[rows]),
    "chains": (weather, "diaries", MOOD, lambda rows: MOOD[:, rows]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_weights_are_repeated_rows(name):
    model, plate, data, repeated = PROGRAMS[name]
    rows = np.repeat(np.arange(5), WEIGHTS.astype(int))
    found = EM(weighted(model, plate), max_steps=30).run(KEY, WEIGHTS, data)
    expected = EM(model, max_steps=30).run(KEY, repeated(rows))
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-12)
    for site, value in expected.params.items():
        np.testing.assert_allclose(found.params[site], value, atol=1e-10)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_derivative_along_a_weight_is_the_rows_own_log_likelihood_also_at_weight_zero(name):
    model, plate, data, repeated = PROGRAMS[name]
    em, alone = EM(weighted(model, plate)), EM(model)
    params = em.init(KEY, WEIGHTS, data).params
    found = jax.grad(lambda weights: em.log_likelihood(params, weights, data))(jnp.asarray(WEIGHTS))
    expected = [float(alone.log_likelihood(params, repeated(np.array([n])))) for n in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_weights_that_fit_no_plate_are_errors():
    with pytest.raises(
        ValueError, match="no plate 'set' with a sample site in it; its plates are 'sets'"
    ):
        EM(weighted(coins.program, "set")).plan(WEIGHTS, HEADS)
    with pytest.raises(
        ValueError,
        match=r"Plate 'sets' has 5 elements, its weights have shape \(4,\). Pass one weight for "
        r"each element",
    ):
        EM(weighted(coins.program, "sets")).plan(WEIGHTS[:4], HEADS)


def test_sampling_weights_are_parts_of_their_mean_at_any_length():
    em = EM(weighted(coins.program, "sets", kind="sampling"))
    params = EM(coins.program).init(KEY, HEADS).params
    for size in (5, 6):
        heads, weights = np.resize(HEADS, size), 100 * np.resize(WEIGHTS, size)
        each = [
            float(EM(coins.program).log_likelihood(params, heads[n : n + 1])) for n in range(size)
        ]
        expected = (weights * each).sum() / weights[weights > 0].mean()
        found = em.log_likelihood(params, weights, heads)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sampling_weights_of_plates_within_plates_are_parts_of_the_outer_mean():
    def pupils(x):
        loc = numpyro.param("loc", jnp.array([0.0, 2.0]))
        with numpyro.plate("schools", x.shape[1]):
            kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.5, 0.5])))
            with numpyro.plate("pupils", x.shape[0]):
                numpyro.sample("x", dist.Normal(loc[kind], 1.0), obs=x)

    of_schools, of_pupils = np.array([1.0, 3.0, 2.0]), np.array([2.0, 4.0])
    x = np.random.default_rng(0).normal(size=(2, 3))
    inner = weighted(pupils, "pupils", kind="sampling")
    em = EM(weighted(inner, "schools", kind="sampling"))
    found = em.log_likelihood({"loc": [0.0, 2.0]}, of_schools, of_pupils, x)
    density = -((x[..., None] - [0.0, 2.0]) ** 2) / 2 - np.log(2 * np.pi) / 2
    of_kind = np.log(0.5) + (of_pupils[:, None, None] * density).sum(0)
    expected = (of_schools * np.logaddexp.reduce(of_kind, axis=1)).sum() / 2
    np.testing.assert_allclose(found, expected, rtol=1e-12)
