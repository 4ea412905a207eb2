"""The figure: data sets × starts, how many fits come to the best optimum, and what one costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments import canvas
from experiments.starts.ends import DEFAULT, DEFAULT_TEN, STARTS, Ends
from experiments.starts.tables import Measured, columns, share

DARK = 0.55  # below this share a cell of cividis is dark, and its text white


def draw_shares(path: Path, measured: Mapping[str, Measured], best: Mapping[str, float]) -> None:
    """Draw a heat map for each precision, side by side."""
    widths = [len(columns(of_precision)) for of_precision in measured.values()]
    names = list(next(iter(measured.values())))
    with canvas.figure(
        path,
        finding(measured, best),
        """Share of fits that come to the best known optimum, by data set and start, and the median
        milliseconds of a fit, compilation left out. The default is EM(program); libraries run with
        their defaults, to convergence. Empty: the start does not serve the program.
        """,
        width=max(7.5, 2.2 + 0.62 * sum(widths)),
        height=0.8 + 0.37 * len(names),
    ) as figure:
        panels = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        for axes, (precision, of_precision) in zip(panels, measured.items(), strict=True):
            draw_cells(axes, of_precision, best, names)
            axes.set_title(f"{precision} precision")
        for axes in panels[1:]:
            axes.set_yticklabels([])


def finding(measured: Mapping[str, Measured], best: Mapping[str, float]) -> str:
    """Return what the figure shows, in a sentence."""
    of_data = next(iter(measured.values()))
    shares = {
        start: [share(ends[start], best[name]) for name, ends in of_data.items()]
        for start in (DEFAULT, DEFAULT_TEN)
    }
    one, ten = (f"{np.mean(values):.0%}" for values in shares.values())
    return (
        f"emjax's default comes to the best known optimum in {one} of fits, with 10 starts in {ten}"
    )


def draw_cells(
    axes: Axes, measured: Measured, best: Mapping[str, float], names: Sequence[str]
) -> None:
    """Draw a cell for each data set and start."""
    starts = columns(measured)
    for row, name in enumerate(names):
        for column, start in enumerate(starts):
            if start in measured.get(name, {}):
                draw_cell(axes, row, column, measured[name][start], best[name])
    num_ours = sum(start in STARTS for start in starts)
    for edge in (num_ours - 0.5, starts.index(DEFAULT) - 0.5):
        axes.axvline(edge, color="white", linewidth=5)
    axes.set(
        xlim=(-0.5, len(starts) - 0.5),
        ylim=(len(names) - 0.5, -0.5),
        yticks=range(len(names)),
        yticklabels=names,
        xticks=range(len(starts)),
    )
    axes.set_xticklabels(starts, rotation=35, ha="right", rotation_mode="anchor")
    for column, start in enumerate(starts):
        if start in (DEFAULT, DEFAULT_TEN):
            axes.get_xticklabels()[column].set_fontweight("bold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_cell(axes: Axes, row: int, column: int, ends: Ends, best: float) -> None:
    """Draw a share as a color, with its number, and the milliseconds of a fit below."""
    value = share(ends, best)
    axes.imshow(
        [[value]],
        extent=(column - 0.48, column + 0.48, row + 0.46, row - 0.46),
        cmap=canvas.PROBABILITY,
        vmin=0,
        vmax=1,
        aspect="auto",
    )
    ink = "white" if value < DARK else canvas.INK
    cost = 1000 * np.median(ends.seconds)
    axes.text(column, row - 0.12, f"{value:.0%}", ha="center", va="center", color=ink, fontsize=8.5)
    axes.text(
        column, row + 0.25, f"{cost:,.0f} ms", ha="center", va="center", color=ink, fontsize=6
    )
