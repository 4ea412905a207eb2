"""Second derivatives of the objective in unconstrained coordinates, and what their signs say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# At a maximum, the Newton step in standard errors (or the EM step, in those of the complete data)
# is below this: what EM leaves at its default `tol`, while a tenth of a standard error is nothing
# that a table shows.
STATIONARY = 0.1


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


def not_finite(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return which coordinates derivatives are not finite for: those that are to blame.

    A row of the Hessian has an entry for every coordinate: one that is not finite spoils all rows.
    """
    is_bad = ~np.isfinite(gradient)
    # without coordinates the matrix may have lost its shape
    if len(gradient) and not is_bad.any():
        is_bad = ~np.isfinite(np.diag(hessian))
        if not is_bad.any():
            spoiled = (~np.isfinite(hessian)).sum(1)
            is_bad = (spoiled > 0) & (spoiled == spoiled.max())
    return is_bad
