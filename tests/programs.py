"""Programs that several tests use, and one EM for each of them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from emjax import EM

KEY = jax.random.key(0)
HALF = jnp.array([0.5, 0.5])
X = jnp.array([0.0, 0.5, 4.0, 5.0])
LOCS = jnp.array([0.0, 4.0])
HEADS = jnp.array([5.0, 9.0, 8.0, 4.0, 7.0])


@cache
def em_of(model, **settings):
    """One EM for a program, so that it compiles once."""
    return EM(model, **settings)


def run(model, *args, init_params=None, **settings):
    """Return what three steps of EM arrive at."""
    return em_of(model, **{"max_steps": 3} | settings).run(KEY, *args, init_params=init_params)


def mixture(x, weights=HALF, loc=LOCS):
    """Two normals whose proportions are known, or a parameter of the caller's."""
    loc = numpyro.param("loc", loc)
    scale = numpyro.param("scale", jnp.array(1.0), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale), obs=x)


def weighted(x, start=HALF):
    mixture(x, numpyro.param("weights", start, constraint=constraints.simplex))
