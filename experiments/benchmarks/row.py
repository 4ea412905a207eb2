"""What a row of the table is: a model, sizes, who takes part, and how fast emjax must be."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from experiments.benchmarks.contestant import DIFFERENT

FASTEST = "the fastest library"
READING = "reading its data once"
F64, F32, BOTH = ("float64",), ("float32",), ("float64", "float32")
# each beside the code written by hand for the same work, and how much longer it may take
BY_HAND = {
    "emjax": "hand-written JAX",
    "emjax, compressed": "hand-written JAX, distinct rows",
}
MOST = 1.1


class Goal(NamedTuple):
    """`subject` is to be at least `factor` times as fast as `peer`, in the same precision.

    `FASTEST` is any library, `READING` is to read the data from memory once.
    """

    factor: float
    peer: str
    precision: str
    subject: str = "emjax"


class Limits(NamedTuple):
    """What emjax may take at most: `memory` in GiB beyond the data, peak; `seconds` for a step."""

    memory: float
    seconds: float = float("inf")


class Work(NamedTuple):
    """What a step cannot do without, whoever writes it: the physical limit is made of it.

    - `multiply_adds`: of matrix products.
    - `numbers`: read from memory or written to it, once each; those that stay in the cache are not.
    - `transcendentals`: exponentials and logarithms.
    - `indices`: as numbers, integers of four bytes.
    """

    multiply_adds: float = 0.0
    numbers: float = 0.0
    transcendentals: float = 0.0
    indices: float = 0.0


class Row(NamedTuple):
    """One model at one size.

    - `name`, `title`: on the command line, and in tables.
    - `model`: its generator, and its key in every implementation.
    - `sizes`: what the generator takes; `quick` replaces some of them.
    - `steps`: the lengths of the two runs whose difference is timed.
    - `contestants`: the precisions of each implementation.
    - `goals`, `limits`: how fast emjax is to be beside the goals of every row (`goals_of`), and
      what it may take at most.
    - `own_steps`: {implementation: other lengths of its runs}, where its steps take so much longer.
    - `work`: of the sizes, what one step cannot do without; else that of its model (`work.WORK`).
    - `note`: what a reader must know of the row.
    """

    name: str
    title: str
    model: str
    sizes: dict
    quick: dict
    steps: tuple[int, int]
    contestants: dict[str, tuple[str, ...]]
    goals: tuple[Goal, ...] = ()
    limits: Limits | None = None
    own_steps: Mapping[str, tuple[int, int]] = MappingProxyType({})
    work: Callable[[Mapping], Work] | None = None
    note: str = ""

    def steps_of(self, implementation: str) -> tuple[int, int]:
        """Return the lengths of the two runs of an implementation."""
        return self.own_steps.get(implementation, self.steps)


def is_peer(implementation: str) -> bool:
    """Say whether an implementation is neither emjax nor written by hand in JAX."""
    return not implementation.startswith(("emjax", "hand-written"))


def is_rival(implementation: str) -> bool:
    """Say whether it is such a peer, and what it does is EM on the same likelihood."""
    return is_peer(implementation) and implementation not in DIFFERENT


def goals_of(row: Row) -> tuple[Goal, ...]:
    """Return the goals of a row: those of every row, then its own.

    emjax is to take at most `MOST` times what hand-written JAX takes, and less than any library.
    """
    goals = []
    for subject, peer in BY_HAND.items():
        for precision in row.contestants.get(subject, ()):
            if precision in row.contestants.get(peer, ()):
                goals.append(Goal(1 / MOST, peer, precision, subject))
    rivals = [precisions for name, precisions in row.contestants.items() if is_rival(name)]
    for precision in row.contestants.get("emjax", ()):
        if any(precision in precisions for precisions in rivals):
            goals.append(Goal(1.0, FASTEST, precision))
    return tuple(dict.fromkeys((*goals, *row.goals)))
