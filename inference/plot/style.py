"""One look for all figures: colors, fonts, spines; and where a figure is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.patheffects import withStroke

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

# Okabe & Ito (2008): told apart under every common color blindness. In this order neighbors differ
# most.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"
PROBABILITY = LinearSegmentedColormap.from_list("probability", ["#FFFFFF", "#A9CCE3", "#08456E"])
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#8C3B00", VERMILLION, "#F7F7F7", BLUE, "#00395A"]
)

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "white",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
}


def styled(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Return a function that draws in this style, and leaves matplotlib's settings as they are."""

    @wraps(function)
    def in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        # not rc_context: what the first figure of a notebook sets for those after it has to stay
        settings: Any = matplotlib.rcParams
        before = {name: settings[name] for name in STYLE}
        settings.update(STYLE)
        try:
            return function(*args, **kwargs)
        finally:
            settings.update(before)

    return in_style


def colors(number: int) -> list[str]:
    """Return a color for each of so many values, by their order.

    Beyond six, they are steps of viridis: a scale that every eye sees as one.
    """
    if number <= len(PALETTE):
        return list(PALETTE[:number])
    return [to_hex(matplotlib.colormaps["viridis"](k)) for k in np.linspace(0, 0.95, number)]


def panel(ax: Any, width: float = 6.0, height: float = 4.0) -> Axes:
    """Return the axes to draw on: those that are given, or those of a new figure, in inches.

    Errors: `ValueError` for what are no axes.
    """
    if ax is None:
        return plt.figure(figsize=(width, height), layout="constrained").add_subplot()
    if not isinstance(ax, Axes):
        raise ValueError(
            f"ax takes matplotlib's Axes, one, and not {type(ax).__name__}: "
            "ax=plt.subplots()[1]. Leave it out for a figure of its own."
        )
    _lighten(ax)
    return ax


def panels(
    ax: Any, rows: int, columns: int, width: float = 3.0, height: float = 2.6, **sharing: Any
) -> np.ndarray:
    """Return an array (row, column) of axes: those that are given, or those of a new figure.

    `width`, `height`: of each, in inches; `sharing`: what `plt.subplots` takes. Errors:
    `ValueError` for another number of axes.
    """
    if ax is None:
        figure = plt.figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure.subplots(rows, columns, squeeze=False, **sharing)
    given = np.array(ax, dtype=object)
    if given.size != rows * columns or not all(isinstance(one, Axes) for one in given.flat):
        raise ValueError(
            f"This draws {rows} × {columns} panels, each on matplotlib's Axes: "
            f"ax=plt.subplots({rows}, {columns})[1]. Leave it out for a figure of its own."
        )
    for one in given.flat:
        _lighten(one)
    return given.reshape(rows, columns)


def _lighten(ax: Axes) -> None:
    """Give axes that others made the spines and ticks of this style."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        ax.spines[side].set(color=GREY, linewidth=0.8)
    ax.tick_params(color=GREY, labelcolor=INK, labelsize=8.5, width=0.8)


def grid(ax: Axes, axis: str = "y") -> None:
    """Draw pale lines behind the data."""
    ax.grid(axis=axis, color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)


def bare(ax: Axes) -> None:
    """Take the frame off axes; their tick labels stay."""
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)


def label(ax: Axes, x: Any, y: Any, text: str, color: str = INK, **style: Any) -> Any:
    """Write beside the data what it is, with a white rim that keeps it legible on lines."""
    rim = [withStroke(linewidth=2.5, foreground="white")]
    usual = {"color": color, "fontsize": 8.5, "path_effects": rim, "zorder": 9}
    return ax.text(x, y, text, **usual | style)


def signed(number: float, digits: int = 1) -> str:
    """Return a number with its sign, a true minus."""
    return f"{number:+.{digits}f}".replace("-", "−") if number else "0"


def legible(background: Any) -> str:
    """Return black or white: what is read on a color (red, green, blue), each in [0, 1]."""
    red, green, blue = background[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK


def heat_map(
    ax: Axes, table: np.ndarray, rows: Sequence[Any], columns: Sequence[Any], **shown: Any
) -> Any:
    """Draw a table (row, column) as colored cells with their numbers; return the image.

    `shown`: what `imshow` takes, and `digits` of the numbers.
    """
    digits = shown.pop("digits", 2)
    image = ax.imshow(table, aspect="auto", **shown)
    ax.set_xticks(range(len(columns)), list(map(str, columns)))
    ax.set_yticks(range(len(rows)), list(map(str, rows)))
    bare(ax)
    # numbers in so small cells would be unreadable
    if table.size <= 400:
        for (row, column), number in np.ndenumerate(table):
            color = legible(image.cmap(image.norm(number)))
            written = f"{number:.{digits}f}".replace("-", "−")
            ax.text(column, row, written, ha="center", va="center", fontsize=8, color=color)
    longest = max((len(str(column)) for column in columns), default=0)
    if longest * len(columns) > 60:
        ax.set_xticks(ax.get_xticks(), list(map(str, columns)), rotation=40, ha="right")
    return image
