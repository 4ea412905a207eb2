"""How much is compiled for a fit, for the next ones, and for what is asked of them.

The programs are this file's own: what other tests have compiled of theirs does not count here.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

import emjax
from emjax import EM
from emjax.run.compilation import known_options
from tests.compilations import compilations

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.permutation(np.concatenate([RNG.normal(0, 1, 75), RNG.normal(4, 1, 75)]))


def clusters(x):
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([1.0, 3.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


def one_cluster(x):
    loc, scale = numpyro.param("loc", 0.0), numpyro.param("scale", 1.0)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(loc, scale), obs=x)


def chain(x):
    transition = numpyro.param(
        "transition", jnp.array([[0.8, 0.2], [0.3, 0.7]]), constraint=constraints.simplex
    )
    loc = numpyro.param("loc", jnp.array([1.0, 3.0]))

    def step(previous, now):
        z = numpyro.sample("z", dist.Categorical(transition[previous]))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=now)
        return z, None

    scan(step, 0, x)


def count_of(function):
    """Return how many compilations a call takes, and what it returns."""
    with compilations() as count:
        returned = function()
    return len(count.compiled), returned


@pytest.fixture(scope="module")
def fit():
    em = EM(clusters)
    # a trace makes a key, which JAX compiles once: anew, where a test before has cleared its caches
    jax.random.key(0)
    # what XLA knows is asked once in a process, by compiling
    known_options()
    number, result = count_of(lambda: em.run(KEY, X))
    return SimpleNamespace(em=em, result=result, compilations=number)


def test_a_first_fit_is_one_compilation(fit):
    assert fit.compilations == 1


AFTER_A_FIT = {
    "the same": lambda fit: fit.em.run(KEY, X),
    "a row less": lambda fit: fit.em.run(KEY, X[:-1]),
    "other values": lambda fit: fit.em.run(jax.random.key(1), X + 1),
    "another start": lambda fit: fit.em.run(KEY, X, init_params={"loc": np.array([0.0, 4.0])}),
    "a second EM": lambda fit: EM(clusters).run(KEY, X),
    "another tol": lambda fit: EM(clusters, tol=1e-3).run(KEY, X),
}


@pytest.mark.parametrize("what", AFTER_A_FIT)
def test_the_next_fit_compiles_nothing(fit, what):
    assert count_of(lambda: AFTER_A_FIT[what](fit))[0] == 0


QUESTIONS = {
    "posterior": lambda fit, x: fit.em.posterior(fit.result, x),
    "decode": lambda fit, x: fit.em.decode(fit.result, x),
    "log_likelihood": lambda fit, x: fit.em.log_likelihood(fit.result, x),
    "criteria": lambda fit, x: emjax.criteria(fit.em, fit.result, x),
    "standard_errors": lambda fit, x: emjax.standard_errors(fit.em, fit.result, x),
    "diagnose": lambda fit, x: fit.em.diagnose(fit.result, x),
}


def test_what_is_asked_of_a_fit_is_compiled_once_and_shared(fit):
    numbers, again = {}, {}
    for name, ask in QUESTIONS.items():
        numbers[name] = count_of(lambda ask=ask: ask(fit, X))[0]
        again[name] = count_of(lambda ask=ask: ask(fit, X + 0.01))[0]
    assert numbers == dict.fromkeys(QUESTIONS, 1), numbers
    assert not any(again.values()), again


def test_several_starts_are_one_compilation_whatever_their_number():
    """Beside the keys, which are split for each number of them."""
    assert count_of(lambda: EM(clusters, num_restarts=3).run(KEY, X))[0] <= 2
    assert count_of(lambda: EM(clusters, num_restarts=3).run(KEY, X + 1))[0] == 0
    assert count_of(lambda: EM(clusters, num_restarts=4).run(KEY, X))[0] <= 1


def test_each_candidate_of_a_choice_is_compiled_once_and_its_folds_together():
    def choose(num_folds, x):
        candidates = {"one": EM(one_cluster, max_steps=3), "two": EM(clusters, max_steps=3)}
        return emjax.choose(candidates, KEY, x, num_folds=num_folds)

    # of each: a run, criteria, the checks of its data, a fit without a fold, and what elements
    # contribute; of both: the keys, and who is in which fold
    assert count_of(lambda: choose(4, X))[0] <= 2 * 5 + 2
    assert count_of(lambda: choose(4, X + 1))[0] == 0


def test_a_chain_is_one_compilation_for_each_length():
    em = EM(chain)
    first, again, shorter = (count_of(lambda n=n: em.run(KEY, X[:n]))[0] for n in (20, 20, 15))
    # the first evaluates a primitive as well, which is compiled once in a process
    assert first <= 2 and again == 0 and shorter == 1


def test_predictions_of_few_rows_share_what_is_compiled(fit):
    numbers = [count_of(lambda n=n: fit.em.posterior(fit.result, X[:n]))[0] for n in range(10, 14)]
    assert numbers == [1, 0, 0, 0]
