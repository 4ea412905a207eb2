"""What is printed while the benchmarks run."""

from collections.abc import Mapping, Sequence

from experiments import report
from experiments.benchmarks import verdicts
from experiments.benchmarks.contestant import DIFFERENT, remark
from experiments.benchmarks.limits import Rates
from experiments.benchmarks.measure import Measurement
from experiments.benchmarks.row import Row
from experiments.benchmarks.rows import described

COLUMNS = [
    "implementation",
    "precision",
    "s / step",
    "quartiles",
    "its time / emjax's",
    "its time / the limit",
    "compile, s",
    "memory, MB",
    "Δ log-likelihood",
]


def print_row(
    row: Row,
    measurements: Sequence[Measurement],
    rates: Mapping[str, Rates] = verdicts.NO_RATES,
    with_goals: bool = True,
) -> None:
    """Print the measurements of a row, what became of its goals, and the notes."""
    report.heading(f"{row.name}: {row.title}, {described(row.sizes)}")
    report.table(COLUMNS, [cells(row, measurements, m, rates) for m in measurements])
    for verdict in verdicts.verdicts(row, measurements, rates) if with_goals else ():
        print(f"  {verdict.sentence}")
    for note in notes(row, measurements, rates):
        print(f"  {note}")


def cells(
    row: Row, measurements: Sequence[Measurement], m: Measurement, rates: Mapping[str, Rates]
) -> list[str]:
    """Return one line of the table."""
    spread = list(dict.fromkeys(verdicts.time(q) for q in m.spread))
    relative = verdicts.ratio(measurements, "emjax", m.implementation, m.precision)
    compiling = f"{m.compiling:.2f}" if m.compiling == m.compiling else "–"
    memory = f"{m.memory / 1e6:.0f}" if m.memory == m.memory else "–"
    return [
        m.implementation,
        m.precision,
        verdicts.time(m.seconds),
        "–".join(spread),
        verdicts.numeral(relative),
        verdicts.numeral(verdicts.times_the_limit(row, m, rates)),
        compiling,
        memory,
        verdicts.agreement(measurements, m),
    ]


def notes(
    row: Row, measurements: Sequence[Measurement], rates: Mapping[str, Rates] = verdicts.NO_RATES
) -> list[str]:
    """Return what a reader must know of this row and of these implementations."""
    lines = [row.note] if row.note else []
    if least := least_times(row, measurements, rates):
        lines.append(f"the limit: {least}")
    lines += [
        f"{m.implementation} {verdicts.SHORT[m.precision]}: {m.problem}"
        for m in measurements
        if m.problem
    ]
    for name in dict.fromkeys(m.implementation for m in measurements):
        lines += [
            f"{name}: {text}" for text in (DIFFERENT.get(name), remark(name, row.model)) if text
        ]
    return lines


def least_times(row: Row, measurements: Sequence[Measurement], rates: Mapping[str, Rates]) -> str:
    """Return the least time of a step in each precision, and what binds."""
    parts = []
    for precision in dict.fromkeys(m.precision for m in measurements):
        if least := verdicts.bound_of(row, rates, precision):
            name = verdicts.SHORT[precision]
            parts.append(f"{name} {verdicts.time(least.seconds)} s, {least.what}")
    return "; ".join(parts)
