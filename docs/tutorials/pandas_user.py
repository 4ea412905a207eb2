"""Which flowers belong together? Clusters of a data frame that lacks a tenth of its cells."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.distributions import constraints
from sklearn.datasets import load_iris

import emjax
from emjax.distributions import PartiallyObserved

flowers = load_iris(as_frame=True).data.rename(columns=lambda name: name.removesuffix(" (cm)"))
flowers = flowers.mask(np.random.default_rng(0).random(flowers.shape) < 0.1)
print(flowers.isna().sum(), flowers.head(), sep="\n\n", end="\n\n")


def mixture(flowers):
    share = numpyro.param("share", jnp.ones(3) / 3, constraint=constraints.simplex)
    mean = numpyro.param("mean", jnp.zeros((3, 4)))
    spread = numpyro.param("spread", jnp.eye(4), constraint=constraints.positive_definite)
    with numpyro.plate("rows", len(flowers)):
        cluster = numpyro.sample("cluster", dist.Categorical(share), infer={"start": "short-runs"})
        normal = dist.MultivariateNormal(mean[cluster], spread)
        numpyro.sample("flower", PartiallyObserved(normal, ~jnp.isnan(flowers)), obs=flowers)


fit = emjax.EM(mixture).run(jax.random.key(0), flowers).relabel("size")
print(emjax.summary(fit), end="\n\n")
errors = emjax.standard_errors(fit).to_frame().query("parameter == 'mean'")
table = errors.pivot(index="column", columns="cluster", values=["estimate", "standard_error"])
print(table.loc[flowers.columns].round(2), end="\n\n")

filled = flowers.fillna(pd.DataFrame(fit.impute()["flower"], flowers.index, flowers.columns))
filled["cluster"] = fit.decode()["cluster"]
filled = filled.join(fit.posterior_frame().add_prefix("p of "))
print(filled.sample(6, random_state=1).round(2).to_string())
