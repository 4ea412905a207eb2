"""The page docs/latency.md, from what was measured in this run and nothing else."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.benchmarks import machine
from experiments.benchmarks.latency.measure import Latencies, Latency
from experiments.benchmarks.latency.rows import TABLE, Work
from experiments.benchmarks.page import filled, markdown
from experiments.benchmarks.verdicts import numeral, time

PACKAGES = ("emjax", "jax", "numpyro", "numpy", "scipy", "scikit-learn", "hmmlearn")
COLUMNS = ["work", "emjax, s", "XLA compilations", "library, s", "emjax / library"]
PAGE = """# How long until the answer is there?

Seconds from data to answer, compilation included: what is asked of a process that has imported
what it needs, and done nothing else. This page is written by a program, from one run on one
machine:

```bash
pip install ".[benchmarks]"
{command}
```

Each line is measured in a process of its own, without a cache on disk unless it says so; reported
are medians over {num_processes} processes. Where a line names several calls, one process answers
them in this order. What a line presupposes (a fit, before `posterior` is asked for) is done before
the clock starts. Everything is in double precision. How long a step takes is on
[another page](benchmarks.md), and what is compiled when in [How emjax works](design.md).

**Machine.** {processor}; {memory} of memory.<br>
**Versions.** {versions}.

{table}
{notes}"""
NOTES = (
    "Above 1 in the last column, emjax takes longer.",
    "A compilation is a function that XLA compiled and that was not found in a cache; placing a "
    "constant counts as one.",
    "scikit-learn and hmmlearn start, and stop, by their own rules: a fit is not the same number "
    "of steps as emjax's.",
)


def write(
    path: Path, works: Sequence[Work], latencies: Sequence[Latencies], num_processes: int
) -> None:
    """Write the page."""
    command = "python -m experiments.benchmarks.latency"
    if len(works) < len(TABLE):
        command += f" --only {' '.join(work.name for work in works)}"
    page = PAGE.format(
        command=f"{command} --processes {num_processes} --write",
        num_processes=num_processes,
        processor=machine.processor(),
        memory=machine.memory(),
        versions=machine.versions(PACKAGES),
        table=table(works, latencies),
        notes="\n".join(f"- {note}" for note in (*NOTES, *problems(works, latencies))) + "\n",
    )
    path.write_text(filled(page), encoding="utf-8")


def table(works: Sequence[Work], latencies: Sequence[Latencies]) -> str:
    """Return a line for each piece of work; several calls are separated by commas."""
    lines = [cells(*pair) for pair in zip(works, latencies, strict=True)]
    return markdown(COLUMNS, lines, numeric=len(COLUMNS) - 1)


def cells(work: Work, latencies: Latencies) -> list[str]:
    """Return one line of the table."""
    ours, theirs = latencies["emjax"], latencies.get(work.peer, Latency())
    pairs = zip(ours.seconds, theirs.seconds, strict=False)
    library = f"{work.peer} {listed(map(time, theirs.seconds))}" if theirs.seconds else "–"
    return [
        work.title,
        listed(map(time, ours.seconds)),
        listed(map(str, ours.compilations)),
        library,
        listed(numeral(mine / other) for mine, other in pairs),
    ]


def listed(numbers: Iterable[str]) -> str:
    """Return the numbers of several calls; a dash stands for none."""
    return ", ".join(numbers) or "–"


def problems(works: Sequence[Work], latencies: Sequence[Latencies]) -> list[str]:
    """Return why numbers are missing."""
    lines = []
    for work, of_work in zip(works, latencies, strict=True):
        for implementation, latency in of_work.items():
            if latency.problem:
                lines.append(f"{work.name}, {implementation}: {latency.problem}")
    return lines
