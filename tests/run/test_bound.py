"""`em.on(x)`: it answers what `em` answers, and data of the same shapes share what is compiled."""

from collections import Counter

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import emjax
from emjax import EM
from emjax.models import coins

KEY = jax.random.key(0)
HEADS = jnp.array([5.0, 9.0, 8.0, 4.0, 7.0])


@pytest.fixture(scope="module")
def em():
    return EM(coins.program)


@pytest.fixture
def compilations():
    """Count what JAX traces and compiles."""
    events = Counter()

    def listen(event, duration, **kwargs):
        events[event.rsplit("/", 1)[-1]] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def assert_same(first, second):
    """The same tree, to the bit."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_bound_runs_as_its_em_does(em):
    bound = em.on(HEADS)
    assert isinstance(bound, emjax.Bound)
    assert_same(bound.run(KEY), em.run(KEY, HEADS))
    start = {"bias": jnp.array([0.3, 0.4])}
    assert_same(bound.run(KEY, init_params=start), em.run(KEY, HEADS, init_params=start))


def test_a_bound_steps_as_its_em_does(em):
    bound = em.on(HEADS)
    assert_same(bound.init(KEY), em.init(KEY, HEADS))
    state = bound.init(KEY)
    for _ in range(3):
        assert_same(bound.update(state), em.update(state, HEADS))
        state, _ = bound.update(state)


@pytest.mark.parametrize("question", ["posterior", "decode", "log_likelihood"])
def test_a_bound_answers_as_its_em_does(em, question):
    result = em.run(KEY, HEADS)
    answer = getattr(em.on(HEADS), question)
    assert_same(answer(result.params), getattr(em, question)(result.params, HEADS))
    assert_same(answer(result), answer(result.params))


def test_a_bound_keeps_keyword_arguments(em):
    result = em.run(KEY, HEADS, flips=12)
    assert_same(em.on(HEADS, flips=12).run(KEY), result)
    assert float(result.log_likelihood) != float(em.run(KEY, HEADS).log_likelihood)


def test_bounds_of_data_of_one_shape_share_what_is_compiled(em, compilations):
    first, second = em.on(HEADS), em.on(HEADS[::-1] * 1.0)
    params = first.run(KEY).params
    for ask in (first.posterior, first.decode, first.log_likelihood):
        ask(params)
    compilations.clear()
    other = second.run(KEY)
    posterior = second.posterior(params)["coin"]
    second.decode(params)
    log_likelihood = second.log_likelihood(params)
    assert compilations["backend_compile_duration"] == 0, compilations
    assert second.compiled is first.compiled
    # they share functions, not data
    np.testing.assert_allclose(other.params["bias"], params["bias"], rtol=1e-12)
    np.testing.assert_array_equal(posterior, first.posterior(params)["coin"][::-1])
    np.testing.assert_allclose(log_likelihood, first.log_likelihood(params), rtol=1e-12)
