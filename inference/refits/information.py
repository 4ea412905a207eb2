"""Standard errors from second derivatives: the observed information, and sandwiches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from emjax.answers.reweighted import Reweighted
from emjax.certificates.bases import Bases, bases_at, turned_at
from emjax.certificates.curvature import described, scaled, smallest_resolved, units
from emjax.certificates.derivatives import slopes_along
from emjax.certificates.differences import by_differences
from emjax.certificates.estimate import Estimate
from emjax.certificates.lines import Line
from emjax.certificates.tangent_space import TangentSpace
from emjax.refits.scores import independent, scores_of
from emjax.refits.standard_errors import StandardErrors, record_of
from emjax.refits.survey_design import SurveyDesign
from emjax.run.verdicts import without_basis

# Coordinates up to which the information is formed: 3,000 are 69 MB, and 3,000 gradients of the
# objective.
LARGEST_INFORMATION = 3000
# farther than this from the maximum, in standard errors, second derivatives say nothing of it
FARTHEST = 1.0


def from_information(estimate: Estimate) -> StandardErrors:
    """Return standard errors from the inverse of the observed information."""
    inverse = inverse_at(estimate)
    what = "standard errors from the observed information"
    if estimate.graph.has_priors:
        what = "standard deviations of Laplace's approximation of the posterior"
    return _from_covariance(estimate, "information", what, inverse.matrix, inverse)


def from_sandwich(
    estimate: Estimate, plate: str | None, rows: Mapping[str, Any] | None
) -> StandardErrors:
    """Return standard errors from the inverse information, the scores' spread between two of it."""
    inverse = inverse_at(estimate)
    weighted = independent(estimate.bound, plate, rows)
    scores = scores_of(weighted, estimate)
    of_scores = np.cov(scores, bias=True).reshape(inverse.matrix.shape)
    # the mean of the scores is zero at a maximum: their sum of squares is n times their covariance
    covariance = inverse.matrix @ of_scores @ inverse.matrix * scores.shape[1]
    what = (
        "standard errors from the sandwich of the observed information and the scores of the "
        f"elements of {weighted.units}"
    )
    return _from_covariance(estimate, "sandwich", what, covariance, inverse)


def from_linearization(
    estimate: Estimate, weighted: Reweighted, design: SurveyDesign
) -> StandardErrors:
    """Return standard errors of a survey's sample: the scores' spread as they were drawn."""
    inverse = inverse_at(estimate)
    scores = scores_of(weighted, estimate)
    covariance = inverse.matrix @ design.variance_of_total(scores) @ inverse.matrix
    what = (
        "standard errors of the sample's design, by linearization: scores of the elements of "
        f"{weighted.units}; {design}"
    )
    degrees = float(design.degrees_of_freedom)
    return _from_covariance(
        estimate, "linearization", what, covariance, inverse, degrees_of_freedom=degrees
    )


def _from_covariance(
    estimate: Estimate,
    method: str,
    what: str,
    covariance: np.ndarray,
    inverse: Inverse,
    **more: Any,
) -> StandardErrors:
    """Return standard errors from a covariance of unconstrained coordinates."""
    space, bases = inverse.space, inverse.bases
    errors, turned = _delta(space, estimate.graph.names, covariance), {}
    directions = space.directions(estimate.params)
    if bases.count:
        what += f"; {without_basis(bases.latents, bases.count)}"
        turned = turned_at(bases, directions)
        for name, is_turned in turned.items():
            errors[name] = np.where(is_turned, np.nan, errors[name])
    return record_of(
        estimate,
        method=method,
        standard_error=errors,
        covariance=covariance,
        distance=inverse.distance,
        what=what,
        turned=turned,
        directions=directions,
        bases=bases.directions,
        **more,
    )


class Inverse(NamedTuple):
    """The inverse of the observed information.

    - `matrix`: of unconstrained coordinates; along changes of a basis there is none, and it is
      that of what is orthogonal to these, which serves all that they leave as it is.
    - `distance`: to the maximum, in standard errors.
    - `space`: the directions of the coordinates.
    - `bases`: along which the likelihood is flat, since Gaussian latents change their basis.
    """

    matrix: np.ndarray
    distance: float
    space: TangentSpace
    bases: Bases


def inverse_at(estimate: Estimate) -> Inverse:
    """Return the inverse information at an estimate. Errors: see `inverse_information`."""
    # before the matrix is formed, which may be large
    _check_smooth(estimate)
    space = TangentSpace.of(estimate)
    along = estimate.function("information", slopes_along)
    slopes = jax.device_get(along(space.directions(estimate.params)))
    hessian = space.second(slopes.change, slopes.first)
    gradient = space.gradient(slopes.first)
    if np.isfinite(gradient).all() and not np.isfinite(hessian).all():
        hessian = by_differences(estimate).hessian
    hessian, bases = (hessian + hessian.T) / 2, bases_at(estimate)
    inverse, distance = inverse_information(estimate, hessian, gradient, bases)
    return Inverse(inverse, distance, space, bases)


def inverse_information(
    estimate: Estimate, hessian: np.ndarray, gradient: np.ndarray, bases: Bases
) -> tuple[np.ndarray, float]:
    """Return (−∇²)⁻¹ and the distance to the maximum in standard errors, but for `bases`.

    Errors: `ValueError` where a derivative is not finite, where −∇² is not positive definite, or
    where the maximum is far.
    """
    information, gradient = -np.asarray(hessian, float), np.asarray(gradient, float)
    estimate.check_finite(information, gradient)
    free = bases.complement
    information, gradient = free.T @ information @ free, free.T @ gradient
    # in units of its own diagonal, so that definiteness depends on no unit of measurement
    unit = units(np.diag(information))
    values, vectors = np.linalg.eigh(scaled(information, unit))
    if len(values) and values[0] < smallest_resolved(np.asarray(hessian).dtype):
        _raise_indefinite(estimate, free @ (unit * vectors[:, 0]), float(values[0]))
    half = (unit[:, None] * vectors) / np.sqrt(values)
    distance = float(np.linalg.norm(half.T @ gradient))
    if distance > FARTHEST:
        raise ValueError(
            f"These parameters are {distance:.2g} standard errors from the maximum. "
            "Run EM to convergence: em.run(key, ..., init_params=params), "
            "with a smaller tol or a larger max_steps."
        )
    half = free @ half
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
