"""Student's t, which is the standard normal for infinite degrees of freedom.

Of less than one, nothing is known of the standard errors themselves: NaN.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtr, stdtrit


def two_sided(distances: np.ndarray, degrees: float) -> np.ndarray:
    """Return P(|T| > |distance|)."""
    below = -np.abs(np.asarray(distances, float))
    return np.asarray(2 * stdtr(degrees, below) if degrees >= 1 else below * np.nan)


def quantile_of(probability: float, degrees: float) -> float:
    """Return the quantile of T."""
    return float(stdtrit(degrees, probability)) if degrees >= 1 else math.nan
