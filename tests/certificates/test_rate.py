"""The rate of convergence, of M-steps that do not go all the way to the maximum."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

from emjax import EM

RNG = np.random.default_rng(0)
X = np.where(RNG.uniform(size=100) < 0.4, RNG.normal(-1.5, 1, 100), RNG.normal(1.5, 0.8, 100))


def mixture(x):
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def test_one_step_of_an_optimizer_has_no_rate_of_its_own():
    """Short steps leave most of the distance, and Q's derivatives do not know how much."""
    exact = EM(mixture, tol=0.0)
    short = EM(mixture, m_step={"loc": optax.sgd(1e-3)})
    result = exact.run(jax.random.key(0), X)
    assert exact.diagnose(result, X).rate < 0.6
    found = short.diagnose(result, X)
    assert np.isnan(found.rate)
    assert found.is_local_maximum
    assert "% of the distance" not in str(found)
