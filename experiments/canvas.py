"""How the figures look: one style, one header, one palette, and no global state.

Figures are made without pyplot, so nothing is left open and no backend is chosen for the caller.
"""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

# Okabe & Ito (2008): told apart under every common color blindness. In this order neighbors differ
# most.
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
ORANGE = "#E69F00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
INK = "#222222"
GREY = "#767676"
PALE = "#D9D9D9"
PROBABILITY = "cividis"  # the same to every eye, and in print

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
    "figure.facecolor": "white",
    "savefig.dpi": 160,
}


@contextmanager
def figure(
    path: Path, finding: str, explanation: str, width: float = 9.0, height: float = 4.0
) -> Iterator[Figure]:
    """Give a figure to draw on, under a header; save it to `path` at the end.

    `finding` is what the figure shows, in a sentence; `explanation` is what one sees. `width` and
    `height` are those of the drawing, in inches; the header comes on top.
    """
    title, text = wrapped(finding, 8.7 * width), wrapped(explanation, 14.4 * width)
    header = 0.16 + 0.235 * len(title) + 0.165 * len(text) + 0.12
    total = height + header
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(width, total))
        drawing.text(
            0.12 / width,
            1 - 0.12 / total,
            "\n".join(title),
            va="top",
            size=13,
            weight="bold",
            linespacing=1.25,
        )
        drawing.text(
            0.12 / width,
            1 - (0.16 + 0.235 * len(title)) / total,
            "\n".join(text),
            va="top",
            color=GREY,
            linespacing=1.3,
        )
        margin = 0.08
        drawing.set_layout_engine(
            "constrained",
            rect=(
                margin / width,
                margin / total,
                1 - 2 * margin / width,
                (height - margin) / total,
            ),
        )
        yield drawing
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path)
    print(f"  figure: {path}")


def wrapped(text: str, columns: float) -> list[str]:
    """Return the lines of a text, wrapped at so many columns.

    Line breaks in the source do not matter.
    """
    return textwrap.wrap(" ".join(text.split()), int(columns))


def label(axes: Axes, x: float, y: float, text: str, color: str = INK, **style) -> None:
    """Write beside the data what it is, with a white rim that keeps it legible on lines."""
    rim = [withStroke(linewidth=2.5, foreground="white")]
    axes.text(
        x,
        y,
        text,
        **{"color": color, "fontsize": 8.5, "weight": "bold", "path_effects": rim, "zorder": 9}
        | style,
    )


def bare(axes: Axes) -> None:
    """Take the frame and ticks off axes that show a picture."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Draw pale lines behind the data."""
    axes.grid(axis=axis, color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
