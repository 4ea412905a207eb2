"""Second derivatives of the objective in unconstrained coordinates, and what their signs say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emjax.certificates.coordinates import Coordinates

# At a maximum, the Newton step in standard errors (or the EM step, in those of the complete data)
# is below this: what EM leaves at its default `tol`, while a tenth of a standard error is nothing
# that a table shows.
STATIONARY = 0.1
# farther than this from the maximum, in standard errors, second derivatives say nothing of it
FARTHEST = 1.0


def scaled(matrix: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return a quadratic form in coordinates that are measured in given units."""
    return matrix * unit[:, None] * unit


def units(diagonal: np.ndarray) -> np.ndarray:
    """Return the units in which a quadratic form of this diagonal has a diagonal of ±1 (or 0)."""
    size = np.abs(diagonal)
    # a coordinate without curvature keeps its unit
    return np.where(size > 0, 1 / np.sqrt(np.where(size > 0, size, 1)), 1.0)


def smallest_resolved(dtype: Any) -> float:
    """Return the least part of a coordinate's own curvature that counts: half the digits."""
    return float(np.sqrt(np.finfo(dtype).eps))


def described(direction: np.ndarray, names: Sequence[str], most: int = 4) -> str:
    """Return a direction in words: its largest parts, relative to the largest."""
    # stable, so that of equal parts the first is named first
    order = np.argsort(-np.abs(direction), kind="stable")
    order = [i for i in order[:most] if abs(direction[i]) >= 0.1 * abs(direction[order[0]])]
    return ", ".join(f"{direction[i] / direction[order[0]]:+.2g} {names[i]}" for i in order)


def check_finite(hessian: np.ndarray, gradient: np.ndarray, names: Sequence[str]) -> None:
    """Raise `ValueError` for derivatives that are not finite, and name the coordinate."""
    is_bad = np.zeros(0, bool)
    # without coordinates the matrix may have lost its shape
    if len(names):
        is_bad = ~(np.isfinite(hessian).all(1) & np.isfinite(gradient))
    if is_bad.any():
        worst = names[int(np.argmax(is_bad))]
        raise ValueError(
            f"The derivatives of the objective are not finite along {worst}. "
            "Pass the result of a run that ended well; a scale that has shrunk to nothing needs a "
            "floor (constraints.greater_than(...)) or a prior."
        )


def inverse_information(hessian: Any, gradient: Any, chart: Coordinates) -> tuple[Any, float]:
    """Return (−∇²)⁻¹ and the distance to the maximum in standard errors.

    Errors: `ValueError` where a derivative is not finite, where −∇² is not positive definite, or
    where the maximum is far.
    """
    information, gradient = -np.asarray(hessian, float), np.asarray(gradient, float)
    check_finite(information, gradient, chart.names)
    # in units of its own diagonal, so that definiteness depends on no unit of measurement
    unit = units(np.diag(information))
    values, vectors = np.linalg.eigh(scaled(information, unit))
    resolved = smallest_resolved(np.asarray(hessian).dtype)
    if len(values) and values[0] < resolved:
        where = described(unit * vectors[:, 0], chart.names)
        _raise_indefinite(where, curves_upward=bool(values[0] < -resolved))
    half = (unit[:, None] * vectors) / np.sqrt(values)
    distance = float(np.linalg.norm(half.T @ gradient))
    if distance > FARTHEST:
        raise ValueError(
            f"These parameters are {distance:.2g} standard errors from the maximum. "
            "Run EM to convergence: em.run(key, ..., init_params=params), "
            "with a smaller tol or a larger max_steps."
        )
    return half @ half.T, distance


def _raise_indefinite(where: str, curves_upward: bool) -> None:
    if curves_upward:
        raise ValueError(
            f"These parameters are no maximum: the objective curves upward along {where}. "
            "Run EM to convergence from another start; em.diagnose(result, ...) says more."
        )
    raise ValueError(
        f"The data do not determine these parameters: the objective is flat along {where}. "
        "Use fewer values of the latent, hold a parameter, or state a prior."
    )
