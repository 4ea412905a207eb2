"""The E-step on parts of the data adds up to that on all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, weighted
from emjax.e_step.e_step import e_step
from emjax.e_step.parts import division_of
from emjax.run.part_program import part_program
from emjax.sources.part import Part


def mixture(x):
    """Return nothing: two normals in two columns, under a prior; all depend on a coin."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(2, 2.0)))
    loc = numpyro.param("loc", jnp.array([[0.0, 1.0], [2.0, 3.0]]))
    scale = numpyro.param("scale", jnp.array([[1.0, 2.0], [1.5, 1.0]]))
    coin = numpyro.sample("coin", dist.Bernoulli(0.3))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[coin]).to_event(1), obs=x)


PARAMS = {
    "weights": jnp.array([0.4, 0.6]),
    "loc": jnp.array([[0.0, 1.0], [2.0, 3.0]]),
    "scale": jnp.array([[1.0, 2.0], [1.5, 1.0]]),
}


def parts_and_whole(temperature):
    """Return what an E-step yields of three parts, added up, and of all data, which are sorted."""
    # far from zero and sorted: about origins of their own, sums of parts would have no digits
    x = np.sort(np.random.default_rng(0).normal(1e4, 2, (12, 2)), 0)
    params = {**PARAMS, "loc": PARAMS["loc"] + 1e4}
    program = weighted(mixture, "rows")
    whole = EM(program).on(np.ones(12), x).compiled.graph

    def expected(data):
        return e_step(whole, whole.arrays(params, whole.prepare(data)), temperature)

    graph = EM(program).on(np.ones(4), x[:4]).compiled.graph
    division = division_of(graph, ["rows"], (True, True))
    parts = [[jnp.ones(4), jnp.asarray(x[i : i + 4])] for i in (0, 4, 8)]

    def total(parts):
        sums = jax.tree.map(lambda *each: sum(each), *map(graph.summarized, parts))
        total = None
        for data in parts:
            arrays = graph.arrays(params, graph.prepare(data, sums=sums))
            of_part = division.expected(graph, arrays, temperature)
            total = of_part if total is None else total + of_part
        return division.completed(graph, arrays, total, temperature)

    return jax.jit(total)(parts), jax.jit(expected)([jnp.ones(12), jnp.asarray(x)])


@pytest.mark.sampled
@pytest.mark.parametrize("temperature", [1.0, 0.0, 0.5], ids=["soft", "hard", "tempered"])
def test_expected_statistics_of_parts_add_up(temperature):
    """A common origin, priors that count once, and a latent on which all parts depend."""
    total, whole = parts_and_whole(temperature)
    np.testing.assert_allclose(total.log_partition, whole.log_partition, rtol=1e-13)
    pairs = zip(jax.tree.leaves(total.statistics), jax.tree.leaves(whole.statistics), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def traced(program, *arguments):
    """Return a program traced for a part of some arguments, with no further ones."""
    return part_program(program, EM(program).settings, Part(arguments), (), {})


def test_tables_with_rows_of_their_own_are_known():
    """Coefficients that data multiply are a table for each row: they do not add up."""

    def regression(x, y):
        slope = numpyro.param("slope", jnp.zeros(2))
        scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("y", dist.Normal(x * slope[z], scale), obs=y)

    x = np.arange(5.0)
    assert traced(regression, x, x).own_tables == "'y'"
    assert traced(mixture, np.ones((5, 2))).own_tables == ""


def centered(x):
    """Return nothing: data about their own mean, which is no sum over rows."""
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1), obs=x - x.mean())


def read_outside(x):
    """Return nothing: a site outside of the plate reads a latent within it."""
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(numpyro.param("p", 0.3)))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)
    numpyro.sample("first", dist.Normal(1.0 * z[0], 1), obs=0.5)


def values_outside(x):
    """Return nothing: all rows depend on a latent of too many values."""
    g = numpyro.sample("g", dist.Categorical(jnp.full(65, 1 / 65)))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0) + g, 1), obs=x)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (centered, "is no sum over the elements of 'rows'"),
        (read_outside, "is no sum over the elements of 'rows': slice does not"),
        (values_outside, r"All data depend on 'g' \(65\).*64 at most"),
    ],
)
def test_what_does_not_add_up_is_an_error(program, message):
    """The message names the site and the plate."""
    with pytest.raises(ValueError, match=message):
        traced(program, np.arange(5.0))


def test_a_latent_of_several_elements_outside_is_an_error():
    """Its elements belong to parts, or to none."""

    def program(x, group):
        with numpyro.plate("groups", 3):
            g = numpyro.sample("g", dist.Bernoulli(numpyro.param("p", 0.3)))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(g[group], 1), obs=x)

    with pytest.raises(ValueError, match="Site 'x' is within 'rows', latent 'g' is not:"):
        traced(program, np.arange(5.0), np.array([0, 1, 2, 0, 1]))
