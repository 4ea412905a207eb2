"""What do leaps save, and do they lead elsewhere? The twelve data sets, by each acceleration.

The default leaps where EM has seconds before it. These data are small, and it would never: here it
is told that a run is long from its first step on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

from emjax import EM, EMResult, Status
from emjax.run import pieces
from experiments import report
from experiments.starts.best_known import best_known
from experiments.starts.data_sets import DataSet, data_sets
from experiments.starts.ends import MAX_STEPS, resolved

PLAIN, AUTO = "plain EM", "auto"
METHODS = {PLAIN: None, "squarem": "squarem", "anderson": "anderson", AUTO: "auto"}
QUICK = ("answers",)
NUM_SEEDS = 10
# as EM has it
TOL = 1e-9


class Fits(NamedTuple):
    """Where the seeds of one method ended, all arrays (seed,).

    - `height`: the objective in nats at the end; `at_best`: whether that is the best optimum.
    - `num_steps`: E-steps; `history`: the objective at each of them, fit by fit.
    """

    height: np.ndarray
    at_best: np.ndarray
    num_steps: np.ndarray
    history: Sequence[np.ndarray]

    def steps_to(self, ends: np.ndarray) -> np.ndarray:
        """Return how many steps each fit takes to where another ended; all, where it never does."""
        steps = []
        for history, end in zip(self.history, ends, strict=True):
            is_there = history >= end - TOL * (1 + abs(end))
            steps.append(int(is_there.argmax()) if is_there.any() else len(history) - 1)
        return np.array(steps)


@contextmanager
def every_run_is_long() -> Iterator[None]:
    """Have EM leap wherever it crawls, however little work it has."""
    before, pieces.MANY_PIECES = pieces.MANY_PIECES, 0
    try:
        yield
    finally:
        pieces.MANY_PIECES = before


def fits_of(data_set: DataSet, acceleration: str | None, seeds: Sequence[int]) -> Fits:
    """Return where EM ends from its default start, a fit for each seed."""
    em = EM(data_set.program, max_steps=MAX_STEPS, acceleration=acceleration)
    best, found = best_known()[data_set.name]["log_likelihood"], []
    for seed in seeds:
        result = em.run(jax.random.key(seed), *data_set.data)
        # these programs have no priors, and precision is double
        height = float(result.log_likelihood)
        at_best = is_regular(data_set, result) and abs(height - best) <= resolved(best)
        found.append((height, at_best, result.num_steps, np.asarray(result.objective)))
    heights, hits, steps, histories = zip(*found, strict=True)
    return Fits(np.array(heights), np.array(hits), np.array(steps), histories)


def is_regular(data_set: DataSet, result: EMResult) -> bool:
    """Return whether nothing has collapsed or is about to."""
    has_collapsed = result.status in (Status.COLLAPSED, Status.NOT_FINITE)
    return not has_collapsed and data_set.is_regular(result.params)


def print_methods(quick: bool) -> None:
    """Print steps, time, ends and hits of each method, data set by data set."""
    names = QUICK if quick else tuple(data_sets())
    seeds = range(2 if quick else NUM_SEEDS)
    methods = (PLAIN, AUTO) if quick else tuple(METHODS)
    report.heading(f"{len(names)} data sets, the same {len(seeds)} starts by each method")
    rows = []
    for name in names:
        with jax.enable_x64(True), every_run_is_long():
            fits = {key: fits_of(data_sets()[name], METHODS[key], seeds) for key in methods}
        rows += [row(name, method, fits) for method in methods]
    columns = [
        "data set",
        "method",
        "steps (median)",
        "steps / plain",
        "to plain's end",
        "at most",
        "same end",
        "nats beyond plain's",
        "best optimum",
    ]
    report.table(
        columns,
        rows,
        f"Starts: by default, of {len(seeds)} keys. To plain's end: steps until as high as plain "
        "EM stops, over its own, of all fits together and at most. Same end: fits "
        "that come to plain EM's optimum; of these, how much higher they stop (median). Best "
        "optimum: fits that come to it.",
    )


def row(name: str, method: str, fits: dict[str, Fits]) -> list[str]:
    """Return the row of a method."""
    own, plain = fits[method], fits[PLAIN]
    is_same = np.abs(own.height - plain.height) <= [resolved(each) for each in plain.height]
    beyond = (own.height - plain.height)[is_same]
    there = own.steps_to(plain.height)
    return [
        name if method == PLAIN else "",
        method,
        f"{np.median(own.num_steps):.0f}",
        f"{own.num_steps.sum() / plain.num_steps.sum():.2f}",
        f"{there.sum() / plain.num_steps.sum():.2f}",
        f"{(there / plain.num_steps).max():.2f}",
        f"{is_same.sum()} of {len(is_same)}",
        f"{np.median(beyond):.0e}" if len(beyond) else "",
        str(own.at_best.sum()),
    ]
