"""Data drawn from models that are linear in Gaussian latents, and a start for each.

As in `data.py`: EM is still far from convergence after the steps that are timed.
"""

from collections.abc import Callable

import numpy as np

from experiments.benchmarks.data import Problem


def factor_analysis(num_samples: int, num_features: int, num_factors: int) -> Problem:
    """Return points about a plane of factors.

    Loadings start half-way to the true ones, and as much noise as variance is left of each feature.
    """
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(num_features, num_factors)) / np.sqrt(num_factors)
    noise = rng.uniform(0.5, 1.5, size=num_features)
    factors = rng.normal(size=(num_samples, num_factors))
    points = rng.normal(size=(num_samples, num_features))
    points *= noise
    points += factors @ loadings.T + rng.normal(size=num_features)
    variance = points.var(axis=0) - ((loadings / 2) ** 2).sum(axis=1)
    start = {"loc": points.mean(axis=0), "loadings": loadings / 2, "scale": np.sqrt(variance)}
    return Problem({"points": points}, start)


def counted_factor_analysis(num_samples: int, num_features: int, num_factors: int) -> Problem:
    """Return the same points, each of which was seen so many times: `count`, one to three."""
    points, start = factor_analysis(num_samples, num_features, num_factors)
    count = np.random.default_rng(1).integers(1, 4, size=num_samples).astype(np.float64)
    return Problem(points | {"count": count}, start)


def linear_mixed_model(num_rows: int, num_groups: int, num_fixed: int) -> Problem:
    """Return rows sorted by group, with an intercept and a slope at random.

    The start is least squares without groups, half of what it leaves being noise.
    """
    rng = np.random.default_rng(0)
    others = rng.integers(num_groups, size=num_rows - num_groups)
    group = np.sort(np.append(np.arange(num_groups), others)).astype(np.int32)
    fixed = rng.normal(size=(num_rows, num_fixed))
    fixed[:, 0] = 1
    random = fixed[:, :2].copy()
    effect = rng.normal(size=(num_groups, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
    response = fixed @ np.arange(1.0, num_fixed + 1) + (random * effect[group]).sum(axis=1)
    response += rng.normal(size=num_rows)
    least_squares = np.linalg.lstsq(fixed, response)[0]
    half = np.mean((response - fixed @ least_squares) ** 2) / 2
    covariance = np.diag(half / np.square(random).mean(axis=0))
    start = {"fixed": least_squares, "covariance": covariance, "scale": np.sqrt(half)}
    rows = {"fixed_covariates": fixed, "random_covariates": random, "group": group}
    return Problem({"response": response} | rows, start)


def linear_state_space(num_steps: int, num_states: int, num_features: int) -> Problem:
    """Return one series of points that follow a slowly turning state.

    The start knows half of the turn, and takes half of the variance of a feature for noise.
    """
    rng = np.random.default_rng(0)
    turn = rng.normal(size=(num_states, num_states)) / 4
    transition = 0.98 * np.linalg.qr(np.eye(num_states) + turn - turn.T)[0]
    transition *= np.sign(np.diag(transition))  # close to the identity, not to a reflection
    emission = rng.normal(size=(num_features, num_states)) / np.sqrt(num_states)
    state, points = np.zeros(num_states), np.empty((num_steps, num_features))
    for t, (step, noise) in enumerate(
        zip(rng.normal(size=(num_steps, num_states)), rng.normal(size=points.shape), strict=True)
    ):
        state = transition @ state + 0.3 * step
        points[t] = emission @ state + 0.5 * noise
    unit = np.eye(num_states)
    start = {
        "initial_loc": np.zeros(num_states),
        "initial_covariance": unit,
        "transition": (transition + 0.9 * unit) / 2,
        "transition_covariance": 0.2 * unit,
        "emission": emission,
        "emission_covariance": np.diag(points.var(axis=0) / 2),
    }
    return Problem({"points": points}, start)


GENERATORS: dict[str, Callable[..., Problem]] = {
    "factor_analysis": factor_analysis,
    "counted_factor_analysis": counted_factor_analysis,
    "linear_mixed_model": linear_mixed_model,
    "linear_state_space": linear_state_space,
    "linear_state_space_e_step": linear_state_space,
}
