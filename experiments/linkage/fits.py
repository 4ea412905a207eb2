"""From a file of comparisons to match weights: seconds of each stage, and what they find."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from emjax import EM, Fit, compress
from emjax.models import record_linkage
from experiments.iterates import Params, as_numpy
from experiments.linkage import simulation
from experiments.linkage.simulation import FIELDS, NUM_LEVELS, Columns


class Patterns(NamedTuple):
    """Comparisons of which no two have the same levels.

    - `levels`: of each field (pattern,).
    - `count`: how many comparisons have them.
    - `matches`: how many of these are matches in truth; None where nobody knows.
    """

    levels: Columns
    count: np.ndarray
    matches: np.ndarray | None = None


class Linked(NamedTuple):
    """What EM found in a file, and the seconds that each stage took."""

    patterns: Patterns
    fit: Fit
    seconds: dict[str, float]


def linkage_em(**settings) -> EM:
    """Return EM for record linkage, by default to the last digit."""
    return EM(record_linkage.program, **{"tol": 1e-13, "max_steps": 2000} | settings)


def start_of(patterns: Patterns) -> Params:
    """Return where EM starts: at the program's own values."""
    state = linkage_em().init(jax.random.key(0), patterns.levels, NUM_LEVELS, patterns.count)
    return as_numpy(state.params)


def after(patterns: Patterns, num_steps: int) -> Params:
    """Return the parameters after so many steps."""
    em = linkage_em(max_steps=num_steps, tol=0)
    return as_numpy(em.run(jax.random.key(0), patterns.levels, NUM_LEVELS, patterns.count).params)


def linked(path: Path, num_comparisons: int) -> Linked:
    """Write comparisons to a file, find the patterns in it, and fit the model to them."""
    seconds: dict[str, float] = {}
    with timed(seconds, "simulated and written"):
        simulation.write(path, num_comparisons)
    with timed(seconds, "read and compressed"):
        (levels,), count, _ = compress(simulation.read(path, tuple(FIELDS)))
    em = linkage_em()
    with timed(seconds, "EM, compilation included"):
        fit = em.run(jax.random.key(0), levels, NUM_LEVELS, count)
    with timed(seconds, "EM again"):
        em.run(jax.random.key(0), levels, NUM_LEVELS, count)
    return Linked(Patterns(levels, count), fit, seconds)


def streamed(path: Path) -> Fit:
    """Return the fit to the comparisons of a file as they are, read at every step."""
    stream = simulation.read(path, tuple(FIELDS))
    return linkage_em().run(jax.random.key(0), stream, NUM_LEVELS)


def with_truth(path: Path) -> Patterns:
    """Return the patterns of a file, and how many comparisons of each are matches."""
    (columns,), count, _ = compress(simulation.read(path, (*FIELDS, "match")))
    matches = count * columns.pop("match")
    (levels,), total, rows = compress(columns, weight=count)
    return Patterns(levels, total, np.bincount(rows, matches))


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that a stage takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


class Accepted(NamedTuple):
    """What one gets by calling every pair a match whose weight is a threshold or more.

    - `weight`: the thresholds, in bits, from the highest down.
    - `precision`, `recall`: shares of true matches, of what is accepted and of all matches.
    """

    weight: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def accepted(weight: np.ndarray, count: np.ndarray, matches: np.ndarray) -> Accepted:
    """Return precision and recall at every threshold.

    `matches`: how many comparisons of each pattern are matches, in truth or as EM expects.
    """
    order = np.argsort(-weight)
    # thresholds lie between different weights: patterns of one weight are accepted together
    last = np.flatnonzero(np.diff(weight[order], append=-np.inf))
    found, taken = np.cumsum(matches[order])[last], np.cumsum(count[order])[last]
    return Accepted(weight[order][last], found / taken, found / matches.sum())


def expected_matches(fit: Fit, patterns: Patterns) -> np.ndarray:
    """Return how many comparisons of each pattern EM expects to be matches."""
    weight = record_linkage.total_weight(fit.params, patterns.levels)
    return patterns.count / (1 + np.exp2(-weight))
