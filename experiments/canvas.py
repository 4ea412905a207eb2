"""How the figures look: the style of emjax.plot, one header, and no global state.

Figures are made without pyplot, so nothing is left open and no backend is chosen for the caller.
"""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emjax.plot import style as of_plot
from emjax.plot.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PALETTE, PURPLE, SKY, VERMILLION

__all__ = [
    "BLUE", "GREEN", "GREY", "INK", "ORANGE", "PALE", "PALETTE", "PURPLE", "SKY", "VERMILLION",
    "bare", "figure", "label", "light_grid",
]  # fmt: skip
PROBABILITY = "cividis"  # of pictures: zero is a color, not the page
STYLE = {**of_plot.STYLE, "savefig.dpi": 160}

# The header, in inches: from the corner to the title, from the top to the first line of text if
# there were no title, and the height of a line of each.
EDGE = 0.12
ABOVE_TEXT = 0.16
TITLE_LINE = 0.235
TEXT_LINE = 0.165
# How many characters an inch holds, in 13 points bold and in 9.5 points.
TITLE_COLUMNS = 8.7
TEXT_COLUMNS = 13.8
MARGIN = 0.08  # inches around the drawing


@contextmanager
def figure(
    path: Path, finding: str, explanation: str, width: float = 9.0, height: float = 4.0
) -> Iterator[Figure]:
    """Give a figure to draw on, under a header; save it to `path` at the end.

    `finding` is what the figure shows, in a sentence; `explanation` is what one sees. `width` and
    `height` are those of the drawing, in inches; the header comes on top.
    """
    title = wrapped(finding, TITLE_COLUMNS * width)
    text = wrapped(explanation, TEXT_COLUMNS * width)
    text_top = ABOVE_TEXT + TITLE_LINE * len(title)
    total = height + text_top + TEXT_LINE * len(text) + EDGE
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(width, total))
        left, bold = EDGE / width, {"size": 13, "weight": "bold", "linespacing": 1.25}
        drawing.text(left, 1 - EDGE / total, "\n".join(title), va="top", **bold)
        pale = {"color": GREY, "linespacing": 1.3}
        drawing.text(left, 1 - text_top / total, "\n".join(text), va="top", **pale)
        corner = MARGIN / width, MARGIN / total
        size = 1 - 2 * MARGIN / width, (height - MARGIN) / total
        drawing.set_layout_engine("constrained", rect=(*corner, *size))
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
    """Write beside the data what it is, in bold, with a rim that keeps it legible on lines."""
    of_plot.label(axes, x, y, text, color, **{"weight": "bold"} | style)


def bare(axes: Axes) -> None:
    """Take the frame and ticks off axes that show a picture."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Draw pale lines behind the data."""
    of_plot.grid(axes, axis)
