"""A choice between two tables that data make is rows of one table: no copy for each step."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.e_step.instance import instance_of
from tests.oracles.brute_force import joint_table

PARAMS = {
    "start": jnp.array([0.3, 0.7]),
    "transition": jnp.array([[0.8, 0.2], [0.3, 0.7]]),
    "loc": jnp.array([-1.0, 1.5]),
}


def series(num_steps):
    """Return observations, and a number for each step that says where a new sequence begins."""
    y = np.random.default_rng(7).normal(size=num_steps)
    return jnp.asarray(y), jnp.asarray(np.arange(num_steps) % 3 - 1)


def chain(is_first):
    """Return a chain that starts anew wherever `is_first(flag)`."""

    def program(y, flags):
        start = numpyro.param("start", PARAMS["start"], constraint=constraints.simplex)
        rows = numpyro.param("transition", PARAMS["transition"], constraint=constraints.simplex)
        loc = numpyro.param("loc", PARAMS["loc"])

        def step(previous, inputs):
            y, flag = inputs
            row = jnp.where(is_first(flag), start, rows[previous])
            z = numpyro.sample("z", dist.Categorical(row))
            numpyro.sample("y", dist.Normal(loc[z], 1.0), obs=y)
            return z, None

        scan(step, 0, (y, flags))

    return program


PREDICATES = {
    "equal": lambda flag: flag == 0,
    "greater": lambda flag: flag > 0,
    "both": lambda flag: (flag > -1) & (flag < 1),
    "called": jax.jit(lambda flag: flag > 0),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", PREDICATES)
def test_tables_of_a_computed_choice_do_not_grow_with_time(name):
    shapes = []
    for num_steps in (6, 24):
        bound = EM(chain(PREDICATES[name])).on(*series(num_steps))
        graph = bound.compiled.graph
        instance = instance_of(graph, graph.arrays(*bound.at(PARAMS)))
        # after the first step
        sites = [term.site for term in instance.terms]
        later = [
            tables
            for site, tables in zip(sites, instance.tables, strict=True)
            if site.name == "z" and len(tables[0]) > 1
        ]
        shapes.append([[table.shape for table in tables] for tables in later])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", PREDICATES)
def test_a_computed_choice_is_brute_force(name):
    program, data = chain(PREDICATES[name]), series(6)
    table, em = joint_table(program, PARAMS, *data), EM(program)
    actual = em.log_likelihood(PARAMS, *data)
    np.testing.assert_allclose(actual, table.log_likelihood, rtol=1e-12)
    posterior = em.posterior(PARAMS, *data)
    for site, expected in table.posterior.items():
        np.testing.assert_allclose(posterior[site], expected, rtol=1e-10, atol=1e-12)


def test_a_choice_that_moves_with_a_parameter_is_no_row():
    def program(y):
        cut = numpyro.param("cut", jnp.array(0.0))
        loc = numpyro.param("loc", PARAMS["loc"])
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Categorical(PARAMS["start"]))
            location = jnp.where(y > cut, loc[z], 0.0)
            numpyro.sample("y", dist.Normal(location, 1.0), obs=y)

    y, _ = series(5)
    params = {"cut": jnp.array(0.2), "loc": PARAMS["loc"]}
    expected = joint_table(program, params, y).log_likelihood
    np.testing.assert_allclose(EM(program).log_likelihood(params, y), expected, rtol=1e-12)


def test_a_choice_within_a_choice_by_the_same_data_is_brute_force():
    def program(y, flags):
        loc = numpyro.param("loc", PARAMS["loc"])
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Categorical(PARAMS["start"]))
            inner = jnp.where(flags > 0, loc[z], 0.3)
            location = jnp.where(flags > 0, 2 * inner, inner - loc[z])
            numpyro.sample("y", dist.Normal(location, 1.0), obs=y)

    data, params = series(5), {"loc": PARAMS["loc"]}
    expected = joint_table(program, params, *data).log_likelihood
    np.testing.assert_allclose(EM(program).log_likelihood(params, *data), expected, rtol=1e-12)
