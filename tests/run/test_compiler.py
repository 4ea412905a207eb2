"""Programs that look at their arguments in Python are traced with them as constants."""

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

    with pytest.raises(ValueError, match="looks at the value of a latent or a parameter"):
        EM(program).run(jax.random.key(0), COUNTS, {"a"})
