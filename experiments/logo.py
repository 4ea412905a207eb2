"""Sequence logos: a column of letters for each place, as high as its information in bits.

Source: Schneider & Stephens (1990), "Sequence logos: a new way to display consensus sequences",
Nucleic Acids Research 18, without their correction for small samples.
"""

from functools import cache

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from experiments import canvas

COLORS = {"A": canvas.GREEN, "C": canvas.BLUE, "G": canvas.ORANGE, "T": canvas.VERMILLION}
LETTER_WIDTH = 0.94  # of a column, so that letters side by side do not touch


def information(probs: Float[np.ndarray, "column letter=4"]) -> Float[np.ndarray, "column"]:
    """Return 2 + Σ p log₂ p in bits: 2 where the letter is certain, 0 where all four are equally
    probable.
    """
    return 2 + (probs * np.log2(np.where(probs > 0, probs, 1))).sum(axis=1)


def draw_logo(axes: Axes, probs: Float[np.ndarray, "column letter=4"], first: int = 0) -> None:
    """Draw the columns at `first`, `first` + 1, …; a letter is p times the information high, the
    commonest on top.
    """
    for place, (column, bits) in enumerate(zip(probs, information(probs), strict=True), first):
        bottom = 0.0
        for index in np.argsort(column):
            letter, height = "ACGT"[index], column[index] * bits
            shape = (
                Affine2D().scale(LETTER_WIDTH, height).translate(place - LETTER_WIDTH / 2, bottom)
            )
            axes.add_patch(
                PathPatch(
                    glyph(letter),
                    color=COLORS[letter],
                    linewidth=0,
                    transform=shape + axes.transData,
                )
            )
            bottom += height


@cache
def glyph(letter: str) -> Path:
    """Return the outline of a letter, stretched to fill the unit square."""
    outline = TextPath(
        (0, 0), letter, size=10, prop=FontProperties(family="DejaVu Sans", weight="bold")
    )
    box = outline.get_extents()
    return outline.transformed(
        Affine2D().translate(-box.x0, -box.y0).scale(1 / box.width, 1 / box.height)
    )
