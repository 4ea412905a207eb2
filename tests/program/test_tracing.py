"""Tracing a program runs nothing: XLA is given no work before the run itself."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from emjax import EM
from emjax.numerics.primitives import TRAITS
from emjax.program.arguments import split_arguments
from tests.compilations import compilations


def hidden_markov(y):
    start = numpyro.param("start", jnp.ones(2) / 2, constraint=dist.constraints.simplex)
    rows = jnp.array([[0.8, 0.2], [0.3, 0.7]])
    transition = numpyro.param("transition", rows, constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))

    def step(previous, observed):
        t, y = observed
        state = numpyro.sample(
            "state", dist.Categorical(jnp.where(t == 0, start, transition[previous]))
        )
        numpyro.sample("y", dist.Normal(loc[state], 1.0), obs=y)
        return state, None

    scan(step, 0, (jnp.arange(len(y)), y))


def test_tracing_a_chain_compiles_nothing():
    y = np.random.default_rng(0).normal(size=7)
    em = EM(hidden_markov)
    # the key that everybody has by then
    jax.random.key(0)
    with compilations() as count:
        assert em.on(y).compiled.graph.latents
    assert count.compiled == []


def test_only_a_density_that_is_read_is_traced():
    calls = []

    def shifted(x, moves):
        calls.append(moves)
        shift = numpyro.param("shift", 0.0)
        numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x - shift if moves else x)

    x = np.random.default_rng(0).normal(size=7)
    em = EM(shifted)
    (site,) = em.on(x, False).compiled.graph.terms
    # where it starts, and once more
    assert calls == [False] * 2
    assert site.site.outputs.log_prob is None
    # data that move with a parameter are no family's: the program's own density is read
    log_likelihood = em.log_likelihood({"shift": jnp.array(0.5)}, x, True)
    # (its start twice: what it closes over has changed in between, so that it is another program)
    assert calls[2:] == [True] * 4
    expected = dist.Normal(0.5, 1.0).log_prob(x).sum()
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-12)


@pytest.mark.parametrize("start", [-3, 0, 2, 9])
def test_numpy_cuts_out_what_jax_does(start):
    array = np.arange(12).reshape(4, 3)
    jaxpr = jax.make_jaxpr(lambda a, i: jax.lax.dynamic_slice(a, (i, 1), (2, 2)))(array, 0)
    (eqn,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dynamic_slice"]
    by_numpy = TRAITS["dynamic_slice"].by_numpy(eqn, array, np.asarray(start), np.asarray(1))
    first = max(0, min(start, 2))
    np.testing.assert_array_equal(by_numpy, array[first : first + 2, 1:3])


def test_handlers_of_one_program_with_other_data_are_other_programs():
    def draws():
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    for value in (0.0, 2.0):
        em = EM(numpyro.handlers.condition(draws, {"x": jnp.array(value)}))
        expected = dist.Normal(0.0, 1.0).log_prob(value)
        np.testing.assert_allclose(em.log_likelihood({}), expected, rtol=1e-12)


def test_an_array_that_another_trace_holds_is_taken_as_it_is_now():
    """JAX would take it for what it was then: of single precision, with the values of then."""
    x = np.random.default_rng(0).normal(size=7)
    with jax.enable_x64(False):
        # NUTS keeps its trace, too
        other = jax.make_jaxpr(lambda shift: shift + x)(0.0)
    x *= 2
    (array,), _ = split_arguments((x,), {})
    np.testing.assert_array_equal(array, x)
    del other
