"""What a fit is asked of a data frame that was changed after it was fitted."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas

from emjax import EM


def clouds(x):
    loc = numpyro.param("loc", jnp.array([[0.0, 0.0], [3.0, 3.0]]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.Normal(loc[z], 1).to_event(1), obs=x)


def test_a_column_that_is_added_to_the_frame_leaves_the_fit_alone():
    frame = pandas.DataFrame({"a": [0.0, 0.5, 3.0, 2.5], "b": [0.2, 0.1, 3.3, 2.9]})
    fit = EM(clouds).run(jax.random.key(0), frame)
    before = np.asarray(fit.posterior()["z"])
    frame["a"] *= 100
    frame["cluster"] = np.asarray(fit.decode()["z"])
    np.testing.assert_array_equal(fit.posterior()["z"], before)
    assert list(fit.bound.args[0].columns) == ["a", "b"]
