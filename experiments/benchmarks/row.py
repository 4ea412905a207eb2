"""What a row of the table is: a model, sizes, who takes part, and how fast emjax must be."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

FASTEST = "the fastest library"
F64, F32, BOTH = ("float64",), ("float32",), ("float64", "float32")


class Goal(NamedTuple):
    """`subject` is to be at least `factor` times as fast as `peer`, in the same precision.

    `FASTEST` is any library.
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
    """

    multiply_adds: float = 0.0
    numbers: float = 0.0
    transcendentals: float = 0.0


class Row(NamedTuple):
    """One model at one size.

    - `name`, `title`: on the command line, and in tables.
    - `model`: its generator, and its key in every implementation.
    - `sizes`: what the generator takes; `quick` replaces some of them.
    - `steps`: the lengths of the two runs whose difference is timed.
    - `contestants`: the precisions of each implementation.
    - `goals`, `limits`: how fast emjax is to be, and what it may take at most.
    - `own_steps`: {implementation: other lengths of its runs}, where its steps take so much longer.
    - `work`: of the sizes, what one step cannot do without.
    """

    name: str
    title: str
    model: str
    sizes: dict
    quick: dict
    steps: tuple[int, int]
    contestants: dict[str, tuple[str, ...]]
    goals: tuple[Goal, ...]
    limits: Limits | None = None
    own_steps: Mapping[str, tuple[int, int]] = MappingProxyType({})
    work: Callable[[Mapping], Work] | None = None

    def steps_of(self, implementation: str) -> tuple[int, int]:
        """Return the lengths of the two runs of an implementation."""
        return self.own_steps.get(implementation, self.steps)


def by_hand(
    precisions: tuple[str, ...],
    subject: str = "emjax",
    peer: str = "hand-written JAX",
    most: float = 1.1,
) -> tuple[Goal, ...]:
    """Return the goal of every row: at most `most` times the time of the hand-written code."""
    return tuple(Goal(1 / most, peer, precision, subject) for precision in precisions)
