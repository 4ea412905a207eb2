"""Standard errors from second derivatives: the observed information, and the sandwich."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from emjax.certificates.curvature import gradient_and_hessian, inverse_information
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.refits.scores import independent, scores_of
from emjax.refits.standard_errors import StandardErrors, record_of

# Coordinates up to which the information is formed: 3,000 are 69 MB, and 3,000 gradients of the
# objective.
LARGEST_INFORMATION = 3000


class Derivatives(eqx.Module):
    """Derivatives at the estimate.

    **Attributes:**

    - `gradient`, `hessian`: of the objective in the free coordinates.
    - `jacobian`: {site: ∂ value / ∂ coordinates}, (*its shape, coordinate).
    """

    gradient: Any
    hessian: Any
    jacobian: dict


def from_information(estimate: Estimate) -> StandardErrors:
    """Return standard errors from the inverse of the observed information."""
    covariance, distance, jacobian = _inverse_information(estimate)
    what = "standard errors from the observed information"
    if estimate.graph.has_priors:
        what = "standard deviations of Laplace's approximation of the posterior"
    return record_of(
        estimate,
        method="information",
        standard_error=_delta(estimate, jacobian, covariance),
        covariance=covariance,
        distance=distance,
        what=what,
    )


def from_sandwich(
    estimate: Estimate, plate: str | None, rows: Mapping[str, Any] | None
) -> StandardErrors:
    """Return standard errors from the inverse information, the scores' spread between two of it."""
    inverse, distance, jacobian = _inverse_information(estimate)
    weighted = independent(estimate.bound, plate, rows)
    scores = scores_of(weighted, estimate)
    of_scores = np.cov(scores, bias=True).reshape(inverse.shape)
    # the mean of the scores is zero at a maximum: their sum of squares is n times their covariance
    covariance = inverse @ of_scores @ inverse * scores.shape[1]
    return record_of(
        estimate,
        method="sandwich",
        standard_error=_delta(estimate, jacobian, covariance),
        covariance=covariance,
        distance=distance,
        what="standard errors from the sandwich of the observed information and the scores of "
        f"the elements of {weighted.units}",
    )


def _inverse_information(estimate: Estimate) -> tuple[np.ndarray, float, dict]:
    """Return the inverse information, the distance to the maximum, and the Jacobian."""
    # before the matrix is formed, which may be large
    _check_smooth(estimate)
    at = jax.device_get(estimate.function("derivatives", _derivatives)())
    inverse, distance = inverse_information(at.hessian, at.gradient, estimate.chart)
    return inverse, distance, at.jacobian


def _derivatives(around: Neighborhood) -> Derivatives:
    gradient, hessian = gradient_and_hessian(around.objective, around.vector)
    return Derivatives(gradient, hessian, around.chart.jacobian(around.params))


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


def _delta(estimate: Estimate, jacobian: Mapping, covariance: np.ndarray) -> dict[str, np.ndarray]:
    """Return the standard errors of constrained entries, by the delta method.

    They are NaN on the boundary, and where a parameter is held.
    """
    errors = {}
    for name in estimate.graph.names:
        on_boundary = estimate.chart.on_boundary[name]
        variance = np.full(on_boundary.shape, np.nan)
        # a parameter that is held has no coordinates
        if name in jacobian:
            rows = np.asarray(jacobian[name], float)
            variance = np.einsum("...i,ij,...j->...", rows, covariance, rows)
        errors[name] = np.where(on_boundary, np.nan, np.sqrt(variance))
    return errors
