"""Sequences are a plate like any other: blocks of them give what one pass over all gives."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.e_step import blocks
from emjax.e_step.blocks import blocks_of
from emjax.e_step.e_step import e_step, log_partition_of
from emjax.e_step.instance import instance_of
from emjax.elimination import algebra
from emjax.numerics import fast_forms
from tests.oracles.by_numpy import evaluated

RANDOM = np.random.default_rng(20261201)
SYMBOLS = RANDOM.integers(0, 4, (4, 5))
# as many steps as sequences: which axis is the plate cannot be read off its length
SQUARE = RANDOM.integers(0, 4, (5, 5))
LENGTHS = jnp.array([4, 3, 1, 4, 2])


def probabilities(name, *shape):
    values = jnp.asarray(RANDOM.dirichlet(np.ones(shape[-1]), shape[:-1]))
    return lambda: numpyro.param(name, values, constraint=constraints.simplex)


START, TRANSITION = probabilities("start", 3), probabilities("transition", 3, 3)
EMISSION, SHARE = probabilities("emission", 3, 4), probabilities("share", 2)
OF_CLUSTER = probabilities("of cluster", 2, 3, 3)


def sequences(symbols):
    start, transition, emission = START(), TRANSITION(), EMISSION()

    def step(carry, x):
        before, t = carry
        multiplicity = 1.0 + jnp.arange(5) % 2
        with (
            numpyro.plate("sequences", 5),
            handlers.mask(mask=t < LENGTHS),
            handlers.scale(scale=multiplicity),
        ):
            z = numpyro.sample("z", dist.Categorical(jnp.where(t == 0, start, transition[before])))
            numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return (z, t + 1), None

    scan(step, (jnp.zeros(5, int), 0), symbols)


def clusters(symbols):
    """Each sequence has a latent of its own, outside of time."""
    share, start, transition, emission = SHARE(), START(), OF_CLUSTER(), EMISSION()
    with numpyro.plate("sequences", 5):
        cluster = numpyro.sample("cluster", dist.Categorical(share))

    def step(carry, x):
        before, t = carry
        with numpyro.plate("sequences", 5):
            row = transition[cluster, before]
            z = numpyro.sample("z", dist.Categorical(jnp.where(t == 0, start, row)))
            numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return (z, t + 1), None

    scan(step, (jnp.zeros(5, int), 0), symbols)


def arrays_of(program, symbols):
    bound = EM(program).on(jnp.asarray(symbols))
    pure = bound.compiled.pure

    def arrays(key, data):
        return pure.graph.arrays(pure.initial(key, data), pure.graph.prepare(data))

    return pure.graph, evaluated(arrays, jax.random.key(0), bound.data)


def expected(graph, arrays, forms) -> tuple:
    """Return the rows of the blocks, log Z twice, and the expected statistics in one of two forms.

    `forms`: given to the statement that takes the fast form where it loses nothing.
    """
    rows = []

    def evaluate(arrays):
        found = blocks_of(instance_of(graph, arrays))
        rows.append(found and (found.size, found.rows))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.lax, "cond", forms)
            expected = e_step(graph, arrays)
        value = log_partition_of(graph, arrays)
        return value, expected.log_partition, ravel_pytree(expected.statistics)[0]

    return rows, evaluated(evaluate, jax.tree.map(jnp.asarray, arrays))


def fast(condition, first, second):
    return first()


def plain(condition, first, second):
    return second()


def cut(monkeypatch, rows: int):
    monkeypatch.setattr(blocks, "_rows_of_equal_blocks", lambda size, most: rows)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", {"cpu": 1})
    monkeypatch.setattr(blocks, "BLOCK_TABLES", 0)
    monkeypatch.setattr(blocks, "FEWEST_ENTRIES", 1)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("program", "symbols", "form"),
    [
        (sequences, SYMBOLS, fast),
        (sequences, SYMBOLS, plain),
        (sequences, SQUARE, fast),
        (clusters, SYMBOLS, fast),
    ],
)
def test_blocks_of_sequences_add_up_to_one_pass(program, symbols, form, monkeypatch):
    """Two rows a block, and one in the last; what a block loses is told, as it is by one pass."""
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    graph, arrays = arrays_of(program, symbols)
    rows, whole = expected(graph, arrays, form)
    assert rows == [None]  # small work is not cut
    cut(monkeypatch, 2)
    taken = []
    summed = algebra.scaled_log_sum
    monkeypatch.setattr(
        algebra, "scaled_log_sum", lambda *args: (taken.append(args[0].batch), summed(*args))[1]
    )
    rows, in_blocks = expected(graph, arrays, form)
    assert rows == [(5, 2)]
    assert set(taken) == {(2,), (1,)}
    for found, wanted in zip(in_blocks, whole, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


def test_what_one_block_loses_is_a_loss_of_all(monkeypatch):
    """A block whose probabilities are too small for the scaled form has all done in logarithms."""
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    cut(monkeypatch, 2)
    found = []

    def recorded(condition, first, second):
        found.append(condition)
        return second()

    def is_right(symbols):
        graph, arrays = arrays_of(states_that_stay, symbols)

        def condition(arrays):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(jax.lax, "cond", recorded)
                e_step(graph, arrays)
            return found.pop()

        return evaluated(condition, jax.tree.map(jnp.asarray, arrays))

    symbols = np.zeros((4, 5), int)
    assert is_right(symbols)
    # some state has to show another symbol: in the first block, then in the last
    for sequence in (0, 4):
        symbols = np.zeros((4, 5), int)
        symbols[2, sequence] = 1
        assert not is_right(symbols)


def states_that_stay(symbols):
    """Each state shows one symbol, but for a chance that is smaller than the smallest number."""
    logits = numpyro.param("logits", jnp.where(jnp.eye(2) == 1, 0.0, -800.0))
    transition = numpyro.param("transition", jnp.array([[1.0, 0.0], [0.0, 1.0]]))

    def step(carry, x):
        before, t = carry
        with numpyro.plate("sequences", 5):
            row = jnp.where(t == 0, jnp.ones(2) / 2, transition[before])
            z = numpyro.sample("z", dist.Categorical(row))
            numpyro.sample("x", dist.Categorical(logits=logits[z]), obs=x)
        return (z, t + 1), None

    scan(step, (jnp.zeros(5, int), 0), symbols)


def chains_in_a_grid(points):
    """Each sequence is a row of chains."""
    loc, transition = (
        numpyro.param("loc", jnp.array([0.0, 1.0])),
        jnp.array([[0.7, 0.3], [0.2, 0.8]]),
    )

    def step(before, x):
        with numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 2, dim=-1):
            z = numpyro.sample("z", dist.Categorical(transition[before]))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)
        return z, None

    scan(step, jnp.zeros((3, 2), int), points)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_block_of_one_row_is_not_taken_for_time(rows, monkeypatch):
    graph, arrays = arrays_of(chains_in_a_grid, RANDOM.normal(size=(40, 3, 2)))
    _, whole = expected(graph, arrays, plain)
    cut(monkeypatch, rows)
    found, in_blocks = expected(graph, arrays, plain)
    assert found == [(3, rows)]
    for one, other in zip(in_blocks, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
