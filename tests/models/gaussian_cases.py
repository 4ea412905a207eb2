"""The marginal density of each program with Gaussian latents, in `scipy.stats` terms, on small
data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal

from emjax.models import (
    factor_analysis,
    linear_gaussian_state_space,
    linear_mixed_model,
    mixture_of_factor_analyzers,
)


@dataclass(frozen=True, eq=False)
class GaussianCase:
    """A program on small data, its update derived by hand, and its likelihood.

    - `log_likelihood`: (params, *args) -> log p(data | params), without any latent.
    - `integrate`: the Gaussian latents.
    """

    module: object
    program: Callable
    step: Callable  # (params, *args) -> params
    args: tuple
    start: dict
    integrate: set[str]
    log_likelihood: Callable

    def next(self, params):
        return self.step(params, *self.args)

    def height(self, params):
        return self.log_likelihood(params, *self.args)


def covariance_of(loadings, scale):
    return loadings @ loadings.T + np.diag(np.broadcast_to(scale, len(loadings)) ** 2)


def of_factors(params, x, num_factors):
    marginal = multivariate_normal(
        params["loc"], covariance_of(params["loadings"], params["scale"])
    )
    return marginal.logpdf(x).sum()


def of_analyzers(params, x, num_components, num_factors):
    log_joint = [
        np.log(params["weights"][k])
        + multivariate_normal(
            params["loc"][k], covariance_of(params["loadings"][k], params["scale"])
        ).logpdf(x)
        for k in range(num_components)
    ]
    return np.logaddexp.reduce(log_joint, axis=0).sum()


def of_groups(params, y, x, z, group, num_groups):
    effects = z @ params["covariance"] @ z.T
    together = np.where(group[:, None] == group, effects, 0.0)
    noise = params["scale"] ** 2 * np.eye(len(y))
    return multivariate_normal(x @ params["fixed"], together + noise).logpdf(y)


def of_states(params, data, observed, num_states):
    """Every step of a sequence at once: the covariance of all states, seen through C and R."""
    num_steps = len(data)
    transition, emission = params["transition"], params["emission"]
    moves = [np.linalg.matrix_power(transition, k) for k in range(num_steps)]
    mean = np.concatenate([emission @ moves[t] @ params["initial_loc"] for t in range(num_steps)])
    # states = L noise, where block (t, s) of L is A^(t - s)
    lower = np.block(
        [
            [moves[t - s] if s <= t else 0 * moves[0] for s in range(num_steps)]
            for t in range(num_steps)
        ]
    )
    noises = [params["initial_covariance"], *[params["transition_covariance"]] * (num_steps - 1)]
    shown = block_diag(*[emission] * num_steps) @ lower
    covariance = shown @ block_diag(*noises) @ shown.T
    covariance += block_diag(*[params["emission_covariance"]] * num_steps)
    total = 0.0
    for n in range(data.shape[1]):
        kept = np.repeat(observed[:, n], data.shape[2])
        marginal = multivariate_normal(mean[kept], covariance[np.ix_(kept, kept)])
        total += marginal.logpdf(data[:, n].reshape(-1)[kept])
    return total


def of_level(params, x, start_scale):
    moves = np.full(len(x), float(params["level_scale"]))
    moves[0] = start_scale
    walk = np.tril(np.ones((len(x), len(x)))) * moves
    covariance = walk @ walk.T + params["scale"] ** 2 * np.eye(len(x))
    return multivariate_normal(np.zeros(len(x)), covariance).logpdf(x)


def definite(rng, size):
    root = rng.normal(size=(size, size))
    return root @ root.T / size + 0.5 * np.eye(size)


def factors(kind):
    rng = np.random.default_rng(20)
    data = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(30, 5)) + 3
    scale = rng.uniform(0.5, 1.5, 5) if kind == "program" else np.array(0.8)
    start = {"loc": rng.normal(3, 1, 5), "loadings": rng.normal(size=(5, 2)), "scale": scale}
    step = factor_analysis.hand_derived_step
    if kind != "program":
        step = factor_analysis.ppca_hand_derived_step
    program = getattr(factor_analysis, kind)
    return GaussianCase(factor_analysis, program, step, (data, 2), start, {"factor"}, of_factors)


def analyzers():
    rng = np.random.default_rng(21)
    centers = np.array([[-2.0, 0, 1, 0], [2.0, 1, -1, 0]])[np.arange(40) % 2]
    data = centers + rng.normal(size=(40, 1)) * rng.normal(size=(1, 4)) + rng.normal(size=(40, 4))
    start = {
        "weights": np.array([0.3, 0.7]),
        "loc": data[:2],
        "loadings": rng.normal(size=(2, 4, 1)),
        "scale": rng.uniform(0.5, 1.5, 4),
    }
    return GaussianCase(
        mixture_of_factor_analyzers,
        mixture_of_factor_analyzers.program,
        mixture_of_factor_analyzers.hand_derived_step,
        (data, 2, 1),
        start,
        {"factor"},
        of_analyzers,
    )


def groups():
    """Seven groups of several sizes, the last without rows."""
    rng = np.random.default_rng(22)
    group = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 4, 4, 4, 4, 5, 5, 5])
    slope = rng.normal(size=len(group))
    x = np.column_stack([np.ones(len(group)), slope, rng.normal(size=len(group))])
    z = x[:, :2]
    effects = rng.normal(size=(7, 2)) * [1.5, 0.7]
    y = x @ [2.0, -1.0, 0.5] + (z * effects[group]).sum(axis=1) + 0.6 * rng.normal(size=len(group))
    start = {"fixed": rng.normal(size=3), "covariance": definite(rng, 2), "scale": np.array(1.1)}
    return GaussianCase(
        linear_mixed_model,
        linear_mixed_model.program,
        linear_mixed_model.hand_derived_step,
        (y, x, z, group, 7),
        start,
        {"effect"},
        of_groups,
    )


def states():
    """Three sequences, of which two have steps that were not seen, one of them at its end."""
    rng = np.random.default_rng(23)
    data = np.cumsum(rng.normal(size=(6, 3, 3)), axis=0) + rng.normal(size=(6, 3, 3))
    observed = np.ones((6, 3), bool)
    observed[2, 1], observed[4:, 2] = False, False
    start = {
        "initial_loc": rng.normal(size=2),
        "initial_covariance": definite(rng, 2),
        "transition": 0.7 * np.eye(2) + 0.2 * rng.normal(size=(2, 2)),
        "transition_covariance": definite(rng, 2),
        "emission": rng.normal(size=(3, 2)),
        "emission_covariance": definite(rng, 3),
    }
    return GaussianCase(
        linear_gaussian_state_space,
        linear_gaussian_state_space.program,
        linear_gaussian_state_space.hand_derived_step,
        (data, observed, 2),
        start,
        {"state"},
        of_states,
    )


def level():
    rng = np.random.default_rng(24)
    data = 5 + np.cumsum(rng.normal(size=9)) + rng.normal(size=9)
    return GaussianCase(
        linear_gaussian_state_space,
        linear_gaussian_state_space.local_level_program,
        linear_gaussian_state_space.local_level_hand_derived_step,
        (data, 30.0),
        {"level_scale": np.array(0.6), "scale": np.array(1.4)},
        {"level"},
        of_level,
    )


GAUSSIAN_CASES = {
    "factor analysis": factors("program"),
    "principal components": factors("ppca_program"),
    "mixture of factor analyzers": analyzers(),
    "linear mixed model": groups(),
    "state space": states(),
    "local level": level(),
}
every_gaussian_case = pytest.mark.parametrize(
    "case", GAUSSIAN_CASES.values(), ids=GAUSSIAN_CASES.keys()
)
