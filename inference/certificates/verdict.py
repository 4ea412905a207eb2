"""The verdict on an estimate: what second derivatives say of the place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.bases import Bases, bases_at
from emjax.certificates.coordinates import Coordinates
from emjax.certificates.curvature import (
    STATIONARY,
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
from emjax.certificates.evaluation import Derivatives, derivatives_at
from emjax.certificates.lines import Line
from emjax.certificates.neighborhood import Neighborhood
from emjax.run import verdicts
from emjax.run.findings import Finding

# how many products with a matrix of derivatives are taken where it is not formed
NUM_PRODUCTS = 60
# Newton steps to the maximum near by: each squares the distance
MOST_STEPS = 3
# a coordinate takes part in flat directions if they hold this part of its own
LEAST_PART = 0.01


class Verdict(NamedTuple):
    """What second derivatives say; numbers are those of `Diagnosis`.

    - `finding`: "local maximum", "saddle", "ridge" or "not stationary", and what it rests on.
    - `distance`: how far the maximum, or the next EM step, is; in standard errors.
    - `rate`: the part of the distance to the maximum that an EM step leaves.
    - `eigenvalues`: of the objective's Hessian, ascending.
    - `undetermined`: {parameter: its coordinates along which the objective is flat}.
    """

    finding: Finding
    distance: float
    rate: float
    eigenvalues: np.ndarray
    undetermined: dict[str, tuple[str, ...]]


class Directions(NamedTuple):
    """Some directions, of curvature `values` if coordinates are measured in `unit`.

    - `vectors`: in these units, (coordinate, direction), orthonormal.
    - `frame`: the directions that these coordinates are of others, (coordinate, …); None: they are
      the coordinates themselves.
    """

    values: np.ndarray
    vectors: np.ndarray
    unit: np.ndarray
    frame: np.ndarray | None = None

    def only(self, which: Any) -> Directions:
        """Return those directions."""
        return self._replace(values=self.values[which], vectors=self.vectors[:, which])

    def steps(self) -> np.ndarray:
        """Return a step of one unit along each, in the coordinates: (direction, coordinate)."""
        return self.framed(self.unit[:, None] * self.vectors).T

    def framed(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (coordinate of the frame, …) in the coordinates."""
        return vectors if self.frame is None else self.frame @ vectors


class Judged(NamedTuple):
    """What is known of directions in which the objective may not fall.

    - `doubtful`: these directions.
    - `rising`: the number of one of them in which it rises; None: it does in none.
    - `flat`: the numbers of those in which it does neither.
    """

    doubtful: Directions
    rising: int | None
    flat: list[int]


class Curvature(NamedTuple):
    """The second derivatives at a place, in units of the complete data's standard errors.

    There, an eigenvalue is the part of the information that the latents leave.

    - `directions`: the eigenvectors, their eigenvalues ascending.
    - `slopes`: the derivative along each.
    - `rounding`: an eigenvalue below it, in absolute value, is zero as far as is known.
    """

    directions: Directions
    slopes: np.ndarray
    rounding: float

    @classmethod
    def of(cls, estimate: Estimate, at: Derivatives, frame: np.ndarray) -> Curvature:
        """Return the curvature at a place, in some directions, orthonormal: (coordinate, …)."""
        gradient, second = np.asarray(at.gradient, float), at.second
        hessian = np.asarray(second.hessian, float)
        estimate.check_finite(hessian, gradient)
        hessian, gradient = frame.T @ hessian @ frame, frame.T @ gradient
        of_q = frame.T @ np.asarray(second.hessian_of_q, float) @ frame
        unit = units(np.diag(of_q))
        # by what a matrix of second derivatives is not symmetric, it is not right
        asymmetry = np.abs(scaled(hessian - hessian.T, unit)).sum(1).max(initial=0.0)
        rounding = max(smallest_resolved(at.gradient.dtype), float(asymmetry))
        values, vectors = np.linalg.eigh(scaled((hessian + hessian.T) / 2, unit))
        directions = Directions(values, vectors, unit, frame)
        return cls(directions, vectors.T @ (unit * gradient), rounding)

    @property
    def is_downward(self) -> bool:
        """Whether the objective falls in every direction."""
        return bool((self.directions.values < -self.rounding).all())

    @property
    def distance(self) -> float:
        """How far the maximum is, in standard errors; where there is none, the EM step."""
        if self.is_downward:
            return float(np.linalg.norm(self.slopes / np.sqrt(-self.directions.values)))
        # uphill there is no maximum to be far from: the gradient itself, in the same units
        return float(np.linalg.norm(self.slopes))

    @property
    def doubt(self) -> float:
        """By how much an eigenvalue may be another at the maximum near by."""
        return max(self.rounding, float(self.slopes @ self.slopes))

    def newton_step(self) -> np.ndarray:
        """Return the way to the maximum along the directions in which the objective falls.

        It is in the coordinates, and at most one standard error long along each direction.
        """
        values = self.directions.values
        falls = values < -self.doubt
        length = np.where(falls, self.slopes / np.where(falls, -values, 1), 0)
        return np.clip(length, -1, 1) @ self.directions.steps()


def from_matrices(estimate: Estimate, at: Derivatives) -> Verdict:
    """Return the verdict from all second derivatives at an estimate."""
    chart, bases = estimate.chart, bases_at(estimate)
    frame = bases.complement
    here = Curvature.of(estimate, at, frame)
    judged = Judged(here.directions.only([]), None, [])
    if here.distance <= STATIONARY:
        judged = _judged_near(estimate, here)
    # a step of EM leaves a basis as it is: what comes nearer the maximum is the rest
    of_em = np.asarray(at.second.derivative_of_em, float)
    rate = spectral_radius(frame.T @ of_em @ frame)
    hessian = np.asarray(at.second.hessian, float)
    return Verdict(
        _finding(chart, judged, here.distance, here.is_downward, bases=bases),
        here.distance,
        rate,
        np.linalg.eigvalsh((hessian + hessian.T) / 2),
        _undetermined(chart, judged),
    )


def _judged_near(estimate: Estimate, here: Curvature) -> Judged:
    """Return in which directions the objective does not fall, at the maximum near by.

    What one place says of a direction that is nearly flat may not be so a little farther on.
    """
    chart, curvature = estimate.chart, here
    way = np.zeros(chart.size)
    for _ in range(MOST_STEPS):
        size = np.abs(curvature.directions.values)
        if not ((size > curvature.rounding) & (size <= curvature.doubt)).any():
            break
        way = way + curvature.newton_step()
        moved = replace(estimate, params=estimate.function("moved", _moved)(way))
        curvature = Curvature.of(moved, derivatives_at(moved), here.directions.frame)
    doubtful = curvature.directions.only(curvature.directions.values > -curvature.doubt)
    return _judged(Line(estimate, way), doubtful, curvature.rounding)


def _judged(line: Line, doubtful: Directions, rounding: float) -> Judged:
    """Return in which directions the objective rises, and in which it is flat.

    One in which second derivatives say that it rises, while no step does, is flat.
    """
    flat, steps = [], doubtful.steps()
    # the steepest first
    for number in reversed(range(len(steps))):
        curvature = doubtful.values[number]
        if curvature > rounding and line.rises(steps[number]):
            return Judged(doubtful, number, [])
        if curvature >= -rounding:
            flat.append(number)
    return Judged(doubtful, None, flat)


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
    gain = max(float(estimate.function("gain", _gain)()), 0.0)
    rounding = smallest_resolved(dtype) * float(np.abs(values).max())
    is_downward = bool(values[-1] < -rounding)
    # a step from d standard errors away gains ½ d² nats of the complete data's, and along the
    # slowest direction at rate r ½ d² (1 − r²); on a ridge nothing is slow but what leads nowhere
    slowest = max(1 - rate**2, np.finfo(float).eps) if is_downward else 1.0
    distance = float(np.sqrt(2 * gain / slowest))
    largest = Directions(values[-1:], vector[:, None], np.ones(chart.size))
    judged = Judged(largest, None, [])
    if distance <= STATIONARY and not is_downward:
        judged = _judged(Line(estimate, np.zeros(chart.size), 2 * gain), largest, rounding)
    finding = _finding(chart, judged, distance, is_downward, is_dense=False)
    return Verdict(finding, distance, rate, values, _undetermined(chart, judged))


def _moved(around: Neighborhood, way):
    return {**around.params, **around.at(around.vector + way)}


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


# ── in words ──────────────────────────────────────────────────────────────────────────────────────


def _finding(
    chart: Coordinates,
    judged: Judged,
    distance: float,
    is_downward: bool,
    is_dense: bool = True,
    bases: Bases | None = None,
) -> Finding:
    """Return the verdict, and what it rests on. `bases`: what nothing else is said of."""
    if distance > STATIONARY:
        if is_downward:
            return verdicts.before_maximum(distance)
        return verdicts.still_moving(distance)
    steps = judged.doubtful.steps()
    if judged.rising is not None:
        return verdicts.saddle(described(steps[judged.rising], chart.names))
    if judged.flat:
        where = described(steps[judged.flat[0]], chart.names)
        return verdicts.ridge(where, tuple(_undetermined(chart, judged)), len(judged.flat))
    downward = "every second derivative negative"
    if not is_dense:
        downward = "no direction of increase was found"
    num_on_boundary = sum(int(where.sum()) for where in chart.on_boundary.values())
    without = ""
    if bases is not None and bases.count:
        without = str(verdicts.without_basis(bases.latents, bases.count))
    return verdicts.local_maximum(downward, num_on_boundary, without)


def _undetermined(chart: Coordinates, judged: Judged) -> dict[str, tuple[str, ...]]:
    """Return {parameter: its coordinates that flat directions move}."""
    flat = judged.doubtful.only(judged.flat)
    part = (flat.framed(flat.vectors) ** 2).sum(1)
    undetermined, start = {}, 0
    for name, each in chart.charts.items():
        takes_part = part[start : start + len(each.names)] >= LEAST_PART
        start += len(each.names)
        if takes_part.any():
            undetermined[name] = tuple(np.asarray(each.names, object)[takes_part])
    return undetermined
