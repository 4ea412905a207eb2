"""The figure: effective draws per second, by both ways."""

from collections.abc import Sequence
from pathlib import Path

from experiments import canvas
from experiments.marginalized.sampling import ENUMERATED, MARGINALIZED, Compared

COLORS = {ENUMERATED: canvas.GREY, MARGINALIZED: canvas.BLUE}


def draw_speeds(file: Path, compared: Sequence[Compared]) -> None:
    """Draw a point for each way, on a logarithmic axis, and their ratio beside them."""
    ratios = [case.ratio(lambda draws: draws.per_second) for case in compared]
    with canvas.figure(
        file,
        f"NUTS draws {min(ratios):.1f} to {max(ratios):.1f} times as fast"
        if len(ratios) > 1
        else f"NUTS draws {ratios[0]:.1f} times as fast",
        """Effective draws per second of CPU, of the parameter that has the fewest: on the program
        that NumPyro enumerates (gray), and on emjax.marginalized (blue), and how many times as fast
        the second is.""",
        height=0.4 * len(compared) + 0.8,
    ) as drawing:
        axes = drawing.subplots()
        for row, (case, ratio) in enumerate(zip(compared, ratios, strict=True)):
            speeds = {name: draws.per_second for name, draws in case.draws.items()}
            axes.plot(list(speeds.values()), [row, row], color=canvas.PALE, linewidth=4, zorder=1)
            for name, speed in speeds.items():
                axes.plot(speed, row, "o", color=COLORS[name], markersize=8)
            canvas.label(axes, 1.4 * max(speeds.values()), row, f"× {ratio:.1f}", va="center")
        fastest = max(draws.per_second for case in compared for draws in case.draws.values())
        axes.set(
            xscale="log", xlabel="effective draws per second", ylim=(-0.6, len(compared) - 0.4)
        )
        axes.set_xlim(right=6 * fastest)
        axes.set_yticks(range(len(compared)), [case.case.name for case in compared])
        axes.invert_yaxis()
        canvas.light_grid(axes, "x")
