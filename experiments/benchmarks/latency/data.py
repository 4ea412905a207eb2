"""The data of the table: few rows, in double precision."""

import numpy as np

NUM_CLUSTERS = NUM_STATES = 3


def iris() -> np.ndarray:
    """Return Fisher's irises in random order, (flower, measurement): any stretch has all species.

    Source: Fisher (1936), Annals of Eugenics 7, as scikit-learn has them.
    """
    from sklearn.datasets import load_iris

    return np.random.default_rng(0).permutation(load_iris().data)


def series() -> np.ndarray:
    """Return numbers in time (500,), whose mean stays for ten steps."""
    rng = np.random.default_rng(0)
    return 2.0 * np.repeat(rng.integers(NUM_STATES, size=50), 10) + rng.normal(size=500)


def answers() -> np.ndarray:
    """Return the answers of two kinds of people, (person, item) = (500, 6), each 0 or 1."""
    rng = np.random.default_rng(0)
    probs = rng.uniform(0.1, 0.9, size=(2, 6))
    return (rng.random((500, 6)) < probs[rng.integers(2, size=500)]).astype(int)


def two_lines() -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of 200 rows, four in ten of which are about 1 + 2 x, the others −1 − x."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    loc = np.where(rng.random(200) < 0.4, 1 + 2 * x, -1 - x)
    return x, loc + 0.3 * rng.normal(size=200)
