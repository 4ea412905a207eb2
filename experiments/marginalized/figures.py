"""The figure: effective draws per second, by both ways."""

from collections.abc import Sequence
from pathlib import Path

from experiments import canvas
from experiments.marginalized.sampling import ENUMERATED, MARGINALIZED, Compared

COLORS = {ENUMERATED: canvas.GREY, MARGINALIZED: canvas.BLUE}


def draw_speeds(file: Path, compared: Sequence[Compared]) -> None:
    """Draw a bar for each way, on a logarithmic axis, and the ratio beside it."""
    ratios = [case.ratio(lambda draws: draws.per_second) for case in compared]
    with canvas.figure(
        file,
        f"NUTS draws {min(ratios):.1f} to {max(ratios):.1f} times as fast"
        if len(ratios) > 1
        else f"NUTS draws {ratios[0]:.1f} times as fast",
        """Effective draws per second of CPU, of the parameter that has the fewest: on the program
        that NumPyro enumerates (gray), and on emjax.marginalized (blue).""",
        height=0.9 * len(compared) + 0.8,
    ) as drawing:
        axes = drawing.subplots()
        for row, case in enumerate(compared):
            for offset, (name, draws) in zip((-0.2, 0.2), case.draws.items(), strict=True):
                axes.barh(row + offset, draws.per_second, 0.36, color=COLORS[name])
                text = f" {name}: {draws.per_second:.3g}"
                canvas.label(axes, draws.per_second, row + offset, text)
        axes.set_xscale("log")
        axes.set_xlim(right=10 * max(d.per_second for c in compared for d in c.draws.values()))
        axes.set_yticks(range(len(compared)), [case.case.name for case in compared])
        axes.invert_yaxis()
        axes.set_xlabel("effective draws per second")
