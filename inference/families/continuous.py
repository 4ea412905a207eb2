"""Families of real numbers and vectors."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from emjax.families.conjugate import (
    COVARIANCE,
    EXACT,
    LOCATION,
    LOCATION_VECTOR,
    PRECISION,
    RATE,
    SCALE,
    SCALE_TRIL,
    Conjugate,
)
from emjax.families.distributions import PartiallyObserved
from emjax.families.family import Family, register
from emjax.families.missing import log_marginal
from emjax.families.patterns import PATTERNS
from emjax.numerics.guards import safe_log

LOG_2PI = math.log(2 * math.pi)


def _normal(loc, scale):
    (first, second), (log_scale, precision) = loc, scale
    return first * precision, -0.5 * precision, -0.5 * second * precision - log_scale


register(
    dist.Exponential,
    Family(
        {"rate": RATE},
        naturals=lambda rate: (-rate[1], rate[0]),
        statistics=lambda x: (x, 1.0),
        base=lambda x: jnp.zeros(()),
        event_dims=(0, 0),
    ),
)
register(
    dist.Gamma,
    Family(
        # a concentration solves an equation in the digamma function: no closed form
        {"concentration": None, "rate": RATE},
        event_dims=(0, 0, 0),
        statistics=lambda x: (safe_log(x), x, 1.0),
        base=lambda x: -safe_log(x),
        naturals=lambda concentration, rate: (
            concentration,
            -rate[1],
            concentration * rate[0] - gammaln(concentration),
        ),
    ),
)
register(
    dist.Beta,
    Family(
        {"concentration1": None, "concentration0": None},
        event_dims=(0, 0, 0),
        statistics=lambda x: (safe_log(x), safe_log(1 - x), 1.0),
        base=lambda x: -safe_log(x) - safe_log(1 - x),
        naturals=lambda concentration1, concentration0: (
            concentration1,
            concentration0,
            gammaln(concentration1 + concentration0)
            - gammaln(concentration1)
            - gammaln(concentration0),
        ),
    ),
)
register(
    dist.Dirichlet,
    Family(
        {"concentration": None},
        event_dims=(1, 0),
        statistics=lambda x: (safe_log(x), 1.0),
        base=lambda x: -safe_log(x).sum(-1),
        naturals=lambda concentration: (
            concentration,
            gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1),
        ),
    ),
)
register(
    dist.Normal,
    Family(
        {"loc": LOCATION, "scale": SCALE},
        naturals=_normal,
        statistics=lambda x: (x, x**2, 1.0),
        base=lambda x: -0.5 * LOG_2PI * jnp.ones_like(x),
        event_dims=(0, 0, 0),
        centered="loc",
    ),
)
register(
    dist.LogNormal,
    Family(
        {"loc": LOCATION, "scale": SCALE},
        naturals=_normal,
        statistics=lambda x: (x, x**2, 1.0),
        # x is the logarithm of the data, −x the Jacobian of taking it
        base=lambda x: -0.5 * LOG_2PI - x,
        event_dims=(0, 0, 0),
        centered="loc",
        transform=jnp.log,
    ),
)
register(
    dist.HalfNormal,
    Family(
        {"scale": SCALE},
        naturals=lambda scale: (-0.5 * scale[1], -scale[0]),
        statistics=lambda x: (x**2, 1.0),
        # half the line, twice the density
        base=lambda x: 0.5 * (2 * math.log(2) - LOG_2PI) * jnp.ones_like(x),
        event_dims=(0, 0),
    ),
)


def _register_multivariate_normal(name: str, conjugacy: Conjugate) -> None:
    """Register the normals whose matrix is given as `name`."""

    # linear in the features, of which `second` is here not read as the square of `first`
    def naturals(loc, **matrix):
        (first, second), (log_determinant, precision) = loc, matrix[name]
        linear = jnp.matmul(precision, first[..., None], precision=EXACT)[..., 0]
        square = (second * precision).sum((-2, -1))
        return linear, -0.5 * precision, -0.5 * square - 0.5 * log_determinant

    register(
        dist.MultivariateNormal,
        Family(
            {"loc": LOCATION_VECTOR, name: conjugacy},
            naturals=naturals,
            statistics=lambda x: (x, x, 1.0),
            squares=(1,),
            event_dims=(1, 2, 0),
            base=lambda x: -0.5 * x.shape[-1] * LOG_2PI * jnp.ones_like(x[..., 0]),
            centered="loc",
        ),
    )
    register(
        PartiallyObserved,
        Family(
            {"loc": LOCATION_VECTOR, name: conjugacy},
            naturals=naturals,
            given=("observed",),
            statistics=lambda x, observed: (x, x, 1.0),
            squares=(1,),
            event_dims=(1, 2, 0),
            # `log_marginal` counts no log 2π for what is missing: as many as are observed
            base=lambda x, observed: -0.5 * LOG_2PI * observed.sum(-1),
            centered="loc",
            marginal=log_marginal,
            patterns=PATTERNS,
        ),
    )


# the factor last: NumPyro has it whatever matrix is given, and the first family that fits is taken
_register_multivariate_normal("covariance_matrix", COVARIANCE)
_register_multivariate_normal("precision_matrix", PRECISION)
_register_multivariate_normal("scale_tril", SCALE_TRIL)
