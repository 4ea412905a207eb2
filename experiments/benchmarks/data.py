"""Data drawn from each model, and one start for every implementation.

A generator takes the sizes of the row and returns `Problem(data, start)`: two dicts of float64 and
int32 arrays (the points of the largest row are float32: they are never doubled). The components
overlap, so that EM is still far from convergence after the steps that are timed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class Problem(NamedTuple):
    """What is observed, and the parameters that EM starts from, by name."""

    data: Arrays
    start: Arrays


def gaussian(covariance: str) -> Callable[..., Problem]:
    """Return the generator of points from Gaussians of a "full" or "diagonal" covariance.

    One feature is an array of shape (sample,).
    """

    def problem(
        num_samples: int, num_features: int, num_components: int, single: bool = False
    ) -> Problem:
        rng = np.random.default_rng(0)
        dtype = np.float32 if single else np.float64
        # two centers are 3 standard deviations apart
        centers = rng.normal(size=(num_components, num_features)) * 3 / np.sqrt(2 * num_features)
        shape = num_components, num_features
        tilt = rng.normal(size=(*shape, num_features)) / (2 * np.sqrt(num_features))
        mixing = np.eye(num_features) + tilt
        if covariance == "diagonal" or num_features == 1:
            mixing = rng.uniform(0.7, 1.3, size=(*shape, 1)) * np.eye(num_features)
        mixing, offsets = mixing.astype(dtype), centers.astype(dtype)
        points = np.empty((num_samples, num_features), dtype)
        for block in np.array_split(points, max(1, num_samples // 10_000)):  # views
            component = np.sort(rng.integers(num_components, size=len(block)))
            noise = rng.standard_normal(block.shape, dtype)
            for k in range(num_components):
                noise[component == k] = noise[component == k] @ mixing[k] + offsets[k]
            block[:] = rng.permutation(noise)
        start = gaussian_start(points, covariance, centers)
        return Problem({"points": points.squeeze(1) if num_features == 1 else points}, start)

    return problem


def gaussian_start(points: np.ndarray, covariance: str, centers: np.ndarray) -> Arrays:
    """Return equal weights, means half-way to the true ones, and one spread for all.

    The spread is that of 10,000 points.

    Means at points of the data would leave a component with fewer points than dimensions, in 64 of
    them.
    """
    num_components, loc = len(centers), centers / 2
    start = {"weights": np.full(num_components, 1 / num_components), "loc": loc}
    some = points[:10_000].astype(np.float64)
    if points.shape[1] == 1:
        return start | {"loc": loc[:, 0], "scale": np.full(num_components, some.std())}
    if covariance == "diagonal":
        return start | {"scale": np.tile(some.std(axis=0), (num_components, 1))}
    return start | {"covariance": np.tile(np.cov(some, rowvar=False), (num_components, 1, 1))}


def dawid_skene(num_items: int, num_annotators: int, num_classes: int, labels_each: int) -> Problem:
    """Return labels of annotators of unequal skill, sorted by item.

    The start is what the majority votes give.
    """
    rng = np.random.default_rng(0)
    skill = rng.uniform(0.2, 0.6, size=(num_annotators, 1, 1))
    guess = rng.dirichlet(np.ones(num_classes), (num_annotators, num_classes))
    confusion = skill * np.eye(num_classes) + (1 - skill) * guess
    truth = rng.choice(num_classes, size=num_items, p=rng.dirichlet(np.full(num_classes, 5.0)))
    item = np.repeat(np.arange(num_items), labels_each)
    # everyone labels once, so that a library that looks for annotators finds all of them
    annotator = rng.permutation(np.resize(np.arange(num_annotators), len(item)))
    cumulative = confusion.cumsum(axis=2)
    draws = rng.random(len(item))
    label = np.zeros(len(item), np.int64)
    for c in range(num_classes - 1):
        label += draws > cumulative[annotator, truth[item], c]
    votes = np.zeros((num_items, num_classes))
    np.add.at(votes, (item, label), 1.0)
    votes /= votes.sum(axis=1, keepdims=True)
    rows = {"item": item, "annotator": annotator, "label": label}
    start = majority_start(votes, item, annotator * num_classes + label, num_annotators)
    return Problem({name: values.astype(np.int32) for name, values in rows.items()}, start)


def majority_start(
    votes: np.ndarray, item: np.ndarray, index: np.ndarray, num_annotators: int
) -> Arrays:
    """Return prevalence and confusion as if `votes` (item, class) were the posterior.

    `index` counts the pairs (annotator, label).
    """
    num_classes = votes.shape[1]
    num_cells = num_annotators * num_classes
    table = np.zeros((num_annotators, num_classes, num_classes))  # (annotator, class, label)
    for c in range(num_classes):
        table[:, c] = np.bincount(index, votes[item, c], num_cells).reshape(num_annotators, -1)
    table = np.maximum(table, 1e-10)  # as crowd-kit does
    confusion = table / table.sum(axis=2, keepdims=True)
    return {"prevalence": votes.mean(axis=0), "confusion": confusion}


def latent_class(num_people: int, num_items: int, num_classes: int) -> Problem:
    """Return binary answers, about half of which repeat those of somebody else at 100,000 × 20."""
    rng = np.random.default_rng(0)
    probs = rng.beta(0.9, 0.9, size=(num_classes, num_items))
    person = rng.integers(num_classes, size=num_people)
    answers = (rng.random((num_people, num_items)) < probs[person]).astype(np.float64)
    start = {
        "weights": np.full(num_classes, 1 / num_classes),
        "probs": rng.uniform(0.25, 0.75, size=(num_classes, num_items)),
    }
    return Problem({"answers": answers}, start)


def word_counts(
    num_documents: int, num_words: int, num_topics: int, document_length: int
) -> Arrays:
    """Return rows (document, word, count), sorted by document and word; every word occurs."""
    rng = np.random.default_rng(0)
    popularity = 1 / (10 + rng.permutation(num_words))
    topics = rng.dirichlet(200 * popularity / popularity.sum(), num_topics)
    shares = rng.dirichlet(np.full(num_topics, 0.2), num_documents)
    lengths = 1 + rng.poisson(document_length - 1, num_documents)
    counts = np.stack(
        [rng.multinomial(n, share @ topics) for n, share in zip(lengths, shares, strict=True)]
    )
    missing = np.flatnonzero(counts.sum(axis=0) == 0)
    np.add.at(counts, (rng.integers(num_documents, size=len(missing)), missing), 1)
    document, word = np.nonzero(counts)
    rows = {"document": document.astype(np.int32), "word": word.astype(np.int32)}
    return rows | {"count": counts[document, word].astype(np.float64)}


def plsa(num_documents: int, num_words: int, num_topics: int, document_length: int) -> Problem:
    """Return word counts, and random topics and shares."""
    rng = np.random.default_rng(1)
    start = {
        "theta": rng.dirichlet(np.full(num_topics, 5.0), num_documents),
        "words": rng.dirichlet(np.full(num_words, 5.0), num_topics),
    }
    return Problem(word_counts(num_documents, num_words, num_topics, document_length), start)


def multinomials(
    num_documents: int, num_words: int, num_topics: int, document_length: int
) -> Problem:
    """Return the same word counts, and random topics of equal weight."""
    start = plsa(num_documents, num_words, num_topics, document_length).start
    weights = np.full(num_topics, 1 / num_topics)
    return Problem(
        word_counts(num_documents, num_words, num_topics, document_length),
        {"weights": weights, "words": start["words"]},
    )


def chain_of_states(
    rng: np.random.Generator, num_sequences: int, sequence_length: int, num_states: int
) -> np.ndarray:
    """Return states (time, sequence).

    Four times in five a sequence stays, else it moves on by a random number of states.
    """
    chances = 0.2 * rng.dirichlet(np.ones(num_states))
    chances[0] += 0.8
    moves = rng.choice(num_states, p=chances, size=(sequence_length, num_sequences))
    moves[0] = rng.integers(num_states, size=num_sequences)
    return moves.cumsum(axis=0) % num_states


def chain_start(num_states: int) -> Arrays:
    """Return the start of `emjax.models.hidden_markov`.

    States are equally probable, and last two steps or more.
    """
    return {
        "initial": np.full(num_states, 1 / num_states),
        "transition": (np.eye(num_states) + 1 / num_states) / 2,
    }


def hmm_categorical(
    num_sequences: int, sequence_length: int, num_states: int, num_symbols: int
) -> Problem:
    """Return symbols (time, sequence).

    Probabilities of symbols start half-way between the true ones and equal ones.
    """
    rng = np.random.default_rng(0)
    emission = rng.dirichlet(np.full(num_symbols, 0.3), num_states)
    state = chain_of_states(rng, num_sequences, sequence_length, num_states)
    draws = rng.random(state.shape)
    symbols = (draws[..., None] > emission.cumsum(axis=1)[state, :-1]).sum(axis=-1, dtype=np.int32)
    start = chain_start(num_states) | {"emission": (emission + 1 / num_symbols) / 2}
    return Problem({"symbols": symbols}, start)


def hmm_gaussian(
    num_sequences: int, sequence_length: int, num_states: int, num_features: int
) -> Problem:
    """Return points (time, sequence, feature).

    Means start half-way to the true ones, with the spread of all points.
    """
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_states, num_features)) * 3 / np.sqrt(2 * num_features)
    scale = rng.uniform(0.7, 1.3, size=(num_states, num_features))
    state = chain_of_states(rng, num_sequences, sequence_length, num_states)
    points = centers[state] + scale[state] * rng.normal(size=(*state.shape, num_features))
    spread = np.tile(points.std(axis=(0, 1)), (num_states, 1))
    start = chain_start(num_states) | {"loc": centers / 2, "scale": spread}
    return Problem({"points": points}, start)


GENERATORS: dict[str, Callable[..., Problem]] = {
    "gaussian_full": gaussian("full"),
    "gaussian_diagonal": gaussian("diagonal"),
    "gaussian_1d": gaussian("diagonal"),
    "dawid_skene": dawid_skene,
    "latent_class": latent_class,
    "plsa": plsa,
    "multinomials": multinomials,
    "hmm_categorical": hmm_categorical,
    "hmm_gaussian": hmm_gaussian,
}
