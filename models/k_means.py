"""k-means: a Gaussian mixture with unit variances and equal weights, fitted by hard EM.

      (z_n) ──▶ [x_n] ◀── m_k
        └─────────┴── plate "samples"

    z_n ~ Categorical(1/K, …, 1/K)             latent `component`
    x_n ~ Normal(m_{z_n}, I)                   `data`, in D dimensions

with m = `loc`. Hard EM maximizes the complete data log-likelihood over z and over m in turn:

    log p(x, z | m) = −½ Σ_n ‖x_n − m_{z_n}‖² + constant

E-step. All mass on the most probable component, which is the nearest mean (the first of several):

    z_n = argmin_k ‖x_n − m_k‖²                                                                  (1)

M-step. The mean of the points that chose the component:

    m_k = Σ_n 1{z_n = k} x_n / Σ_n 1{z_n = k}                                                    (2)

This is Lloyd's algorithm, so `EM(program, e_step="hard")` is k-means, and its objective is, up to
the constant, −½ times what scikit-learn calls inertia. With the soft E-step the same program is the
mixture itself, whose means blend; k-means is its limit as the variance goes to 0.

Source: Lloyd (1982), IEEE Transactions on Information Theory 28; Celeux & Govaert (1992), "A
classification EM algorithm for clustering and two stochastic versions"; Bishop (2006), section
9.3.2.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float


def program(data: Float[ArrayLike, "sample feature"], num_components: int) -> None:
    """The generative program, for `EM(program, e_step="hard")`.

    Parameters: `loc` (component, feature), in the unit of the data, which starts at the means
    of clusters of the standardized data; with `init="program"` at random points of the data.
    """
    loc = numpyro.param(
        "loc",
        lambda rng_key: jax.random.choice(
            rng_key, jnp.asarray(data), (num_components,), replace=False
        ),
    )
    with numpyro.plate("samples", len(data)):
        component = numpyro.sample(
            "component",
            dist.Categorical(jnp.full(num_components, 1 / num_components)),
            infer={"start": "k-means"},
        )
        numpyro.sample("data", dist.Normal(loc[component], 1.0).to_event(1), obs=data)


def hand_derived_step(
    params: Mapping[str, ArrayLike], data: Float[ArrayLike, "sample feature"], num_components: int
) -> dict[str, np.ndarray]:
    """Return the means after one step of Lloyd's algorithm, by (1) and (2).

    A component that no point chose stays where it is.
    """
    x, loc = np.asarray(data, np.float64), np.asarray(params["loc"], np.float64)
    squared_distance = ((x[:, None] - loc) ** 2).sum(axis=2)  # (sample, component)
    chosen = np.eye(num_components)[squared_distance.argmin(axis=1)]  # (1); argmin takes the first
    sizes = chosen.sum(axis=0)[:, None]
    return {"loc": np.divide(chosen.T @ x, sizes, out=loc.copy(), where=sizes > 0)}  # (2)
