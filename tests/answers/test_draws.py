"""Draws of all latents from their joint posterior, against the joint table.

Whole joint assignments are counted, not margins alone, by the chi-square statistic; keys are fixed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan

from emjax import EM, labeled
from tests.oracles.brute_force import joint_table
from tests.oracles.frequencies import assert_drawn_from

NUMBERS = np.random.default_rng(15)
NUM_DRAWS = 6400
KEY = jax.random.key(4)


def simplex(*shape):
    return jnp.asarray(NUMBERS.dirichlet(np.ones(shape[-1]), shape[:-1]))


def draws(model, params, *args, chains="sequential"):
    return EM(model, chains=chains).sample_posterior(KEY, params, *args, num_samples=NUM_DRAWS)


ANSWERS = jnp.array([[0, 1, 1], [1, 1, 0]])
KNOWN = jnp.array([[True, True, False], [True, True, True]])
MOODS, ANSWER, USERS = simplex(2, 2), simplex(2, 2, 2), simplex(2)


def tree(answers, known):
    """An item's truth, an annotator's mood for each of its answers, and a missing answer."""
    with numpyro.plate("items", 2, dim=-2):
        truth = numpyro.sample("truth", dist.Binomial(1, 0.3))
        with numpyro.plate("answers", 3, dim=-1):
            mood = numpyro.sample("mood", dist.Categorical(MOODS[truth]))
            answer = dist.Categorical(ANSWER[truth, mood])
            numpyro.sample("answer", answer, obs=answers, obs_mask=known)


def crossed(x):
    """Each row meets one latent of either plate, and a pair of latents of its own."""
    with numpyro.plate("users", 2, dim=-2):
        user = numpyro.sample("user", dist.Categorical(USERS))
    with numpyro.plate("films", 3, dim=-1):
        film = numpyro.sample("film", dist.DiscreteUniform(2, 4))
    with numpyro.plate("users", 2, dim=-2), numpyro.plate("films", 3, dim=-1):
        numpyro.sample("x", dist.Normal(1.0 * user * film, 1.5), obs=x)


X = jnp.asarray(NUMBERS.normal(size=(2, 3)))


def pair(x):
    """Two latents that a row reads together, and labels of the first."""
    with numpyro.plate("rows", 3):
        first = numpyro.sample("first", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        second = numpyro.sample("second", dist.Bernoulli(0.4))
        numpyro.sample("x", dist.Normal(first - 1.2 * second, 0.8), obs=x)


EVIDENCE = jnp.array([[1.0, 0.4, 0.0], [1.0, 1.0, 1.0], [0.0, 0.3, 0.9]])


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("model", "args"),
    [
        (tree, (ANSWERS, KNOWN)),
        (crossed, (X,)),
        (labeled(pair, "first"), (EVIDENCE, X[0])),
    ],
    ids=["tree", "crossed", "soft labels"],
)
def test_joint_draws_are_brute_force(model, args):
    assert_drawn_from(joint_table(model, {}, *args), draws(model, {}, *args))


def copied(x, counts):
    """Rows that count several times, within a latent that counts once."""
    level = numpyro.sample("level", dist.Bernoulli(0.3))
    with numpyro.plate("rows", len(x)), handlers.scale(scale=counts):
        z = numpyro.sample("z", dist.Categorical(jnp.asarray(np.asarray(MOODS))[level]))
        numpyro.sample("x", dist.Normal(z + 0.5 * level, 0.8), obs=x)


def test_rows_that_count_several_times_are_drawn_as_one_of_their_copies():
    """In single precision; a row that does not count changes no other."""
    x, copies = X[0], np.array([0, 0, 2, 2, 2])
    table = joint_table(copied, {}, x[copies], jnp.ones(len(copies)))
    with jax.enable_x64(False):
        single = np.asarray(x, np.float32), np.bincount(copies).astype(np.float32)
        em = EM(copied, precision="single")
        drawn = em.sample_posterior(KEY, {}, *single, num_samples=NUM_DRAWS)
    assert drawn["z"].shape == (NUM_DRAWS, 3) and drawn["z"].dtype == jnp.int32
    drawn = {"level": drawn["level"], "z": drawn["z"][:, [0, 2]]}
    assert_drawn_from(table, drawn, lambda name, z: z[:, [0, 2]] if name == "z" else z)


SECOND = simplex(2, 2, 2, 2).at[0, 1, 0].set(jnp.array([1.0, 0.0]))
SERIES = jnp.asarray(NUMBERS.normal(size=(5, 2)))
SEEN = jnp.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0]], bool)


def chain(x, seen):
    """A chain of second order, with gaps; all sequences have one cluster."""
    cluster = numpyro.sample("cluster", dist.Bernoulli(0.4))

    def step(carry, inputs):
        (before, previous), (value, is_seen) = carry, inputs
        with numpyro.plate("sequences", 2), handlers.mask(mask=is_seen):
            z = numpyro.sample("z", dist.Categorical(SECOND[cluster, before, previous]))
            numpyro.sample("x", dist.Normal(1.5 * z - 0.7, 0.8), obs=value)
        return (previous, z), None

    scan(step, (jnp.zeros(2, int), jnp.ones(2, int)), (x, seen))


@pytest.mark.sampled
@pytest.mark.parametrize("chains", ["sequential", "checkpointed", "parallel"])
def test_draws_of_a_chain_are_brute_force(chains):
    table = joint_table(chain, {}, SERIES, SEEN)
    assert_drawn_from(table, draws(chain, {}, SERIES, SEEN, chains=chains))


def test_where_nothing_is_left_to_chance_a_draw_is_the_mode():
    cycle = jnp.roll(jnp.eye(4), 1, 1)

    def program(x):
        def step(state, value):
            state = numpyro.sample("state", dist.Categorical(cycle[state]))
            numpyro.sample("x", dist.Categorical(jnp.eye(4)[state]), obs=value)
            return state, None

        start = numpyro.sample("start", dist.Categorical(jnp.ones(4) / 4))
        scan(step, start, x)

    x = jnp.array([3, 0, 1, 2, 3, 0, 1])
    em = EM(program)
    drawn = em.sample_posterior(KEY, {}, x, num_samples=3)
    for name, mode in em.decode({}, x).items():
        np.testing.assert_array_equal(drawn[name], np.broadcast_to(mode, (3, *mode.shape)))


def test_draws_within_a_compiled_function_and_of_few_samples_are_the_same():
    em = EM(pair)
    several = em.sample_posterior(KEY, {}, X[0], num_samples=20)
    few = em.sample_posterior(KEY, {}, X[0], num_samples=2)
    traced = jax.jit(lambda key: em.sample_posterior(key, {}, X[0], num_samples=2))(KEY)
    for name, values in several.items():
        assert values.shape == (20, 3)
        np.testing.assert_array_equal(few[name], values[:2])
        assert traced[name].shape == (2, 3)
    with pytest.raises(ValueError, match="The first argument is a random key"):
        em.sample_posterior({}, X[0])
    with pytest.raises(ValueError, match="num_samples=0 must be"):
        em.sample_posterior(KEY, {}, X[0], num_samples=0)
