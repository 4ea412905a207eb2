"""What is printed while the benchmarks run."""

from experiments import report
from experiments.benchmarks import verdicts
from experiments.benchmarks.contestant import DIFFERENT, remark
from experiments.benchmarks.measure import Measurement
from experiments.benchmarks.row import Row
from experiments.benchmarks.rows import described

COLUMNS = [
    "implementation",
    "precision",
    "s / step",
    "quartiles",
    "its time / emjax's",
    "compile, s",
    "memory, MB",
    "Δ log-likelihood",
]


def print_row(row: Row, measurements: list[Measurement]) -> None:
    """Print the measurements of a row, what became of its goals, and the notes."""
    report.heading(f"{row.name}: {row.title}, {described(row.sizes)}")
    report.table(COLUMNS, [cells(measurements, m) for m in measurements])
    for verdict in verdicts.verdicts(row, measurements):
        print(f"  {verdict.sentence}")
    for note in notes(row, measurements):
        print(f"  {note}")


def cells(measurements: list[Measurement], m: Measurement) -> list[str]:
    """Return one line of the table."""
    numbers = [verdicts.time(m.seconds), "–".join(verdicts.time(q) for q in m.spread)]
    relative = verdicts.numeral(
        verdicts.ratio(measurements, "emjax", m.implementation, m.precision)
    )
    compiling = f"{m.compiling:.2f}" if m.compiling == m.compiling else "–"
    memory = f"{m.memory / 1e6:.0f}" if m.memory == m.memory else "–"
    return [
        m.implementation,
        m.precision,
        *numbers,
        relative,
        compiling,
        memory,
        verdicts.agreement(measurements, m),
    ]


def notes(row: Row, measurements: list[Measurement]) -> list[str]:
    """Return what a reader must know of these implementations."""
    lines = [
        f"{m.implementation} {verdicts.SHORT[m.precision]}: {m.problem}"
        for m in measurements
        if m.problem
    ]
    for name in dict.fromkeys(m.implementation for m in measurements):
        lines += [
            f"{name}: {text}" for text in (DIFFERENT.get(name), remark(name, row.model)) if text
        ]
    return lines
