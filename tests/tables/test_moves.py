"""What only moves data mixes no elements of a latent: each program against the joint table, with
joint enumeration forbidden.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM
from emjax.graph import symbols
from tests.oracles.brute_force import joint_table

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
LOC = jnp.array([-1.0, 0.4, 2.0])
ROWS = jnp.array([0.3, -0.7, 1.9, 0.1])
BACKWARDS = np.array([3, 2, 1, 0])
ORDER = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])


def pair(v):
    """Return two functions of each entry side by side."""
    return jnp.stack([v, 2 - v], axis=-1)


def looped(v):
    """Return a function of each entry, by a loop over its terms."""
    return jax.lax.fori_loop(0, 3, lambda i, total: 0.5 * total + v + i, v)


def branched(v):
    return jax.lax.switch(1, [jnp.sin, jnp.cos], v) + jax.lax.cond(len(v) > 2, jnp.exp, jnp.abs, v)


# each is given `v = loc[z]` of four elements, a number that data give, and numbers 3, 2, 1, 0
MOVES = {
    "joins": {
        "pad": lambda v, one, back: jnp.pad(v, (1, 2)),
        "pad with a value": lambda v, one, back: jnp.pad(v, (1, 0), constant_values=3.0),
        "pad with the edge": lambda v, one, back: jnp.pad(v, 1, mode="edge"),
        "pad that wraps": lambda v, one, back: jnp.pad(v, 1, mode="wrap"),
        "pad between": lambda v, one, back: jax.lax.pad(v, 0.5, [(1, -1, 2)]),
        "pad of a grid": lambda v, one, back: jnp.pad(pair(v), ((1, 0), (0, 1))),
        "stack": lambda v, one, back: jnp.stack([v, v[::-1]]),
        "stack of scalars": lambda v, one, back: jnp.array([v[0], 1.0, v[2]]),
        "column stack": lambda v, one, back: jnp.column_stack([v, v * v]),
        "append": lambda v, one, back: jnp.append(v, 1.0),
        "tile": lambda v, one, back: jnp.tile(v, (2, 2)),
        "repeat": lambda v, one, back: jnp.repeat(v, 2),
        "roll": lambda v, one, back: jnp.roll(v, 1),
        "flip": lambda v, one, back: jnp.flip(v),
        "split": lambda v, one, back: jnp.split(v, 2)[1],
        "unstack": lambda v, one, back: jnp.unstack(v.reshape(2, 2), axis=1)[1],
        "insert": lambda v, one, back: jnp.insert(v, 1, 0.0),
        "rot90": lambda v, one, back: jnp.rot90(pair(v)),
        "tril": lambda v, one, back: jnp.tril(pair(v)),
    },
    "places": {
        "set one": lambda v, one, back: v.at[0].set(1.5),
        "set a slice": lambda v, one, back: v.at[1:3].set(1.5),
        "set a column": lambda v, one, back: jnp.zeros((4, 2)).at[:, 0].set(v),
        "set into the middle": lambda v, one, back: jnp.zeros(6).at[1:-1].set(v),
        "set what data say": lambda v, one, back: v.at[one].set(0.0),
        "set in any order": lambda v, one, back: jnp.zeros(4).at[BACKWARDS].set(v),
        "set as data order": lambda v, one, back: jnp.zeros(4).at[back].set(v),
        "set outside": lambda v, one, back: v.at[7].set(9.0),
        "add": lambda v, one, back: v.at[BACKWARDS[:2]].add(1.5),
        "add to a number": lambda v, one, back: jnp.ones(4).at[BACKWARDS].add(v),
        "multiply": lambda v, one, back: v.at[1].multiply(1.5),
        "max": lambda v, one, back: v.at[1].max(0.2),
        "apply": lambda v, one, back: v.at[2].apply(jnp.exp),
        "update a slice": lambda v, one, back: jax.lax.dynamic_update_slice(v, LOC[:2], (1,)),
        "update where data say": lambda v, one, back: jax.lax.dynamic_update_slice(
            v, LOC[:2], (one,)
        ),
        "segment sum of single ones": lambda v, one, back: jax.ops.segment_sum(
            v, BACKWARDS, num_segments=4
        ),
    },
    "reads": {
        "dynamic slice": lambda v, one, back: jax.lax.dynamic_slice(v, (7,), (2,)),
        "slice where data say": lambda v, one, back: jax.lax.dynamic_slice(v, (one,), (2,)),
        "windows": lambda v, one, back: jax.vmap(
            lambda i: jax.lax.dynamic_slice(pair(v), (i, 0), (1, 2))
        )(back),
        "take": lambda v, one, back: jnp.take(v, back),
        "take along": lambda v, one, back: jnp.take_along_axis(pair(v), ORDER, axis=1),
        "diagonal": lambda v, one, back: jnp.diagonal(v[:, None] * jnp.ones((1, 4))),
        "matrix of zeros and ones": lambda v, one, back: jnp.eye(4)[BACKWARDS] @ v,
        "einsum with constants": lambda v, one, back: jnp.einsum(
            "nk,k->n", pair(v), jnp.array([1.0, 2.0])
        ),
        "select": lambda v, one, back: jnp.select([v < 0, v < 1], [v, 2 * v], 0.5),
        "clip": lambda v, one, back: jnp.clip(v, 0.0, 1.0),
    },
    "along other axes": {
        "softmax": lambda v, one, back: jax.nn.softmax(pair(v), axis=-1),
        "sort": lambda v, one, back: jnp.sort(pair(v), axis=-1)[:, 0],
        "top k": lambda v, one, back: jax.lax.top_k(pair(v), 1)[0],
        "cumulative sum": lambda v, one, back: jnp.cumsum(pair(v), axis=-1),
        "cumulative sum of constants": lambda v, one, back: jnp.cumsum(jnp.ones(4)) * v,
        "argmax": lambda v, one, back: jnp.argmax(pair(v), axis=-1) * 1.0,
        "transform": lambda v, one, back: jnp.fft.fft(pair(v)).real,
        "polynomial": lambda v, one, back: jnp.polyval(jnp.array([0.2, -1.0, 0.3]), v),
        "interpolation": lambda v, one, back: jnp.interp(v, LOC, jnp.array([0.0, 2.0, 3.0])),
        "loop": lambda v, one, back: looped(v),
        "map": lambda v, one, back: jax.lax.map(jnp.sin, v),
        "branches": lambda v, one, back: branched(v),
        "branch that data choose": lambda v, one, back: jax.lax.switch(one, [jnp.sin, jnp.cos], v),
    },
}


def program_of(locations):
    """Return a program in which each of `locations` is the location of one observed site."""

    def program(x, one, back):
        loc = numpyro.param("loc", LOC)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        for name, location in locations.items():
            law = dist.Normal(location(loc[z], one, back), 3.0)
            numpyro.sample(name, law, obs=jnp.resize(x, law.batch_shape))

    return program


def assert_brute_force(model, params, *data):
    table, em = joint_table(model, params, *data), EM(model)
    np.testing.assert_allclose(em.log_likelihood(params, *data), table.log_likelihood, **TOLERANCE)
    for name, expected in table.posterior.items():
        np.testing.assert_allclose(em.posterior(params, *data)[name], expected, **TOLERANCE)


@pytest.fixture
def elements_by_themselves(monkeypatch):
    """Make it an error to enumerate the elements of a latent jointly."""
    monkeypatch.setattr(symbols, "LARGEST_JOINT", 0)


@pytest.mark.sampled
@pytest.mark.usefixtures("elements_by_themselves")
@pytest.mark.parametrize("group", MOVES)
def test_what_moves_data_mixes_no_elements(group):
    data = ROWS, jnp.array(1), jnp.array(BACKWARDS)
    assert_brute_force(program_of(MOVES[group]), {"loc": LOC + 0.1}, *data)


def test_what_meets_at_one_place_is_added_up():
    sums = {
        "all at the first": lambda v, one, back: jnp.zeros(2).at[jnp.zeros(3, int)].add(v),
        "the last of all": lambda v, one, back: jnp.zeros(2).at[jnp.zeros(3, int)].set(v),
        "where data say": lambda v, one, back: jnp.zeros(2).at[jnp.full(3, one)].add(v),
        "in a corner": lambda v, one, back: pair(v).at[0, 0].add(v[0]),
    }
    data = ROWS[:3], jnp.array(1), jnp.array(BACKWARDS)
    assert_brute_force(program_of(sums), {"loc": LOC + 0.1}, *data)


def test_an_element_may_say_where_it_is_put_itself():
    def put(v, one, back):
        return jax.lax.dynamic_update_slice(jnp.zeros(4), v[:1], ((v[0] > 0).astype(int),))

    data = ROWS[:2], jnp.array(1), jnp.array(BACKWARDS)
    assert_brute_force(program_of({"put": put}), {"loc": LOC + 0.1}, *data)


@pytest.mark.usefixtures("elements_by_themselves")
def test_what_is_put_into_may_be_without_entries():
    ends = {
        "itself": lambda v, one, back: v,
        "the next one": lambda v, one, back: jnp.pad(v[1:], (0, 1)),
        "the one before": lambda v, one, back: jnp.pad(v[:-1], (1, 0)),
        "no update": lambda v, one, back: jax.lax.dynamic_update_slice(v, LOC[:0], (0,)),
        "the edge": lambda v, one, back: jnp.pad(v, (2, 0), mode="edge"),
    }
    for number in (1, 2):
        data = ROWS[:number], jnp.array(1), jnp.array(BACKWARDS)
        assert_brute_force(program_of(ends), {"loc": LOC + 0.1}, *data)


@pytest.mark.usefixtures("elements_by_themselves")
def test_a_known_matrix_mixes_the_elements_that_it_meets():
    differences = np.eye(4) - np.eye(4, k=-1)
    program = program_of({"difference": lambda v, one, back: differences @ v})
    assert_brute_force(program, {"loc": LOC}, ROWS, jnp.array(1), jnp.array(BACKWARDS))


def test_parameters_that_are_put_into_a_matrix_have_closed_forms():
    def program(x):
        stay = numpyro.param("stay", jnp.array([0.8, 0.2]), constraint=constraints.simplex)
        go = numpyro.param("go", jnp.array([0.3, 0.7]), constraint=constraints.simplex)
        rows = jnp.zeros((4, 2)).at[:2].set(jnp.stack([stay, go])).at[2:].set(0.5)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.25, 0.25, 0.25, 0.25])))
            numpyro.sample("x", dist.Categorical(rows[z]), obs=x)

    plan = EM(program).plan(jnp.array([0, 1, 1, 0, 1]))
    assert [parameter.method for parameter in plan.parameters] == ["closed form"] * 2


def test_what_mixes_is_an_error_with_its_line():
    def program(x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
        total = jnp.cumsum(z)
        numpyro.sample("x", dist.Normal(total, 1.0), obs=x)

    with pytest.raises(MemoryError) as caught:
        EM(program).log_likelihood({}, jnp.ones(45))
    line = r"at `total = jnp.cumsum(z)` (line "
    assert line in str(caught.value) and "of test_moves.py), by 'cumsum'" in str(caught.value)
    assert "numpyro.contrib.control_flow.scan" in str(caught.value)
