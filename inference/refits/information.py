"""Standard errors from second derivatives: the observed information, and sandwiches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from emjax.answers.reweighted import Reweighted
from emjax.certificates.curvature import described, scaled, smallest_resolved, units
from emjax.certificates.derivatives import slopes_along
from emjax.certificates.differences import by_differences
from emjax.certificates.estimate import Estimate
from emjax.certificates.lines import Line
from emjax.certificates.tangent_space import TangentSpace
from emjax.refits.scores import independent, scores_of
from emjax.refits.standard_errors import StandardErrors, record_of
from emjax.refits.survey_design import SurveyDesign

# Coordinates up to which the information is formed: 3,000 are 69 MB, and 3,000 gradients of the
# objective.
LARGEST_INFORMATION = 3000
# farther than this from the maximum, in standard errors, second derivatives say nothing of it
FARTHEST = 1.0


def from_information(estimate: Estimate) -> StandardErrors:
    """Return standard errors from the inverse of the observed information."""
    covariance, distance, space = inverse_at(estimate)
    what = "standard errors from the observed information"
    if estimate.graph.has_priors:
        what = "standard deviations of Laplace's approximation of the posterior"
    return _from_covariance(estimate, "information", what, covariance, distance, space)


def from_sandwich(
    estimate: Estimate, plate: str | None, rows: Mapping[str, Any] | None
) -> StandardErrors:
    """Return standard errors from the inverse information, the scores' spread between two of it."""
    inverse, distance, space = inverse_at(estimate)
    weighted = independent(estimate.bound, plate, rows)
    scores = scores_of(weighted, estimate)
    of_scores = np.cov(scores, bias=True).reshape(inverse.shape)
    # the mean of the scores is zero at a maximum: their sum of squares is n times their covariance
    covariance = inverse @ of_scores @ inverse * scores.shape[1]
    what = (
        "standard errors from the sandwich of the observed information and the scores of the "
        f"elements of {weighted.units}"
    )
    return _from_covariance(estimate, "sandwich", what, covariance, distance, space)


def from_linearization(
    estimate: Estimate, weighted: Reweighted, design: SurveyDesign
) -> StandardErrors:
    """Return standard errors of a survey's sample: the scores' spread as they were drawn."""
    inverse, distance, space = inverse_at(estimate)
    scores = scores_of(weighted, estimate)
    covariance = inverse @ design.variance_of_total(scores) @ inverse
    what = (
        "standard errors of the sample's design, by linearization: scores of the elements of "
        f"{weighted.units}; {design}"
    )
    degrees = float(design.degrees_of_freedom)
    return _from_covariance(
        estimate, "linearization", what, covariance, distance, space, degrees_of_freedom=degrees
    )


def _from_covariance(
    estimate: Estimate,
    method: str,
    what: str,
    covariance: np.ndarray,
    distance: float,
    space: TangentSpace,
    **more: Any,
) -> StandardErrors:
    """Return standard errors from a covariance of unconstrained coordinates."""
    return record_of(
        estimate,
        method=method,
        standard_error=_delta(space, estimate.graph.names, covariance),
        covariance=covariance,
        distance=distance,
        what=what,
        **more,
    )


def inverse_at(estimate: Estimate) -> tuple[np.ndarray, float, TangentSpace]:
    """Return the inverse information, the distance to the maximum, and the directions there."""
    # before the matrix is formed, which may be large
    _check_smooth(estimate)
    space = TangentSpace.of(estimate)
    along = estimate.function("information", slopes_along)
    slopes = jax.device_get(along(space.directions(estimate.params)))
    hessian = space.second(slopes.change, slopes.first)
    gradient = space.gradient(slopes.first)
    if np.isfinite(gradient).all() and not np.isfinite(hessian).all():
        hessian = by_differences(estimate).hessian
    inverse, distance = inverse_information(estimate, (hessian + hessian.T) / 2, gradient)
    return inverse, distance, space


def inverse_information(
    estimate: Estimate, hessian: np.ndarray, gradient: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return (−∇²)⁻¹ and the distance to the maximum in standard errors.

    Errors: `ValueError` where a derivative is not finite, where −∇² is not positive definite, or
    where the maximum is far.
    """
    information, gradient = -np.asarray(hessian, float), np.asarray(gradient, float)
    estimate.check_finite(information, gradient)
    # in units of its own diagonal, so that definiteness depends on no unit of measurement
    unit = units(np.diag(information))
    values, vectors = np.linalg.eigh(scaled(information, unit))
    if len(values) and values[0] < smallest_resolved(np.asarray(hessian).dtype):
        _raise_indefinite(estimate, unit * vectors[:, 0], float(values[0]))
    half = (unit[:, None] * vectors) / np.sqrt(values)
    distance = float(np.linalg.norm(half.T @ gradient))
    if distance > FARTHEST:
        raise ValueError(
            f"These parameters are {distance:.2g} standard errors from the maximum. "
            "Run EM to convergence: em.run(key, ..., init_params=params), "
            "with a smaller tol or a larger max_steps."
        )
    return half @ half.T, distance


def _raise_indefinite(estimate: Estimate, direction: np.ndarray, value: float) -> None:
    """Raise `ValueError` for a direction in which the objective does not fall."""
    where = described(direction, estimate.chart.names)
    # what second derivatives say of a ridge is rounding: a step has to gain
    if value < 0 and Line(estimate, np.zeros(estimate.chart.size)).rises(direction):
        raise ValueError(
            f"These parameters are no maximum: the objective curves upward along {where}. "
            "Run EM to convergence from another start; em.diagnose(result, ...) says more."
        )
    raise ValueError(
        f"The data do not determine these parameters: the objective is flat along {where}. "
        "Use fewer values of the latent, hold a parameter, or state a prior."
    )


def _check_smooth(estimate: Estimate) -> None:
    size = estimate.chart.size
    if estimate.bound.compiler.settings.temperature != 1:
        raise ValueError(
            "Second derivatives are those of the likelihood, which a hard or tempered E-step does "
            "not climb. Use EM(model), the soft E-step, or method='bootstrap'."
        )
    if size > LARGEST_INFORMATION:
        raise ValueError(
            f"The information matrix of {size} coordinates takes {8 * size**2 / 2**20:.0f} MB and "
            "as many passes over the data as it has rows. Use method='bootstrap', "
            "or hold what is known."
        )


def _delta(
    space: TangentSpace, names: Sequence[str], covariance: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the standard errors of constrained entries, by the delta method.

    They are NaN on the boundary, and where a parameter is held.
    """
    variances = space.variances(covariance)
    errors = {}
    for name in names:
        on_boundary = space.chart.on_boundary[name]
        # a parameter that is held has no coordinates
        variance = variances.get(name, np.full(on_boundary.shape, np.nan))
        errors[name] = np.where(on_boundary, np.nan, np.sqrt(variance))
    return errors
