"""Programs that look at their arguments in Python are traced with them as constants."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from emjax import EM

COUNTS = np.array([0, 2, 1, 2])


def by_largest(x, names):
    """A categorical of as many categories as the data have: the program looks at its values."""
    size = int(x.max()) + 1
    probs = numpyro.param("probs", jnp.full(size, 1 / size), constraint=dist.constraints.simplex)
    with numpyro.plate(f"rows of {len(names)}", len(x)):
        numpyro.sample("x", dist.Categorical(probs), obs=x)


@pytest.mark.parametrize("names", [{"a", "b"}, frozenset({"a", "b"})])
def test_a_program_that_looks_at_values_may_take_an_argument_without_a_hash(names):
    result = EM(by_largest).run(jax.random.key(0), COUNTS, names)
    np.testing.assert_allclose(result.params["probs"], [0.25, 0.25, 0.5])


def test_a_program_that_looks_at_a_parameter_says_so_whatever_its_arguments():
    def program(x, names):
        loc = numpyro.param("loc", jnp.array(0.0))
        numpyro.sample("x", dist.Normal(1.0 if loc > 0 else 0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match="looks at the value of parameter 'loc'"):
        EM(program).run(jax.random.key(0), COUNTS, {"a"})


def counts(x):
    rate = numpyro.param("rate", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Poisson(rate), obs=x)


def test_handlers_around_a_call_are_no_part_of_what_is_shared():
    params = {"rate": jnp.array(2.0)}
    with numpyro.handlers.scale(scale=0.5):
        half = EM(counts).log_likelihood(params, COUNTS)
    np.testing.assert_allclose(EM(counts).log_likelihood(params, COUNTS), 2 * half, rtol=1e-12)


def test_a_bound_that_has_answered_answers_within_jit():
    bound, params = EM(counts).on(COUNTS), {"rate": jnp.array(2.0)}
    value = bound.log_likelihood(params)
    within = jax.jit(lambda scale: scale * bound.log_likelihood(params))(2.0)
    np.testing.assert_allclose(within, 2 * value, rtol=1e-12)


def test_a_run_within_jit_says_what_to_write_instead():
    with pytest.raises(ValueError, match="take steps"):
        jax.jit(lambda x: EM(counts).run(jax.random.key(0), x).log_likelihood)(COUNTS)


class Options:
    def __init__(self, size):
        self.size = size


def test_an_argument_without_a_hash_is_compared_by_value():
    calls = []

    def program(x, options):
        calls.append(options.size)
        counts(x[: options.size])

    em, params = EM(program), {"rate": jnp.array(2.0)}
    em.log_likelihood(params, COUNTS, Options(3))
    traced = len(calls)
    em.log_likelihood(params, COUNTS, Options(3))
    assert len(calls) == traced
    em.log_likelihood(params, COUNTS, Options(4))
    assert len(calls) > traced


def test_programs_of_old_arguments_are_forgotten(monkeypatch):
    """Each holds the data as constants, where it looks at their values."""
    monkeypatch.setattr("emjax.run.compiler.MOST_KEPT", 2)
    em, traced = EM(by_largest), []
    for number in range(4):
        rows = np.append(COUNTS, number)
        traced.append(weakref.ref(em._compiler.compiled((rows, "ab"), {})[0]))
    gc.collect()
    assert [program() is None for program in traced] == [True, True, False, False]
