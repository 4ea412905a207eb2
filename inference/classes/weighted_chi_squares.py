"""The distribution of a weighted sum of independent χ² variables with one degree of freedom."""

from __future__ import annotations

import numpy as np

# of the trapezoid rule, whose error falls exponentially with their number: against χ² tails down to
# 1e-45, 1e-14 of the probability
NUM_NODES = 4000
# e to that power is nothing beside a probability
NOTHING = 45.0


def tail_probability(weights: np.ndarray, x: float) -> float:
    """Return P(Σ_i λ_i χ²_i > x), for weights λ of either sign.

    With M(s) = Π_i (1 − 2 λ_i s)^{−1/2} the moment-generating function,

        P = 1 / 2πi ∫ M(s) exp(−s x) / s ds

    along any path from below to above that crosses the real axis between 0 and b, where b = 1 / 2
    max λ is the first singularity. Here it is the parabola s = b − (p + i v)² about the cut that
    begins at b, on which the integrand falls as exp(−v² x), with v = p sinh t. Errors: `ValueError`
    for weights that are not finite. Source: Imhof (1961), Biometrika 48, for the problem; Rice
    (1980), SIAM J. Sci. Stat. Comput. 1, for other paths; this one is ours.
    """
    weights = np.asarray(weights, float)
    if not np.isfinite(weights).all():
        raise ValueError("The weights of a sum of χ² variables must be finite.")
    # what is nothing beside the largest weight has no part, and would be a singularity far away
    weights = weights[np.abs(weights) > 1e-12 * np.abs(weights).max(initial=0)]
    if x < 0:
        return 1 - tail_probability(-weights, -x)
    if not (weights > 0).any():
        return 0.0
    if x == 0 and (weights > 0).all():
        return 1.0
    # the unit of what is summed
    scale = weights.max()
    return _along_parabola(weights / scale, x / scale)


def _along_parabola(weights: np.ndarray, x: float) -> float:
    """Return the integral along the parabola; the largest weight is one."""
    first_singularity = 0.5
    crossing = _crossing(weights, x)
    p = np.sqrt(first_singularity - crossing)
    # v² x, or without x the powers of v, say where the integrand is nothing
    by_power = NOTHING / (1 + len(weights))
    by_exponent = np.arcsinh(np.sqrt(NOTHING / x) / p) if x > 0 else np.inf
    t = np.linspace(0, min(by_power + 5, by_exponent + 1), NUM_NODES)
    path = p + 1j * p * np.sinh(t)
    s = first_singularity - path**2
    # the logarithm of each factor: no path crosses the cut of the principal branch
    exponent = -0.5 * np.log1p(-2 * weights[:, None] * s).sum(0) - s * x
    values = (np.exp(exponent) / s * path * p * np.cosh(t)).real
    step = t[1] - t[0]
    total = step * (values.sum() - (values[0] + values[-1]) / 2)
    return float(np.clip(2 / np.pi * total, 0, 1))


def _crossing(weights: np.ndarray, x: float) -> float:
    """Return where the path crosses the real axis: near where the integrand is smallest there."""
    # not too near to the pole, nor to the singularity: the integrand is steep beside them
    s = np.linspace(0.05, 0.4995, 900)
    height = -0.5 * np.log1p(-2 * weights[:, None] * s).sum(0) - s * x - np.log(s)
    return float(s[np.argmin(height)])
