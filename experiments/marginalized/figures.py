"""The figure: how many times as fast the marginalized program is."""

from collections.abc import Sequence
from pathlib import Path

from experiments import canvas
from experiments.marginalized.sampling import ENUMERATED, MARGINALIZED, Compared


def draw_speeds(file: Path, compared: Sequence[Compared]) -> None:
    """Draw the ratio of speeds of each program, the largest first, and both speeds beside it."""
    speed_of = [(case.ratio(lambda draws: draws.per_second), case) for case in compared]
    speed_of.sort(key=lambda pair: -pair[0])
    ratios = [ratio for ratio, _ in speed_of]
    span = f"{ratios[-1]:.1f} to {ratios[0]:.1f}" if len(ratios) > 1 else f"{ratios[0]:.1f}"
    with canvas.figure(
        file,
        f"NUTS draws {span} times as fast where emjax sums the latents out",
        """Effective draws per second of CPU, of the parameter that has the fewest: those on
        emjax.marginalized as a multiple of those on the program that NumPyro enumerates, on a
        logarithmic axis. Beside it: both, NumPyro's first.""",
        height=0.36 * len(compared) + 0.8,
    ) as drawing:
        axes = drawing.subplots()
        for row, (ratio, case) in enumerate(speed_of):
            before, after = (case.draws[way].per_second for way in (ENUMERATED, MARGINALIZED))
            axes.plot([1, ratio], [row, row], color=canvas.PALE, linewidth=4, zorder=1)
            axes.plot(ratio, row, "o", color=canvas.BLUE, markersize=8)
            text = f"  × {ratio:.1f}: {shown(before)} → {shown(after)} a second"
            canvas.label(axes, 1.06 * max(ratio, 1), row, text, va="center")
        axes.axvline(1, color=canvas.GREY, linewidth=0.8)
        axes.set(xscale="log", xlabel="times as fast as enumerated by NumPyro")
        axes.set(
            xlim=(0.8 * min(ratios[-1], 1), 6 * max(ratios[0], 1)), ylim=(len(ratios) - 0.4, -0.6)
        )
        ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50) if tick <= 2 * max(ratios[0], 1)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(ratios)), [case.case.name for _, case in speed_of])
        axes.tick_params(axis="y", length=0)
        canvas.light_grid(axes, "x")


def shown(speed: float) -> str:
    """Return a speed with three digits."""
    return f"{float(f'{speed:.3g}'):,.{0 if speed >= 100 else 3}f}"
