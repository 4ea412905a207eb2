"""EM from words of the data, where it comes to rest, and a move to where it should have."""

from collections import Counter
from typing import NamedTuple

import jax
import numpy as np

from emjax import EM
from emjax.models import motif
from experiments.iterates import Params, as_numpy
from experiments.motif.sequences import WIDTH, Sequences

PURITY = 0.5  # of the letters of a word, in the motif that starts from it
TOLERANCE = 1e-7  # of the log-likelihood: a thousandth of a nat


class End(NamedTuple):
    """Where EM ended.

    - `params`: the estimate.
    - `starts`: p(start | letters), (sequence, start).
    - `log_likelihood`: in nats, of all sequences.
    """

    params: Params
    starts: np.ndarray
    log_likelihood: float


class Ends(NamedTuple):
    """Where EM ends from words of the data, and the same ends realigned."""

    words: list[End]
    realigned: list[End]

    def shifts(self, sequences: Sequences) -> tuple[Counter, Counter]:
        """Return how many ends have each shift, before they are realigned and after."""
        from_words = Counter(shift(end, sequences) for end in self.words)
        return from_words, Counter(shift(end, sequences) for end in self.realigned)


def exactly_one() -> EM:
    """Return EM where every sequence has one occurrence."""
    return EM(motif.program, tol=TOLERANCE)


def zero_or_one() -> EM:
    """Return EM where a sequence has zero occurrences or one."""
    return EM(motif.zoops_program, tol=TOLERANCE)


def word_starts(letters: np.ndarray, how_many: int, seed: int = 1) -> list[dict]:
    """Return motifs made of words of the data: a word's letter has the probability `PURITY`."""
    rng = np.random.default_rng(seed)
    starts = []
    for sequence in rng.integers(len(letters), size=how_many):
        first = rng.integers((letters[sequence] >= 0).sum() - WIDTH + 1)
        is_letter = letters[sequence, first : first + WIDTH, None] == np.arange(4)
        starts.append({"motif": np.where(is_letter, PURITY, (1 - PURITY) / 3)})
    return starts


def end_of(em: EM, letters: np.ndarray, start: dict) -> End:
    """Return where EM ends; what the start leaves open is as in the program."""
    result = em.run(jax.random.key(0), letters, WIDTH, init_params=start)
    return end_at(em, letters, result.params)


def end_at(em: EM, letters: np.ndarray, params: dict) -> End:
    """Return the end of an EM that stops at these parameters."""
    starts = np.asarray(em.posterior(params, letters, WIDTH)["start"])
    return End(as_numpy(params), starts, float(em.log_likelihood(params, letters, WIDTH)))


def best_of(em: EM, letters: np.ndarray, starts: list[dict]) -> End:
    """Return the most likely end from these starts, each realigned."""
    return most_likely([realigned(em, letters, end_of(em, letters, start)) for start in starts])


def most_likely(ends: list[End]) -> End:
    """Return the end of the highest likelihood."""
    return max(ends, key=lambda end: end.log_likelihood)


# ── where occurrences are read, and moving them ───────────────────────────────────────────────────


def places(end: End, letters: np.ndarray) -> np.ndarray:
    """Return the most probable start in each sequence, −1 where that is nowhere."""
    best = end.starts.argmax(axis=1)
    return np.where(best <= letters.shape[1] - WIDTH, best, -1)


def in_place(end: End, sequences: Sequences) -> float:
    """Return the share of the planted occurrences whose most probable start is the true one."""
    return (places(end, sequences.letters) == sequences.starts)[sequences.has_one].mean()


def shift(end: End, sequences: Sequences) -> int | None:
    """Return by how many letters most occurrences are read late.

    None where not even a quarter agrees on a shift.
    """
    starts = places(end, sequences.letters)
    late = (starts - sequences.starts)[sequences.has_one & (starts >= 0)]
    ((by, count),) = Counter(late.tolist()).most_common(1) or [(None, 0)]
    return by if count > sequences.has_one.sum() / 4 else None


def by_shift(ends: list[End], sequences: Sequences) -> dict[int | None, list[End]]:
    """Return the ends by their shift; shifts, and the ends of each, the most likely first."""
    groups: dict[int | None, list[End]] = {}
    for end in sorted(ends, key=lambda end: -end.log_likelihood):
        groups.setdefault(shift(end, sequences), []).append(end)
    return groups


def profile(end: End, letters: np.ndarray) -> np.ndarray:
    """Return how often each letter is expected, place by place, (3 · WIDTH − 2, letter).

    Places are counted along the occurrences and beside them: an occurrence begins at row WIDTH − 1.
    """
    num_starts = letters.shape[1] - WIDTH + 1
    padded = np.pad(letters, ((0, 0), (WIDTH - 1, WIDTH - 1)), constant_values=-1)
    # (sequence, place, start)
    read = np.lib.stride_tricks.sliding_window_view(padded, num_starts, axis=1)
    posterior = end.starts[:, :num_starts]
    return np.stack([np.einsum("ns,nps->p", posterior, read == a) for a in range(4)], axis=1)


def moved(end: End, letters: np.ndarray) -> np.ndarray:
    """Return the motifs (move, column, letter) that are read beside the occurrences.

    All occurrences are moved by 1 … WIDTH − 1 letters, to either side.

    One letter of the background is added to each column: EM never leaves a probability of zero.
    """
    rows = profile(end, letters) + end.params["background"]
    rows /= rows.sum(axis=1, keepdims=True)
    others = [first for first in range(2 * WIDTH - 1) if first != WIDTH - 1]
    return np.stack([rows[first : first + WIDTH] for first in others])


def realigned(em: EM, letters: np.ndarray, end: End) -> End:
    """Return where EM ends if it goes on from the best of the moves.

    It does so for as long as a move makes the data more likely.

    Source: Lawrence et al. (1993), "Detecting subtle sequence signals: a Gibbs sampling strategy
    for multiple alignment", Science 262, where such moves are proposed to a sampler; to take the
    best of them is ours.
    """

    def log_likelihood(moved_motif: jax.Array) -> jax.Array:
        return em.log_likelihood(end.params | {"motif": moved_motif}, letters, WIDTH)

    while True:
        motifs = moved(end, letters)
        heights = jax.vmap(log_likelihood)(motifs)
        if heights.max() <= end.log_likelihood:
            return end
        end = end_of(em, letters, end.params | {"motif": motifs[heights.argmax()]})
