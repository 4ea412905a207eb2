"""Fail if emjax costs more than hand-written JAX allows: `python -m experiments.benchmarks.guard`.

Four rows of moderate size, in double precision. Both run in this process, in rounds that alternate,
so that what disturbs the machine hits both; compared are the medians of all rounds. A row that
fails is measured once more, in more rounds, before it counts.
"""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from experiments import report
from experiments.benchmarks.contestant import Run, setup
from experiments.benchmarks.data import GENERATORS

MOST = 1.25
PEER = "hand-written JAX"
ROUNDS, MORE_ROUNDS = 11, 33


class Case(NamedTuple):
    """A model at one size, and the lengths of the two runs whose difference is timed."""

    model: str
    sizes: dict
    steps: tuple[int, int]


CASES = (
    Case(
        "gaussian_full", {"num_samples": 20_000, "num_features": 8, "num_components": 16}, (2, 42)
    ),
    Case("latent_class", {"num_people": 30_000, "num_items": 20, "num_classes": 6}, (2, 62)),
    Case(
        "dawid_skene",
        {"num_items": 10_000, "num_annotators": 200, "num_classes": 5, "labels_each": 5},
        (2, 82),
    ),
    Case(
        "hmm_categorical",
        {"num_sequences": 32, "sequence_length": 300, "num_states": 16, "num_symbols": 32},
        (2, 32),
    ),
)


class Cost(NamedTuple):
    """Seconds for a step, of emjax and of the code written by hand."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Return how many times as long emjax takes."""
        return self.ours / self.theirs


def compiled(case: Case) -> tuple[Run, Run]:
    """Return the runs of both, which have run once at each length."""
    problem = GENERATORS[case.model](**case.sizes)
    runs = []
    for implementation in ("emjax", PEER):
        data, start = dict(problem.data), dict(problem.start)
        run = setup(implementation, case.model)(data, start, case.sizes)
        for num_steps in case.steps:
            run(num_steps)
        runs.append(run)
    ours, theirs = runs
    return ours, theirs


def cost(runs: tuple[Run, Run], steps: tuple[int, int], rounds: int) -> Cost:
    """Return the medians over all rounds."""
    seconds: tuple[list[float], list[float]] = ([], [])
    few, many = steps
    for _ in range(rounds):
        short = [timed(run, few) for run in runs]
        long = [timed(run, many) for run in runs]
        for values, start, end in zip(seconds, short, long, strict=True):
            values.append((end - start) / (many - few))
    ours, theirs = seconds
    return Cost(median(ours), median(theirs))


def timed(run: Run, num_steps: int) -> float:
    """Return the seconds of a run."""
    start = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - start


def judged(measure: Callable[[int], Cost], most: float = MOST) -> tuple[Cost, bool]:
    """Return the cost, and whether it is allowed; what is too much is measured once more."""
    found = measure(ROUNDS)
    if not found.ratio <= most:
        found = measure(MORE_ROUNDS)
    return found, found.ratio <= most


def main() -> int:
    """Print a table; return 1 if a row costs too much, else 0."""
    import jax

    jax.config.update("jax_enable_x64", True)
    start, rows, all_well = time.perf_counter(), [], True
    for case in CASES:
        runs, steps = compiled(case), case.steps
        found, is_well = judged(lambda rounds, runs=runs, steps=steps: cost(runs, steps, rounds))
        all_well = all_well and is_well
        print(f"  {time.perf_counter() - start:.0f} s: {case.model}", file=sys.stderr, flush=True)
        milliseconds = [f"{1000 * seconds:.3f}" for seconds in found]
        rows.append(
            [case.model, *milliseconds, f"{found.ratio:.2f}", "" if is_well else "too much"]
        )
    report.heading(f"A step of emjax may take {MOST} × the time of {PEER}")
    report.table(["model", "emjax, ms", "by hand, ms", "ratio", ""], rows)
    print(f"  {time.perf_counter() - start:.0f} s")
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
