"""How runs climbed, and to which optima their starts came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from emjax.plot.style import GREY, INK, PALE, VERMILLION, colors, grid, label, panel, styled
from emjax.run.restarts import Restarts
from emjax.run.result import EMResult
from emjax.run.state import has_failed, has_settled


@styled
def objective(*fits_or_results: Any, gap: bool = False, ax: Any = None) -> Axes:
    """Draw the objective of each step in nats, of one run or several; return the axes.

    Each a `Fit` or an `EMResult`, or one dictionary of them, {what each is called: fit}. Dots are
    where the starts of restarts ended, crosses those that failed or are degenerate. `gap`: on a
    logarithmic scale, what is left to the highest objective of all. `ax`: the axes to draw on.
    Errors: `ValueError` for what is no result.
    """
    runs = _named(fits_or_results)
    ax = panel(ax, 6.0, 3.6)
    best = max(float(np.nanmax(run.objective)) for run in runs.values())
    for color, (name, run) in zip(colors(len(runs)), runs.items(), strict=True):
        heights = np.asarray(run.objective, float)
        heights = _gaps(heights, best) if gap else heights
        named = {"label": name} if len(runs) > 1 else {}
        ax.plot(heights, color=color, marker=".", markersize=4, **named)
        if run.restarts is not None:
            _draw_starts(ax, run.restarts, color, best if gap else None)
    ax.set(xlabel="EM steps", ylabel=_axis_label(runs, gap))
    if gap:
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    has_starts = any(run.restarts is not None for run in runs.values())
    if len(runs) > 1 or has_starts:
        ax.legend(loc="upper right" if gap else "lower right")
    grid(ax)
    return ax


def _named(given: tuple[Any, ...]) -> dict[str, EMResult]:
    """Return the runs by what they are called."""
    runs = {}
    if len(given) == 1 and isinstance(given[0], Mapping):
        runs = {str(name): run for name, run in given[0].items()}
    else:
        runs = {f"run {number}": run for number, run in enumerate(given, 1)}
    if not runs or not all(isinstance(run, EMResult) for run in runs.values()):
        raise ValueError(
            "emjax.plot.objective draws what em.run(rng_key, ...) returns, one or several: "
            "objective(fit, other), or objective({'one': fit, 'another': other})."
        )
    return runs


def _gaps(heights: np.ndarray, best: float) -> np.ndarray:
    """Return what is left to the best; NaN where that is nothing, which no logarithm shows."""
    left = best - heights
    return np.where(left > 0, left, np.nan)


def _axis_label(runs: Mapping[str, EMResult], gap: bool) -> str:
    is_likelihood = all(
        np.isclose(float(run.log_likelihood), float(np.asarray(run.objective)[-1]))
        for run in runs.values()
    )
    what = "log-likelihood" if is_likelihood else "objective"
    return f"{what} below the best (nats)" if gap else f"{what} (nats)"


def _draw_starts(ax: Axes, restarts: Restarts, color: str, best: float | None) -> None:
    """Draw where each start ended: how many steps it took, and how high it came."""
    heights, steps = np.asarray(restarts.objective, float), np.asarray(restarts.num_steps)
    if best is not None:
        heights = _gaps(heights, best)
    is_bad = np.asarray(restarts.degenerate | has_failed(restarts.status))
    is_settled = ~is_bad & np.asarray(has_settled(restarts.status))
    shown = np.isfinite(heights)
    dots = {"s": 22, "alpha": 0.7, "linewidths": 0.9, "zorder": 3}
    named = {each.get_label() for each in ax.collections}
    for chosen, name, style in (
        (is_settled, "a start's end", {"marker": "o", "color": color}),
        (
            ~is_settled & ~is_bad,
            "not converged",
            {"marker": "o", "facecolors": "white", "edgecolors": color},
        ),
        (is_bad, "failed or degenerate", {"marker": "x", "color": GREY}),
    ):
        at = chosen & shown
        if at.any():
            label = None if name in named else name
            ax.scatter(steps[at], heights[at], label=label, **dots | style)


@styled
def optima(fit: Any, ax: Any = None) -> Axes:
    """Draw the distinct optima that the starts of a fit came to, and how often; return the axes.

    A bar for each: how many starts came there, at its objective below the best in nats. Degenerate
    ones, whose height says nothing, are one bar apart. `fit`: a `Fit`, an `EMResult` or their
    `Restarts`; `ax`: the axes to draw on. Errors: `ValueError` for a run of one start.
    """
    restarts = fit if isinstance(fit, Restarts) else getattr(fit, "restarts", None)
    if not isinstance(restarts, Restarts):
        raise ValueError(
            "emjax.plot.optima draws where several starts came to, and this run had one: "
            "EM(program, num_restarts=20).run(rng_key, ...)."
        )
    found = restarts.optima()
    if not found:
        raise ValueError("No start has converged: raise max_steps, EM(program, max_steps=...).")
    ax = panel(ax, 6.0, max(1.6, 0.6 + 0.3 * min(len(found), 20)))
    total, names = len(restarts.objective), []
    best = found[0].objective
    for row, each in enumerate(found):
        number = len(each.starts)
        color = PALE if each.degenerate else colors(2)[0]
        hatch = {"hatch": "///", "edgecolor": VERMILLION} if each.degenerate else {}
        ax.barh(row, number, color=color, height=0.7, linewidth=0, **hatch)
        label(ax, number + 0.01 * total, row, f"{number}", va="center")
        names.append(_height(each.objective, best, row, each.degenerate))
    ax.set_yticks(range(len(found)), names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel=f"starts, of {total}", ylabel="best, and below it (nats)", xlim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    others = total - sum(len(each.starts) for each in found)
    if others:
        ax.set_title(f"{others} of {total} starts came to none", color=GREY, fontsize=8.5)
    ax.spines["left"].set_color(INK)
    return ax


def _height(value: float, best: float, row: int, is_degenerate: bool) -> str:
    """Return what an optimum is called: its height, or how much lower than the best it is."""
    if is_degenerate:
        return "degenerate"
    if row == 0:
        return f"{value:.2f}".replace("-", "−")
    return f"−{best - value:.3g}"
