"""Latents through the operations of JAX: what a program computes with them, against the joint
table.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.ops.indexing import Vindex

from emjax import EM
from tests.oracles.brute_force import joint_table

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
WEIGHTS = jnp.array([0.5, 0.3, 0.2])
LOC = jnp.array([-1.0, 0.4, 2.0])
ROWS = jnp.array([0.3, -0.7, 1.9, 0.1])
GRID = jnp.array([[0.3, -0.7], [1.9, 0.1], [0.8, 1.1]])


def assert_brute_force(model, params, *data):
    table, em = joint_table(model, params, *data), EM(model)
    np.testing.assert_allclose(em.log_likelihood(params, *data), table.log_likelihood, **TOLERANCE)
    posterior = em.posterior(params, *data)
    assert set(posterior) == set(table.posterior)
    for name, expected in table.posterior.items():
        np.testing.assert_allclose(posterior[name], expected, **TOLERANCE, err_msg=name)


def program_of(locations, is_joint):
    """Return a program in which each of `locations` is the location of one observed site.

    They share the latent z (four elements, three values), and the noise is wide, so that every site
    counts. `is_joint`: the location may mix the elements of z.
    """

    def program(x):
        mu = numpyro.param("mu", LOC)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(WEIGHTS))
        for name, location in locations.items():
            law = dist.Normal(location(mu, z), 3.0)
            if is_joint:
                numpyro.sample(name, law.to_event(), obs=x)
            else:
                with numpyro.plate("rows of " + name, len(x)):
                    numpyro.sample(name, law, obs=x)

    return program


@jax.custom_jvp
def clipped_square(x):
    return jnp.minimum(x * x, 3.0)


clipped_square.defjvp(
    lambda primals, tangents: (clipped_square(*primals), 2 * primals[0] * tangents[0])
)


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, slope: (slope,))


@jax.jit
def jitted(mu, z):
    return jnp.sin(mu[z]) + z


def countdown(z):
    """Return 3 z by a loop whose length is the latent's value."""
    return jax.lax.while_loop(lambda c: c[0] > 0, lambda c: (c[0] - 1, c[1] + 3.0), (z, 0.0))[1]


def branch(z):
    return jax.lax.cond(z > 1, lambda: jnp.cos(1.0 * z), lambda: 2.0 * z)


MATRICES = jnp.array(
    [[[2.0, 0.3], [0.3, 1.0]], [[1.0, 0.0], [0.0, 3.0]], [[1.5, -0.5], [-0.5, 0.8]]]
)

ONE_ELEMENT = {
    "indexing": {
        "lookup": lambda mu, z: mu[z],
        "jnp.take": lambda mu, z: jnp.take(mu, z),
        "jnp.take that clips": lambda mu, z: jnp.take(mu, z + 1, mode="clip"),
        "take_along_axis": lambda mu, z: jnp.take_along_axis(
            jnp.broadcast_to(mu, (len(z), 3)), z[:, None], axis=1
        )[:, 0],
        "one-hot matrix product": lambda mu, z: jax.nn.one_hot(z, 3) @ mu,
        "one-hot sum": lambda mu, z: jnp.sum(jax.nn.one_hot(z, 3) * mu, axis=-1),
        "new axis": lambda mu, z: mu[z[..., None]][..., 0],
        "two new axes": lambda mu, z: mu[z[:, None, None]].squeeze((1, 2)),
        "negative index": lambda mu, z: mu[z - 3],
        "reversed table": lambda mu, z: mu[::-1][z],
        "lookup of a lookup": lambda mu, z: mu[jnp.array([2, 0, 1])[z]],
        "position in the plate": lambda mu, z: jnp.outer(jnp.arange(4.0), mu)[jnp.arange(4), z],
        "data by value": lambda mu, z: (jnp.arange(4.0)[:, None] * mu)[jnp.array([3, 1, 0, 1]), z],
        "Vindex": lambda mu, z: Vindex(jnp.outer(jnp.arange(4.0), mu))[jnp.arange(4), z],
    },
    "arithmetic": {
        "where": lambda mu, z: jnp.where(z == 2, mu[1], -mu[0] * z),
        "clip": lambda mu, z: mu[0] * jnp.clip(z, 1, 2),
        "arithmetic": lambda mu, z: mu[2] * z**2 - z / 3,
        "integer division": lambda mu, z: mu[z // 2] + z % 2,
        "derived table": lambda mu, z: jnp.exp(0.1 * mu)[z],
        "function of a lookup": lambda mu, z: jnp.tanh(mu[z]),
        "select_n": lambda mu, z: jax.lax.select_n(z, *(jnp.full(4, m) for m in LOC)) + mu[0],
        "cast to float": lambda mu, z: mu[0] * z.astype(float),
        "cast back to an integer": lambda mu, z: mu[(z * 1.0).astype(int)],
        "bit operations": lambda mu, z: mu[(z & 1) | (z >> 1)],
        "boolean logic": lambda mu, z: jnp.where((z == 0) | ~(z < 2), mu[0], mu[1]),
        "isin": lambda mu, z: mu[0] * jnp.isin(z, jnp.array([0, 2])),
        "searchsorted": lambda mu, z: mu[jnp.searchsorted(jnp.array([0.5, 1.5]), 1.0 * z)],
        "polynomial": lambda mu, z: jnp.polyval(jnp.array([1.0, -2.0, 0.5]), mu[z]),
        "piecewise": lambda mu, z: jnp.piecewise(mu[z], [z == 0, z == 1], [1.0, 2.0, 3.0]),
        "select": lambda mu, z: jnp.select([z == 0, z == 1], [mu[0], mu[2]], 0.5),
    },
    "moving axes": {
        "reshape": lambda mu, z: mu[z.reshape(2, 2)].reshape(-1),
        "transpose of reshapes": lambda mu, z: mu[z.reshape(2, 2).T].T.reshape(4),
        "concatenated halves": lambda mu, z: jnp.concatenate([mu[z[:2]], -mu[z[2:]]]),
        "stack and unstack": lambda mu, z: jnp.stack([mu[z], mu[z] ** 2], axis=-1)[:, 1],
        "sum of a stack": lambda mu, z: jnp.stack([mu[z], jnp.exp(mu)[z]]).sum(0),
        "broadcast": lambda mu, z: jnp.broadcast_to(mu[z], (2, 4))[1],
        "expand_dims and squeeze": lambda mu, z: jnp.squeeze(jnp.expand_dims(mu[z], 1), 1),
        "repeat and slice": lambda mu, z: jnp.repeat(mu[z], 2)[::2],
        "tile and slice": lambda mu, z: jnp.tile(mu[z], 2)[4:],
        "pad and slice": lambda mu, z: jnp.pad(mu[z], 1)[1:-1],
        "diagonal": lambda mu, z: jnp.diagonal(
            jnp.outer(mu, mu)[z][:, :, None] * mu, axis1=1, axis2=2
        )[:, 1],
    },
    "rows of a table": {
        "softmax of a row": lambda mu, z: jax.nn.softmax(jnp.outer(mu, mu), -1)[z, 1],
        "softmax after the lookup": lambda mu, z: jax.nn.softmax(jnp.outer(mu, mu)[z], axis=-1)[
            :, 0
        ],
        "logsumexp": lambda mu, z: jax.nn.logsumexp(jnp.outer(mu, mu)[z], axis=-1),
        "cumsum of a table": lambda mu, z: jnp.cumsum(mu)[z],
        "cumsum of a row": lambda mu, z: jnp.cumsum(jnp.outer(mu, mu)[z], axis=1)[:, 2],
        "sort of a row": lambda mu, z: jnp.sort(jnp.outer(mu, mu)[z], axis=1)[:, 0],
        "argmax of a row": lambda mu, z: (
            1.0 * jnp.argmax(jnp.outer(mu, jnp.array([1.0, -1.0, 0.5]))[z], axis=1)
        ),
        "dot": lambda mu, z: jnp.outer(mu, mu)[z] @ jnp.array([0.1, 0.2, 0.3]),
        "einsum": lambda mu, z: jnp.einsum("nk,k->n", jnp.outer(mu, mu)[z], mu),
    },
    "linear algebra": {
        "quadratic form": lambda mu, z: jnp.einsum("i,nij,j->n", mu[:2], MATRICES[z], mu[1:]),
        "determinant": lambda mu, z: mu[0] * jnp.linalg.slogdet(MATRICES[z])[1],
        "Cholesky": lambda mu, z: mu[0] * jnp.linalg.cholesky(MATRICES[z])[:, 1, 0],
        "solve": lambda mu, z: jnp.linalg.solve(
            MATRICES[z], jnp.broadcast_to(mu[:2, None], (len(z), 2, 1))
        )[:, 0, 0],
        "eigenvalues": lambda mu, z: mu[1] * jnp.linalg.eigvalsh(MATRICES[z])[:, 0],
    },
    "functions and control flow": {
        "vmap of a function": lambda mu, z: jax.vmap(lambda k: mu[k] * jnp.cos(k))(z),
        "vmap of a branch": lambda mu, z: mu[1] * jax.vmap(branch)(z),
        "vmap of a loop": lambda mu, z: mu[1] * jax.vmap(countdown)(z),
        "jit of a function": jitted,
        "custom derivative": lambda mu, z: clipped_square(mu[z]),
        "custom derivative of a table": lambda mu, z: clipped_square(mu)[z],
        "custom transpose": lambda mu, z: straight_through(2 * mu[z]) + straight_through(mu)[z],
        "softplus": lambda mu, z: jax.nn.softplus(mu[z]) + jax.nn.softplus(mu)[z],
        "relu": lambda mu, z: jax.nn.relu(mu[z] - 0.1) + jax.nn.relu(mu)[z],
        "logaddexp": lambda mu, z: jnp.logaddexp(mu[z], z),
        "checkpoint": lambda mu, z: jax.checkpoint(lambda k: mu[k] ** 2)(z),
        "stop_gradient": lambda mu, z: jax.lax.stop_gradient(mu)[z],
        "map over rows": lambda mu, z: jax.lax.map(lambda n: mu[1] * n, jnp.arange(4.0)) + mu[z],
    },
}

MIXED = {
    "sum of the elements": lambda mu, z: jnp.full(3, mu[0]) * jnp.sum(z),
    "mean of a lookup": lambda mu, z: jnp.mean(mu[z]) * jnp.ones(3),
    "cumsum": lambda mu, z: mu[0] * jnp.cumsum(z),
    "sort": lambda mu, z: mu[jnp.sort(z)],
    "maximum": lambda mu, z: mu[jnp.max(z)] * jnp.arange(3.0),
    "product": lambda mu, z: mu[1] * jnp.prod(z + 1) * jnp.arange(3.0),
    "matrix product": lambda mu, z: (
        jnp.array([[0.2, 0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 0.4, 0.5]]) @ mu[z]
    ),
    "pairs": lambda mu, z: jnp.sum(jnp.outer(mu[z], mu[z]), axis=1),
    "neighbors": lambda mu, z: jnp.concatenate([mu[z[:1]], mu[z[1:]] - 0.5 * mu[z[:-1]]]),
    "roll": lambda mu, z: mu[z] + 0.3 * mu[jnp.roll(z, 1)],
    "reverse": lambda mu, z: mu[z] + 0.3 * mu[z[::-1]],
    "a lookup by a latent into a latent": lambda mu, z: mu[z[z]],
    "count": lambda mu, z: mu[0] * jnp.bincount(z, length=3),
    "unsorted equality": lambda mu, z: mu[0] * (z[:, None] == z[None, :]).sum(1),
    "dynamic slice": lambda mu, z: mu[jax.lax.dynamic_slice(z, (1,), (2,))[0]] * jnp.ones(3),
    "scan over the elements": lambda mu, z: jax.lax.scan(lambda c, k: (c + mu[k], c), 0.0, z)[1],
}


@pytest.mark.sampled
@pytest.mark.parametrize("group", ONE_ELEMENT)
def test_operations_on_one_element_are_brute_force(group):
    assert_brute_force(program_of(ONE_ELEMENT[group], is_joint=False), {"mu": LOC}, ROWS)


def test_linear_solve_has_its_derivatives():
    def location(theta):
        return jnp.linalg.solve(
            jnp.array([[theta, 0.2], [0.2, theta**2]]), jnp.array([theta, 2.0])
        ).sum()

    def program(x):
        numpyro.sample(
            "x", dist.Normal(location(numpyro.param("theta", jnp.array(1.3))), 1.0), obs=x
        )

    def log_likelihood(theta):
        return dist.Normal(location(theta), 1.0).log_prob(4.0)

    em, theta = EM(program), jnp.array(1.3)
    for derivative in (jax.grad, lambda f: jax.grad(jax.grad(f))):
        found = derivative(lambda theta: em.log_likelihood({"theta": theta}, jnp.array(4.0)))(theta)
        np.testing.assert_allclose(found, derivative(log_likelihood)(theta), rtol=1e-10)


RULES = {
    "jvp": lambda theta: clipped_square(theta).sum(),
    "vjp": lambda theta: straight_through(theta).sum(),
    "jit": lambda theta: jax.jit(lambda t: clipped_square(straight_through(t)))(theta).sum(),
    "vmap": lambda theta: jax.vmap(clipped_square)(theta).sum(),
    "rows": lambda theta: clipped_square(theta[jnp.array([1, 0, 1, 1])]).sum(),
    "relu": lambda theta: jax.nn.relu(
        theta - 2.3
    ).sum(),  # at zero its rule says zero, the derivative of a maximum a half
}


@pytest.mark.parametrize("location", RULES.values(), ids=RULES)
def test_derivatives_that_a_program_defines_are_those_that_are_used(location):
    def program(x):
        numpyro.sample(
            "x", dist.Normal(location(numpyro.param("theta", jnp.array([2.3, 0.7]))), 1.0), obs=x
        )

    theta, x = jnp.array([2.3, 0.7]), jnp.array(5.0)
    found = jax.grad(lambda theta: EM(program).log_likelihood({"theta": theta}, x))(theta)
    expected = jax.grad(lambda theta: dist.Normal(location(theta), 1.0).log_prob(x))(theta)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_operations_that_mix_elements_are_brute_force():
    assert_brute_force(program_of(MIXED, is_joint=True), {"mu": LOC}, ROWS[:3])


# ── latents of other plates ───────────────────────────────────────────────────────────────────────

NUM_ITEMS = 4
LEFT, RIGHT = jnp.array([0, 1, 2, 3, 0]), jnp.array([1, 2, 2, 0, 3])
PATIENT_OF_VISIT, VISIT_OF_ITEM = jnp.array([0, 1, 1]), jnp.array([0, 1, 2, 2])
TABLE = jnp.array([[0.2, -1.0, 0.7], [1.5, 0.4, -0.3]])
STEP = jnp.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8]])
FIVE = jnp.array([0.4, -0.6, 1.3, 0.2, 0.9])


def items(name="z"):
    with numpyro.plate("items", NUM_ITEMS):
        return numpyro.sample(name, dist.Categorical(WEIGHTS))


def two_lookups_of_one_latent(x):
    """A pair compares two items; one pair compares an item with itself."""
    mu, z = numpyro.param("mu", LOC), items()
    with numpyro.plate("pairs", len(x)):
        numpyro.sample("x", dist.Normal(mu[z[LEFT]] - mu[z[RIGHT]], 1.0), obs=x)


def chain_by_slices(x, steps):
    """Neighbors in one plate see each other through slices."""
    mu, z = numpyro.param("mu", LOC), items()
    with numpyro.plate("items seen", NUM_ITEMS):
        numpyro.sample("x", dist.Normal(mu[z], 1.0), obs=x)
    with numpyro.plate("steps", NUM_ITEMS - 1):
        numpyro.sample("steps seen", dist.Normal(mu[z[1:]] - mu[z[:-1]], 0.8), obs=steps)


def chain_of_sites(x):
    """A hidden Markov model, a site for each step."""
    mu = numpyro.param("mu", LOC)
    z = numpyro.sample("z0", dist.Categorical(WEIGHTS))
    for t in range(len(x)):
        z = z if t == 0 else numpyro.sample(f"z{t}", dist.Categorical(STEP[z]))
        numpyro.sample(f"x{t}", dist.Normal(mu[z], 1.0), obs=x[t])


def hierarchy_by_indices(x):
    """An item belongs to a visit, a visit to a patient: all of them latent, in plates side
    by side.
    """
    mu = numpyro.param("mu", TABLE)
    with numpyro.plate("patients", 2):
        sick = numpyro.sample("sick", dist.Bernoulli(0.3))
    with numpyro.plate("visits", 3):
        state = numpyro.sample("state", dist.Categorical(STEP[sick[PATIENT_OF_VISIT]]))
    with numpyro.plate("items", 4):
        numpyro.sample(
            "x",
            dist.Normal(mu[sick[PATIENT_OF_VISIT[VISIT_OF_ITEM]], state[VISIT_OF_ITEM]], 1.0),
            obs=x,
        )


def lookup_of_a_lookup_in_data(group_of, item, x):
    """A row reads a group's latent through its item, and the item's own latent: each item meets one
    group.
    """
    mu = numpyro.param("mu", LOC)
    with numpyro.plate("groups", 2):
        a = numpyro.sample("a", dist.Bernoulli(0.4))
    with numpyro.plate("items", 3):
        b = numpyro.sample("b", dist.Bernoulli(0.3))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(mu[a[group_of[item]]] + 0.7 * b[item], 1.0), obs=x)


def hierarchy_by_data(patient_of_visit, visit_of_item, x):
    """As `hierarchy_by_indices`, with indices that are known only when the program runs."""
    mu = numpyro.param("mu", TABLE)
    with numpyro.plate("patients", 2):
        sick = numpyro.sample("sick", dist.Bernoulli(0.3))
    with numpyro.plate("visits", 3):
        sick_at_visit = sick[patient_of_visit]
        state = numpyro.sample("state", dist.Categorical(STEP[sick_at_visit]))
    with numpyro.plate("items", 4):
        numpyro.sample(
            "x", dist.Normal(mu[sick_at_visit[visit_of_item], state[visit_of_item]], 1.0), obs=x
        )
    with numpyro.plate("more items", 4):
        numpyro.sample(
            "y",
            dist.Normal(mu[sick[patient_of_visit[visit_of_item]], state[visit_of_item]], 2.0),
            obs=x,
        )


def part_of_a_plate(item, x, y, w):
    """Rows read the first two elements of `a` side by side with those of `b`; the rest of `a` has
    data of its own.
    """
    mu = numpyro.param("mu", LOC)
    with numpyro.plate("four", 4):
        a = numpyro.sample("a", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(mu[a], 1.0), obs=y)
    with numpyro.plate("two", 2):
        b = numpyro.sample("b", dist.Bernoulli(0.3))
    with numpyro.plate(
        "six", 6
    ):  # their table is the largest, so that `a` is summed out before `b`
        c = numpyro.sample("c", dist.Bernoulli(0.2))
        numpyro.sample("w", dist.Normal(mu[c] - b[jnp.array([0, 1, 0, 1, 0, 1])], 1.0), obs=w)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(mu[a[:2][item]] + 0.7 * b[item], 1.0), obs=x)


def table_of_two_latents(x):
    mu = numpyro.param("mu", TABLE)
    with numpyro.plate("rows", len(x)):
        a = numpyro.sample("a", dist.Bernoulli(0.4))
        z = numpyro.sample("z", dist.Categorical(STEP[a]))
        mean = mu[a, z] + Vindex(mu)[a, z] * a + mu[:, z][1] + mu.T[z, a] * (z == a)
        numpyro.sample("x", dist.Normal(mean, jnp.where(a == 1, 1.0, 2.0)), obs=x)


def latents_side_by_side(x):
    """Latents stacked, concatenated and looked up as one array."""
    mu = numpyro.param("mu", LOC)
    with numpyro.plate("pair", 2):
        a, b = (
            numpyro.sample("a", dist.Categorical(WEIGHTS)),
            numpyro.sample("b", dist.Categorical(WEIGHTS[::-1])),
        )
    numpyro.sample("x", dist.Normal(mu[jnp.concatenate([a, b])], 1.0).to_event(1), obs=x)
    numpyro.sample(
        "y",
        dist.Normal(jnp.stack([mu[a], mu[b] ** 2], axis=-1).reshape(-1), 2.0).to_event(1),
        obs=x,
    )


def outer_latent_inner_rows(grid):
    """A latent of a column and one of a cell, by the rows of a table and by its columns."""
    mu = numpyro.param("mu", TABLE)
    with numpyro.plate("columns", 2, dim=-1):
        column = numpyro.sample("column", dist.Categorical(WEIGHTS))
        with numpyro.plate("rows", 3, dim=-2):
            cell = numpyro.sample("cell", dist.Bernoulli(0.2 + 0.2 * column))
            numpyro.sample(
                "x",
                dist.Normal(
                    mu[cell, column] + mu[:, column].T[None, :, 0] * jnp.arange(3.0)[:, None], 1.0
                ),
                obs=grid,
            )


STRUCTURES = {
    two_lookups_of_one_latent: ({"mu": LOC}, FIVE),
    chain_by_slices: ({"mu": LOC}, ROWS, ROWS[:3]),
    chain_of_sites: ({"mu": LOC}, FIVE),
    hierarchy_by_indices: ({"mu": TABLE}, ROWS),
    lookup_of_a_lookup_in_data: (
        {"mu": LOC},
        jnp.array([1, 0, 1]),
        jnp.array([0, 1, 2, 2, 0]),
        FIVE,
    ),
    hierarchy_by_data: ({"mu": TABLE}, PATIENT_OF_VISIT, VISIT_OF_ITEM, ROWS),
    part_of_a_plate: (
        {"mu": LOC},
        jnp.array([0, 1, 0]),
        ROWS[:3],
        ROWS,
        jnp.array([0.1, 0.5, -0.3, 2.0, 1.0, 0.0]),
    ),
    table_of_two_latents: ({"mu": TABLE}, ROWS[:3]),
    latents_side_by_side: ({"mu": LOC}, ROWS),
    outer_latent_inner_rows: ({"mu": TABLE}, GRID),
}


@pytest.mark.sampled
@pytest.mark.parametrize("program", STRUCTURES, ids=lambda program: program.__name__)
def test_latents_seen_from_other_plates_are_brute_force(program):
    params, *data = STRUCTURES[program]
    assert_brute_force(program, params, *data)
