"""The figures: the series with its states, and where random starts end."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

import emjax
from emjax import plot
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
    maxima,
    spans,
)


def draw_states(file: Path, fit: emjax.Fit) -> None:
    """Draw the series on the decoded states, and the smoothed probabilities under it."""
    decoded, busiest = np.asarray(fit.decode()["state"])[:, 0], NUM_STATES - 1
    busy = [f"{first}–{last}" for first, last, state in spans(decoded) if state == busiest]
    with canvas.figure(
        file,
        f"The earth was busiest in {', '.join(busy[:-1])} and {busy[-1]}",
        """Earthquakes of magnitude 7 or greater in each year. Top: the counts, on the colors of the
        most probable path, with the rate of its state. Bottom: the probability of each state given
        the whole series; where colors share a year, EM is in doubt.""",
        height=4.6,
    ) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
        plot.states(fit, ax=[top, bottom])
        names = [
            f"{name}, {rate:.1f}" for name, rate in zip(STATES, fit.params["rate"], strict=True)
        ]
        handles, _ = bottom.get_legend_handles_labels()
        bottom.legend(handles, names, loc="upper left", bbox_to_anchor=(1, 1), title="state, rate")
        top.set(ylabel="earthquakes in the year", ylim=(0, 44))
        bottom.set(xlabel="year", ylabel="probability", yticks=[0, 0.5, 1])
        bottom.set_xticks(range(0, len(YEARS), 20), YEARS[::20].tolist())
        figure.align_ylabels([top, bottom])


def draw_ends(file: Path, ends: Ends) -> None:
    """Draw where the random starts end: two columns for each number of states."""
    single = [n for n in NUMS_STATES if len(maxima(ends[n, SOFT])) == 1]
    num_hard = len(maxima(ends[NUM_STATES, HARD]))
    with canvas.figure(
        file,
        f"With {' or '.join(map(str, single))} states soft EM always ends in one place; Viterbi "
        f"training, with {NUM_STATES}, in {num_hard}",
        f"""The log-likelihood at the end of each of {len(ends[NUM_STATES, SOFT])} random starts, a
        dot a start.""",
        width=7,
        height=3.7,
    ) as figure:
        draw_heights(figure.subplots(), ends)


def draw_four_states(file: Path, ends: list[Fit], three: Fit) -> None:
    """Draw the rates of the maxima with four states."""
    found = maxima(ends)
    with canvas.figure(
        file,
        f"A fourth state splits one or another of three, in {len(found)} ways",
        f"""The rates where soft EM ends with 4 states, the most likely on top, and how many of
        {len(ends)} random starts lead there; lines are the rates with 3 states.""",
        width=7,
        height=0.9 + 0.28 * len(found),
    ) as figure:
        draw_maxima(figure.subplots(), found, three.params["rate"])


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
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
