"""The figures: shares of starts at each optimum, and what local optima look like."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import linear_sum_assignment

from emjax import Fit, Optimum, plot
from experiments import canvas
from experiments.restarts.annotators import degenerate_share, end_name, height_name
from experiments.restarts.landscape import DATA, FAR, OWN, PRIORS, RANDOM, SPLIT, Landscape

COLORS = {
    RANDOM: canvas.VERMILLION,
    DATA: canvas.BLUE,
    FAR: canvas.GREEN,
    SPLIT: canvas.PURPLE,
    OWN: canvas.SKY,
    PRIORS: canvas.ORANGE,
}
OF_BOUNDED = (
    canvas.BLUE,
    canvas.SKY,
    canvas.GREEN,
    canvas.ORANGE,
    canvas.PURPLE,
    canvas.VERMILLION,
)
FAR_BELOW = 10.0  # nats
DARK = (canvas.BLUE, canvas.GREEN, canvas.PURPLE)  # numbers on these are white


# ── the annotators ────────────────────────────────────────────────────────────────────────────────


def draw_annotators(path: Path, landscape: Landscape) -> None:
    """Draw, for each kind of start, the share of starts that end at each optimum."""
    unbounded = f"{100 * degenerate_share(landscape, PRIORS):.0f}%"
    with canvas.figure(
        path,
        f"The start decides where EM ends: of those drawn from priors, {unbounded} end where the "
        "likelihood has no bound",
        """The annotators' table: shares of the starts of each kind that end at each optimum, with
        its log-likelihood in nats. σ → 0: one annotator is left to be good, μ repeats the scores,
        and the likelihood grows without bound.
        """,
        height=3.2,
    ) as figure:
        axes = figure.subplots()
        colors = optimum_colors(landscape.optima)
        best = landscape.optima[:1]
        kinds = sorted(landscape.names, key=lambda kind: -landscape.share(kind, best))
        for row, kind in enumerate(kinds):
            draw_shares(axes, row, landscape, kind, colors)
        for optimum, color in zip(landscape.optima, colors, strict=True):
            name = f"{end_name(optimum)}: {height_name(optimum)}"
            axes.barh(0, 0, color=color, label=name)
        labels = [f"{kind} ({landscape.total(kind)})" for kind in kinds]
        axes.set(yticks=range(len(labels)), yticklabels=labels, xticks=[], xlim=(0, 1))
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        figure.legend(loc="outside lower center", ncols=len(colors), fontsize=8.5)


def optimum_colors(optima: list[Optimum]) -> list[str]:
    """Return a color for each optimum, pale for what is degenerate."""
    colors = []
    for i, optimum in enumerate(optima):
        colors.append(canvas.PALE if optimum.degenerate else OF_BOUNDED[i % len(OF_BOUNDED)])
    return colors


def draw_shares(
    axes: Axes, row: int, landscape: Landscape, kind: str, colors: Sequence[str]
) -> None:
    """Draw the shares of one kind of start as a bar of pieces side by side."""
    left = 0.0
    for optimum, color in zip(landscape.optima, colors, strict=True):
        share = landscape.share(kind, [optimum])
        axes.barh(row, share, left=left, color=color, height=0.72)
        if share > 0.04:  # in a narrower piece the number has no room
            axes.text(
                left + share / 2,
                row,
                f"{100 * share:.0f}%",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if color in DARK else canvas.INK,
            )
        left += share


# ── the five Gaussians ────────────────────────────────────────────────────────────────────────────


def draw_optima_by_start(path: Path, landscape: Landscape) -> None:
    """Draw the optima of one data set that each kind of start finds."""
    bounded = landscape.bounded
    below = [bounded[0].objective - optimum.objective for optimum in bounded[1:]]
    with canvas.figure(
        path,
        f"{len(bounded)} optima on one data set, {sum(np.array(below) > FAR_BELOW)} of them more "
        f"than {FAR_BELOW:.0f} nats below the best",
        """Five Gaussians, 200 points: the optima that each kind of start finds; a dot's area is the
        share of starts that end there.""",
        height=0.9 + 0.6 * len(landscape.names),
        width=8,
    ) as figure:
        draw_optima_found(figure.subplots(), landscape)


def draw_best_by_start(path: Path, shares: Mapping[str, np.ndarray]) -> None:
    """Draw how often each kind of start finds the best optimum, the one that does most often on
    top.
    """
    order = sorted(shares, key=lambda kind: -shares[kind].mean())
    means = [f"{100 * shares[kind].mean():.0f}%" for kind in (order[0], order[-1])]
    with canvas.figure(
        path,
        f"The best optimum is found from {means[1]} of the starts ({order[-1]}) to {means[0]} "
        f"({order[0]})",
        f"""Five Gaussians, 200 points: the share of starts that end at the best optimum, a dot for
        each of {len(shares[order[0]])} data sets, and their mean (bar).""",
        height=0.9 + 0.6 * len(shares),
        width=8,
    ) as figure:
        draw_shares_at_best(figure.subplots(), {kind: shares[kind] for kind in order})


def draw_optima_found(axes: Axes, landscape: Landscape) -> None:
    """Draw a dot for each optimum and kind of start."""
    bounded = landscape.bounded
    gaps = np.array([optimum.objective - bounded[0].objective for optimum in bounded])
    for row, kind in enumerate(landscape.names):
        share = np.array([landscape.share(kind, [optimum]) for optimum in bounded])
        axes.axhline(row, color=canvas.PALE, linewidth=0.8, zorder=0)
        axes.scatter(
            gaps,
            np.full(len(gaps), row),
            s=900 * share,
            color=COLORS[kind],
            alpha=0.55,
            linewidths=0,
            clip_on=False,
        )
    names = landscape.names
    axes.set(
        yticks=range(len(names)),
        yticklabels=[f"{kind} ({landscape.total(kind)})" for kind in names],
        ylim=(len(names) - 0.45, -0.75),
        xlabel="log-likelihood minus that of the best optimum, nats",
    )
    axes.tick_params(axis="y", length=0)


def draw_shares_at_best(axes: Axes, shares: Mapping[str, np.ndarray]) -> None:
    """Draw the share of starts at the best optimum: a dot for each data set, a bar at the mean."""
    for row, (kind, share) in enumerate(shares.items()):
        color, mean = COLORS[kind], share.mean()
        spread = row + np.linspace(-0.16, 0.16, len(share))
        axes.plot(share, spread, "o", color=color, markersize=4.5, alpha=0.6, markeredgewidth=0)
        axes.plot([mean] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2.5)
        canvas.label(axes, mean, row - 0.36, f"{100 * mean:.0f}%", color, ha="center", va="bottom")
    axes.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.set(xlim=(-0.05, 1.05), xlabel="starts at the best optimum")
    axes.set(yticks=range(len(shares)), yticklabels=list(shares), ylim=(len(shares) - 0.45, -0.75))
    axes.tick_params(axis="y", length=0)


def draw_optima(path: Path, fit: Fit, landscape: Landscape) -> None:
    """Draw the components of the best optimum, and of the most frequent others.

    `fit`: any to the points that the landscape is of.
    """
    bounded = landscape.bounded
    best = bounded[0]
    frequent = sorted(bounded[1:], key=lambda optimum: -len(optimum.starts))[:3]
    shown = [best, *sorted(frequent, key=lambda optimum: -optimum.objective)]
    with canvas.figure(
        path,
        "What a local optimum looks like: one component on two clusters, two on one",
        """The best optimum, and the others in which most starts end. Ellipses: one and two standard
        deviations of each component; its color is that of the component of the best optimum that it
        is nearest to. Percentages: starts of all kinds that end there.""",
        height=6.4,
    ) as figure:
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, optimum in zip(panels.flat, shown, strict=True):
            order = nearest(optimum.params["loc"], best.params["loc"])
            plot.clusters(replace(fit, params=optimum.params).relabel(order), ax=axes)
            axes.get_legend().remove()
            axes.set_title(panel_title(optimum, best, len(landscape.kinds)))
            axes.set(aspect="equal", xlabel="x₁", ylabel="x₂")
            axes.label_outer()


def nearest(means: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of the means belongs to each of the others, so that they are near in all."""
    squares = ((others[:, None] - means) ** 2).sum(axis=-1)
    return linear_sum_assignment(squares)[1]


def panel_title(optimum: Optimum, best: Optimum, num_starts: int) -> str:
    """Return how far an optimum lies below the best, and how many of all starts end there."""
    below = f"{optimum.objective - best.objective:.1f} nats".replace("-", "−")
    gap = "best" if optimum is best else below
    return f"{gap}, {100 * len(optimum.starts) / num_starts:.0f}% of the starts"
