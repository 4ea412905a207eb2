"""The tables: how fast draws come, and that they are of the same posterior."""

from collections.abc import Sequence

from experiments import report
from experiments.marginalized.sampling import Compared


def print_speeds(compared: Sequence[Compared]) -> None:
    """Print times, effective draws per second, and their ratios."""
    report.heading("NUTS on the program that NumPyro enumerates, and on emjax.marginalized")
    rows = []
    for case in compared:
        for name, draws in case.draws.items():
            micros = 1e6 * draws.seconds / draws.num_steps
            speeds = f"{draws.first:.1f}", f"{micros:.1f}", f"{draws.per_second:.3g}"
            rows.append([case.case.name, name, *speeds])
        first = case.ratio(lambda draws: 1 / draws.first)
        step = case.ratio(lambda draws: draws.num_steps / draws.seconds)
        speed = case.ratio(lambda draws: draws.per_second)
        rows.append([case.case.name, "times as fast", *(f"{r:.2f}" for r in (first, step, speed))])
    columns = ["program", "summed out by", "first draws (s)", "gradient (µs)", "effective draws/s"]
    report.table(columns, rows, "Seconds of CPU; of the entry with the fewest effective draws.")


def print_posteriors(compared: Sequence[Compared]) -> None:
    """Print how far posterior means are apart, in Monte Carlo standard errors."""
    rows = []
    for case in compared:
        entries = len(next(iter(case.draws.values())).means)
        rows.append([case.case.name, entries, f"{case.distance:.1f}"])
    report.table(
        ["program", "entries", "largest difference (MCSE)"],
        rows,
        "Posterior means by both ways: of so many normal differences the largest is 2 to 4.",
    )
