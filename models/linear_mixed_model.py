"""Linear mixed model: rows of one group have effects in common, and groups are drawn at random.

      Σ ──▶ (b_g) ──▶ [y_n] ◀── β, σ
              │         │
              │         └── plate "rows", g = group[n]
              └──────────── plate "groups"

    b_g ~ Normal(0, Σ)                                 latent `effect`, q coordinates
    y_n ~ Normal(x_nᵀ β + z_nᵀ b_{group[n]}, σ²)       `response`

with β = `fixed` (p,), Σ = `covariance` (q, q) and σ = `scale`; x_n are the `fixed_covariates` and
z_n the `random_covariates` of row n: a column of ones is an intercept, another column a slope that
differs from group to group. With y, X and Z the rows of group g, they are together
y ~ Normal(X β, Z Σ Zᵀ + σ² I).

E-step, over the rows of each group:

    V_g = (Σ⁻¹ + Zᵀ Z / σ²)⁻¹ = Σ − Σ Zᵀ (Z Σ Zᵀ + σ² I)⁻¹ Z Σ      Cov[b_g | y]                 (1)
    b̄_g = V_g Zᵀ (y − X β) / σ²                                     E[b_g | y]                   (2)

The second form of (1) is right also where Σ is singular.

M-step: least squares on what the effects leave, then what is left of that.

    β  = (Σ_n x_n x_nᵀ)⁻¹ Σ_n x_n (y_n − z_nᵀ b̄_{group[n]})                                      (3)
    Σ  = mean_g b̄_g b̄_gᵀ + V_g                                                                   (4)
    σ² = mean_n (y_n − x_nᵀ β − z_nᵀ b̄_{group[n]})² + z_nᵀ V_{group[n]} z_n    about the new β   (5)

The b̄_g are the best linear unbiased predictions, pulled toward 0 from what least squares would give
each group by itself, and the more so the fewer rows it has. This is maximum likelihood, not REML.

Source: Laird & Ware (1982), "Random-effects models for longitudinal data", Biometrics 38, section
4; Laird, Lange & Stram (1987), Journal of the American Statistical Association 82, for (3), where
β is a parameter of the M-step; Dempster, Laird & Rubin (1977), section 4.4.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Int
from numpyro.distributions import constraints


def program(
    response: Float[ArrayLike, "row"],
    fixed_covariates: Float[ArrayLike, "row fixed"],
    random_covariates: Float[ArrayLike, "row effect"],
    group: Int[ArrayLike, "row"],
    num_groups: int,
) -> None:
    """The generative program, for `EM(program, integrate={"effect"})`. Row n is of `group[n]`.

    Parameters: `fixed` (fixed,) and `covariance` (effect, effect) in units of the response by those
    of the covariates, and `scale` (), positive, in the unit of the response. They start at least
    squares without groups, where half of what is left of the response is noise, and each random
    effect alone would explain the other half.
    """
    _check(response, fixed_covariates, random_covariates, group)
    num_effects = random_covariates.shape[1]
    least_squares = jnp.linalg.lstsq(jnp.asarray(fixed_covariates), jnp.asarray(response))[0]
    half = jnp.mean((response - fixed_covariates @ least_squares) ** 2) / 2
    fixed = numpyro.param("fixed", least_squares)
    covariance = numpyro.param(
        "covariance",
        jnp.diag(half / jnp.mean(jnp.square(random_covariates), axis=0)),
        constraint=constraints.positive_definite,
    )
    scale = numpyro.param("scale", jnp.sqrt(half), constraint=constraints.positive)
    with numpyro.plate("groups", num_groups):
        effect = numpyro.sample(
            "effect", dist.MultivariateNormal(jnp.zeros(num_effects), covariance)
        )
    with numpyro.plate("rows", len(response)):
        mean = fixed_covariates @ fixed + (random_covariates * effect[group]).sum(axis=-1)
        numpyro.sample("response", dist.Normal(mean, scale), obs=response)


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    response: Float[ArrayLike, "row"],
    fixed_covariates: Float[ArrayLike, "row fixed"],
    random_covariates: Float[ArrayLike, "row effect"],
    group: Int[ArrayLike, "row"],
    num_groups: int,
) -> dict[str, np.ndarray]:
    """Return the parameters after one EM step, by equations (1) to (5).

    The effects of a group without rows are those of any group: b̄ = 0, V = Σ.
    """
    y, x, z = (
        np.asarray(value, np.float64) for value in (response, fixed_covariates, random_covariates)
    )
    group = np.asarray(group)
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    prior, variance = start["covariance"], start["scale"] ** 2
    residual = y - x @ start["fixed"]

    mean, covariance = np.zeros((num_groups, len(prior))), np.empty((num_groups, *prior.shape))
    for g in range(num_groups):
        own = z[group == g]
        gain = np.linalg.solve(own @ prior @ own.T + variance * np.eye(len(own)), own @ prior).T
        covariance[g] = prior - gain @ own @ prior  # (1)
        mean[g] = gain @ residual[group == g]  # (2): Σ Zᵀ (Z Σ Zᵀ + σ² I)⁻¹ = V Zᵀ / σ²

    of_group = (z * mean[group]).sum(axis=1)
    fixed = np.linalg.solve(x.T @ x, x.T @ (y - of_group))  # (3)
    second = (mean[:, :, None] * mean[:, None] + covariance).mean(axis=0)  # (4)
    unknown = np.einsum("ni,nij,nj->n", z, covariance[group], z)
    noise = ((y - x @ fixed - of_group) ** 2 + unknown).mean()  # (5)
    return {"fixed": fixed, "covariance": second, "scale": np.asarray(np.sqrt(noise))}


def _check(
    response: Float[ArrayLike, "row"],
    fixed_covariates: Float[ArrayLike, "row fixed"],
    random_covariates: Float[ArrayLike, "row effect"],
    group: Int[ArrayLike, "row"],
) -> None:
    """Raise ValueError for covariates without columns, or another number of rows."""
    for name, covariates in (("fixed", fixed_covariates), ("random", random_covariates)):
        if covariates.ndim != 2:
            raise ValueError(
                f"{name}_covariates have {covariates.ndim} axes: pass (row, column). An intercept "
                "alone is np.ones((len(response), 1))."
            )
    rows = len(response), len(fixed_covariates), len(random_covariates), len(group)
    if len(set(rows)) > 1:
        raise ValueError(
            "response, fixed_covariates, random_covariates and group have "
            f"{', '.join(map(str, rows))} rows: pass as many of each."
        )
