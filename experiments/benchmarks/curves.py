"""Draw seconds for a step against N, K and D: `python -m experiments.benchmarks.curves`."""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments import canvas
from experiments.benchmarks.measure import ROOT, Effort, measure
from experiments.benchmarks.row import F64, Row

CENTER = {"num_samples": 30_000, "num_features": 8, "num_components": 8}
AXES = {
    "num_samples": ("N, points", (3_000, 10_000, 30_000, 100_000, 300_000)),
    "num_components": ("K, components", (2, 4, 8, 16, 32)),
    "num_features": ("D, dimensions", (2, 4, 8, 16, 32, 64)),
}
LINES = {"scikit-learn": canvas.GREY, "hand-written JAX": canvas.ORANGE, "emjax": canvas.BLUE}

Points = dict[tuple[int, int, int], dict[str, float]]  # sizes → implementation → seconds for a step


def measured(quick: bool) -> Points:
    """Return the times at every point of the three lines, each measured once."""
    points: Points = {}
    for name, (_, values) in AXES.items():
        for value in values[:2] if quick else values:
            sizes = CENTER | {name: value}
            key = tuple(sizes.values())
            if key not in points:
                row = Row(
                    "", "", "gaussian_full", sizes, {}, (2, 12), dict.fromkeys(LINES, F64), ()
                )
                points[key] = {m.implementation: m.seconds for m in measure(row, Effort(2, 0.3))}
                print(
                    f"  {sizes}: "
                    + ", ".join(f"{name} {seconds:.4g} s" for name, seconds in points[key].items()),
                    flush=True,
                )
    return points


def line(points: Points, name: str, implementation: str) -> tuple[list[int], list[float]]:
    """Return sizes and seconds along one axis, where timing was above noise."""
    along = [
        (value, points.get(tuple((CENTER | {name: value}).values()), {})) for value in AXES[name][1]
    ]
    kept = [
        (value, times[implementation])
        for value, times in along
        if times.get(implementation, -1) > 0
    ]
    return [value for value, _ in kept], [seconds for _, seconds in kept]


def ratios(points: Points, peer: str) -> np.ndarray:
    """Return time of the peer / time of emjax at every point."""
    values = [times[peer] / times["emjax"] for times in points.values()]
    return np.array([value for value in values if value > 0])


def draw(path: Path, points: Points) -> None:
    """Draw a panel for each of N, K and D."""
    library, by_hand = ratios(points, "scikit-learn"), ratios(points, "hand-written JAX")
    with canvas.figure(
        path,
        f"A step of emjax takes {1 / np.median(by_hand):.2g} × the time of hand-written code; "
        f"scikit-learn's takes {np.median(library):.2g} × that of emjax",
        f"""Full Gaussian mixture, float64, seconds for a step of EM, both axes logarithmic; in each
        panel the other two sizes are N = {CENTER["num_samples"]:,}, K = {CENTER["num_components"]},
        D = {CENTER["num_features"]}. The title gives medians over all points; scikit-learn's range
        is {library.min():.2g} to {library.max():.2g} ×.""",
        width=9.5,
        height=3.3,
    ) as figure:
        for axes, (name, (title, _)) in zip(
            figure.subplots(1, 3, sharey=True), AXES.items(), strict=True
        ):
            draw_panel(axes, points, name)
            axes.set_xlabel(title)
        figure.axes[0].set_ylabel("seconds a step")


def draw_panel(axes: Axes, points: Points, name: str) -> None:
    """Draw the three lines against one size, each with its name at its end in the first panel."""
    axes.set(xscale="log", yscale="log")
    for implementation, color in LINES.items():
        sizes, seconds = line(points, name, implementation)
        axes.plot(sizes, seconds, "o-", color=color, markersize=4, label=implementation)
    if name == "num_samples":
        axes.legend(loc="upper left")
    canvas.light_grid(axes, axis="both")
    _, values = AXES[name]
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.minorticks_off()


def main(argv: list[str] | None = None) -> None:
    """Measure and draw.

    The numbers are kept beside other figures, and `--again` draws from them.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.curves", description=__doc__
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.svg")
    parser.add_argument(
        "--quick", action="store_true", help="two points a line, to see that it works"
    )
    parser.add_argument("--again", action="store_true", help="draw the last measurements again")
    chosen = parser.parse_args(argv)
    kept = ROOT / "figures" / "benchmarks.json"
    if not chosen.again:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps([[key, times] for key, times in measured(chosen.quick).items()]))
    draw(chosen.output, {tuple(key): times for key, times in json.loads(kept.read_text())})


if __name__ == "__main__":
    main()
