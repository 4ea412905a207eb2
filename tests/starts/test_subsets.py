"""Random subsets as starts, and the best of several short runs from them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.models import latent_class
from emjax.starts.posteriors import indifferent_instance
from emjax.starts.strategies import START_STRATEGIES
from emjax.starts.subsets import EVERYBODY, SEEDS, STRETCH, _seeds_and_everybody

KEY = jax.random.key(3)
EXACT = {"rtol": 1e-12, "atol": 1e-14}
NUM = 40
numbers = np.random.default_rng(5)
ANSWERS = jnp.asarray(numbers.integers(2, size=(NUM, 3)))
COUNT = jnp.asarray(numbers.integers(0, 4, NUM), float)
SEEN = jnp.asarray(numbers.random(NUM) < 0.8)


def drawn(program, *args, params=None):
    """Return the start "subsets", and each latent's labels and weights of seeds."""
    bound = EM(program).on(*args)
    compiled, data = bound.compiled, bound.data
    own = compiled.pure.initial_values(KEY, data) | (params or {})
    series = {name for name, latent in compiled.graph.latents.items() if latent.is_series}

    def both(data):
        constants = compiled.graph.prepare(data)
        instance = indifferent_instance(compiled.graph, own, constants, KEY)
        draw = START_STRATEGIES["subsets"]
        start = draw(compiled.graph, compiled.maximizers, KEY, own, constants)
        return start, _seeds_and_everybody(instance, series, KEY, SEEDS)

    start, seeds = jax.jit(both)(data)
    return start, {name: (of.label[0], of.weight[0]) for name, of in seeds.items()}


SHARE = EVERYBODY / (1 + EVERYBODY)  # what all elements alike weigh


def counts_of(label, weight, size):
    """Return how much each element counts for each value: as a seed, and as everybody does."""
    is_label = np.asarray(label)[:, None] == np.arange(size)
    return np.asarray(weight)[:, None] * is_label + SHARE / size


def classes(answers, count, seen):
    """Two classes, subjects that count several times, and some that gave no answer."""
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    probs = numpyro.param("probs", jnp.full((2, 3), 0.5), constraint=constraints.unit_interval)
    with numpyro.plate("subjects", len(answers)), handlers.scale(scale=count):
        kind = numpyro.sample("kind", dist.Categorical(weights))
        with handlers.mask(mask=seen):
            numpyro.sample("answers", dist.Bernoulli(probs[kind]).to_event(1), obs=answers)


def test_seeds_and_a_share_of_everybody_are_followed_by_an_m_step():
    start, seeds = drawn(classes, ANSWERS, COUNT, SEEN)
    label, weight = map(np.asarray, seeds["kind"])
    count, seen = np.asarray(COUNT), np.asarray(SEEN)
    assert (np.bincount(label[label >= 0]) == SEEDS).all()
    # who does not count, or has said nothing, is no seed
    assert (count[label >= 0] > 0).all()
    assert seen[label >= 0].all()
    # a seed counts as one, and in all there are as many as without weights
    each = (1 - SHARE) * count[seen].sum() / (2 * SEEDS)
    np.testing.assert_allclose((weight * count)[label >= 0], each, **EXACT)
    assert (weight[label < 0] == 0).all()

    counts = counts_of(label, weight, 2) * count[:, None]
    np.testing.assert_allclose(start["weights"], counts.sum(0) / counts.sum(), **EXACT)
    counts = counts * seen[:, None]
    means = counts.T @ np.asarray(ANSWERS) / counts.sum(0)[:, None]
    np.testing.assert_allclose(start["probs"], means, **EXACT)


def chain(x):
    first = numpyro.param("first", jnp.array([0.5, 0.3, 0.2]), constraint=constraints.simplex)
    transition = numpyro.param(
        "transition", jnp.full((3, 3), 1 / 3), constraint=constraints.simplex
    )
    rate = numpyro.param("rate", jnp.arange(1.0, 4.0), constraint=constraints.positive)

    def step(carry, x):
        before, t = carry
        state = numpyro.sample(
            "state", dist.Categorical(jnp.where(t == 0, first, transition[before]))
        )
        numpyro.sample("x", dist.Poisson(rate[state]), obs=x)
        return (state, t + 1), None

    scan(step, (0, 0), x)


def test_seeds_of_a_chain_are_stretches_of_time():
    x = jnp.asarray(numbers.poisson(3.0, 301))
    start, seeds = drawn(chain, x)
    label, weight = map(np.asarray, seeds["state"])
    stretches = [(k, len(list(steps))) for k, steps in itertools.groupby(label) if k >= 0]
    assert {length % STRETCH for _, length in stretches} == {0}
    assert (np.bincount(label[label >= 0]) == SEEDS * STRETCH).all()

    pairs = np.full((3, 3), 300 * SHARE / 9)
    # a pair is a seed's where both of its steps are
    where_both = np.flatnonzero((label[:-1] >= 0) & (label[1:] >= 0))
    np.add.at(pairs, (label[where_both], label[where_both + 1]), weight[where_both])
    np.testing.assert_allclose(start["transition"], pairs / pairs.sum(1, keepdims=True), **EXACT)
    assert (np.diag(start["transition"]) > 0.5).all()
    counts = counts_of(label, weight, 3)
    np.testing.assert_allclose(start["rate"], np.asarray(x) @ counts / counts.sum(0), **EXACT)


def test_what_a_chain_excludes_stays_impossible_and_nothing_else_is():
    forward = np.triu(np.full((3, 3), 1.0))
    params = {"transition": jnp.asarray(forward / forward.sum(1, keepdims=True))}
    start, _ = drawn(chain, jnp.asarray(numbers.poisson(3.0, 60)), params=params)
    assert ((np.asarray(start["transition"]) > 0) == (forward > 0)).all()
    assert (np.asarray(start["rate"]) > 0).all()


def test_a_rare_answer_has_no_probability_of_zero():
    subject, item = np.indices((NUM, 2)).reshape(2, -1)
    answer = np.zeros(2 * NUM, int)
    answer[-1] = 2
    start, _ = drawn(latent_class.categorical_program, subject, item, answer, NUM, 2, 3, 2)
    # of the second item all answers but one are 0, of the first all
    assert (np.asarray(start["probs"])[:, 1, [0, 2]] > 0).all()
    assert (np.asarray(start["probs"])[:, 0, 0] == 1).all()


def test_latents_of_the_same_elements_are_taken_jointly():
    def program(x):
        rate = numpyro.param("rate", jnp.ones((2, 3)), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            a = numpyro.sample("a", dist.Categorical(jnp.full(2, 0.5)))
            b = numpyro.sample("b", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("x", dist.Poisson(rate[a, b]), obs=x)

    x = numbers.poisson(4.0, NUM)
    start, seeds = drawn(program, jnp.asarray(x))
    (a, weight), (b, _) = seeds["a"], seeds["b"]
    joint = np.asarray(jnp.where(a >= 0, 3 * a + b, -1))
    assert (np.bincount(joint[joint >= 0]) == SEEDS).all()
    counts = counts_of(joint, weight, 6)
    np.testing.assert_allclose(start["rate"].reshape(-1), x @ counts / counts.sum(0), **EXACT)


def test_of_fewer_elements_than_seeds_all_are_seeds():
    _, seeds = drawn(classes, ANSWERS[:3], jnp.ones(3), jnp.ones(3, bool))
    assert sorted(np.asarray(seeds["kind"][0])) == [0, 0, 1]


def test_where_nothing_is_latent_the_start_is_an_m_step():
    def program(x):
        rate = numpyro.param("rate", jnp.array(1.0), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Poisson(rate), obs=x)

    assert drawn(program, jnp.array([1.0, 2.0, 6.0]))[0]["rate"] == 3


# EM from there
# --------------------------------------------------------------------------------------------------


def test_subsets_leave_the_saddle_at_which_responsibilities_rest():
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=20_000)
    probs = np.where(kind[:, None] == 0, 0.37, 0.63)
    answers = jnp.asarray((rng.random((20_000, 6)) < probs).astype(int))
    ends = {}
    for init in ("responsibilities", "subsets"):
        em = EM(latent_class.program, init=init, tol=1e-6, num_restarts=4, short_steps=None)
        ends[init] = np.asarray(em.run(KEY, answers, 2).restarts.objective)
    best = max(ends["subsets"].max(), ends["responsibilities"].max())
    assert (ends["responsibilities"] < best - 500).any()
    # what a gain of 1e-6 of the objective leaves to gain
    assert (ends["subsets"] > best - 5).all()


def four_lines(x, y):
    weights = numpyro.param("weights", jnp.full(4, 0.25), constraint=constraints.simplex)
    intercept = numpyro.param("intercept", jnp.zeros(4))
    slope = numpyro.param("slope", jnp.arange(4.0))
    scale = numpyro.param("scale", jnp.array(1.0), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        line = numpyro.sample("line", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal(intercept[line] + slope[line] * x, scale), obs=y)


@pytest.fixture(scope="module")
def lines():
    rng = np.random.default_rng(0)
    x, line = rng.uniform(-2, 2, 200), rng.integers(4, size=200)
    intercept, slope = np.array([0, 1, -1, 2]), np.array([1.5, -1.0, 0.2, 0.5])
    return x, intercept[line] + slope[line] * x + rng.normal(0, 0.3, 200)


def test_short_runs_find_the_best_of_lines_that_cross_in_any_unit(lines):
    x, y = lines
    em, keys = EM(four_lines, init="short-runs"), jax.random.split(KEY, 6)
    found = {}
    for unit in (1.0, 1e6):
        results = [em.run(key, x, unit * y) for key in keys]
        # a density in a larger unit is a larger number
        found[unit] = [result.objective[-1] + len(y) * np.log(unit) for result in results]
        assert all(result.restarts is None for result in results)
    np.testing.assert_allclose(found[1e6], found[1.0], atol=1e-3)
    ends = np.asarray(found[1.0])
    assert (ends > ends.max() - 1e-3).sum() > 4
    singles = EM(four_lines, init="subsets", num_restarts=6, short_steps=None).run(KEY, x, y)
    assert singles.restarts.objective.max() < ends.max() + 1e-3
    assert (singles.restarts.objective < ends.max() - 10).any()


@pytest.mark.parametrize("settings", [{"progress_bar": True}, {"polish": "newton"}])
def test_short_runs_are_made_whatever_else_is_asked_for(lines, settings):
    expected = EM(four_lines, init="short-runs").run(KEY, *lines)
    found = EM(four_lines, init="short-runs", **settings).run(KEY, *lines)
    assert found.restarts is None
    assert found.objective[-1] == pytest.approx(expected.objective[-1], abs=1e-3)
