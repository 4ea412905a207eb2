"""Student's t, of a whole number of degrees of freedom."""

from __future__ import annotations

import math

import numpy as np
from jax.scipy.stats import norm


def probability_within(distance: float, degrees: int) -> float:
    """Return P(|T| ≤ distance), which is finite sums of powers of cos θ, θ = atan(distance / √ν).

    Source: Abramowitz & Stegun (1964), 26.7.3 and 26.7.4.
    """
    angle = np.arctan(distance / np.sqrt(degrees))
    is_odd = degrees % 2 == 1
    # of odd degrees 1, 2/3, 2·4/3·5, …; of even ones 1, 1/2, 1·3/2·4, …
    number = np.arange(1, (degrees - 1) // 2 if is_odd else degrees // 2)
    ratios = 2 * number / (2 * number + 1) if is_odd else (2 * number - 1) / (2 * number)
    factors = np.concatenate([[1.0], np.cumprod(ratios * np.cos(angle) ** 2)])
    if not is_odd:
        return float(np.sin(angle) * factors.sum())
    series = np.sin(angle) * np.cos(angle) * factors.sum() if degrees > 1 else 0.0
    return float(2 / np.pi * (angle + series))


def two_sided(distances: np.ndarray, degrees: float) -> np.ndarray:
    """Return P(|T| > |distance|), of infinite degrees of freedom that of a standard normal."""
    distances = np.abs(np.asarray(distances, float))
    beyond = np.full(distances.shape, np.nan)
    for place, distance in np.ndenumerate(distances):
        if math.isinf(degrees):
            # without rounding where it is small
            beyond[place] = math.erfc(distance / math.sqrt(2))
        elif degrees >= 1 and not math.isnan(distance):
            beyond[place] = max(1 - probability_within(distance, int(degrees)), 0.0)
    return beyond


def quantile_of(probability: float, degrees: float) -> float:
    """Return the quantile of T; of a standard normal, for infinite degrees of freedom."""
    if math.isinf(degrees):
        return float(norm.ppf(probability))
    # without degrees of freedom nothing is known of the standard errors themselves
    return quantile(probability, int(degrees)) if degrees >= 1 else math.nan


def quantile(probability: float, degrees: int) -> float:
    """Return the number that T does not exceed with a probability of at least one half."""
    inside = 2 * probability - 1
    low, high = 0.0, 1.0
    while probability_within(high, degrees) < inside:
        low, high = high, 2 * high
    # halved as often as a double has digits
    for _ in range(np.finfo(float).nmant):
        middle = (low + high) / 2
        if probability_within(middle, degrees) < inside:
            low = middle
        else:
            high = middle
    return (low + high) / 2
