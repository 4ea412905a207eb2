"""How much refits compile: one program for all of them, and few for what is around them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM
from tests.compilations import compilations

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(0, 1, (30, 2)), RNG.normal(4, 1, (23, 2))])


def clusters(x):
    loc = numpyro.param("loc", jnp.array([[0.0, 1.0], [3.0, 4.0]]))
    covariance = numpyro.param(
        "covariance", jnp.tile(jnp.eye(2), (2, 1, 1)), constraint=constraints.positive_definite
    )
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.MultivariateNormal(loc[z], covariance_matrix=covariance[z]), obs=x)


@pytest.fixture(scope="module")
def fitted():
    em = EM(clusters)
    return em, em.run(KEY, X)


def errors(method, **others):
    def ask(em, result):
        return emjax.standard_errors(em, result, X, method=method, **others)

    return ask


# The most that each may compile after those before it. A sandwich: the information, what elements
# contribute, their scores. A bootstrap: parameters moved, their tables, all refits, and the draws'
# coordinates; the rest is JAX's, of random keys, once in a process.
QUESTIONS = {
    "standard_errors": (1, errors("information")),
    "diagnose": (1, lambda em, result: em.diagnose(result, X)),
    "sandwich": (2, errors("sandwich")),
    "bootstrap": (6, errors("bootstrap", num_draws=3, rng_key=KEY)),
    "parametric bootstrap": (1, errors("parametric bootstrap", num_draws=3, rng_key=KEY)),
    "pointwise": (2, lambda em, result: emjax.pointwise_log_likelihood(em, result, X)),
    "cross_validate": (3, lambda em, result: emjax.cross_validate(em, KEY, X)),
}


def test_what_is_asked_of_an_estimate_compiles_little_and_once(fitted):
    numbers, again = {}, {}
    for name, (_, ask) in QUESTIONS.items():
        with compilations() as count:
            ask(*fitted)
        numbers[name] = count.compiled
        with compilations() as count:
            ask(*fitted)
        again[name] = count.compiled
    too_many = {
        name: numbers[name] for name, (most, _) in QUESTIONS.items() if len(numbers[name]) > most
    }
    assert not too_many
    assert not any(again.values()), again
