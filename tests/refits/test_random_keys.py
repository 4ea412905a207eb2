"""What is no random key is refused in the words of the function that was called."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

import emjax
from emjax import EM

X = jnp.array([0.3, 1.1, -0.4])


def program(x):
    loc = numpyro.param("loc", 0.0)
    with numpyro.plate("samples", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def test_standard_errors_name_their_own_argument():
    with pytest.raises(ValueError, match=r"rng_key is a random key.*standard_errors\(") as raised:
        emjax.standard_errors(EM(program), {"loc": 0.3}, X, method="bootstrap", rng_key=X)
    assert "em.run" not in str(raised.value)


def test_cross_validation_and_runs_name_theirs():
    with pytest.raises(ValueError, match=r"second argument is a random key.*cross_validate\("):
        emjax.cross_validate(EM(program), X, X)
    with pytest.raises(ValueError, match=r"first argument is a random key.*em\.run\("):
        EM(program).run(X, X)
