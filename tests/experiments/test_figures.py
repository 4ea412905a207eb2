"""What the experiments draw with `emjax.plot`."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure
from numpyro.distributions import constraints

from emjax import EM, plot


def comparisons(name, town):
    """Two fields of pairs of records, −1 where they are missing."""
    probs = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    rate = numpyro.param("rate", 0.25, constraint=constraints.unit_interval)
    with numpyro.plate("pairs", len(name)):
        match = numpyro.sample("match", dist.Bernoulli(rate))
        for field, level in (("name", name), ("town", town)):
            with numpyro.handlers.mask(mask=level >= 0):
                numpyro.sample(field, dist.Categorical(probs[match]), obs=jnp.maximum(level, 0))


def test_a_missing_field_weighs_nothing_in_the_waterfall():
    name, town = np.array([1, 1, 0, 0, 1, 0]), np.array([-1, 1, 0, 0, 0, 0])
    fit = EM(comparisons).run(jax.random.key(0), name, town)
    axes = plot.match_weights(fit, row=0, ax=Figure().subplots())
    before, of_name, of_town, in_all = (bar.get_height() for bar in axes.patches)
    odds = float(fit.params["rate"]) / (1 - float(fit.params["rate"]))
    np.testing.assert_allclose([before, of_name, of_town], [np.log2(odds), 3, 0], atol=1e-9)
    np.testing.assert_allclose(in_all, before + 3)
