"""The posterior of a Gaussian latent as a data frame."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from emjax import EM


def schools(effect, error, size):
    spread = numpyro.param("spread", 5.0)
    with numpyro.plate("schools", len(effect)):
        own = numpyro.sample("own", dist.Normal(0, spread).expand([len(effect), size]).to_event(1))
        numpyro.sample("effect", dist.Normal(own.sum(-1), error), obs=effect)


def test_a_row_for_each_element_and_columns_for_each_coordinate():
    effect, error = jnp.array([28.0, 8.0, -3.0]), jnp.array([15.0, 10.0, 16.0])
    em = EM(schools, integrate={"own"}, fixed={"spread"}, max_steps=1)
    one = em.run(jax.random.key(0), effect, error, 1).posterior_frame()
    assert one.index.name == "schools" and list(one.columns) == ["mean", "sd"]
    np.testing.assert_allclose(one["mean"], effect * 25 / (25 + error**2), rtol=1e-12)
    np.testing.assert_allclose(one["sd"], np.sqrt(25 * error**2 / (25 + error**2)), rtol=1e-12)
    two = em.run(jax.random.key(0), effect, error, 2).posterior_frame()
    assert list(two.columns) == ["mean[0]", "sd[0]", "mean[1]", "sd[1]"]
    np.testing.assert_allclose(two["mean[1]"], effect * 25 / (50 + error**2), rtol=1e-12)
