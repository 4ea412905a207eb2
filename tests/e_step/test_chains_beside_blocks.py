"""A chain beside a plate that is cut into blocks is summed out as it is anywhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.e_step import blocks, e_step
from emjax.elimination import algebra
from emjax.numerics import fast_forms

RANDOM = np.random.default_rng(20261129)
SYMBOLS = jnp.asarray(RANDOM.integers(0, 4, 9))
POINTS = jnp.asarray(RANDOM.normal(size=23))
TRANSITION = jnp.asarray(RANDOM.dirichlet(np.ones(3), 3))
EMISSION = jnp.asarray(RANDOM.dirichlet(np.ones(4), 3))


def chain_beside_a_plate(symbols, points):
    transition = numpyro.param("transition", TRANSITION, constraint=constraints.simplex)
    emission = numpyro.param("emission", EMISSION, constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))

    def step(before, symbol):
        state = numpyro.sample("state", dist.Categorical(transition[before]))
        numpyro.sample("symbol", dist.Categorical(emission[state]), obs=symbol)
        return state, None

    scan(step, 0, symbols)
    with numpyro.plate("points", len(points)):
        coin = numpyro.sample("coin", dist.Bernoulli(0.4))
        numpyro.sample("point", dist.Normal(loc[coin], 1.0), obs=points)


def cut_into_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_rows_of_equal_blocks", lambda size, most: 4)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", {"cpu": 1})
    monkeypatch.setattr(blocks, "BLOCK_TABLES", 0)


def recursions_taken(monkeypatch) -> list:
    """Return a list to which each sum over a chain adds which recursion it took."""
    taken = []

    def recorded(name, checkpointed_at):
        function = getattr(algebra, name)

        def recording(*args):
            is_checkpointed = checkpointed_at is not None and args[checkpointed_at]
            taken.append((name, is_checkpointed))
            return function(*args)

        monkeypatch.setattr(algebra, name, recording)

    recorded("log_sum", 2)
    recorded("scaled_log_sum", 2)
    recorded("log_sum_in_parallel", None)
    return taken


def arrays_of(chains: str):
    bound = EM(chain_beside_a_plate, chains=chains).on(SYMBOLS, POINTS)
    compiled = bound.compiled
    params = compiled.initial(jax.random.key(0), bound.data)
    graph = compiled.graph
    return graph, jax.jit(graph.arrays)(params, compiled.prepare(bound.data))


def expected_of(graph, arrays) -> tuple:
    """Return log Z and the expected statistics, traced anew."""

    def expected(arrays):
        found = e_step.e_step(graph, arrays)
        return found.log_partition, ravel_pytree(found.statistics)[0]

    return jax.jit(expected)(arrays)


def assert_equal(in_blocks, whole):
    np.testing.assert_allclose(in_blocks[0], whole[0], rtol=1e-13)
    np.testing.assert_allclose(in_blocks[1], whole[1], rtol=1e-11)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("chains", "recursion"),
    [
        ("sequential", ("log_sum", False)),
        ("checkpointed", ("log_sum", True)),
        ("parallel", ("log_sum_in_parallel", False)),
    ],
)
def test_a_chain_beside_blocks_takes_the_recursion_that_was_asked_for(
    chains, recursion, monkeypatch
):
    graph, arrays = arrays_of(chains)
    whole = expected_of(graph, arrays)
    cut_into_blocks(monkeypatch)
    taken = recursions_taken(monkeypatch)
    in_blocks = expected_of(graph, arrays)
    jax.eval_shape(lambda arrays: e_step.log_partition_of(graph, arrays), arrays)
    assert taken and set(taken) == {recursion}
    assert_equal(in_blocks, whole)


@pytest.mark.parametrize("chains", ["sequential", "checkpointed"])
def test_a_chain_beside_blocks_takes_the_scaled_form(chains, monkeypatch):
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    graph, arrays = arrays_of(chains)
    whole = expected_of(graph, arrays)
    cut_into_blocks(monkeypatch)
    taken = recursions_taken(monkeypatch)
    in_blocks = expected_of(graph, arrays)
    assert ("scaled_log_sum", chains == "checkpointed") in taken
    assert_equal(in_blocks, whole)
