"""The work of the table by libraries: scikit-learn's mixtures, hmmlearn's chains.

Their own rules say where they start and when they stop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmarks.latency import data

Calls = list[Callable[[], Any]]


def mixture_fit(points: np.ndarray, **settings) -> Any:
    """Return scikit-learn's mixture of points."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(data.NUM_CLUSTERS, random_state=0, **settings).fit(points)


def after_mixture_fits(number: int, later: Callable[[np.ndarray, Any], Calls]) -> Callable:
    """Return the set-up of what `later(points, mixture)` returns, after so many fits."""

    def setup() -> Calls:
        # what is imported is not timed
        import sklearn.mixture  # noqa: F401

        points, mixture = data.iris(), None
        for _ in range(number):
            mixture = mixture_fit(points)
        return later(points, mixture)

    return setup


def the_same(points: np.ndarray, _: Any) -> Calls:
    """Return one more fit."""
    return [partial(mixture_fit, points)]


def other_rows(points: np.ndarray, _: Any) -> Calls:
    """Return fits to fewer rows."""
    return [partial(mixture_fit, points[:number]) for number in (149, 120, 90)]


def other_settings(points: np.ndarray, _: Any) -> Calls:
    """Return one more fit, and one that stops later."""
    return [partial(mixture_fit, points), partial(mixture_fit, points, tol=1e-6)]


def new_rows(points: np.ndarray, mixture: Any) -> Calls:
    """Return posteriors of few rows."""
    return [partial(mixture.predict_proba, points[:number]) for number in (10, 11, 12, 13)]


def chain_fit(seen: np.ndarray) -> Any:
    """Return hmmlearn's chain of numbers in time."""
    from hmmlearn.hmm import GaussianHMM

    return GaussianHMM(data.NUM_STATES, random_state=0, n_iter=1000).fit(seen[:, None])


def first_chain() -> Calls:
    """Return the first fit of a process."""
    # what is imported is not timed
    import hmmlearn.hmm  # noqa: F401

    return [partial(chain_fit, data.series())]


def shorter_chain() -> Calls:
    """Return a fit to a shorter chain, after one."""
    seen = data.series()
    chain_fit(seen)
    return [partial(chain_fit, seen[:480])]


SETUPS = {
    "scikit-learn": {
        "first": after_mixture_fits(0, the_same),
        "third": after_mixture_fits(2, the_same),
        "rows": after_mixture_fits(1, other_rows),
        "second": after_mixture_fits(1, other_settings),
        "posterior": after_mixture_fits(1, new_rows),
        "cache": after_mixture_fits(0, the_same),
    },
    "hmmlearn": {"chain": first_chain, "length": shorter_chain},
}
