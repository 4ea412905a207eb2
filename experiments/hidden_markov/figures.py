"""The figures: the series with its states, and where random starts end."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from emjax import EM
from experiments import canvas
from experiments.hidden_markov.earthquakes import (
    HARD,
    NUM_STATES,
    NUMS_STATES,
    SOFT,
    STATES,
    YEARS,
    Ends,
    Fit,
    counts,
    maxima,
    path,
    smoothed,
    spans,
)

COLORS = (canvas.BLUE, canvas.GREEN, canvas.VERMILLION)


def draw_states(file: Path, em: EM, fit: Fit, trained: Fit) -> None:
    """Draw the series, the decoded states under it, and the smoothed probabilities."""
    decoded = path(em, fit.params)
    busiest = NUM_STATES - 1
    busy = [f"{first}–{last}" for first, last, state in spans(decoded) if state == busiest]
    with canvas.figure(
        file,
        f"The earth was busiest in {', '.join(busy[:-1])} and {busy[-1]}",
        """Earthquakes of magnitude 7 or greater in each year. Top: the counts and, as bars, the
        rate of the state on the most probable path. Middle: that path, and the one that Viterbi
        training learns. Bottom: the probability of each state given the whole series; where colors
        share a year, EM is in doubt.""",
        height=5.6,
    ) as figure:
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3.2, 0.75, 1.3])
        draw_series(top, fit.params["rate"], decoded)
        draw_paths(middle, {SOFT: decoded, HARD: path(em, trained.params)})
        draw_smoothed(bottom, smoothed(em, fit.params))
        figure.align_ylabels([top, bottom])


def draw_series(axes: Axes, rate: np.ndarray, decoded: np.ndarray) -> None:
    """Draw the counts, colored by the decoded state, on bars at its rate."""
    axes.plot(YEARS, counts(), color=canvas.GREY, linewidth=0.8, zorder=1)
    axes.scatter(YEARS, counts(), s=16, c=[COLORS[k] for k in decoded], linewidths=0, zorder=3)
    bar = {"linewidth": 6, "alpha": 0.3, "solid_capstyle": "butt"}
    for first, last, state in spans(decoded):
        ends = [first - 0.5, last + 0.5]
        axes.plot(ends, [rate[state]] * 2, color=COLORS[state], zorder=2, **bar)
    for name, value, color in zip(STATES, rate, COLORS, strict=True):
        canvas.label(axes, YEARS[-1] + 2, value, f"{name}\n{value:.1f} a year", color, va="center")
    axes.set(ylabel="earthquakes in the year", ylim=(0, 44), xlim=(YEARS[0] - 1, YEARS[-1] + 1))
    axes.tick_params(axis="x", length=0)
    canvas.light_grid(axes)


def draw_paths(axes: Axes, paths: dict[str, np.ndarray]) -> None:
    """Draw each path as a strip of colors."""
    for row, states in enumerate(paths.values()):
        for first, last, state in spans(states):
            stretch = (first - 0.5, last - first + 1)
            axes.broken_barh([stretch], (row - 0.38, 0.76), facecolor=COLORS[state])
    axes.set(yticks=range(len(paths)), yticklabels=list(paths), ylim=(len(paths) - 0.5, -0.5))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_smoothed(axes: Axes, probability: np.ndarray) -> None:
    """Draw the probability of each state, one on the other, a bar a year."""
    below = np.zeros(len(YEARS))
    for k, color in enumerate(COLORS):
        axes.bar(YEARS, probability[:, k], width=1, bottom=below, color=color)
        below = below + probability[:, k]
    axes.set(xlabel="year", ylabel="probability", ylim=(0, 1), yticks=[0, 0.5, 1])


def draw_ends(file: Path, ends: Ends, three: Fit) -> None:
    """Draw where the random starts end, and the rates of the maxima with four states."""
    num_starts = len(ends[NUM_STATES, SOFT])
    with canvas.figure(
        file,
        "With 2 or 3 states soft EM always ends in one place; Viterbi training does not",
        f"""{num_starts} random starts. Left: the log-likelihood at the end, a dot a start. Right:
        the rates where soft EM ends with 4 states, the most likely on top, and how many starts lead
        there; lines are the rates with 3 states. The fourth state has no work of its own: it splits
        one or another of the three.""",
        height=3.9,
    ) as figure:
        left, right = figure.subplots(1, 2)
        draw_heights(left, ends)
        draw_maxima(right, maxima(ends[4, SOFT]), three.params["rate"])


def draw_heights(axes: Axes, ends: Ends) -> None:
    """Draw the log-likelihood of each end, two columns for each number of states."""
    rng = np.random.default_rng(0)
    for (num_states, name), fits in ends.items():
        color, shift = (canvas.BLUE, -0.2) if name == SOFT else (canvas.VERMILLION, 0.2)
        # scattered, so that ends of the same height are seen
        across = num_states + shift + rng.uniform(-0.14, 0.14, len(fits))
        heights = [end.log_likelihood for end in fits]
        axes.plot(across, heights, "o", color=color, markersize=4, alpha=0.5, markeredgewidth=0)
    for name, color, height in ((SOFT, canvas.BLUE, 0.3), (HARD, canvas.VERMILLION, 0.23)):
        canvas.label(axes, 0.66, height, name, color, transform=axes.transAxes)
    axes.set(
        xticks=NUMS_STATES,
        xticklabels=[f"{num_states} states" for num_states in NUMS_STATES],
        xlim=(NUMS_STATES[0] - 0.5, NUMS_STATES[-1] + 0.5),
        ylabel="log-likelihood at the end, nats",
        title="Where the starts end",
    )
    axes.tick_params(axis="x", length=0)
    canvas.light_grid(axes)


def draw_maxima(axes: Axes, ends: list[tuple[Fit, int]], three: np.ndarray) -> None:
    """Draw the rates of each maximum in a row, on lines at the rates of three states."""
    for rate in three:
        axes.axvline(rate, color=canvas.PALE, linewidth=1.2, zorder=0)
    for row, (end, _) in enumerate(ends):
        axes.plot(end.params["rate"], [row] * 4, "o", color=canvas.BLUE, markersize=6)
    axes.set(
        yticks=range(len(ends)),
        yticklabels=[f"−{-end.log_likelihood:.2f} nats, {count}×" for end, count in ends],
        ylim=(len(ends) - 0.5, -0.5),
        xticks=[10, 15, 20, 25, 30],
        xlabel="rates of the four states, earthquakes a year",
        title="Four states: where soft EM ends",
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
