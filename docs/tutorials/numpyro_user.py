"""From NUTS with enumeration to EM, to NUTS on the exact likelihood, and to draws of the states.

Earthquakes of magnitude 7 or greater in each year, 1900-2006, and a hidden state that lasts.
"""

from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS, init_to_value

import emjax

table = Path(__file__).parents[2] / "experiments" / "data" / "earthquakes.csv"
y, key = np.loadtxt(table, delimiter=",", skiprows=1, usecols=1, dtype=int), jax.random.key(0)


def model(y):  # as it was, less infer={"enumerate": "parallel"}
    move = numpyro.sample("move", dist.Dirichlet(np.array([[9.0, 1.0], [1.0, 9.0]])).to_event(1))
    rate = numpyro.sample("rate", dist.Gamma(4.0, 0.2).expand([2]).to_event(1))

    def year(before, count):
        z = numpyro.sample("z", dist.Categorical(move[before]))
        return z, numpyro.sample("y", dist.Poisson(rate[z]), obs=count)

    scan(year, 0, y)


fit = (em := emjax.EM(model)).run(key, y)  # the mode of the posterior
kernel = NUTS(emjax.marginalized(model), init_strategy=init_to_value(values=fit.params))
mcmc = MCMC(kernel, num_warmup=300, num_samples=500, progress_bar=False)
mcmc.run(key, y)
mcmc.print_summary()
draw = jax.vmap(lambda params, key: em.sample_posterior(key, params, y)["z"][0])
busy = draw(mcmc.get_samples(), jax.random.split(key, 500)) == fit.params["rate"].argmax()
print("busy, with a probability above 0.9:", 1900 + np.flatnonzero(busy.mean(0) > 0.9))
