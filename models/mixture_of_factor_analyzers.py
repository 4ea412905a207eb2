"""Mixture of factor analyzers: clouds that are flat, each along a few directions of its own.

      w ──▶ (z_n) ────┐
              │       ▼
      (f_n) ──┼───▶ [x_n] ◀── m_k, Λ_k, ψ
        │     │       │
        └─────┴───────┴── plate "samples"

    z_n ~ Categorical(w)                               latent `component`
    f_n ~ Normal(0, I)                                 latent `factor`, q coordinates
    x_n ~ Normal(m_{z_n} + Λ_{z_n} f_n, diag ψ)        `data`, in D dimensions

with w = `weights` (component,), m = `loc` (component, feature), Λ = `loadings` (component, feature,
factor) and ψ = `scale`² (feature,), the noise of each feature, whatever the component. Without its
factors a sample of component k is x_n ~ Normal(m_k, Λ_k Λ_kᵀ + diag ψ): a Gaussian mixture whose
covariances have D q numbers each, not D (D + 1) / 2.

E-step: the component, and the factors given each component.

    r_nk = w_k Normal(x_n; m_k, Λ_k Λ_kᵀ + diag ψ) / Σ_j …    p(z_n = k | x_n)                   (1)
    V_k  = (I + Λ_kᵀ diag(1/ψ) Λ_k)⁻¹                         Cov[f_n | x_n, z_n = k]            (2)
    f̄_nk = V_k Λ_kᵀ diag(1/ψ) (x_n − m_k)                     E[f_n | x_n, z_n = k]              (3)

M-step. In each component, least squares on the factors and a one, g_n = (f_n, 1), with
E_k[g_n] = (f̄_nk, 1), and E_k[g_n g_nᵀ] = E_k[g_n] E_k[g_n]ᵀ with V_k added to the block of factors:

    w_k        = mean_n r_nk                                                                     (4)
    (Λ_k, m_k) = (Σ_n r_nk x_n E_k[g_n]ᵀ) (Σ_n r_nk E_k[g_n g_nᵀ])⁻¹                             (5)
    ψ_d        = mean_n Σ_k r_nk [(x_nd − m_kd − Λ_kd f̄_nk)² + Λ_kd V_k Λ_kdᵀ]                   (6)

with the new m and Λ in (6).

Source: Ghahramani & Hinton (1996), "The EM algorithm for mixtures of factor analyzers", University
of Toronto CRG-TR-96-1: (9), (10), (13)–(16), where m_k is a column of the loadings, as here.
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


def program(
    data: Float[ArrayLike, "sample feature"], num_components: int, num_factors: int
) -> None:
    """The generative program, for `EM(program, integrate={"factor"})`.

    Parameters: `weights` (component,) on the simplex, and in the unit of the data `loc` (component,
    feature), `loadings` (component, feature, factor) and `scale` (feature,), positive. The weights
    start equal, the means at random points of the data, the loadings at random, and half of the
    variance of each feature is noise.
    """
    _check(data, num_components, num_factors)
    num_samples, num_features = data.shape
    spread = jnp.std(data, axis=0) / jnp.sqrt(2)
    weights = numpyro.param(
        "weights", jnp.full(num_components, 1 / num_components), constraint=constraints.simplex
    )
    loc = numpyro.param(
        "loc",
        lambda rng_key: jax.random.choice(
            rng_key, jnp.asarray(data), (num_components,), replace=False
        ),
    )

    def random_loadings(rng_key: jax.Array) -> Float[ArrayLike, "component feature factor"]:
        directions = jax.random.normal(rng_key, (num_components, num_features, num_factors))
        return spread[:, None] * directions / jnp.sqrt(num_factors)

    loadings = numpyro.param("loadings", random_loadings)
    scale = numpyro.param("scale", spread, constraint=constraints.positive)
    with numpyro.plate("samples", num_samples):
        component = numpyro.sample("component", dist.Categorical(weights))
        factor = numpyro.sample("factor", dist.Normal(0, 1).expand([num_factors]).to_event(1))
        mean = loc[component] + jnp.einsum("ndf,nf->nd", loadings[component], factor)
        numpyro.sample("data", dist.Normal(mean, scale).to_event(1), obs=data)


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "sample feature"],
    num_components: int,
    num_factors: int,
) -> dict[str, np.ndarray]:
    """Return the parameters after one EM step, by equations (1) to (6).

    A component without responsibility keeps its mean and its loadings.
    """
    x = np.asarray(data, np.float64)
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    loc, loadings = start["loc"], start["loadings"]

    weighted = loadings / start["scale"][:, None] ** 2  # (component, feature, factor)
    precision = np.eye(num_factors) + loadings.swapaxes(1, 2) @ weighted
    covariance = np.linalg.inv(precision)  # (2)
    deviations = x - loc[:, None]  # (component, sample, feature)
    mean = deviations @ weighted @ covariance  # (3), as covariance is symmetric

    # (1): |Λ Λᵀ + diag ψ| = |diag ψ| |I + Λᵀ diag(1/ψ) Λ|; the quadratic form by Woodbury
    whitened = deviations / start["scale"]
    explained = np.einsum("knf,kfg,kng->kn", mean, precision, mean)
    log_det = np.linalg.slogdet(precision)[1] + 2 * np.log(start["scale"]).sum()
    square = (whitened**2).sum(axis=2) - explained + log_det[:, None]
    with np.errstate(divide="ignore"):
        log_weights = np.log(start["weights"])
    log_joint = log_weights[:, None] - 0.5 * (x.shape[1] * np.log(2 * np.pi) + square)
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=0))  # (component, sample)

    noise, after_loc, after_loadings = np.zeros(x.shape[1]), loc.copy(), loadings.copy()
    for k in np.flatnonzero(r.sum(axis=1) > 0):
        regressors = np.column_stack([mean[k], np.ones(len(x))])
        second = regressors.T @ (r[k, :, None] * regressors)
        second[:num_factors, :num_factors] += r[k].sum() * covariance[k]
        coefficients = np.linalg.solve(second, regressors.T @ (r[k, :, None] * x)).T  # (5)
        after_loadings[k], after_loc[k] = coefficients[:, :num_factors], coefficients[:, -1]
        residual = x - regressors @ coefficients.T
        unknown = np.einsum("df,fg,dg->d", after_loadings[k], covariance[k], after_loadings[k])
        noise += r[k] @ residual**2 + r[k].sum() * unknown  # (6)
    return {
        "weights": r.mean(axis=1),  # (4)
        "loc": after_loc,
        "loadings": after_loadings,
        "scale": np.sqrt(noise / len(x)),
    }


def _check(data: Float[ArrayLike, "sample feature"], num_components: int, num_factors: int) -> None:
    """Raise ValueError for data that have other axes, or more factors than features."""
    if data.ndim != 2:
        raise ValueError(f"data have {data.ndim} axes: pass (sample, feature).")
    if not 1 <= num_factors <= data.shape[1]:
        raise ValueError(
            f"num_factors={num_factors}: pass a number from 1 to {data.shape[1]}, that of features."
        )
    if num_components > len(data):
        raise ValueError(
            f"num_components={num_components}: pass at most {len(data)}, the number of samples, "
            "since the means start at samples."
        )
