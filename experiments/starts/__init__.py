"""How often does a start come to the best optimum: the default, its rivals, other libraries?

Twelve data sets whose best regular optimum is known, each fitted from forty seeds by every start of
emjax, by its default with 1 and with 10 starts, in double and in single precision, and by
scikit-learn, StepMix and hmmlearn. Read first: `data_sets.py`, then `ends.py`. `search.py` finds
the best optima, `equivariance.py` changes the unit.
"""

from collections.abc import Sequence
from pathlib import Path

import jax

from experiments import report
from experiments.starts import equivariance, figures, tables
from experiments.starts.best_known import best_known
from experiments.starts.data_sets import data_sets
from experiments.starts.ends import (
    DEFAULT,
    DEFAULT_TEN,
    STARTS,
    Ends,
    ends_of,
    ends_of_library,
)
from experiments.starts.libraries import LIBRARY, fits_of

DOUBLE, SINGLE = "double", "single"
NUM_SEEDS = 40
QUICK_NAMES = ("iris, full", "earthquakes")
QUICK_STARTS = (DEFAULT, DEFAULT_TEN, LIBRARY)


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figure; `RuntimeError` if an optimum is above the best known."""
    names = QUICK_NAMES if quick else tuple(data_sets())
    seeds = range(3 if quick else NUM_SEEDS)
    best = {name: facts["log_likelihood"] for name, facts in best_known().items()}
    report.heading(f"{len(names)} data sets, {len(seeds)} fits of each start")
    tables.print_data_sets(names, best)
    measured = {}
    for precision in (DOUBLE,) if quick else (DOUBLE, SINGLE):
        of_precision = {name: ends_by_start(name, seeds, precision, quick) for name in names}
        measured[precision] = of_precision
        tables.print_starts(of_precision, best, f"{precision.capitalize()} precision")
    tables.print_verdict(measured[DOUBLE], best)
    figures.draw_shares(output / "starts.png", measured, best)
    equivariance.print_equivariance(quick)
    better = [line for found in measured.values() for line in tables.better_optima(found, best)]
    if better:
        raise RuntimeError(
            "A better optimum than the best known: run `python -m experiments.starts.search`. "
            + "; ".join(better)
        )


def ends_by_start(
    name: str, seeds: Sequence[int], precision: str, quick: bool = False
) -> dict[str, Ends]:
    """Return where the seeds of each start of emjax end, in double precision of libraries, too."""
    data_set, found = data_sets()[name], {}
    starts = [start for start in STARTS if start in QUICK_STARTS or not quick]
    with jax.enable_x64(precision == DOUBLE):
        for start in starts:
            ends = ends_of(data_set, start, seeds)
            if ends is not None:
                found[start] = ends
    if precision == DOUBLE:
        for start, fit in fits_of(data_set).items():
            if start in QUICK_STARTS or not quick:
                found[start] = ends_of_library(data_set, fit, seeds)
    return found
