"""The same data in another unit, or far from zero: does each start lead to the same optimum?"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from emjax import EM, Status
from experiments import report
from experiments.starts.data_sets import DataSet, data_sets
from experiments.starts.ends import DEFAULT, STARTS, em_of, serves

NAMES = ("iris, full", "iris, tied", "wine", "unequal", "lines", "walk")
QUICK_NAMES: tuple[str, ...] = ()
QUICK_STARTS = ("k-means", DEFAULT)
SAME = 0.01  # nats: what EM's last steps leave is less, and what parts two optima is more


class Move(NamedTuple):
    """x becomes `factor` · x + `shift` standard deviations of x."""

    factor: float
    shift: float


MOVES = {"× 1e-6": Move(1e-6, 0.0), "× 1e6": Move(1e6, 0.0), "+ 1e6 spreads": Move(1.0, 1e6)}


def by_thousandths(values: jax.Array) -> None:
    """Two normals, whose locations start at 0 and 1 and scales at 1, whatever the unit."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.arange(2.0))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("values", len(values)):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("value", dist.Normal(loc[component], scale[component]), obs=values)


def unit_scales() -> DataSet:
    """Return 30 values near 1 and 2, with a program that takes no start from the data."""
    rng = np.random.default_rng(0)
    values = rng.normal(np.repeat([1.0, 2.0], (18, 12)), 0.2)
    return DataSet("scales start at 1", "30 values", by_thousandths, (values,), 2, "mixture")


def moved(data_set: DataSet, move: Move) -> tuple[tuple, float]:
    """Return the data, moved, and what that adds to the log-likelihood: −log factor a number."""
    # of points near lines it is y that moves
    place = 1 if data_set.family == "lines" else 0
    values = np.asarray(data_set.data[place], float)
    spread = values.reshape(len(values), -1).std(axis=0).reshape(values.shape[1:])
    data = list(data_set.data)
    data[place] = move.factor * values + move.shift * spread
    return tuple(data), -values.size * float(np.log(move.factor))


def differences(data_set: DataSet, start: str, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Return, by move, how much higher each seed ends than on the data as they are, in nats.

    Empty if the start does not serve the program.
    """
    em = em_of(data_set, start)
    if not serves(em, data_set.data):
        return {}
    here = heights(em, data_set.data, seeds)
    found = {}
    for name, move in MOVES.items():
        data, gain = moved(data_set, move)
        there = heights(em, data, seeds) - gain
        # what has collapsed here and there is the same: −∞ − −∞ is not
        difference = np.zeros(len(here))
        found[name] = np.subtract(there, here, out=difference, where=there != here)
    return found


def heights(em: EM, data: tuple, seeds: Sequence[int]) -> np.ndarray:
    """Return the log-likelihood at which each seed ends, (seed,).

    −∞ where something has collapsed: there is no height to compare.
    """
    found = []
    for seed in seeds:
        result = em.run(jax.random.key(seed), *data)
        has_collapsed = result.status in (Status.COLLAPSED, Status.NOT_FINITE)
        found.append(-np.inf if has_collapsed else float(result.log_likelihood))
    return np.array(found)


def print_equivariance(quick: bool) -> None:
    """Print which starts lead elsewhere in another unit."""
    names, seeds = (QUICK_NAMES, range(1)) if quick else (NAMES, range(5))
    starts = QUICK_STARTS if quick else STARTS
    programs = [*(data_sets()[name] for name in names), unit_scales()]
    rows = []
    for data_set in programs:
        for start in starts:
            found = differences(data_set, start, seeds)
            if found:
                rows.append([data_set.name, start, *(cell(found[move]) for move in MOVES)])
    report.heading("The same data in another unit: the same optimum from the same key?")
    differ = [row for row in rows if any(text != "same" for text in row[2:])]
    report.remark(
        f"""All coordinates times 1e-6, times 1e6, and shifted by 1e6 of their standard deviations;
        {len(seeds)} keys, double precision. {len(rows) - len(differ)} of {len(rows)} pairs of a
        data set and a start end at the same optimum from every key."""
    )
    if differ:
        report.table(
            ["data set", "start", *MOVES],
            differ,
            caption="""The others: how many keys end elsewhere, and the largest difference of the
                log-likelihood in nats, the change of unit taken out.""",
        )


def cell(difference: np.ndarray) -> str:
    """Return "same", or how many keys end elsewhere and by how much at most."""
    is_other = ~(np.abs(difference) <= SAME)
    if not is_other.any():
        return "same"
    worst = difference[is_other][np.argmax(np.abs(difference[is_other]))]
    return f"{is_other.sum()} of {len(difference)} ({worst:+.3g})"
