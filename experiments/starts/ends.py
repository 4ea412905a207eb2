"""Where each start ends: one fit for each seed, timed, and its height in double precision."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.infer import init_to_sample

from emjax import EM, EMResult, Status
from emjax.starts.strategies import START_STRATEGIES
from experiments.starts.data_sets import DataSet

# Only the start is to matter, here and for the libraries: nobody is cut off on the way.
MAX_STEPS = 5000
OWN = "program's own"
DEFAULT, DEFAULT_TEN = "default", "default × 10"
# What `EM` is told for each start. A strategy of NumPyro's leaves `param` sites, which are all that
# these programs have, where the program puts them.
STARTS: dict[str, dict[str, Any]] = {
    OWN: {"init": init_to_sample()},
    **{name: {"init": name} for name in START_STRATEGIES},
    DEFAULT: {},
    DEFAULT_TEN: {"num_restarts": 10},
}
Params = Mapping[str, Any]


class Ends(NamedTuple):
    """Where the seeds of one start ended, all arrays (seed,).

    - `height`: the log-likelihood in nats, summed over the data; NaN where there is none.
    - `is_regular`: whether nothing has collapsed or is about to.
    - `seconds`: of a fit, without compilation; `num_steps`: of EM, of the run that was returned.
    """

    height: np.ndarray
    is_regular: np.ndarray
    seconds: np.ndarray
    num_steps: np.ndarray

    def at(self, best: float) -> np.ndarray:
        """Return which seeds ended at the regular optimum of a height."""
        return self.is_regular & (np.abs(self.height - best) <= resolved(best))

    def better(self, best: float) -> np.ndarray:
        """Return which seeds ended at a regular optimum that is higher."""
        return self.is_regular & (self.height > best + resolved(best))


def resolved(height: float) -> float:
    """Return by how many nats two ends of one optimum may differ.

    EM stops where a step gains 1e-9 (1 + |height|); at a rate of 0.999 all that is still to come is
    a thousand times that. It is as `Restarts.optima` has it, and never less than 1e-3 nats. The
    next optimum of each data set is farther away: `best_known_optima.json` says by how much.
    """
    return max(1e-3, 1e-6 * (1 + abs(height)))


def serves(em: EM, data: tuple) -> bool:
    """Return whether a start serves a program: some ask for locations that it lacks."""
    try:
        em.run(jax.random.key(0), *data)
    except ValueError as error:
        if "init=" in str(error):
            return False
        raise
    return True


def em_of(data_set: DataSet, start: str) -> EM:
    """Return EM on a data set's program with one of `STARTS`."""
    return EM(data_set.program, max_steps=MAX_STEPS, **STARTS[start])


def ends_of(data_set: DataSet, start: str, seeds: Sequence[int]) -> Ends | None:
    """Return where EM ends from a start, a fit for each seed; None if it does not serve.

    In the precision that is set. All seeds share one `EM`, whose first run, which compiles, is not
    one of them.
    """
    em = em_of(data_set, start)
    if not serves(em, data_set.data):
        return None
    judge = Judge(data_set)

    def fit(seed: int) -> tuple[EMResult, float]:
        key = jax.random.key(seed)
        began = time.perf_counter()
        result = em.run(key, *data_set.data)
        return result, time.perf_counter() - began

    return joined([judged(judge, *fit(seed)) for seed in seeds])


def judged(judge: "Judge", result: EMResult, seconds: float) -> tuple[float, bool, float, int]:
    """Return height, whether it is regular, seconds and steps of a fit."""
    height, is_regular = judge(result)
    return height, is_regular, seconds, result.num_steps


def joined(fits: Sequence[tuple[float, bool, float, int]]) -> Ends:
    """Return the ends of several fits."""
    return Ends(*map(np.array, zip(*fits, strict=True)))


class Judge:
    """Says how high an end is, in double precision, and whether it is regular."""

    def __init__(self, data_set: DataSet):
        self.data_set = data_set
        self.em = EM(data_set.program, max_steps=MAX_STEPS)

    def __call__(self, result: EMResult) -> tuple[float, bool]:
        params = {name: np.asarray(value, float) for name, value in result.params.items()}
        has_collapsed = result.status in (Status.COLLAPSED, Status.NOT_FINITE)
        if has_collapsed or not self.data_set.is_regular(params):
            # the height counts for nothing, and a covariance may be singular in double precision
            return float(result.log_likelihood), False
        return self.height(params), True

    def height(self, params: Params) -> float:
        """Return log p(data | params) in nats."""
        with jax.enable_x64(True):
            return float(self.em.log_likelihood(normalized(params), *self.data_set.data))

    def carried_on(self, params: Params) -> EMResult:
        """Return where EM, in double precision, goes on to from parameters of somebody else."""
        with jax.enable_x64(True):
            key = jax.random.key(0)
            return self.em.run(key, *self.data_set.data, init_params=normalized(params))


def normalized(params: Params) -> dict[str, np.ndarray]:
    """Return parameters whose simplexes add up to one in double precision, too."""
    simplexes = ("weights", "prevalence", "initial", "transition", "confusion")
    found = {}
    for name, value in params.items():
        value = np.asarray(value, float)
        found[name] = value / value.sum(axis=-1, keepdims=True) if name in simplexes else value
    return found


Fit = Callable[[int], tuple[Params, int]]


def ends_of_library(data_set: DataSet, fit: Fit, seeds: Sequence[int]) -> Ends:
    """Return where a library ends, a fit for each seed.

    fit(seed) → (parameters as the program has them, steps). Its floors, priors and tolerance are
    its own: EM goes on from its end until it has converged, so that all heights are of one function
    and what is compared is the optimum that a start leads to. Seconds are the library's alone.
    """
    judge, fits = Judge(data_set), []
    for seed in seeds:
        began = time.perf_counter()
        try:
            params, num_steps = fit(seed)
        except ValueError:  # as scikit-learn says that a covariance has collapsed
            fits.append((np.nan, False, time.perf_counter() - began, 0))
            continue
        seconds = time.perf_counter() - began
        fits.append((*judge(judge.carried_on(params)), seconds, num_steps))
    return joined(fits)
