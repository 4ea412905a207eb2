"""What information criteria and cross-validation say of several models."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from emjax.plot.style import colors, grid, label, panels, styled
from emjax.refits.model_choice import CRITERIA, ONE_STANDARD_ERROR, SHOWN, Choice

# up to here the axis is linear, beyond it logarithmic: a candidate that is hopeless must not hide
# how close the others are; a difference of 10 is decisive for every criterion
LINEAR = 10.0
SHOWN_BY_DEFAULT = (*SHOWN, "CV")


@styled
def criteria(choice: Any, names: Any = None, ax: Any = None) -> np.ndarray:
    """Draw each criterion of each candidate, less its smallest; return the axes, one each.

    `choice`: what `emjax.choose` returns. A panel for each criterion, one y axis for all: by how
    much each candidate is above the lowest, which is the best and filled; linear up to 10,
    logarithmic beyond. CV is −2 × the held-out log-likelihood; a ring is around the candidate of
    the fewest parameters within one standard error of the best. `names`: which criteria, of those
    of `Choice.chosen`; default: AIC, BIC, ICL and CV, those that there are. `ax`: as many axes to
    draw on. Errors: `ValueError` for what is no choice, and for a criterion that no candidate has.
    """
    if not isinstance(choice, Choice):
        raise ValueError(
            "emjax.plot.criteria draws what emjax.choose(rng_key, candidates, ...) returns, and "
            f"not {type(choice).__name__}."
        )
    labels = list(choice.candidates)
    names = _names(choice, names)
    across = panels(ax, 1, len(names), 2.3, 2.8, sharey=True)[0]
    for panel, name, color in zip(across, names, colors(max(len(names), 1)), strict=True):
        _draw_criterion(panel, choice, name, labels, color)
    across[0].set_ylabel("above the lowest")
    top = max(float(np.nanmax(each.lines[0].get_ydata())) for each in across)
    if top > 4 * LINEAR:
        across[0].set_yscale("symlog", linthresh=LINEAR, linscale=1.5)
        across[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        across[0].set_ylim(-0.2 * LINEAR, 1.5 * top)
    return across


def _names(choice: Choice, names: Any) -> list[str]:
    """Return the criteria that are drawn."""
    available = [name for name in CRITERIA if name in choice.chosen]
    wanted = [name for name in SHOWN_BY_DEFAULT if name in available] if names is None else names
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [name for name in wanted if name not in available]
    if unknown or not wanted:
        raise ValueError(
            f"No candidate has {', '.join(unknown) or 'a criterion'}; there are {available}. "
            "Cross-validation is asked for by emjax.choose(..., num_folds=5)."
        )
    return wanted


def _draw_criterion(ax: Axes, choice: Choice, name: str, labels: list[Any], color: str) -> None:
    """Draw one criterion of all candidates."""
    losses = [choice.candidates[one].losses.get(name, np.nan) for one in labels]
    worse = np.array(losses) - losses[labels.index(choice.chosen[name])]
    places = np.arange(len(labels))
    ax.plot(places, worse, color=color, marker="o", markerfacecolor="white", markersize=5)
    best = labels.index(choice.chosen[name])
    ax.plot(best, worse[best], "o", color=color, markersize=8)
    label(ax, best, worse[best], f"{labels[best]}\n", ha="center", va="bottom", weight="bold")
    ax.set_xticks(places, list(map(str, labels)))
    ax.set_title(name, color=color, weight="bold")
    simplest = choice.chosen.get(ONE_STANDARD_ERROR) if name == "CV" else None
    if simplest is not None and labels.index(simplest) != best:
        ring = {"markerfacecolor": "none", "markeredgecolor": color, "markersize": 12}
        ax.plot(labels.index(simplest), worse[labels.index(simplest)], "o", **ring)
    ax.set_xlabel("candidate")
    grid(ax)
