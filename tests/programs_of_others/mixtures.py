"""The mixture of NumPyro's tutorial `gmm`, and of Pyro's: five points, two components."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

FIVE_POINTS = np.array([0.0, 1.0, 10.0, 11.0, 12.0])


def gaussian_mixture(data, num_components=2):
    """One scale for all components; every parameter under a prior."""
    weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(num_components)))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with numpyro.plate("components", num_components):
        locs = numpyro.sample("locs", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(data)):
        assignment = numpyro.sample(
            "assignment", dist.Categorical(weights), infer={"enumerate": "parallel"}
        )
        numpyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)
