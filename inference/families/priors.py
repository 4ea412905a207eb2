"""Conjugate priors."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from emjax.families.conjugate import (
    COVARIANCE,
    LOCATION,
    LOCATION_VECTOR,
    RATE,
    SIMPLEX,
    UNIT_INTERVAL,
)
from emjax.families.family import Prior, register
from emjax.numerics.guards import safe_log
from emjax.numerics.matrices import EXACT, inverse_from_cholesky


def _beta_constant(concentration1, concentration0):
    total = gammaln(concentration1 + concentration0)
    return total - gammaln(concentration1) - gammaln(concentration0)


# uniform where the parameter may lie at all: it has no opinion of its own
def _flat(features, **arguments):
    return 0.0


register(
    dist.Beta,
    Prior(
        UNIT_INTERVAL,
        ("concentration1", "concentration0"),
        log_density=lambda f, concentration1, concentration0: (
            (concentration1 - 1) * f[0] + (concentration0 - 1) * f[1]
        ),
        log_constant=_beta_constant,
    ),
)
register(
    dist.Dirichlet,
    Prior(
        SIMPLEX,
        ("concentration",),
        log_density=lambda f, concentration: ((concentration - 1) * f[0]).sum(-1),
        log_constant=lambda concentration: (
            gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1)
        ),
    ),
)
register(
    dist.Gamma,
    Prior(
        RATE,
        ("concentration", "rate"),
        log_density=lambda f, concentration, rate: (concentration - 1) * f[0] - rate * f[1],
        log_constant=lambda concentration, rate: (
            concentration * safe_log(rate) - gammaln(concentration)
        ),
    ),
)
# without 0 · log 0 in it, NumPyro's own density serves, here and below
register(dist.Exponential, Prior(RATE, ("rate",), log_density=lambda f, rate: -rate * f[1]))
register(
    dist.Normal,
    Prior(
        LOCATION,
        ("loc", "scale"),
        log_density=lambda f, loc, scale: -0.5 * f[1] / scale**2,
        centered="loc",
    ),
)
register(
    dist.MultivariateNormal,
    Prior(
        LOCATION_VECTOR,
        ("loc", "scale_tril"),
        log_density=lambda f, loc, scale_tril: (
            -0.5 * (f[1] * inverse_from_cholesky(scale_tril)).sum((-2, -1))
        ),
        centered="loc",
    ),
)


def _inverse_wishart(features, concentration, scale_tril):
    log_determinant, precision = features
    size = scale_tril.shape[-1]
    scale = jnp.matmul(scale_tril, scale_tril.mT, precision=EXACT)
    along = (scale * precision).sum((-2, -1))
    return -0.5 * ((concentration + size + 1) * log_determinant + along)


register(
    dist.InverseWishart,
    Prior(COVARIANCE, ("concentration", "scale_tril"), log_density=_inverse_wishart),
)
register(dist.Uniform, Prior(None, (), _flat))
register(dist.ImproperUniform, Prior(None, (), _flat))
