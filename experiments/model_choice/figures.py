"""The figures: criteria over the number of components, choices over the number of samples."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from emjax import Choice
from experiments import canvas
from experiments.model_choice.counts import Scores, Truth
from experiments.model_choice.criteria import NAMES

COLORS = {
    "AIC": canvas.ORANGE,
    "BIC": canvas.BLUE,
    "ICL": canvas.GREEN,
    "CV": canvas.VERMILLION,
}


def draw_wines(path: Path, choices: dict[str, Choice], num_wines: int) -> None:
    """Draw each criterion over the number of components."""
    with canvas.figure(
        path,
        "Where each component has 105 parameters for 178 wines, AIC takes all that it is offered",
        """Wines: the criteria of Gaussian mixtures in nats a wine, AIC, BIC and ICL divided by 2n,
        the lower the better; CV is minus the held-out log-likelihood, ± one standard error. Dots:
        each choice.
        """,
        height=3.4,
    ) as figure:
        panels = np.atleast_1d(figure.subplots(1, len(choices)))
        for axes, (covariance, choice) in zip(panels, choices.items(), strict=True):
            draw_criteria(axes, choice, num_wines)
            axes.set(title=f"{covariance} covariance", ylabel="nats a wine")
            axes.set(xlabel="components", xticks=list(choice.candidates))


def draw_criteria(axes: Axes, choice: Choice, num_samples: int) -> None:
    """Draw the criteria of one family of models, and a dot on each choice."""
    for name in NAMES:
        color = COLORS[name]
        losses = {
            k: candidate.losses[name] / (2 * num_samples)
            for k, candidate in choice.candidates.items()
            if name in candidate.losses
        }
        nums, heights = list(losses), list(losses.values())
        style = {"linewidth": 4, "alpha": 0.5} if name == "BIC" else {}  # ICL often lies on it
        axes.plot(nums, heights, color=color, label=name, **style)
        if name == "CV":
            validations = [choice.candidates[k].cross_validation for k in nums]
            errors = [validation.standard_error / num_samples for validation in validations]
            axes.errorbar(nums, heights, errors, fmt="none", color=color, linewidth=1)
        if name in choice.chosen:
            k = choice.chosen[name]
            axes.plot(k, losses[k], "o", color=color, markersize=11 if name == "BIC" else 7)
    canvas.light_grid(axes)
    axes.legend()


def draw_simulated(
    path: Path, simulations: list[tuple[Truth, Scores]], sizes: tuple[int, ...]
) -> None:
    """Draw the mean choice and the mean loss of each criterion over the number of samples."""
    with canvas.figure(
        path,
        "BIC finds the truth where it is a model; where none is true, it predicts worse than "
        "cross-validation",
        """Mixtures of Poissons. Left: how many components each criterion chooses on average;
        dashed, how many clusters there are; grey, how many predict best. Right: what the choice
        loses to the best. A spare component of little weight loses next to nothing.
        """,
        height=6.2,
    ) as figure:
        panels = figure.subplots(2, 2)
        for (left, right), (truth, scores) in zip(panels, simulations, strict=True):
            draw_choices(left, truth, scores, sizes)
            draw_regrets(right, scores, sizes)
            for axes in (left, right):
                axes.set_xlabel("samples")
                canvas.light_grid(axes)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)


def draw_choices(axes: Axes, truth: Truth, scores: Scores, sizes: tuple[int, ...]) -> None:
    """Draw how many components each criterion chooses, beside how many predict best."""
    best = (scores.prediction.argmax(axis=-1) + 1).mean(axis=0)
    axes.plot(sizes, best, color=canvas.GREY, linewidth=5, alpha=0.4, label="predicts best")
    axes.axhline(truth.num_clusters, color=canvas.GREY, linestyle="--", linewidth=1)
    for name in NAMES:
        chosen = scores.chosen(name).mean(axis=0)
        axes.plot(sizes, chosen, "o-", color=COLORS[name], markersize=4, label=name)
    axes.set(xscale="log", ylabel="components", title=f"{truth.name}: the choice")


def draw_regrets(axes: Axes, scores: Scores, sizes: tuple[int, ...]) -> None:
    """Draw what the choice of each criterion loses to the best, both axes logarithmic."""
    for name in NAMES:
        loss = 1000 * scores.regret(name).mean(axis=0)
        axes.plot(sizes, loss, "o-", color=COLORS[name], markersize=4, label=name)
    axes.set(xscale="log", yscale="log", ylabel="nats for 1,000 samples", title="what it loses")
