"""Arguments whose maximizer has a closed form, by the shape of the objective along them.

Along such an argument v, everything else held, the expected complete-data log-likelihood is linear
in a few *features* of v,

    Q(v) = Σ_j c_j f_j(v) + const,

whatever the family: a Poisson's and an exponential's rate are the same problem, and so is the one
that a Gamma prior adds to it. The coefficients c are derivatives of Q with respect to the features,
which reverse mode computes through ties and lookups alike; `maximize` solves for v. Source: ours;
Diaconis & Ylvisaker (1979).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from emjax.numerics.guards import finite_logits, safe_log


@dataclass(frozen=True)
class Conjugate:
    """One shape of problem: `features(value, origin)` and `maximize(coefficients, value)`, on
    arrays whose last `event_dim` axes belong to one entry. An entry that nothing observed depends
    on keeps its `value`. `origin` is a point about which a location is measured; the others ignore
    it.
    """

    name: str
    features: Callable
    maximize: Callable
    event_dim: int = 0
    solution: str = ""


def _ratio(numerator, denominator, otherwise, event_dim: int = 0):
    used = denominator != 0
    shaped = used.reshape(used.shape + (1,) * event_dim)
    divisor = jnp.where(used, denominator, 1).reshape(shaped.shape)
    return jnp.where(shaped, numerator / divisor, otherwise)


def _counts(coefficients):
    """Return the coefficients of logarithms, zero where they are negative.

    A prior of concentration below 1 takes off up to one count. What is left negative has its
    maximum at the boundary, where the prior is infinite, and the objective then, too. An entry that
    no positive count is left of keeps its value.
    """
    return [jnp.maximum(c, 0) for c in coefficients]


def _unit_interval(coefficients, value):
    a, b = _counts(coefficients)
    return _ratio(a, a + b, value)


def _unit_interval_logits(coefficients, value):
    a, b = _counts(coefficients)
    return jnp.where(a + b != 0, safe_log(a) - safe_log(b), value)


def _simplex(coefficients, value):
    (c,) = _counts(coefficients)
    return _ratio(c, c.sum(-1), value, 1)


def _simplex_logits(coefficients, value):
    (c,) = _counts(coefficients)
    return jnp.where(
        c.sum(-1, keepdims=True) != 0, safe_log(_simplex(coefficients, jnp.ones_like(value))), value
    )


def _rate(coefficients, value):
    a, b = coefficients
    return _ratio(jnp.maximum(a, 0), -b, value)


def _scale(coefficients, value):
    n, s = coefficients  # n log σ + s / σ², both negative
    return jnp.sqrt(
        jnp.maximum(_ratio(2 * s, n, value**2), 0)
    )  # rounding may leave less than nothing of equal data


def _location(coefficients, value):
    linear, quadratic = coefficients
    return value + _ratio(linear, -2 * quadratic, 0.0)


def _location_vector(coefficients, value):
    linear, quadratic = coefficients
    curvature = -(quadratic + quadratic.mT)
    used = jnp.trace(curvature, axis1=-2, axis2=-1) != 0
    curvature = jnp.where(used[..., None, None], curvature, jnp.eye(curvature.shape[-1]))
    return value + jnp.where(
        used[..., None], jnp.linalg.solve(curvature, linear[..., None])[..., 0], 0
    )


def _covariance(coefficients, value):
    n, s = coefficients  # n log|Σ| + ⟨s, Σ⁻¹⟩, both negative
    return _ratio((s + s.mT) / 2, n, value, 2)


def _precision(coefficients, value):
    n, _ = coefficients
    identity = jnp.eye(value.shape[-1])
    covariance = _covariance(coefficients, jnp.broadcast_to(identity, value.shape))
    return jnp.where((n != 0)[..., None, None], jnp.linalg.inv(covariance), value)


def _scale_tril(coefficients, value):
    n, _ = coefficients
    identity = jnp.eye(value.shape[-1])
    covariance = _covariance(coefficients, jnp.broadcast_to(identity, value.shape))
    return jnp.where((n != 0)[..., None, None], jnp.linalg.cholesky(covariance), value)


def _log_odds_features(value, origin=None):
    odds = finite_logits(value)
    return jax.nn.log_sigmoid(odds), jax.nn.log_sigmoid(-odds)


def _log_determinant(cholesky):
    return 2 * jnp.log(jnp.diagonal(cholesky, axis1=-2, axis2=-1)).sum(-1)


def inverse_of(cholesky):
    """Return (L Lᵀ)⁻¹ for lower-triangular L."""
    identity = jnp.broadcast_to(jnp.eye(cholesky.shape[-1], dtype=cholesky.dtype), cholesky.shape)
    half = jax.scipy.linalg.solve_triangular(cholesky, identity, lower=True)
    return half.mT @ half


def _covariance_features(value, origin=None):
    cholesky = jnp.linalg.cholesky(value)
    return _log_determinant(cholesky), inverse_of(cholesky)


def _precision_features(value, origin=None):
    return -_log_determinant(jnp.linalg.cholesky(value)), value


def _scale_tril_features(value, origin=None):
    return _log_determinant(value), inverse_of(value)


UNIT_INTERVAL = Conjugate(
    "probability",
    lambda p, origin=None: (safe_log(p), safe_log(1 - p)),
    _unit_interval,
    solution="expected successes / trials",
)
UNIT_INTERVAL_LOGITS = Conjugate(
    "log-odds",
    _log_odds_features,
    _unit_interval_logits,
    solution="log-odds of expected successes / trials",
)
SIMPLEX = Conjugate(
    "probabilities",
    lambda p, origin=None: (safe_log(p),),
    _simplex,
    1,
    "normalized expected counts",
)
SIMPLEX_LOGITS = Conjugate(
    "log-probabilities",
    lambda v, origin=None: (jax.nn.log_softmax(finite_logits(v)),),
    _simplex_logits,
    1,
    "log of normalized expected counts",
)
RATE = Conjugate(
    "rate", lambda r, origin=None: (safe_log(r), r), _rate, solution="expected events / exposure"
)
SCALE = Conjugate(
    "scale",
    lambda s, origin=None: (jnp.log(s), s**-2.0),
    _scale,
    solution="root of the expected mean square",
)
LOCATION = Conjugate(
    "location",
    lambda m, origin: (m - origin, (m - origin) ** 2),
    _location,
    solution="expected mean",
)
LOCATION_VECTOR = Conjugate(
    "location vector",
    lambda m, origin: (m - origin, (m - origin)[..., :, None] * (m - origin)[..., None, :]),
    _location_vector,
    1,
    "expected mean",
)
COVARIANCE = Conjugate("covariance", _covariance_features, _covariance, 2, "expected covariance")
PRECISION = Conjugate(
    "precision", _precision_features, _precision, 2, "inverse of the expected covariance"
)
SCALE_TRIL = Conjugate(
    "Cholesky factor",
    _scale_tril_features,
    _scale_tril,
    2,
    "Cholesky factor of the expected covariance",
)
