"""Factor analysis: many measured features are a few hidden ones, each mixed in, and noise.

      (f_n) ──▶ [x_n] ◀── m, Λ, ψ
        │         │
        └─────────┴── plate "samples"

    f_n ~ Normal(0, I)                                 latent `factor`, q coordinates
    x_n ~ Normal(m + Λ f_n, diag ψ)                    `data`, in D dimensions

with m = `loc` (feature,), Λ = `loadings` (feature, factor) and ψ = `scale`², of each feature in
`program`, the same for all in `ppca_program`: probabilistic principal components. Without its
factors a sample is x_n ~ Normal(m, Λ Λᵀ + diag ψ): a rotation of the factors changes nothing.

E-step. The factors given a sample are normal, with a covariance that all samples share:

    V   = (I + Λᵀ diag(1/ψ) Λ)⁻¹                       Cov[f_n | x_n]                            (1)
    f̄_n = V Λᵀ diag(1/ψ) (x_n − m)                     E[f_n | x_n]                              (2)

M-step. Least squares of x on the factors and a one, g_n = (f_n, 1), where sums over samples hold
E[g_n] = (f̄_n, 1) and E[g_n g_nᵀ], which is E[g_n] E[g_n]ᵀ with V added to the block of factors;
then what is left of each feature:

    (Λ, m) = (Σ_n x_n E[g_n]ᵀ) (Σ_n E[g_n g_nᵀ])⁻¹                                               (3)
    ψ_d    = mean_n (x_nd − m_d − Λ_d f̄_n)² + Λ_d V Λ_dᵀ      about the new m, Λ                 (4)
    ψ      = mean_d ψ_d                                        `ppca_program`                    (5)

Where ψ_d goes to 0, a factor is the feature d: a Heywood case. The maximum of `ppca_program` is
known: ψ is the mean of the D − q smallest eigenvalues of the covariance of the data.

Source: Rubin & Thayer (1982), "EM algorithms for ML factor analysis", Psychometrika 47, (4)–(7),
with the mean known for (1) to (4); Tipping & Bishop (1999), "Probabilistic principal component
analysis", Journal of the Royal Statistical Society B 61, section 3.2 and appendix B, for (5).
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


def program(data: Float[ArrayLike, "sample feature"], num_factors: int) -> None:
    """The generative program, for `EM(program, integrate={"factor"})`.

    Parameters, all in the unit of the data: `loc` (feature,), `loadings` (feature, factor), and
    `scale` (feature,), positive. They start at the mean, at random, and such that half of the
    variance of each feature is noise.
    """
    _check(data, num_factors)
    spread = jnp.std(data, axis=0) / jnp.sqrt(2)
    _sample(data, num_factors, spread)


def ppca_program(data: Float[ArrayLike, "sample feature"], num_factors: int) -> None:
    """Probabilistic principal components, for `EM(ppca_program, integrate={"factor"})`.

    Parameters and start as in `program`, where `scale` () is the same for all features.
    """
    _check(data, num_factors)
    spread = jnp.sqrt(jnp.mean(jnp.var(data, axis=0)) / 2)
    _sample(data, num_factors, spread)


def _sample(
    data: Float[ArrayLike, "sample feature"], num_factors: int, spread: Float[ArrayLike, "..."]
) -> None:
    """Declare the parameters, with `spread` where the noise starts, and sample the data."""
    num_samples, num_features = data.shape
    loc = numpyro.param("loc", jnp.mean(data, axis=0))

    def random_loadings(rng_key: jax.Array) -> Float[ArrayLike, "feature factor"]:
        directions = jax.random.normal(rng_key, (num_features, num_factors))
        return spread[..., None] * directions / jnp.sqrt(num_factors)

    loadings = numpyro.param("loadings", random_loadings)
    scale = numpyro.param("scale", spread, constraint=constraints.positive)
    with numpyro.plate("samples", num_samples):
        factor = numpyro.sample("factor", dist.Normal(0, 1).expand([num_factors]).to_event(1))
        mean = loc + factor @ loadings.T
        noise = jnp.broadcast_to(scale, (num_features,))
        numpyro.sample("data", dist.Normal(mean, noise).to_event(1), obs=data)


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "sample feature"],
    num_factors: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `program` after one EM step, by equations (1) to (4)."""
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    loc, loadings, noise = _maximum(start, np.asarray(data, np.float64))
    return {"loc": loc, "loadings": loadings, "scale": np.sqrt(noise)}


def ppca_hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "sample feature"],
    num_factors: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `ppca_program` after one EM step, by equations (1) to (5)."""
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    loc, loadings, noise = _maximum(start, np.asarray(data, np.float64))
    return {"loc": loc, "loadings": loadings, "scale": np.asarray(np.sqrt(noise.mean()))}  # (5)


def _maximum(
    start: Mapping[str, np.ndarray], x: Float[np.ndarray, "sample feature"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return m, Λ and ψ of each feature after one EM step, by (1) to (4)."""
    num_samples, num_factors = len(x), start["loadings"].shape[1]
    weighted = start["loadings"] / np.broadcast_to(start["scale"], x.shape[1:])[:, None] ** 2
    covariance = np.linalg.inv(np.eye(num_factors) + start["loadings"].T @ weighted)  # (1)
    mean = (x - start["loc"]) @ weighted @ covariance  # (2), as covariance is symmetric

    regressors = np.column_stack([mean, np.ones(num_samples)])
    second = regressors.T @ regressors
    second[:num_factors, :num_factors] += num_samples * covariance
    coefficients = np.linalg.solve(second, regressors.T @ x).T  # (3)
    loadings, loc = coefficients[:, :num_factors], coefficients[:, num_factors]
    residual = x - regressors @ coefficients.T
    unknown = np.einsum("df,fg,dg->d", loadings, covariance, loadings)
    return loc, loadings, (residual**2).mean(axis=0) + unknown  # (4)


def _check(data: Float[ArrayLike, "sample feature"], num_factors: int) -> None:
    """Raise ValueError for data that have other axes, or more factors than features."""
    if data.ndim != 2:
        raise ValueError(f"data have {data.ndim} axes: pass (sample, feature).")
    if not 1 <= num_factors <= data.shape[1]:
        raise ValueError(
            f"num_factors={num_factors}: pass a number from 1 to {data.shape[1]}, that of features."
        )
