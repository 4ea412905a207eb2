"""Wines: how many Gaussians?"""

from functools import cache, partial

import jax
import numpy as np
from sklearn.datasets import load_wine
from sklearn.metrics import adjusted_rand_score

from emjax import EM, Candidate, Choice, choose
from emjax.models import gaussian_mixture
from experiments import report
from experiments.model_choice.criteria import NAMES, NUM_FOLDS


@cache
def wines() -> tuple[np.ndarray, np.ndarray]:
    """Return 13 measurements of each wine, standardized, and which of three cultivars it is."""
    measured = load_wine()
    points = (measured.data - measured.data.mean(axis=0)) / measured.data.std(axis=0)
    return points, measured.target


def mixture(covariance: str, num_components: int, num_restarts: int) -> EM:
    """Return EM on a Gaussian mixture."""
    program = partial(
        gaussian_mixture.program, num_components=num_components, covariance=covariance
    )
    return EM(program, num_restarts=num_restarts, tol=1e-7)


def chosen_mixture(covariance: str, nums_components: tuple[int, ...], num_restarts: int) -> Choice:
    """Return the mixtures of the wines side by side, by their number of components."""
    candidates = {k: mixture(covariance, k, num_restarts) for k in nums_components}
    return choose(candidates, jax.random.key(0), wines()[0], num_folds=NUM_FOLDS)


def agreement(choice: Choice, covariance: str, num_components: int) -> float:
    """Return the adjusted Rand index of a mixture's components and the cultivars.

    1 is the same, 0 is chance.
    """
    points, cultivars = wines()
    params = choice.candidates[num_components].result.params
    decoded = mixture(covariance, num_components, 1).decode(params, points)["component"]
    return float(adjusted_rand_score(cultivars, np.asarray(decoded)))


def print_wines(choices: dict[str, Choice]) -> None:
    """Print the mixtures of the wines side by side."""
    points, _ = wines()
    report.heading(
        f"{len(points)} wines of three cultivars, {points.shape[1]} measurements: how many "
        "Gaussians?"
    )
    for covariance, choice in choices.items():
        print(f"{covariance} covariance\n{choice}\n")
        chosen = {name: choice.chosen[name] for name in NAMES if name in choice.chosen}
        rows = [
            [name, k, held_out(choice.candidates[k]), f"{agreement(choice, covariance, k):.2f}"]
            for name, k in chosen.items()
        ]
        report.table(
            ["criterion", "components", "held-out (nats a wine)", "agreement with cultivars"],
            rows,
            caption="Agreement: the adjusted Rand index of components and cultivars; 1 is the "
            "same, 0 is chance.",
        )


def held_out(candidate: Candidate) -> str:
    """Return the held-out log-likelihood of a wine in nats; a dash where a fold failed."""
    validation = candidate.cross_validation
    return "–" if validation.has_failed else f"{validation.mean:.3f}"
