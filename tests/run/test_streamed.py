"""EM over a stream is EM in memory, whatever the settings, however the chunks are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

import emjax
from emjax import EM
from emjax.models import dawid_skene

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
# sorted, so that no chunk is like the others, and far from zero
POINTS = np.sort(RNG.normal(size=(200, 2)), axis=0) + 1e3
POINTS[:75] += 2
UNEQUAL = [POINTS[:3], POINTS[3:140], POINTS[140:]]


def mixture(x):
    weights = numpyro.sample("weights", dist.Dirichlet(2 * jnp.ones(3)))
    loc = numpyro.param("loc", jnp.array([[999.0, 1000], [1001, 1001], [1002, 1003]]))
    scale = numpyro.param("scale", jnp.ones((3, 2)), constraint=constraints.positive)
    with numpyro.plate("points", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]).to_event(1), obs=x)


def assert_same(streamed, in_memory, rtol=1e-12):
    number = min(len(streamed.objective), len(in_memory.objective))
    assert number > 3
    np.testing.assert_allclose(streamed.objective[:number], in_memory.objective[:number], rtol=rtol)
    np.testing.assert_allclose(streamed.log_likelihood, in_memory.log_likelihood, rtol=rtol)
    assert streamed.status == in_memory.status
    for name, value in in_memory.params.items():
        np.testing.assert_allclose(streamed.params[name], value, rtol=1e4 * rtol, err_msg=name)


START = {"weights": np.full(3, 1 / 3)}
SETTINGS = {
    "plain": {},
    "anderson": {"acceleration": "anderson"},
    "hard": {"e_step": "hard"},
    "restarts": {"num_restarts": 2, "short_steps": 5},
}


@pytest.mark.sampled
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_stream_is_what_it_is_in_memory(setting):
    em = EM(mixture, tol=1e-7, **SETTINGS[setting])
    # starts are made of rows of the stream, which are all here
    start = None if setting == "restarts" else START
    fit = em.run(KEY, emjax.Stream(UNEQUAL), init_params=start)
    in_memory = em.run(KEY, POINTS, init_params=start)
    assert_same(fit, in_memory)
    if setting == "plain":
        _assert_answers_are_same(fit, in_memory)


def _assert_answers_are_same(fit, in_memory):
    posterior = [answer["z"] for answer in fit.posterior()]
    assert [len(one) for one in posterior] == [3, 137, 60]
    np.testing.assert_allclose(np.concatenate(posterior), in_memory.posterior()["z"], atol=1e-10)
    decoded = np.concatenate([answer["z"] for answer in fit.decode()])
    np.testing.assert_array_equal(decoded, in_memory.decode()["z"])
    again = emjax.Stream.of(POINTS, rows=64)
    np.testing.assert_allclose(fit.log_likelihood_of(again), in_memory.log_likelihood, rtol=1e-12)
    with pytest.raises(ValueError, match="part by part"):
        fit.posterior()["z"]


def test_a_stream_in_single_precision_ends_where_memory_does():
    with jax.enable_x64(False):
        em = EM(mixture, tol=1e-6)
        chunks = [chunk.astype(np.float32) for chunk in UNEQUAL]
        start = {"weights": np.full(3, 1 / 3, np.float32)}
        fit = em.run(KEY, emjax.Stream(chunks), init_params=start)
    assert fit.params["loc"].dtype == np.float32
    rounded = np.concatenate(chunks).astype(float)
    in_memory = EM(mixture, tol=1e-6).run(KEY, rounded, init_params=START)
    np.testing.assert_allclose(fit.log_likelihood, in_memory.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(fit.params["loc"], in_memory.params["loc"], rtol=1e-5)


@pytest.mark.parametrize("sort", [False, True], ids=["sorted", "any order"])
def test_rows_by_key_are_what_they_are_in_memory(sort):
    rng = np.random.default_rng(1)
    item = np.repeat(np.arange(40), rng.integers(2, 6, 40))
    annotator = rng.integers(0, 5, len(item))
    label = (item + (rng.uniform(size=len(item)) < 0.3)) % 3
    order = rng.permutation(len(item)) if sort else np.arange(len(item))
    data = [item[order], annotator[order], label[order]]
    chunks = [tuple(array[start : start + 17] for array in data) for start in range(0, 200, 17)]
    stream = emjax.Stream.by_key(
        [chunk for chunk in chunks if len(chunk[0])],
        key=0,
        items="items",
        rows="labels",
        most_rows=40,
        most_items=13,
        sort=sort,
    )
    em = EM(dawid_skene.program, tol=1e-7)
    in_memory = em.run(KEY, item, annotator, label, 40, 5, 3)
    fit = em.run(KEY, stream, 5, 3)
    assert_same(fit, in_memory)
    keys = np.concatenate(list(stream.keys))
    truth = np.concatenate([answer["truth"] for answer in fit.posterior()])
    np.testing.assert_allclose(truth, in_memory.posterior()["truth"][keys], atol=1e-9)


def chains(y):
    transition = numpyro.param(
        "transition", jnp.full((2, 2), 0.3) + 0.4 * jnp.eye(2), constraint=constraints.simplex
    )
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))

    def step(state, seen):
        with numpyro.plate("sequences", len(y)):
            state = numpyro.sample("state", dist.Categorical(transition[state]))
            numpyro.sample("y", dist.Normal(loc[state], 1.0), obs=seen)
        return state, None

    scan(step, jnp.zeros(len(y), int), y.T)


def classes(x):
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=constraints.simplex)
    probs = numpyro.param(
        "probs", jnp.linspace(0.2, 0.8, 6).reshape(2, 3), constraint=constraints.unit_interval
    )
    with numpyro.plate("subjects", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        answers = jnp.where(jnp.isnan(x), 0, x)
        for item in range(3):
            with numpyro.handlers.mask(mask=~jnp.isnan(x[:, item])):
                numpyro.sample(f"x{item}", dist.Bernoulli(probs[z, item]), obs=answers[:, item])


def test_sequences_are_what_they_are_in_memory():
    y = np.random.default_rng(2).normal(size=(15, 6))
    em = EM(chains, tol=1e-7)
    assert_same(em.run(KEY, emjax.Stream.of(y, rows=4)), em.run(KEY, y))


def test_missing_answers_are_what_they_are_in_memory():
    rng = np.random.default_rng(3)
    x = (rng.uniform(size=(60, 3)) < rng.choice([0.2, 0.9], (60, 1))).astype(float)
    x[rng.uniform(size=x.shape) < 0.2] = np.nan
    em = EM(classes, tol=1e-7)
    assert_same(em.run(KEY, emjax.Stream.of(x, rows=25)), em.run(KEY, x))


def test_a_bad_datum_names_its_chunk_and_row():
    bad = POINTS.copy()
    bad[145, 1] = np.nan
    with pytest.raises(
        ValueError, match=r"Chunk 2 of the stream, which begins at row 140 .*\(5, 1\)"
    ):
        EM(mixture).run(KEY, emjax.Stream([bad[:3], bad[3:140], bad[140:]]))


def test_a_stream_without_chunks_is_an_error():
    with pytest.raises(ValueError, match="The stream yields no data"):
        EM(mixture).run(KEY, emjax.Stream([]))
