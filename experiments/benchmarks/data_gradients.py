"""Data of which the log-likelihood is differentiated, and where: counts along a chain, points."""

from collections.abc import Callable

import numpy as np

from experiments.benchmarks.data import Problem, chain_of_states, chain_start, gaussian


def chain_gradient(num_sequences: int, sequence_length: int, num_states: int) -> Problem:
    """Return counts (time, sequence), Poisson with the rate of a state."""
    rng, rate = np.random.default_rng(0), np.linspace(5.0, 155.0, num_states)
    state = chain_of_states(rng, num_sequences, sequence_length, num_states)
    counts = rng.poisson(rate[state]).astype(np.int32)
    return Problem({"counts": counts}, chain_start(num_states) | {"rate": 1.1 * rate})


GENERATORS: dict[str, Callable[..., Problem]] = {
    "chain_gradient": chain_gradient,
    "mixture_gradient": gaussian("diagonal"),
}
