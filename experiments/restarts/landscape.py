"""Kinds of starts, and where starts of several kinds came to."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from emjax import Optimum, Restarts
from experiments import report

OWN = "the program's own"
RANDOM = "responsibilities"
DATA = "data points"
FAR = "k-means++"
SPLIT = "splitting"
PRIORS = "priors"
INIT = {
    OWN: "program",
    RANDOM: "responsibilities",
    DATA: "data",
    FAR: "k-means++",
    SPLIT: "splitting",
    PRIORS: "program",
}


class Landscape(NamedTuple):
    """Where starts of several kinds came to.

    - `kinds`: the kind of each start, (start,).
    - `restarts`: all starts one after another, those of one kind together.
    """

    kinds: np.ndarray
    restarts: Restarts

    @property
    def names(self) -> list[str]:
        """The kinds of starts, each once."""
        return list(dict.fromkeys(self.kinds.tolist()))

    @property
    def optima(self) -> list[Optimum]:
        """The distinct optima, the best first, then all that is degenerate as one."""
        return self.restarts.optima()

    @property
    def bounded(self) -> list[Optimum]:
        """The distinct optima that are not degenerate, the best first."""
        return [optimum for optimum in self.optima if not optimum.degenerate]

    def counts(self, optimum: Optimum) -> Counter:
        """Return how many starts of each kind came to an optimum."""
        return Counter(self.kinds[optimum.starts].tolist())

    def total(self, kind: str) -> int:
        """Return the number of starts of a kind."""
        return int((self.kinds == kind).sum())

    def share(self, kind: str, optima: list[Optimum]) -> float:
        """Return the share of the starts of a kind that came to one of these optima."""
        return sum(self.counts(optimum)[kind] for optimum in optima) / self.total(kind)


def joined(restarts_of: Mapping[str, Restarts]) -> Landscape:
    """Return one landscape from the restarts of each kind."""
    sizes = [len(restarts.objective) for restarts in restarts_of.values()]
    kinds = np.repeat(list(restarts_of), sizes)
    restarts = jax.tree.map(lambda *parts: np.concatenate(parts), *restarts_of.values())
    return Landscape(kinds, restarts)


def first_only(restarts: Restarts) -> Restarts:
    """Return the first of several starts."""
    return jax.tree.map(lambda values: np.asarray(values)[:1], restarts)


def print_starts(landscape: Landscape, text: str, meaning: Mapping[str, str]) -> None:
    """Print a paragraph that ends with what each kind of start is."""
    starts = "; ".join(f"{kind}: {meaning[kind]}" for kind in landscape.names)
    report.remark(f"{text} {starts}.")
