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
    """Return 2 + Σ p log₂ p in bits, (column,).

    It is 2 where the letter is certain, 0 where all four are equally probable.
    """
    return 2 + (probs * np.log2(np.where(probs > 0, probs, 1))).sum(axis=1)


def draw_logo(axes: Axes, probs: Float[np.ndarray, "column letter=4"], first: int = 0) -> None:
    """Draw the columns at `first`, `first` + 1, …, the commonest letter on top.

    A letter is p times the information high.
    """
    for place, (column, bits) in enumerate(zip(probs, information(probs), strict=True), first):
        bottom = 0.0
        for index in np.argsort(column):
            letter, height = "ACGT"[index], column[index] * bits
            scaled = Affine2D().scale(LETTER_WIDTH, height)
            shape = scaled.translate(place - LETTER_WIDTH / 2, bottom) + axes.transData
            patch = PathPatch(glyph(letter), color=COLORS[letter], linewidth=0, transform=shape)
            axes.add_patch(patch)
            bottom += height


@cache
def glyph(letter: str) -> Path:
    """Return the outline of a letter, stretched to fill the unit square."""
    font = FontProperties(family="DejaVu Sans", weight="bold")
    outline = TextPath((0, 0), letter, size=10, prop=font)
    box = outline.get_extents()
    to_origin = Affine2D().translate(-box.x0, -box.y0)
    return outline.transformed(to_origin.scale(1 / box.width, 1 / box.height))
