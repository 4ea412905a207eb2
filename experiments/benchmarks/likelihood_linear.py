"""log p(data | parameters) of models that are linear in Gaussian latents, in nats: see likelihood.

Each is written from the normal of the data, without the latents; the state space by its filter.
"""

from collections.abc import Callable

import numpy as np


def factor_analysis(params: dict, data: dict) -> float:
    """Factor analysis with `loc`, `loadings` and `scale`; `count` says how often a row was seen."""
    points, loadings = data["points"], params["loadings"]
    count = data.get("count", np.ones(len(points)))
    covariance = loadings @ loadings.T + np.diag(params["scale"] ** 2)
    residual = points - params["loc"]
    scatter = residual.T @ (count[:, None] * residual)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return -0.5 * (count.sum() * log_det + np.trace(np.linalg.solve(covariance, scatter)))


def linear_mixed_model(params: dict, data: dict) -> float:
    """Linear mixed model with `fixed`, `covariance` and `scale`, group by group.

    |Z Σ Zᵀ + σ² I| = σ²ⁿ |I + Σ Zᵀ Z / σ²|, and likewise for the inverse.
    """
    z, group, variance = data["random_covariates"], data["group"], params["scale"] ** 2
    residual = data["response"] - data["fixed_covariates"] @ params["fixed"]
    shape = group.max() + 1, z.shape[1]
    precision, linear = np.zeros((*shape, shape[1])), np.zeros(shape)
    np.add.at(precision, group, z[:, :, None] * z[:, None] / variance)
    np.add.at(linear, group, z * residual[:, None] / variance)
    whole = np.eye(shape[1]) + params["covariance"] @ precision
    mean = np.linalg.solve(whole, (linear @ params["covariance"])[..., None])[..., 0]
    log_det = len(residual) * np.log(2 * np.pi * variance) + np.linalg.slogdet(whole)[1].sum()
    return -0.5 * (log_det + residual @ residual / variance - (linear * mean).sum())


def linear_state_space(params: dict, data: dict) -> float:
    """Linear state space, by the Kalman filter."""
    transition, emission = params["transition"], params["emission"]
    mean, spread, total = params["initial_loc"], params["initial_covariance"], 0.0
    for x in data["points"]:
        shown = emission @ spread @ emission.T + params["emission_covariance"]
        surprise = x - emission @ mean
        gain = np.linalg.solve(shown, emission @ spread).T
        total -= 0.5 * np.linalg.slogdet(2 * np.pi * shown)[1]
        total -= 0.5 * surprise @ np.linalg.solve(shown, surprise)
        mean = transition @ (mean + gain @ surprise)
        spread = transition @ (spread - gain @ emission @ spread) @ transition.T
        spread = spread + params["transition_covariance"]
    return total


def reported(params: dict, data: dict) -> float:
    """Return the `log_likelihood` that an E-step gives by itself: its parameters never move."""
    return float(params["log_likelihood"])


LOG_LIKELIHOODS: dict[str, Callable[[dict, dict], float]] = {
    "factor_analysis": factor_analysis,
    "counted_factor_analysis": factor_analysis,
    "linear_mixed_model": linear_mixed_model,
    "linear_state_space": linear_state_space,
    "linear_state_space_e_step": reported,
    "chain_gradient": reported,
    "mixture_gradient": reported,
}
