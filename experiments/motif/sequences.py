"""Random DNA in which a motif of ten letters is planted."""

from typing import NamedTuple

import numpy as np

from emjax.models import motif

CONSENSUS = "CGATTACAGT"
# of each letter of the consensus
CERTAINTY = np.array([0.55, 0.8, 0.9, 0.85, 0.9, 0.95, 0.8, 0.85, 0.7, 0.55])
WIDTH = len(CONSENSUS)
BACKGROUND = np.array([0.3, 0.2, 0.2, 0.3])
LENGTHS = (60, 100)  # of the shortest sequence and of the longest
SHARE = 0.6  # of the sequences that have an occurrence, where some have none


class Sequences(NamedTuple):
    """Sequences, and where their occurrences are.

    - `letters`: places in "ACGT", (sequence, position), −1 past the end.
    - `starts`: where each sequence's occurrence begins, (sequence,), −1 for nowhere.
    """

    letters: np.ndarray
    starts: np.ndarray

    @property
    def has_one(self) -> np.ndarray:
        """Return which sequences have an occurrence."""
        return self.starts >= 0


def planted_motif() -> np.ndarray:
    """Return the motif (column, letter): the consensus, and others in its place.

    The other three letters are equally probable.
    """
    is_consensus = np.array(list(CONSENSUS))[:, None] == np.array(list(motif.LETTERS))
    return np.where(is_consensus, CERTAINTY[:, None], (1 - CERTAINTY[:, None]) / 3)


def planted_sequences(seed: int, num_sequences: int, share: float = 1.0) -> Sequences:
    """Return sequences of background letters with one occurrence, with probability `share`."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, size=num_sequences)
    has_one = rng.uniform(size=num_sequences) < share
    starts = np.where(has_one, rng.integers(lengths - WIDTH + 1), -1)
    letters = rng.choice(4, p=BACKGROUND, size=(num_sequences, LENGTHS[1]))
    for sequence, start in zip(letters, starts, strict=True):
        if start >= 0:
            occurrence = [rng.choice(4, p=column) for column in planted_motif()]
            sequence[start : start + WIDTH] = occurrence
    return Sequences(np.where(np.arange(LENGTHS[1]) < lengths[:, None], letters, -1), starts)


def planted_params(share: float | None = None) -> dict:
    """Return the parameters that the sequences were drawn from."""
    params = {"background": BACKGROUND, "motif": planted_motif()}
    return params if share is None else params | {"occurrence": share}
