"""What was measured, kept as JSON as it comes: `--keep FOLDER`, and read again: `--from FOLDER`.

A row that is measured once more replaces what was kept of it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks import machine
from experiments.benchmarks.limits import Rates, faster
from experiments.benchmarks.measure import Measurement
from experiments.benchmarks.row import Row
from experiments.benchmarks.rows import ROWS

FACTS = "machine.json"
Results = list[tuple[Row, list[Measurement]]]


class Facts(NamedTuple):
    """What the numbers are from.

    - `processor`, `memory`, `versions`: in words.
    - `options`: of the command that measured, beside its rows and folders.
    - `rates`: what the machine can do in a second, by precision.
    """

    processor: str
    memory: str
    versions: str
    options: str
    rates: dict[str, Rates]


def facts(options: str) -> Facts:
    """Return the facts of this machine, but for its rates, which are to be measured."""
    return Facts(machine.processor(), machine.memory(), machine.versions(), options, {})


def keep_facts(folder: Path, found: Facts) -> Facts:
    """Write the facts; return them with the highest rates that were ever kept here."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FACTS
    if path.exists():
        before = read_facts(folder)
        if before.processor == found.processor:
            found = found._replace(rates=faster(before.rates, found.rates))
    rates = {name: values._asdict() for name, values in found.rates.items()}
    path.write_text(json.dumps(found._asdict() | {"rates": rates}, indent=1), encoding="utf-8")
    return found


def read_facts(folder: Path) -> Facts:
    """Return the facts that were kept."""
    found = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    rates = {name: Rates(**values) for name, values in found.pop("rates").items()}
    return Facts(**found, rates=rates)


def keep(folder: Path, row: Row, measurements: Sequence[Measurement]) -> None:
    """Write the measurements of a row, and its sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"sizes": row.sizes, "measurements": [m._asdict() for m in measurements]}
    (folder / f"{row.name}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def read(folder: Path) -> Results:
    """Return all rows that were kept, in the order in which the command line lists them."""
    results = []
    for name, row in ROWS.items():
        path = folder / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            measurements = [measurement(**values) for values in found["measurements"]]
            results.append((row._replace(sizes=found["sizes"]), measurements))
    return results


def is_small(results: Results) -> bool:
    """Say whether a row was measured at other sizes than those of the table: a quick run."""
    return any(row.sizes != ROWS[row.name].sizes for row, _ in results)


def measurement(spread: Sequence[float], **values) -> Measurement:
    """Return a measurement whose pair of quartiles was a list."""
    low, high = spread
    return Measurement(spread=(low, high), **values)
