"""A century of earthquakes, what a textbook prints of them, and where EM ends."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import emjax
from emjax import EM
from emjax.models import hidden_markov
from experiments import report
from experiments.iterates import Params, as_numpy

SERIES = Path(__file__).parents[1] / "data" / "earthquakes.csv"
YEARS = np.arange(1900, 2007)
NUMS_STATES = (2, 3, 4)
NUM_STATES = 3  # of the model that is drawn
STATES = ("quiet", "middling", "busy")
SOFT, HARD = "soft EM", "Viterbi training"
RATES = {2: (10.0, 30.0), 3: (10.0, 20.0, 30.0)}  # where the book's EM starts


class Published(NamedTuple):
    """What the book prints of a model.

    - `rate`: in earthquakes a year, by state.
    - `log_likelihood`: in nats.
    """

    rate: tuple[float, ...]
    log_likelihood: float


# Chapter 4, by EM; chapters 3 and 6, where the first year's state has the stationary distribution
# of `transition`.
BOOK = {
    2: Published((15.421, 26.018), -341.8787),
    3: Published((13.134, 19.713, 29.710), -328.5275),
}
BOOK_STATIONARY = {
    2: Published((15.472, 26.125), -342.3183),
    3: Published((13.146, 19.721, 29.714), -329.4603),
    4: Published((11.283, 13.853, 19.695, 29.700), -327.8316),
}


class Fit(NamedTuple):
    """Where EM ended, states in the order of their rates.

    - `params`: the estimate.
    - `log_likelihood`: in nats, at the estimate.
    - `objective`: in nats, at steps 0 … the last.
    - `status`: why EM stopped, in words.
    """

    params: Params
    log_likelihood: float
    objective: np.ndarray
    status: str


# Where the random starts end, the most likely first, by the number of states and the E-step.
Ends = dict[tuple[int, str], list[Fit]]


@cache
def counts() -> np.ndarray:
    """Return the number of major earthquakes in each of the years."""
    return np.loadtxt(SERIES, delimiter=",", skiprows=1, usecols=1, dtype=int)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return the counts as one sequence, (time, sequence), and its length."""
    return counts()[:, None], np.array([len(YEARS)])


def soft_em() -> EM:
    """Return EM on the counts: Baum-Welch."""
    # the book prints seven digits, and EM gains little in each of its last steps
    return EM(hidden_markov.poisson_program, tol=1e-12, max_steps=10_000)


def hard_em() -> EM:
    """Return EM that takes the most probable path for the truth: Viterbi training."""
    return EM(hidden_markov.poisson_program, e_step="hard")


def start(num_states: int) -> Params:
    """Return the book's start with 2 or 3 states.

    Any first state is equally probable, and a move to each other state has the probability 0.1.
    """
    stays = 1 - 0.1 * num_states
    return {
        "initial": np.full(num_states, 1 / num_states),
        "transition": np.full((num_states, num_states), 0.1) + stays * np.eye(num_states),
        "rate": np.array(RATES[num_states]),
    }


def run(em: EM, num_states: int, key: jax.Array | None = None) -> emjax.Fit:
    """Return where EM ends from `start`, or from the program's random start if there is a key."""
    if key is None:
        return em.run(jax.random.key(0), *data(), num_states, init_params=start(num_states))
    return em.run(key, *data(), num_states)


def fit(em: EM, num_states: int, key: jax.Array | None = None) -> Fit:
    """Return what is kept of `run`."""
    found = run(em, num_states, key)
    params = as_numpy(found.params)
    order = np.argsort(params["rate"])
    ordered = {
        "initial": params["initial"][order],
        "transition": params["transition"][np.ix_(order, order)],
        "rate": params["rate"][order],
    }
    return Fit(ordered, float(found.log_likelihood), found.objective, report.outcome(found))


def from_random_starts(em: EM, num_states: int, num_starts: int) -> list[Fit]:
    """Return where EM ends from the program's random starts, the most likely first."""
    keys = jax.random.split(jax.random.key(1), num_starts)
    ends = [fit(em, num_states, key) for key in keys]
    return sorted(ends, key=lambda end: -end.log_likelihood)


def maxima(ends: list[Fit]) -> list[tuple[Fit, int]]:
    """Return an end of each log-likelihood, and how many ends share it.

    A step of 0.01 nats parts two of them.
    """
    heights = np.array([end.log_likelihood for end in ends])
    firsts = np.flatnonzero(np.diff(heights, prepend=np.inf) < -0.01)
    sizes = np.diff(firsts, append=len(ends))
    return [(ends[i], int(size)) for i, size in zip(firsts, sizes, strict=True)]


def path(em: EM, params: Params) -> np.ndarray:
    """Return the most probable path: the state of each year."""
    return np.asarray(em.decode(params, *data(), len(params["rate"]))["state"])[:, 0]


def smoothed(em: EM, params: Params) -> np.ndarray:
    """Return p(state | all counts), (year, state)."""
    return np.asarray(em.posterior(params, *data(), len(params["rate"]))["state"])[:, 0]


def spans(states: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the first year, the last year and the state of each stretch of one state."""
    firsts = np.flatnonzero(np.diff(states, prepend=-1))
    lasts = [*firsts[1:] - 1, len(states) - 1]
    return [
        (int(YEARS[first]), int(YEARS[last]), int(states[first]))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def criteria(log_likelihood: float, num_parameters: int) -> tuple[float, float]:
    """Return AIC and BIC, smaller is better."""
    aic = 2 * num_parameters - 2 * log_likelihood
    bic = num_parameters * np.log(len(YEARS)) - 2 * log_likelihood
    return aic, bic
