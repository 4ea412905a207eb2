"""The mixture of normals behind `GaussianMixture`: every sample comes from one of K normals.

  w ──▶ (z_n) ──▶ [x_n] ◀── m_k, Σ_k
          └─────────┴── plate "samples"

z_n ~ Categorical(w)                       latent `component`
x_n ~ Normal(m_{z_n}, Σ_{z_n})             `X`, in D dimensions, some of which may be missing

covariance_type    Σ_k                       parameter (shape)
"full"             any                       `covariances` (K, D, D)
"tied"             one Σ for all             `covariances` (D, D)
"diag"             diag(σ_k1², …, σ_kD²)     `scales` (K, D), or `variances` under a prior
"spherical"        σ_k² I                    `scales` (K,), or `variances` under a prior
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from emjax.distributions import PartiallyObserved


class Priors(NamedTuple):
    """What is known beforehand; None: nothing is.

    - `weight_concentration`: α of a Dirichlet(α) prior of the weights, a number or (K,).
    - `degrees_of_freedom`, `covariance`: ν and Ψ of an inverse-Wishart prior of each covariance, or
      of InverseGamma(ν / 2, Ψ / 2) of each variance.
    """

    weight_concentration: Any = None
    degrees_of_freedom: float | None = None
    covariance: Any = None


NO_PRIORS = Priors()


def program(
    X: Any,
    num_components: int,
    covariance_type: str,
    variance_floor: float = 0.0,
    priors: Priors = NO_PRIORS,
    has_missing: bool = False,
) -> None:
    """The generative program, for samples X (n_samples, n_features).

    `variance_floor`: the least variance, in the square of the unit of the data, if "diag" or
    "spherical". `has_missing`: whether X may be NaN where a value is missing.
    """
    num_features = X.shape[1]
    weights = _weights(num_components, priors.weight_concentration)
    means = numpyro.param("means", jnp.zeros((num_components, num_features)))
    if covariance_type in ("full", "tied"):
        covariances = _covariances(num_components, num_features, covariance_type, priors)
        cloud = _correlated(X, means, covariances, covariance_type, has_missing)
    else:
        shape = (num_components, num_features if covariance_type == "diag" else 1)
        scales = _scales(shape, covariance_type, variance_floor, priors)
        cloud = _uncorrelated(X, means, scales, has_missing)
    with numpyro.plate("samples", len(X)):
        component = numpyro.sample("component", dist.Categorical(weights))
        value = jnp.nan_to_num(X) if has_missing else X
        numpyro.sample("X", cloud(component), obs=value)


def _weights(num_components: int, concentration: Any) -> Any:
    if concentration is None:
        start = jnp.full(num_components, 1 / num_components)
        return numpyro.param("weights", start, constraint=constraints.simplex)
    alpha = jnp.broadcast_to(jnp.asarray(concentration, float), (num_components,))
    return numpyro.sample("weights", dist.Dirichlet(alpha))


def _covariances(
    num_components: int, num_features: int, covariance_type: str, priors: Priors
) -> Any:
    batch = (num_components,) if covariance_type == "full" else ()
    if priors.covariance is None:
        start = jnp.broadcast_to(jnp.eye(num_features), (*batch, num_features, num_features))
        return numpyro.param("covariances", start, constraint=constraints.positive_definite)
    prior = dist.InverseWishart(priors.degrees_of_freedom, jnp.asarray(priors.covariance))
    return numpyro.sample("covariances", prior.expand(batch).to_event(len(batch)))


def _scales(
    shape: tuple[int, int], covariance_type: str, variance_floor: float, priors: Priors
) -> Any:
    """Return standard deviations, (component, feature), or (component, 1)."""
    own = shape if covariance_type == "diag" else shape[:1]
    if priors.covariance is None:
        floor = float(np.sqrt(variance_floor))
        bounded = constraints.greater_than_eq(floor) if floor > 0 else constraints.positive
        scales = numpyro.param("scales", jnp.full(own, 1 + floor), constraint=bounded)
    else:
        rate = jnp.asarray(priors.covariance, float) / 2
        prior = dist.InverseGamma(priors.degrees_of_freedom / 2, jnp.broadcast_to(rate, own))
        scales = jnp.sqrt(numpyro.sample("variances", prior.to_event(len(own))))
    return jnp.reshape(scales, shape)


def _correlated(
    X: Any, means: Any, covariances: Any, covariance_type: str, has_missing: bool
) -> Callable[[Any], dist.Distribution]:
    def cloud(component: Any) -> dist.Distribution:
        own = covariances[component] if covariance_type == "full" else covariances
        complete = dist.MultivariateNormal(means[component], covariance_matrix=own)
        return PartiallyObserved(complete, ~jnp.isnan(X)) if has_missing else complete

    return cloud


def _uncorrelated(
    X: Any, means: Any, scales: Any, has_missing: bool
) -> Callable[[Any], dist.Distribution]:
    def cloud(component: Any) -> dist.Distribution:
        complete = dist.Normal(means[component], scales[component])
        return (complete.mask(~jnp.isnan(X)) if has_missing else complete).to_event(1)

    return cloud
