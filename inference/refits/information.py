"""Standard errors from second derivatives: the observed information, and the sandwich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from emjax.certificates.curvature import inverse_information
from emjax.certificates.derivatives import slopes_along
from emjax.certificates.estimate import Estimate
from emjax.certificates.tangent_space import TangentSpace
from emjax.refits.scores import independent, scores_of
from emjax.refits.standard_errors import StandardErrors, record_of

# Coordinates up to which the information is formed: 3,000 are 69 MB, and 3,000 gradients of the
# objective.
LARGEST_INFORMATION = 3000


def from_information(estimate: Estimate) -> StandardErrors:
    """Return standard errors from the inverse of the observed information."""
    covariance, distance, space = _inverse_information(estimate)
    what = "standard errors from the observed information"
    if estimate.graph.has_priors:
        what = "standard deviations of Laplace's approximation of the posterior"
    return record_of(
        estimate,
        method="information",
        standard_error=_delta(space, estimate.graph.names, covariance),
        covariance=covariance,
        distance=distance,
        what=what,
    )


def from_sandwich(
    estimate: Estimate, plate: str | None, rows: Mapping[str, Any] | None
) -> StandardErrors:
    """Return standard errors from the inverse information, the scores' spread between two of it."""
    inverse, distance, space = _inverse_information(estimate)
    weighted = independent(estimate.bound, plate, rows)
    scores = scores_of(weighted, estimate)
    of_scores = np.cov(scores, bias=True).reshape(inverse.shape)
    # the mean of the scores is zero at a maximum: their sum of squares is n times their covariance
    covariance = inverse @ of_scores @ inverse * scores.shape[1]
    return record_of(
        estimate,
        method="sandwich",
        standard_error=_delta(space, estimate.graph.names, covariance),
        covariance=covariance,
        distance=distance,
        what="standard errors from the sandwich of the observed information and the scores of "
        f"the elements of {weighted.units}",
    )


def _inverse_information(estimate: Estimate) -> tuple[np.ndarray, float, TangentSpace]:
    """Return the inverse information, the distance to the maximum, and the directions there."""
    # before the matrix is formed, which may be large
    _check_smooth(estimate)
    space = TangentSpace.of(estimate)
    along = estimate.function("information", slopes_along)
    slopes = jax.device_get(along(space.directions(estimate.params)))
    hessian = space.second(slopes.change, slopes.first)
    gradient = space.gradient(slopes.first)
    inverse, distance = inverse_information((hessian + hessian.T) / 2, gradient, estimate.chart)
    return inverse, distance, space


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
