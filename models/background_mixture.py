"""Gaussian mixture with a background: some points belong to no cloud, and may be anywhere.

      w ──▶ (z_n) ──▶ [x_n] ◀── m_k, Σ_k
              └─────────┴── plate "samples"

    z_n ~ Categorical(w)                       latent `component`: 0 … K − 1 a cloud, K none
    x_n ~ Normal(m_{z_n}, Σ_{z_n})             `data`, in D dimensions, if z_n < K
    x_n ~ Uniform(a, b)                        if z_n = K

with w = `weights` (K + 1,), m = `loc` (K, D), Σ = `covariance` (K, D, D), and a, b the smallest and
largest value of each coordinate: the background's density is one over the volume
V = Π_d (b_d − a_d) of the box that the data fill. It is no parameter, so that an outlier is
explained without a cloud as wide as the box.

E-step, in logarithms:

    log p(x_n, z_n = k) = log w_k + log Normal(x_n; m_k, Σ_k)    k < K                           (1)
    log p(x_n, z_n = K) = log w_K − log V                                                        (2)
    r_nk = p(x_n, z_n = k) / Σ_j p(x_n, z_n = j)                                                 (3)

M-step. With R_k = Σ_n r_nk, the background takes part in the weights alone:

    w_k = R_k / N                                                  k ≤ K                         (4)
    m_k = Σ_n r_nk x_n / R_k                                       k < K                         (5)
    Σ_k = Σ_n r_nk (x_n − m_k)(x_n − m_k)ᵀ / R_k                   about the new mean            (6)

Source: Banfield & Raftery (1993), Biometrics 49; Fraley & Raftery (2002), JASA 97, section 4.1: the
noise component of mclust, which takes V for the smallest of several boxes.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.distributions import constraints

from emjax.distributions import Select


def program(data: Float[ArrayLike, "sample feature"], num_components: int) -> None:
    """K clouds and a background, for data of shape (N, D) with a spread in each coordinate.

    Parameters: `weights` (K + 1,) on the simplex, the background's last, `loc` (K, D) and
    `covariance` (K, D, D). The start: the best of several short runs; with `init="program"` or
    parameters that are given, equal weights, means at random points, the spread of all data.
    """
    size = num_components + 1
    weights = numpyro.param("weights", jnp.full(size, 1 / size), constraint=constraints.simplex)
    loc = numpyro.param(
        "loc",
        lambda rng_key: jax.random.choice(
            rng_key, jnp.asarray(data), (num_components,), replace=False
        ),
    )
    covariance = numpyro.param(
        "covariance",
        lambda rng_key: jnp.tile(
            jnp.atleast_2d(jnp.cov(data, rowvar=False, bias=True)), (num_components, 1, 1)
        ),
        constraint=constraints.positive_definite,
    )
    anywhere = dist.Uniform(jnp.min(data, axis=0), jnp.max(data, axis=0)).to_event(1)
    with numpyro.plate("samples", len(data)):
        component = numpyro.sample(
            "component", dist.Categorical(weights), infer={"start": "short-runs"}
        )
        # the background has no cloud, and reads any
        cloud = jnp.minimum(component, num_components - 1)
        normal = dist.MultivariateNormal(loc[cloud], covariance_matrix=covariance[cloud])
        is_background = jnp.asarray(component == num_components, int)
        numpyro.sample("data", Select(is_background, [normal, anywhere]), obs=data)


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "sample feature"],
    num_components: int,
) -> dict[str, np.ndarray]:
    """Return the parameters after one EM step, by equations (1) to (6)."""
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    x = np.asarray(data, np.float64)
    num_samples, num_features = x.shape

    # E-step (1), (2), (3).
    log_joint = np.empty((num_samples, num_components + 1))
    for k in range(num_components):
        factor = np.linalg.cholesky(start["covariance"][k])
        whitened = np.linalg.solve(factor, (x - start["loc"][k]).T)
        log_det = 2 * np.log(np.diagonal(factor)).sum()
        squares = (whitened**2).sum(axis=0)
        log_joint[:, k] = -0.5 * (num_features * np.log(2 * np.pi) + log_det + squares)
    log_joint[:, -1] = -np.log(np.ptp(x, axis=0)).sum()
    log_joint += np.log(start["weights"])
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))

    # M-step (4), (5), (6).
    totals = r.sum(axis=0)
    of_clouds, counts = r[:, :-1], totals[:-1]
    loc = of_clouds.T @ x / counts[:, None]
    deviations = x[None] - loc[:, None]
    scatter = np.einsum("nk,knd,kne->kde", of_clouds, deviations, deviations)
    covariance = scatter / counts[:, None, None]
    return {"weights": totals / num_samples, "loc": loc, "covariance": covariance}
