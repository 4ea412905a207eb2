"""The figures: where starts end, the likelihood along σ, and how many images it takes."""

from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from emjax import EM
from experiments import canvas
from experiments.annotators.scores import ALL_GOOD, along_sigma
from experiments.annotators.simulation import SIGMAS, images_needed, share_found


def draw_landscape(path: Path, em: EM, ends: dict) -> None:
    """Draw the end of each start, and the likelihood along σ."""
    with canvas.figure(
        path,
        "Three images cannot tell who is good: the answer depends on the start",
        """Left: EM from each of the 31 sets of annotators (dots) that one may take for good at the
        start. Colors are the posterior of being good at the end, from 0 (blue) to 1 (yellow); grey:
        σ → 0. Right: the log-likelihood as σ varies, with μ the mean score of those taken for good.
        Any single annotator makes it grow without bound.
        """,
        height=5.0,
    ) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
        draw_ends(left, ends)
        draw_slices(right, em, ends)


def draw_ends(axes: Axes, ends: dict) -> None:
    """Draw the posterior at the end, a row for each start, in groups of the same end."""
    sizes = Counter(end.name for end in ends.values())
    heights = {end.name: end.log_likelihood for end in ends.values()}
    order = sorted(ends, key=lambda good: (sizes[ends[good].name], len(good)), reverse=True)
    colors = matplotlib.colormaps[canvas.PROBABILITY].with_extremes(bad=canvas.PALE)
    image = np.array([ends[good].posterior for good in order])
    axes.imshow(image, aspect="auto", cmap=colors, vmin=0, vmax=1)
    rim = {"markeredgecolor": "white", "markeredgewidth": 0.8}
    for row, good in enumerate(order):
        axes.plot(good, [row] * len(good), "o", markersize=5, color=canvas.INK, **rim)
    bottom = -0.5
    for name, size in Counter(ends[good].name for good in order).items():
        axes.axhline(bottom + size, color="white", linewidth=4)
        text = f"{name}\n{heights[name]:.3f} nats".replace("inf", "∞")
        axes.text(4.65, bottom + size / 2, text, va="center", fontsize=8.5)
        bottom += size
    axes.set(
        xlim=(-0.5, 6.2),
        xticks=ALL_GOOD,
        yticks=[],
        xlabel="annotator",
        title="31 starts, and where they end",
    )
    axes.xaxis.set_label_coords(2.5 / 6.7, -0.07)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_slices(axes: Axes, em: EM, ends: dict) -> None:
    """Draw the log-likelihood along σ for several sets of good annotators, and mark the optima."""
    sigmas = np.geomspace(6e-4, 0.5, 300)
    slices = {
        ALL_GOOD: ("all good", canvas.BLUE),
        (0, 1, 2, 3): ("0, 1, 2, 3 good", canvas.GREEN),
        (0, 1): ("0, 1 good", canvas.PURPLE),
        (4,): ("only 4 good", canvas.VERMILLION),
    }
    for good, (name, color) in slices.items():
        heights = along_sigma(em, good, sigmas)
        axes.semilogx(sigmas, heights, color=color)
        sigma, height = sigmas[0], heights[0]
        if len(good) > 1:  # of a single annotator the likelihood has no bound, and no optimum
            sigma, height = ends[good].sigma, ends[good].log_likelihood
            axes.plot(sigma, height, "o", color=color, markersize=5)
        if len(good) in (2, 4):  # the others' names would meet
            canvas.label(axes, sigma * 0.85, height + 0.35, name, color, ha="right")
        else:
            canvas.label(axes, sigma * 1.15, height + 0.35, name, color, ha="left")
    axes.set(
        xlabel="σ, noise of a good annotator (units of the score)",
        ylabel="log-likelihood, nats",
        xticks=[0.001, 0.01, 0.1],
        xticklabels=["0.001", "0.01", "0.1"],
        title="The likelihood along σ",
        ylim=(0, 18.5),
        yticks=[0, 5, 10, 15],
    )
    axes.minorticks_off()
    canvas.light_grid(axes)


def draw_simulated(path: Path, posteriors: dict[int, np.ndarray]) -> None:
    """Draw the mean posterior at the noise of the data, and how often the good are found."""
    typical = SIGMAS.index(0.095)
    needed = images_needed(posteriors, typical)
    with canvas.figure(
        path,
        f"{needed} images suffice to tell the good annotators at the noise of the data",
        """Scores simulated by the program; annotators 2 and 4 drew random numbers. Left: posterior
        of being good, averaged over the simulated tables, σ = 0.095. Right: how often EM finds
        exactly 0, 1 and 3 good, from the lecture's start.
        """,
    ) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
        draw_mean_posteriors(left, {num: p[typical].mean(axis=0) for num, p in posteriors.items()})
        draw_shares_found(right, posteriors)


def draw_shares_found(axes: Axes, posteriors: dict[int, np.ndarray]) -> None:
    """Draw how often the good annotators are found, a line for each noise."""
    nums = list(posteriors)
    shares = np.array([share_found(p) for p in posteriors.values()])  # (number of images, noise)
    for noise, sigma in enumerate(SIGMAS):
        color = canvas.PALETTE[noise]
        axes.semilogx(nums, shares[:, noise], "o-", color=color, markersize=4.5)
        place = nums[0] * 0.94, shares[0, noise]
        canvas.label(axes, *place, f"σ = {sigma:g}", color, ha="right", va="center")
    axes.axhline(0.95, color=canvas.GREY, linewidth=0.9, linestyle=":")
    axes.set(
        xticks=nums,
        xticklabels=map(str, nums),
        ylim=(0, 1.03),
        xlim=(1.7, nums[-1] * 1.1),
        yticks=[0, 0.25, 0.5, 0.75, 0.95],
        yticklabels=["0%", "25%", "50%", "75%", "95%"],
        xlabel="images",
        title="Tables in which 0, 1 and 3 are found",
    )
    axes.minorticks_off()


def draw_mean_posteriors(axes: Axes, means: dict[int, np.ndarray]) -> None:
    """Draw a heat map, number of images by annotator, with its numbers."""
    image = np.array(list(means.values()))
    axes.imshow(image, aspect="auto", cmap=canvas.PROBABILITY, vmin=0, vmax=1)
    style = {"ha": "center", "va": "center", "fontsize": 8.5}
    for (row, column), value in np.ndenumerate(image):
        ink = canvas.INK if value > 0.5 else "white"
        axes.text(column, row, f"{value:.2f}", color=ink, **style)
    axes.set(
        xticks=ALL_GOOD,
        yticks=range(len(means)),
        yticklabels=map(str, means),
        xlabel="annotator",
        ylabel="images",
        title="Mean posterior of being good",
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
