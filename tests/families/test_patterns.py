"""Normals with missing coordinates: one matrix for each pattern of what is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.stats import multivariate_normal

from emjax import EM
from emjax.distributions import PartiallyObserved
from emjax.e_step import blocks
from emjax.e_step.e_step import log_partition_of
from emjax.families import missing, patterns

KEY = jax.random.key(0)
ROWS, SIZE, VALUES = 60, 3, 2


@pytest.fixture
def grouped_rows(monkeypatch):
    """Rows as few as these are grouped, too, in several turns."""
    monkeypatch.setattr(patterns, "FEWEST_ROWS", 2)
    monkeypatch.setattr(patterns, "FEWEST_IN_PATTERN", 4)
    monkeypatch.setattr(patterns, "MOST_IN_TILE", 4)
    monkeypatch.setattr(patterns, "FEWEST_IN_TILE", 4)
    monkeypatch.setattr(patterns, "ENTRIES", 3 * VALUES * (SIZE + 1) ** 2)
    monkeypatch.setattr(patterns, "PRODUCTS", 5 * 4 * (SIZE + 1) * (SIZE + 2) // 2)


def data(share=0.7):
    rng = np.random.default_rng(0)
    known = rng.random((ROWS, SIZE)) < share
    known[0], known[1] = False, True
    return np.where(known, rng.normal(size=(ROWS, SIZE)), np.nan), known


def tables():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(VALUES, SIZE, SIZE)) + 2 * np.eye(SIZE)
    return rng.normal(size=(VALUES, SIZE)), root @ root.swapaxes(1, 2)


def log_densities(x, linear, precision):
    """log p of what is observed of each row, (value, row), by SciPy."""
    found = np.zeros((VALUES, len(x)))
    for k in range(VALUES):
        covariance = np.linalg.inv(precision[k])
        loc = covariance @ linear[k]
        for n, row in enumerate(x):
            own = ~np.isnan(row)
            if own.any():
                normal = multivariate_normal(loc[own], covariance[np.ix_(own, own)])
                found[k, n] = normal.logpdf(row[own]) + 0.5 * own.sum() * np.log(2 * np.pi)
    return found


def by_pattern(linear, precision, groups):
    covariance = jnp.linalg.inv(precision)
    square = jnp.einsum("ki,kij,kj->k", linear, covariance, linear)
    constant = -0.5 * square + 0.5 * jnp.linalg.slogdet(precision)[1]
    return patterns.log_marginal_by_pattern(linear, -precision / 2, constant, groups)


def test_marginals_by_pattern_are_the_densities_of_what_is_observed(grouped_rows):
    x, known = data()
    groups = jax.jit(patterns.grouped)(known, np.nan_to_num(x))
    assert groups["count"][0] == len(np.unique(known, axis=0))
    found = jax.jit(by_pattern)(*tables(), groups)
    np.testing.assert_allclose(found, log_densities(x, *tables()), rtol=1e-11, atol=1e-12)


def test_patterns_of_more_than_a_word_of_coordinates_are_told_apart():
    known = np.ones((60, 70), bool)
    known[1::6, 69], known[4::6, 69], known[2::6, 33], known[5::6, 0] = False, False, False, False
    groups = jax.jit(patterns.grouped)(known, np.zeros((60, 70)))
    row, slot = np.asarray(groups["row"]), np.asarray(groups["slot"])
    tile = slot // row.shape[1]
    assert groups["count"][0] == 4 and len(set(tile.tolist())) == 10
    np.testing.assert_array_equal(row.reshape(-1)[slot], np.arange(60))
    np.testing.assert_array_equal(groups["observed"][groups["pattern"][tile]], known)


def test_a_sweep_is_its_matrices_and_has_their_derivatives():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 5))
    matrix, where = root @ root.T + np.eye(5), np.array([True, False, True, True, False])
    own, rest = np.flatnonzero(where), np.flatnonzero(~where)
    inverse = np.linalg.inv(matrix[np.ix_(own, own)])
    between = matrix[np.ix_(own, rest)]
    after, log_determinant = jax.jit(missing.swept)(matrix, where)
    np.testing.assert_allclose(after[np.ix_(own, own)], -inverse, rtol=1e-12)
    np.testing.assert_allclose(after[np.ix_(own, rest)], inverse @ between, rtol=1e-12)
    schur = matrix[np.ix_(rest, rest)] - between.T @ inverse @ between
    np.testing.assert_allclose(after[np.ix_(rest, rest)], schur, rtol=1e-12)
    np.testing.assert_allclose(log_determinant, -np.linalg.slogdet(inverse)[1], rtol=1e-12)
    # the derivative, and its own: by differences in the direction of a symmetric matrix
    along = rng.normal(size=(5, 5))
    along = along + along.T

    def moved(step):
        return missing.swept(jnp.asarray(matrix) + step * along, jnp.asarray(where))

    def slope(step):
        return jax.jvp(moved, (step,), (1.0,))[1]

    for function, derivative in (
        (moved, slope),
        (slope, lambda s: jax.jvp(slope, (s,), (1.0,))[1]),
    ):
        high, low, found = function(1e-4), function(-1e-4), derivative(0.0)
        for i in range(2):
            np.testing.assert_allclose(found[i], (high[i] - low[i]) / 2e-4, rtol=1e-5, atol=1e-5)


def mixture(site):
    """Two normals; of another `site`, another program: what is compiled for one serves no other."""

    def program(x, observed, weight):
        loc = numpyro.param("loc", jnp.array([[0.0, 1.0, 0.5], [1.0, -1.0, 0.0]]))
        matrix = numpyro.param("matrix", jnp.asarray(tables()[1]))
        with numpyro.plate("rows", len(x)), handlers.scale(scale=weight):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
            normal = dist.MultivariateNormal(loc[z], precision_matrix=matrix[z])
            numpyro.sample(site, PartiallyObserved(normal, observed), obs=x)

    return program


def step(em, *args):
    """The objective, and the parameters after a step."""
    state = em.init(KEY, *args)
    state, objective = jax.jit(em.update)(state, *args)
    return [objective, *state.params.values()]


def slopes(em, *args):
    """log p(x), its gradient, and the derivative of that in a direction."""
    bound = em.on(*args)
    graph, constants = bound.compiled.graph, bound.constants()
    params = {name: bound.init(KEY).params[name] for name in graph.names}

    def log_likelihood(params):
        return log_partition_of(graph, graph.arrays(params, constants))

    both = jax.jit(lambda at: jax.jvp(jax.value_and_grad(log_likelihood), (at,), (at,)))
    return jax.tree.leaves(both(params))


@pytest.fixture
def forms(monkeypatch):
    """How often rows were taken by pattern."""
    found = []
    original = patterns._forms
    monkeypatch.setattr(patterns, "_forms", lambda *args: found.append(1) or original(*args))
    return found


@pytest.mark.parametrize("what", [step, slopes])
@pytest.mark.parametrize("place", ["for all patterns", "for too few"])
def test_what_is_taken_by_pattern_is_what_is_taken_by_rows(
    what, place, grouped_rows, forms, monkeypatch
):
    x, known = data()
    args = jnp.asarray(x), jnp.asarray(known), jnp.arange(ROWS) % 3 / 2
    if place == "for too few":
        monkeypatch.setattr(patterns, "FEWEST_IN_PATTERN", 20)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", {"cpu": 1})
    monkeypatch.setattr(blocks, "BLOCK_TABLES", 0)
    monkeypatch.setattr(blocks, "_rows_of_equal_blocks", lambda size, most: 20)
    name = f"{what.__name__} {place}"
    found = what(EM(mixture(f"x {name}")), *args)
    assert forms
    forms.clear()
    monkeypatch.setattr(patterns, "FEWEST_ROWS", 10**9)
    for a, b in zip(found, what(EM(mixture(f"y {name}")), *args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * abs(b).max())
    assert not forms
