"""The verdict on an estimate: what second derivatives say of the place."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.coordinates import Coordinates
from emjax.certificates.curvature import (
    STATIONARY,
    check_finite,
    described,
    scaled,
    smallest_resolved,
    units,
)
from emjax.certificates.eigenvalues import (
    largest_eigenvalues,
    spectral_radius,
    spectral_radius_of_map,
)
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.run import findings
from emjax.run.findings import Finding

# how many products with a matrix of derivatives are taken where it is not formed
NUM_PRODUCTS = 60


class Verdict(NamedTuple):
    """What second derivatives say; numbers are those of `Diagnosis`.

    - `finding`: "local maximum", "saddle", "ridge" or "not stationary", and what it rests on.
    - `distance`: how far the maximum, or the next EM step, is; in standard errors.
    - `rate`: the part of the distance to the maximum that an EM step leaves.
    - `eigenvalues`: of the objective's Hessian, ascending.
    """

    finding: Finding
    distance: float
    rate: float
    eigenvalues: np.ndarray


class Curvature(NamedTuple):
    """The largest eigenvalue of a Hessian, and what to make of it.

    - `largest`: the eigenvalue.
    - `resolved`: below this, in absolute value, it is zero but for rounding.
    - `where`: the direction it belongs to, in words.
    - `downward`: what is known of a Hessian that has no eigenvalue above zero.
    """

    largest: float
    resolved: float
    where: str
    downward: str


def from_matrices(chart: Coordinates, gradient: Any, second: Any) -> Verdict:
    """Return the verdict from all second derivatives.

    `second`: the matrices `hessian`, `hessian_of_q` and `derivative_of_em`.
    """
    resolved = smallest_resolved(gradient.dtype)
    gradient, hessian = np.asarray(gradient, float), np.asarray(second.hessian, float)
    check_finite(hessian, gradient, chart.names)
    hessian = (hessian + hessian.T) / 2
    # in units of the complete data's standard errors, an eigenvalue is the part of the information
    # that the latents leave
    unit = units(np.diag(second.hessian_of_q))
    values, vectors = np.linalg.eigh(scaled(hessian, unit))
    # a program without free coordinates is at its maximum
    largest, where = -1.0, ""
    if len(values):
        largest, where = values[-1], described(unit * vectors[:, -1], chart.names)
    # uphill there is no maximum to be far from: the gradient itself, in the same units
    distance = float(np.linalg.norm(unit * gradient))
    if largest < -resolved:
        distance = float(np.linalg.norm(vectors.T @ (unit * gradient) / np.sqrt(-values)))
    curvature = Curvature(largest, resolved, where, "every second derivative negative")
    rate = spectral_radius(np.asarray(second.derivative_of_em, float))
    finding = _finding(curvature, distance, chart)
    return Verdict(finding, distance, rate, np.linalg.eigvalsh(hessian))


def from_products(estimate: Estimate, dtype: Any) -> Verdict:
    """Return the verdict from products with the second derivatives, which are never formed."""
    chart = estimate.chart
    hessian_along = estimate.function("Hessian along", _hessian_along, False)
    em_along = estimate.function("step along", _em_along, False)
    values, vector = largest_eigenvalues(
        lambda direction: hessian_along(jnp.asarray(direction, dtype)), chart.size, NUM_PRODUCTS
    )
    rate = spectral_radius_of_map(
        lambda direction: em_along(direction.astype(dtype)), chart.size, NUM_PRODUCTS
    )
    # along the slowest direction a step at rate r gains ½ d² (1 − r²) nats, d the distance in
    # standard errors
    gain = max(float(estimate.function("gain", _gain)()), 0.0)
    distance = float(np.sqrt(2 * gain / max(1 - rate**2, np.finfo(float).eps)))
    resolved = smallest_resolved(dtype) * float(np.abs(values).max())
    where = described(vector, chart.names)
    curvature = Curvature(values[-1], resolved, where, "no direction of increase was found")
    return Verdict(_finding(curvature, distance, chart), distance, rate, values)


def _hessian_along(around: Neighborhood, direction):
    slope = jax.grad(lambda vector: around.objective(around.at(vector)))
    return jax.jvp(slope, (around.vector,), (direction,))[1]


def _em_along(around: Neighborhood, direction):
    def em_step(vector):
        return around.chart.flatten(around.em_step(around.at(vector)))

    return jax.jvp(em_step, (around.vector,), (direction,))[1]


def _gain(around: Neighborhood):
    here = around.estimated
    return around.objective(around.em_step(here)) - around.objective(here)


def _finding(curvature: Curvature, distance: float, chart: Coordinates) -> Finding:
    """Return the verdict, and what it rests on."""
    is_downward = curvature.largest < -curvature.resolved
    if distance > STATIONARY:
        if is_downward:
            return findings.before_maximum(distance)
        return findings.still_moving(distance)
    if curvature.largest > curvature.resolved:
        return findings.saddle(curvature.where)
    if not is_downward:
        return findings.ridge(curvature.where)
    num_on_boundary = sum(int(where.sum()) for where in chart.on_boundary.values())
    return findings.local_maximum(curvature.downward, num_on_boundary)
