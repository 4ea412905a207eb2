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
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint

from emjax.families.jacobians import Jacobian, is_elementary, is_unconstrained
from emjax.families.limits import entry_constraint, limits_of
from emjax.numerics.guards import finite_logits, or_number, safe_log
from emjax.numerics.matrices import (
    EXACT,
    inverse_from_cholesky,
    log_determinant,
    log_determinant_and_inverse,
    solved,
)


@dataclass(frozen=True, eq=False)
class Conjugate:
    """One shape of problem, and all that follows from it.

    Values are arrays whose last `event_dim` axes belong to one entry; leading axes are entries.

    - `name`: what `em.plan` calls the argument.
    - `features(value, origin=None)`: the f_j(v), a tuple of arrays; a location's are measured from
      `origin`, others ignore it.
    - `maximize(coefficients, value)`: the v that maximizes Σ_j c_j f_j(v); an entry whose
      coefficients are all zero, since nothing observed depends on it, keeps its `value`. None: Q is
      quadratic in it, but not linear in its features, and it is maximized by least squares.
    - `event_dim`: how many axes one entry has.
    - `solution`: what the maximizer is, in words, for `em.plan`.
    - `constraints`: constraints that cannot exclude the maximizer of an entry of several numbers.
      Unconstrained entries always pass; bounds on an entry of one number are met by clipping, since
      Q has one peak along it.
    - `moved(features, steps)`: of a location, its features about an origin after a step, from those
      before it and those of the step itself: linear in the latter. None: it is no location. A
      location's features are of the first and the second degree in it.
    - `least_variance(value, unit)`: of a scale, the least variance that each entry stands for, over
      the square of `unit`, one standard deviation for each coordinate. None: it is no scale.
    - `boundary`: numbers that an entry never leaves again once EM brings it there.
    - `jacobian`: of the unconstrained coordinates of values under their usual constraint, for
      `EM(map="unconstrained")`. None: under a constraint, a prior then leaves no closed form.

    A scale b whose data enter as absolute deviations, Q = −n log b − s / b:

    ```python
    absolute_scale = conjugate.Conjugate(
        name="scale",
        features=lambda b, origin=None: (jnp.log(b), 1 / b),
        maximize=lambda c, b: jnp.where(c[0] != 0, c[1] / jnp.where(c[0] != 0, c[0], 1), b),
        solution="expected absolute deviation",
        least_variance=lambda b, unit: 2 * (b / unit) ** 2,
    )
    ```
    """

    name: str
    features: Callable
    maximize: Callable | None
    event_dim: int = 0
    solution: str = ""
    constraints: tuple[Constraint, ...] = ()
    moved: Callable | None = None
    least_variance: Callable | None = None
    boundary: tuple[float, ...] = ()
    jacobian: Jacobian | None = None

    @property
    def is_location(self) -> bool:
        """Whether values are measured from an origin."""
        return self.moved is not None

    @property
    def is_quadratic(self) -> bool:
        """Whether Q is quadratic in values, all else held: locations, and coefficients of latents.

        It is quadratic in those of one density together.
        """
        return self.is_location or self.maximize is None

    @property
    def is_scale(self) -> bool:
        """Whether values stand for variances, which may collapse."""
        return self.least_variance is not None

    @property
    def may_reach_zero(self) -> bool:
        """Whether EM may bring an entry to zero, where it stays: a probability or a rate."""
        return 0.0 in self.boundary

    def constraint_problem(self, constraint: Constraint) -> str:
        """Return why a constraint might exclude the maximizer; empty if it cannot."""
        limits = limits_of(constraint)
        if self.event_dim == 0:
            if limits is not None:
                return ""
            return f"its constraint {constraint} ties its entries to one another"
        # entries of several numbers are not clipped: the maximizer has to be allowed as it is
        is_free = limits is not None and limits.is_unbounded
        if is_free or any(_is_same(constraint, allowed) for allowed in self.constraints):
            return ""
        return f"its constraint {constraint} may exclude the maximizer"

    def jacobian_problem(self, constraint: Constraint) -> str:
        """Return why log |dv/du| is not linear in the features; empty if it is."""
        if is_unconstrained(constraint):
            return ""
        is_usual = self.jacobian is not None and _is_same(constraint, self.jacobian.constraint)
        # a simplex has no bounds of single numbers
        if is_usual and (limits_of(constraint) is None or is_elementary(constraint)):
            return ""
        return f"the Jacobian of its constraint {constraint} is not linear in a {self.name}"


def _is_same(constraint: Constraint, allowed: Constraint) -> bool:
    """Whether two constraints have the same bounds, or are of one kind that has none."""
    limits, wanted = limits_of(constraint), limits_of(allowed)
    if limits is None or wanted is None:
        return type(entry_constraint(constraint)) is type(entry_constraint(allowed))
    return limits.equal(wanted.low, wanted.high)


# ── maximizers ────────────────────────────────────────────────────────────────────────────────────


def _ratio(numerator, denominator, otherwise, event_dim: int = 0):
    """Return numerator / denominator, `otherwise` where the denominator is zero."""
    used = denominator != 0
    shaped = used.reshape(used.shape + (1,) * event_dim)
    divisor = or_number(used, denominator, 1).reshape(shaped.shape)
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
    # a logit is no probability to keep: it is put back below
    probabilities = _simplex(coefficients, jnp.ones_like(value))
    return jnp.where(c.sum(-1, keepdims=True) != 0, safe_log(probabilities), value)


def _rate(coefficients, value):
    a, b = coefficients
    # a Gamma prior of concentration below 1 takes off up to one event
    return _ratio(jnp.maximum(a, 0), -b, value)


def _scale(coefficients, value):
    n, s = coefficients  # n log σ + s / σ², both negative
    # of equal data, rounding may leave less than nothing
    return jnp.sqrt(jnp.maximum(_ratio(2 * s, n, value**2), 0))


def _location(coefficients, value):
    linear, quadratic = coefficients
    return value + _ratio(linear, -2 * quadratic, 0.0)


def _location_vector(coefficients, value):
    linear, quadratic = coefficients
    curvature = -(quadratic + quadratic.mT)
    used = (curvature != 0).any((-2, -1), keepdims=True)
    # a singular matrix would give NaN, which its derivative keeps even where it is not taken
    curvature = jnp.where(used, curvature, jnp.eye(curvature.shape[-1], dtype=curvature.dtype))
    step = solved(curvature, jnp.where(used[..., 0], linear, 0))
    return value + step


def _covariance(coefficients, value):
    n, s = coefficients  # n log|Σ| + ⟨s, Σ⁻¹⟩, both negative
    # the derivative by a symmetric matrix need not be symmetric
    return _ratio((s + s.mT) / 2, n, value, 2)


def _from_covariance(coefficients, value, function):
    """Return a function of the expected covariance, the value where nothing is observed."""
    n, _ = coefficients
    # the identity in place of the value: a function of it, and its derivative, are finite
    identity = jnp.broadcast_to(jnp.eye(value.shape[-1]), value.shape)
    covariance = _covariance(coefficients, identity)
    return jnp.where((n != 0)[..., None, None], function(covariance), value)


def _precision(coefficients, value):
    return _from_covariance(coefficients, value, lambda c: log_determinant_and_inverse(c)[1])


def _scale_tril(coefficients, value):
    return _from_covariance(coefficients, value, jnp.linalg.cholesky)


# ── features ──────────────────────────────────────────────────────────────────────────────────────


def _log_odds_features(value, origin=None):
    # log-odds may be infinite, those of a probability of 0 or 1
    odds = finite_logits(value)
    return jax.nn.log_sigmoid(odds), jax.nn.log_sigmoid(-odds)


def _covariance_features(value, origin=None):
    return log_determinant_and_inverse(value)


def _precision_features(value, origin=None):
    return -log_determinant(jax.lax.linalg.cholesky(value)), value


def _scale_tril_features(value, origin=None):
    return log_determinant(value), inverse_from_cholesky(value)


def _location_features(value, origin):
    step = value - origin
    return step, step**2


def _location_vector_features(value, origin):
    step = value - origin
    return step, _outer(step, step)


def _location_moved(features, steps):
    (first, second), (step, square) = features, steps
    return first + step, second + 2 * first * step + square


def _location_vector_moved(features, steps):
    (first, second), (step, square) = features, steps
    return first + step, second + _outer(first, step) + _outer(step, first) + square


def _outer(a, b):
    if a.shape != b.shape:
        return a[..., :, None] * b[..., None, :]
    # in `lax`: of `jax.numpy`, each shape would be traced by itself
    shape, last = (*a.shape, a.shape[-1]), a.ndim - 1
    rows = jax.lax.broadcast_in_dim(a, shape, range(last + 1))
    return rows * jax.lax.broadcast_in_dim(b, shape, [*range(last), last + 1])


# ── variances ─────────────────────────────────────────────────────────────────────────────────────


def _covariance_variance(covariance, unit):
    return jnp.linalg.eigvalsh(covariance / _outer(unit, unit))[..., 0]


def _precision_variance(precision, unit):
    # the inverse of a matrix that is nearly singular is not asked for
    return 1 / jnp.linalg.eigvalsh(precision * _outer(unit, unit))[..., -1]


def _scale_tril_variance(cholesky, unit):
    return _covariance_variance(jnp.matmul(cholesky, cholesky.mT, precision=EXACT), unit)


# ── the shapes ────────────────────────────────────────────────────────────────────────────────────

UNIT_INTERVAL = Conjugate(
    name="probability",
    features=lambda p, origin=None: (safe_log(p), safe_log(1 - p)),
    maximize=_unit_interval,
    solution="expected successes / trials",
    boundary=(0.0, 1.0),
    jacobian=Jacobian(constraints.unit_interval, lambda f: f[0] + f[1]),
)
UNIT_INTERVAL_LOGITS = Conjugate(
    name="log-odds",
    features=_log_odds_features,
    maximize=_unit_interval_logits,
    solution="log-odds of expected successes / trials",
)
SIMPLEX = Conjugate(
    name="probabilities",
    features=lambda p, origin=None: (safe_log(p),),
    maximize=_simplex,
    event_dim=1,
    solution="normalized expected counts",
    # the latter two hold of every simplex: they exclude no normalized counts
    constraints=(constraints.simplex, constraints.unit_interval, constraints.nonnegative),
    boundary=(0.0,),
    jacobian=Jacobian(constraints.simplex, lambda f: f[0].sum(-1)),
)
SIMPLEX_LOGITS = Conjugate(
    name="log-probabilities",
    features=lambda v, origin=None: (jax.nn.log_softmax(finite_logits(v)),),
    maximize=_simplex_logits,
    event_dim=1,
    solution="log of normalized expected counts",
)
RATE = Conjugate(
    name="rate",
    features=lambda r, origin=None: (safe_log(r), r),
    maximize=_rate,
    solution="expected events / exposure",
    boundary=(0.0,),
    jacobian=Jacobian(constraints.positive, lambda f: f[0]),
)
SCALE = Conjugate(
    name="scale",
    features=lambda s, origin=None: (jnp.log(s), s**-2.0),
    maximize=_scale,
    solution="root of the expected mean square",
    least_variance=lambda s, unit: (s / unit) ** 2,
    jacobian=Jacobian(constraints.positive, lambda f: f[0]),
)
LOCATION = Conjugate(
    name="location",
    features=_location_features,
    maximize=_location,
    solution="expected mean",
    moved=_location_moved,
)
LOCATION_VECTOR = Conjugate(
    name="location vector",
    features=_location_vector_features,
    maximize=_location_vector,
    event_dim=1,
    solution="expected mean",
    moved=_location_vector_moved,
)
# R of a location a − R f, over the coordinates of a Gaussian latent f (of a vector, a matrix of
# such rows): Q is linear in R, and in products of two
COEFFICIENTS = Conjugate(
    name="coefficients",
    features=lambda coefficients, origin=None: (coefficients,),
    maximize=None,
    event_dim=1,
    solution="expected least squares",
)
MATRICES = (constraints.positive_definite, constraints.positive_semidefinite)
COVARIANCE = Conjugate(
    name="covariance",
    features=_covariance_features,
    maximize=_covariance,
    event_dim=2,
    solution="expected covariance",
    constraints=MATRICES,
    least_variance=_covariance_variance,
)
PRECISION = Conjugate(
    name="precision",
    features=_precision_features,
    maximize=_precision,
    event_dim=2,
    solution="inverse of the expected covariance",
    constraints=MATRICES,
    least_variance=_precision_variance,
)
SCALE_TRIL = Conjugate(
    name="Cholesky factor",
    features=_scale_tril_features,
    maximize=_scale_tril,
    event_dim=2,
    solution="Cholesky factor of the expected covariance",
    constraints=(constraints.lower_cholesky,),
    least_variance=_scale_tril_variance,
)
