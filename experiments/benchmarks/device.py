"""Check and time emjax on an accelerator: `python -m experiments.benchmarks --device [--write]`.

The same few steps run on the processor and on the accelerator, in one process, in both precisions;
parameters must agree. Then the large rows are timed on the accelerator. All of it ends within eight
minutes: what would begin too late is left out. Without an accelerator a small form runs on the
processor alone, where single precision is held against double.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emjax.models import hidden_markov
from experiments import report
from experiments.benchmarks import machine
from experiments.benchmarks.contestant import Run, setup
from experiments.benchmarks.measure import GENERATORS
from experiments.benchmarks.page import markdown, write_device
from experiments.benchmarks.rows import ROWS, described
from experiments.benchmarks.verdicts import time as in_seconds
from experiments.benchmarks.with_emjax import runner

CHECKED_STEPS = 3
AGREES = {"float64": 1e-9, "float32": 1e-3}  # of the largest parameter of an array
SECONDS = 420.0  # no row begins later
REPEATS = 3
COLUMNS = ["row", "data", "precision", "differs by at most", "agrees", "s a step", "compile, s"]


class Case(NamedTuple):
    """A row on the device, and the form of its chains if it has any.

    `precisions`: those that are timed.
    """

    row: str
    chains: str = ""
    precisions: tuple[str, ...] = ("float64", "float32")

    @property
    def name(self) -> str:
        """Return what it is called in the table."""
        return f"{self.row}, {self.chains}" if self.chains else self.row


CASES = (
    Case("full16"),
    Case("full64"),
    Case("diagonal"),
    Case("hmm_categorical", "sequential"),
    Case("hmm_categorical", "parallel"),
    Case("labels10m"),
    Case("factors"),
    Case("points20m", precisions=("float32",)),
)
IN_CI = "full16", "hmm_categorical, parallel", "labels10m", "factors"


class Found(NamedTuple):
    """What became of a case in one precision.

    - `difference`: the largest of a parameter, relative to the largest of its array.
    - `seconds`: of a step; NaN if it was not timed.
    - `compiling`: seconds of the first run less those of the next.
    """

    case: Case
    precision: str
    data: str
    difference: float
    seconds: float = float("nan")
    compiling: float = float("nan")

    @property
    def agrees(self) -> bool:
        """Say whether the difference is what rounding explains."""
        return self.difference <= AGREES[self.precision]

    @property
    def cells(self) -> list[str]:
        """Return its line of the table."""
        return [
            self.case.name,
            self.data,
            self.precision,
            f"{self.difference:.0e}",
            "yes" if self.agrees else "**no**",
            in_seconds(self.seconds),
            in_seconds(self.compiling),
        ]


def prepared(case: Case, sizes: Mapping[str, Any], precision: str, device: jax.Device) -> Run:
    """Return the run of a case whose data are on the device."""
    model = ROWS[case.row].model
    problem = GENERATORS[model](**sizes)
    data, start = (in_precision(arrays, precision) for arrays in problem)
    with jax.default_device(device):
        if case.chains:
            lengths = jnp.full(sizes["num_sequences"], sizes["sequence_length"])
            args = jnp.asarray(data["symbols"]), lengths, sizes["num_states"], sizes["num_symbols"]
            settings = {"chains": case.chains}
            run = runner(hidden_markov.categorical_program, start, *args, settings=settings)
        else:
            run = setup("emjax", model)(data, start, dict(sizes))
    return on(device, run)


def on(device: jax.Device, run: Run) -> Run:
    """Return the run with its work on the device."""

    def there(num_steps: int):
        with jax.default_device(device):
            return run(num_steps)

    return there


def in_precision(arrays: Mapping[str, np.ndarray], precision: str) -> dict[str, np.ndarray]:
    """Return the arrays, floating-point numbers in this precision."""
    return {
        name: values.astype(precision) if values.dtype.kind == "f" else values
        for name, values in arrays.items()
    }


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference of a parameter, relative to the largest of its array."""
    largest = [
        np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max()
        for name in expected
    ]
    return float(max(largest))


def checked(case: Case, precision: str, device: jax.Device, cpu: jax.Device) -> float:
    """Return by how much a few steps on the device differ from those on the processor.

    Sizes are the small ones. On the processor itself, it is from those in double precision.
    """
    row = ROWS[case.row]
    sizes = row.sizes | row.quick
    expected_in = precision if device != cpu else "float64"
    found = prepared(case, sizes, precision, device)(CHECKED_STEPS).params
    expected = prepared(case, sizes, expected_in, cpu)(CHECKED_STEPS).params
    return difference(found, expected)


def timed(case: Case, precision: str, device: jax.Device) -> tuple[float, float]:
    """Return seconds of a step on the device at full size, and of compiling."""
    row = ROWS[case.row]
    run = prepared(case, row.sizes, precision, device)
    short, long = row.steps
    first = seconds_of(run, short)
    run(long)
    pairs = [(seconds_of(run, short), seconds_of(run, long)) for _ in range(REPEATS)]
    steps = [(many - few) / (long - short) for few, many in pairs]
    return float(np.median(steps)), first - min(few for few, _ in pairs)


def seconds_of(run: Run, num_steps: int) -> float:
    """Return the seconds of a run."""
    start = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - start


def accelerator() -> jax.Device | None:
    """Return the first device that is no processor."""
    return next((device for device in jax.devices() if device.platform != "cpu"), None)


def measured() -> tuple[jax.Device, list[Found]]:
    """Return the device, and what was found of every case on it; say so as it comes."""
    cpu, found = jax.devices("cpu")[0], accelerator()
    device, start, results = found or cpu, time.perf_counter(), []
    for case in CASES:
        for precision in case.precisions if found else ("float32",):
            is_late = time.perf_counter() - start > SECONDS
            if is_late or (found is None and case.name not in IN_CI):
                continue
            results.append(measurement(case, precision, device, cpu))
            line = ", ".join(results[-1].cells)
            print(f"  {time.perf_counter() - start:4.0f} s: {line}", flush=True)
    return device, results


def measurement(case: Case, precision: str, device: jax.Device, cpu: jax.Device) -> Found:
    """Return what was found of a case: whether it agrees, and on an accelerator its times."""
    row = ROWS[case.row]
    sizes = row.sizes if device != cpu else row.sizes | row.quick
    found = Found(case, precision, described(sizes), checked(case, precision, device, cpu))
    if device == cpu:
        return found
    seconds, compiling = timed(case, precision, device)
    return found._replace(seconds=seconds, compiling=compiling)


def section(device: jax.Device, results: list[Found]) -> str:
    """Return the section of the page."""
    head = (
        f"## On an accelerator\n\n{device.device_kind}; {machine.versions(('emjax', 'jax'))}. "
        f"{CHECKED_STEPS} steps at small sizes, from the same start, differ from those on the "
        "processor by at most so much, relative to the largest parameter of each array; up to "
        f"{AGREES['float64']:.0e} in float64 and {AGREES['float32']:.0e} in float32 is agreement. "
        "Seconds are of a step at full size, compiling apart.\n\n"
    )
    return head + markdown(COLUMNS, [found.cells for found in results], numeric=2)


def main(page: Path | None = None) -> int:
    """Check, time, print; write the section into the page, if one is given and there is a device.

    Return 1 if something does not agree.
    """
    jax.config.update("jax_enable_x64", True)
    device, results = measured()
    if device.platform == "cpu":
        print("  There is no accelerator: a small form ran on the processor alone.")
    else:
        report.table(COLUMNS, [found.cells for found in results])
        if page is not None:
            write_device(page, section(device, results))
            print(f"  page: {page}")
    return 0 if all(found.agrees for found in results) else 1
