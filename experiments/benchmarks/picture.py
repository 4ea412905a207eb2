"""The summary picture: libraries and hand-written code beside emjax, row by row."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments import canvas
from experiments.benchmarks import verdicts
from experiments.benchmarks.kept import Results
from experiments.benchmarks.row import FASTEST
from experiments.benchmarks.rows import described

KINDS = {FASTEST: (canvas.BLUE, "o"), "hand-written JAX": (canvas.ORANGE, "D")}
OFFSET = {"float64": 0.16, "float32": -0.16}
TICKS = 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000


def draw(path: Path, results: Results) -> None:
    """Draw a line for each row that somebody else takes part in."""
    rows = [(row, ms) for row, ms in results if any(relative(ms, kind) for kind in KINDS)]
    if not rows:
        return
    libraries = [ratio for _, ms in rows for ratio in relative(ms, FASTEST).values()]
    by_hand = [ratio for _, ms in rows for ratio in relative(ms, "hand-written JAX").values()]
    with canvas.figure(
        path,
        headline(libraries, by_hand),
        """Time of a step / time of emjax's, logarithmic; right of the line emjax is faster. The
        fastest library that does EM on the same likelihood, and code written by hand in JAX for the
        one model; filled in float64, hollow in float32.""",
        width=12.0,
        height=0.5 + 0.36 * len(rows),
    ) as figure:
        axes = figure.subplots()
        for line, (_, measurements) in enumerate(reversed(rows)):
            draw_row(axes, line, measurements)
        axes.axvline(1, color=canvas.INK, linewidth=1, zorder=1)
        axes.set_xscale("log")
        names = [f"{capital(row.title)}: {described(row.sizes)}" for row, _ in reversed(rows)]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        ticks = [tick for tick in TICKS if within(tick, axes)]
        axes.set_xticks(ticks, [f"{tick:,g} ×" for tick in ticks])
        axes.minorticks_off()
        canvas.light_grid(axes, axis="both")
        figure.legend(handles=handles(), loc="outside lower center", ncols=4, fontsize=8)


def relative(measurements: list, kind: str) -> dict[str, float]:
    """Return, by precision, time of this kind / time of emjax, where both were measured."""
    ratios = {
        precision: verdicts.ratio(measurements, "emjax", kind, precision) for precision in OFFSET
    }
    return {precision: ratio for precision, ratio in ratios.items() if ratio > 0}


def capital(title: str) -> str:
    """Return a title that begins a line, "pLSA" as it is."""
    return title if title[1:2].isupper() else title[:1].upper() + title[1:]


def headline(libraries: list[float], by_hand: list[float]) -> str:
    """Return what the picture shows, in a sentence."""
    parts = []
    if libraries:
        ahead = sum(ratio > 1 for ratio in libraries)
        parts.append(
            f"The fastest library is slower than emjax in {ahead} of {len(libraries)} races"
        )
    if by_hand:
        middle = verdicts.numeral(float(np.median(by_hand)))
        parts.append(f"hand-written JAX takes {middle} times as long in the median")
    return "; ".join(parts)


def draw_row(axes: Axes, line: int, measurements: list) -> None:
    """Draw the marks of one row, those of a kind joined by a thin line."""
    for kind, (color, marker) in KINDS.items():
        ratios = relative(measurements, kind)
        heights = [line + OFFSET[precision] for precision in ratios]
        axes.plot(list(ratios.values()), heights, color=color, linewidth=0.8, alpha=0.5, zorder=2)
        for (precision, ratio), height in zip(ratios.items(), heights, strict=True):
            face = color if precision == "float64" else "white"
            axes.plot(ratio, height, marker, color=color, markerfacecolor=face, markersize=5.5)


def within(tick: float, axes: Axes) -> bool:
    """Say whether a tick is within the axes as they are."""
    low, high = axes.get_xlim()
    return low <= tick <= high


def handles() -> list[Line2D]:
    """Return what the legend shows."""
    shown = []
    for kind, (color, marker) in KINDS.items():
        for precision, face in (("float64", color), ("float32", "white")):
            style = {"color": color, "markerfacecolor": face, "markersize": 5.5, "linestyle": ""}
            shown.append(Line2D([], [], marker=marker, label=f"{kind}, {precision}", **style))
    return shown
