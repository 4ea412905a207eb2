"""The figures: where starts end, the likelihood along σ, and how many images it takes."""

from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from emjax import EM
from experiments import canvas
from experiments.annotators.scores import ALL_GOOD, LECTURE, along_sigma
from experiments.annotators.simulation import SIGMAS, images_needed, share_found

OF_DATA = 0.095  # the noise at which EM ends with all five good


def draw_ends(path: Path, ends: dict) -> None:
    """Draw the posterior at the end, a row for each start, in groups of the same end."""
    names = {end.name for end in ends.values()}
    with canvas.figure(
        path,
        f"Three images cannot tell who is good: {len(ends)} starts have {len(names)} ends",
        """EM from each of the sets of annotators that one may take for good at the start (dots, a
        row each). Colors are the posterior of being good at the end, from 0 (blue) to 1 (yellow);
        where the noise σ of a good annotator goes to 0 it is gray.""",
        width=7.5,
        height=5.4,
    ) as figure:
        draw_rows(figure.subplots(), ends)


def draw_rows(axes: Axes, ends: dict) -> None:
    """Draw a row for each start, the end with most starts first."""
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
        ylabel="starts",
    )
    axes.set_xlabel("annotator", x=2.5 / 6.7)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_slices(path: Path, em: EM, ends: dict) -> None:
    """Draw the log-likelihood along σ for several sets of good annotators, and mark the optima."""
    with canvas.figure(
        path,
        "If one annotator alone is good, the likelihood has no bound",
        """The log-likelihood of the three images as the noise σ of a good annotator varies, with
        the images' values at the mean score of those taken for good. Dots: where EM ends.""",
        width=7.5,
        height=3.8,
    ) as figure:
        draw_along_sigma(figure.subplots(), em, ends)


def draw_along_sigma(axes: Axes, em: EM, ends: dict) -> None:
    """Draw a curve for each set of good annotators."""
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
        ylim=(0, 18.5),
        yticks=[0, 5, 10, 15],
    )
    axes.minorticks_off()
    canvas.light_grid(axes)


def draw_images_needed(path: Path, posteriors: dict[int, np.ndarray]) -> None:
    """Draw how often the good annotators are found, a line for each noise."""
    needed = images_needed(posteriors, SIGMAS.index(OF_DATA))
    with canvas.figure(
        path,
        f"{needed[0].upper()}{needed[1:]} images tell who is good at the noise of the data",
        f"""How often EM finds exactly 0, 1 and 3 good, from the lecture's start, in scores
        simulated by the program; annotators 2 and 4 drew random numbers. σ is the noise of a good
        annotator: {OF_DATA:g} is that of the data. Dotted: 95% of the simulated tables.""",
        width=7.5,
        height=3.6,
    ) as figure:
        axes = figure.subplots()
        nums = list(posteriors)
        shares = np.array([share_found(p) for p in posteriors.values()])  # (images, noise)
        for noise, sigma in enumerate(SIGMAS):
            color = canvas.PALETTE[noise]
            axes.semilogx(nums, 100 * shares[:, noise], "o-", color=color, markersize=4.5)
            place = nums[0] * 0.94, 100 * shares[0, noise]
            canvas.label(axes, *place, f"σ = {sigma:g}", color, ha="right", va="center")
        axes.axhline(95, color=canvas.GREY, linewidth=0.9, linestyle=":")
        axes.set_xticks(nums, list(map(str, nums)))
        axes.set(xlabel="images", ylabel="tables in which 0, 1 and 3 are found, %")
        axes.set(xlim=(2.1, nums[-1] * 1.1), ylim=(0, 103))
        axes.minorticks_off()
        canvas.light_grid(axes)


def draw_random_annotators(path: Path, posteriors: dict[int, np.ndarray]) -> None:
    """Draw the mean posterior of each annotator, by the number of images."""
    noise = SIGMAS.index(OF_DATA)
    means = np.array([tables[noise].mean(axis=0) for tables in posteriors.values()])
    fewest, is_random = min(posteriors), ~np.isin(ALL_GOOD, LECTURE)
    with canvas.figure(
        path,
        f"On {fewest} images random numbers pass for good with probability "
        f"{means[0, is_random].mean():.2f}",
        f"""The posterior of being good, averaged over simulated tables (σ = {OF_DATA:g}): a line
        for each annotator. 0, 1 and 3 are good, 2 and 4 drew random numbers.""",
        width=7.5,
        height=3.4,
    ) as figure:
        axes = figure.subplots()
        nums = list(posteriors)
        for annotator, curve in enumerate(means.T):
            color = canvas.VERMILLION if is_random[annotator] else canvas.BLUE
            axes.semilogx(nums, curve, "o-", color=color, markersize=4)
        canvas.label(axes, nums[0], means[0, is_random].max() + 0.06, "random", canvas.VERMILLION)
        canvas.label(axes, nums[0], means[0, ~is_random].min() - 0.1, "good", canvas.BLUE)
        axes.set_xticks(nums, list(map(str, nums)))
        axes.set(xlabel="images", ylabel="mean posterior of being good", ylim=(0, 1.03))
        axes.minorticks_off()
        canvas.light_grid(axes)
