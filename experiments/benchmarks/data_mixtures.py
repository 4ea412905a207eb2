"""Data for mixtures that are more than one sum: several starts, values missing, motifs.

As in `data.py`: EM is still far from convergence after the steps that are timed.
"""

from collections.abc import Callable

import jax
import numpy as np
from numpyro.handlers import seed, trace

from emjax.models import gaussian_mixture
from experiments.benchmarks.data import Problem, gaussian

MISSING = 0.1  # of the coordinates, where they are missing at random
LEFT_OUT = (), (0, 1), (2, 3, 4), (5, 6, 7)  # the coordinates of eight that a pattern lacks
CERTAINTY = 0.85  # of the consensus letter in each column of the motif
LETTERS = 4


def restarts(num_samples: int, num_features: int, num_components: int, num_starts: int) -> Problem:
    """Return points, and starts: `loc` (start, component, feature), random points of the data.

    They are those that EM with so many restarts draws from key 0.
    """
    data, start = gaussian("full")(num_samples, num_features, num_components)
    # the program draws its means among these in place of the points: which, and in no precision
    numbers = np.arange(num_samples, dtype=np.float32)

    def drawn(key):
        sites = trace(seed(gaussian_mixture.program, key)).get_trace(numbers, num_components)
        return sites["loc"]["value"]

    keys = jax.random.split(jax.random.key(0), num_starts)
    places = np.asarray(jax.jit(jax.vmap(drawn))(keys)).astype(int)
    return Problem(data, start | {"loc": data["points"][places]})


def incomplete_at_random(num_samples: int, num_features: int, num_components: int) -> Problem:
    """Return points of which a tenth of the coordinates is NaN, wherever it falls."""
    data, start = gaussian("full")(num_samples, num_features, num_components)
    points = data["points"]
    points[np.random.default_rng(1).random(points.shape) < MISSING] = np.nan
    return Problem({"points": points}, start)


def incomplete_in_blocks(num_samples: int, num_features: int, num_components: int) -> Problem:
    """Return points of which each lacks one of four sets of coordinates, or none."""
    data, start = gaussian("full")(num_samples, num_features, num_components)
    points = data["points"]
    pattern = np.random.default_rng(1).integers(len(LEFT_OUT), size=num_samples)
    for number, columns in enumerate(LEFT_OUT):
        rows = np.flatnonzero(pattern == number)
        points[np.ix_(rows, [column for column in columns if column < num_features])] = np.nan
    return Problem({"points": points}, start)


def motif(num_sequences: int, longest: int, width: int) -> Problem:
    """Return letters (sequence, position), −1 past the end, with a motif planted in each sequence.

    A sequence has three quarters of the longest or more. The motif starts half-way between the true
    one and equal probabilities.
    """
    rng = np.random.default_rng(0)
    background = np.array([0.3, 0.2, 0.2, 0.3])
    consensus = rng.integers(LETTERS, size=width)
    is_consensus = consensus[:, None] == np.arange(LETTERS)
    columns = np.where(is_consensus, CERTAINTY, (1 - CERTAINTY) / (LETTERS - 1))
    lengths = rng.integers(3 * longest // 4, longest + 1, size=num_sequences)
    letters = rng.choice(LETTERS, p=background, size=(num_sequences, longest)).astype(np.int32)
    first = rng.integers(lengths - width + 1)
    for number, column in enumerate(columns):
        letters[np.arange(num_sequences), first + number] = rng.choice(
            LETTERS, p=column, size=num_sequences
        )
    letters[np.arange(longest) >= lengths[:, None]] = -1
    equal = np.full(LETTERS, 1 / LETTERS)
    return Problem({"letters": letters}, {"background": equal, "motif": (columns + equal) / 2})


GENERATORS: dict[str, Callable[..., Problem]] = {
    "restarts": restarts,
    "incomplete_at_random": incomplete_at_random,
    "incomplete_in_blocks": incomplete_in_blocks,
    "motif": motif,
    "gaussian_stream": gaussian("diagonal"),
}
