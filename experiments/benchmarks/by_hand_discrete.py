"""Dawid–Skene, latent classes and topics by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Float

from experiments.benchmarks.by_hand import log, normalized, runner
from experiments.benchmarks.contestant import Run


def dawid_skene(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of Dawid–Skene on a table of labels, (position, item).

    Each cell reads one row of the table (annotator · label, class), whose last row is for items
    that have fewer labels than others.
    """
    num_items, num_classes = sizes["num_items"], sizes["num_classes"]

    def step(params, cells):
        log_confusion = log(params["confusion"]).transpose(0, 2, 1).reshape(-1, num_classes)
        log_confusion = jnp.pad(log_confusion, ((0, 1), (0, 0)))
        # lookups of all positions at once would be as many rows as there are labels, twice
        evidence = sum(log_confusion[numbers] for numbers in cells)
        posterior = jax.nn.softmax(log(params["prevalence"]) + evidence, axis=1)
        labels = jnp.zeros_like(log_confusion)
        for numbers in cells:
            labels = labels.at[numbers].add(posterior)
        labels = labels[:-1].reshape(-1, num_classes, num_classes).transpose(0, 2, 1)
        return {"prevalence": normalized(posterior.sum(0)), "confusion": normalized(labels)}

    item = data["item"]
    lengths = np.bincount(item, minlength=num_items)
    position = np.arange(len(item)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    num_cells = sizes["num_annotators"] * num_classes
    cells = np.full((lengths.max(), num_items), num_cells, np.int32)
    cells[position, item] = data["annotator"] * num_classes + data["label"]
    return runner(step, start, list(map(jnp.asarray, cells)))


def latent_class(distinct: bool) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of latent classes: logits = (x, 1) @ η.

    It is on all rows, or on distinct rows with counts.
    """

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        answers, count = data.pop("answers"), None
        if distinct:
            answers, count = np.unique(answers, axis=0, return_counts=True)
            count = jnp.asarray(count.astype(answers.dtype))
        features = jnp.asarray(np.concatenate([answers, np.ones_like(answers[:, :1])], axis=1))
        return runner(latent_class_step, start, (features, count))

    return setup


def latent_class_step(params: dict, data: tuple) -> dict:
    """Return the parameters after one EM step of latent classes."""
    features, count = data
    wrong = jnp.log1p(-params["probs"])
    constant = jnp.log(params["weights"]) + wrong.sum(1)
    table = jnp.concatenate([(jnp.log(params["probs"]) - wrong).T, constant[None]])

    def log_z(table):
        each = logsumexp(features @ table, axis=1)
        return each.sum() if count is None else each @ count

    expected = jax.grad(log_z)(table).T
    return {"weights": normalized(expected[:, -1]), "probs": expected[:, :-1] / expected[:, -1:]}


def plsa(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of pLSA, each document's rows padded to those of the longest.

    So its shares need no gather.
    """

    def step(params, rows):
        word, count = rows

        def log_z(tables):
            theta, words = tables
            return (count * jnp.log(jnp.einsum("dlk,dk->dl", words[word], theta))).sum()

        theta, words = params["theta"], params["words"].T
        of_theta, of_words = jax.grad(log_z)((theta, words))
        return {"theta": normalized(theta * of_theta), "words": normalized((words * of_words).T)}

    return runner(step, start, padded(data, sizes["num_documents"]))


def padded(data: dict, num_documents: int) -> tuple[jax.Array, jax.Array]:
    """Return words and counts as (document, position); the padding is word 0 with count 0."""
    document = data["document"]
    lengths = np.bincount(document, minlength=num_documents)
    position = np.arange(len(document)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    word = np.zeros((num_documents, lengths.max()), np.int32)
    count = np.zeros(word.shape, data["count"].dtype)
    word[document, position], count[document, position] = data["word"], data["count"]
    return jnp.asarray(word), jnp.asarray(count)


def in_buckets(rows: dict, key: str, other: str, size: int) -> tuple[list, np.ndarray]:
    """Return what stands beside each key, keys with about as many rows together.

    A bucket is `other` (position, key) and `count` alike; the padding is 0 with count 0. Also
    returned: where each key is, in the order of the buckets.
    """
    order = np.argsort(rows[key], kind="stable")
    beside, count = rows[other][order], rows["count"][order]
    lengths = np.bincount(rows[key], minlength=size)
    first = np.cumsum(lengths) - lengths
    width = 2 ** np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    buckets, keys = [], []
    for number in np.unique(width):
        members = np.flatnonzero(width == number)
        longest = lengths[members].max()
        is_there = np.arange(longest)[:, None] < lengths[members]
        place = np.where(is_there, first[members] + np.arange(longest)[:, None], 0)
        numbers = np.where(is_there, beside[place], 0).astype(np.int32)
        buckets.append((jnp.asarray(numbers), jnp.asarray(is_there * count[place])))
        keys.append(members)
    return buckets, np.argsort(np.concatenate(keys)).astype(np.int32)


def gathered(table: Array, buckets: list) -> Float[Array, "key value"]:
    """Return Σ count · table[other] of every key, in the order of the buckets."""

    def of_bucket(numbers, count):
        def add(position, total):
            return total + count[position][:, None] * table[numbers[position]]

        zero = jnp.zeros((numbers.shape[1], table.shape[1]), table.dtype)
        return lax.fori_loop(0, len(numbers), add, zero)

    return jnp.concatenate([of_bucket(*bucket) for bucket in buckets])


def multinomials(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the mixture of multinomials: sparse products by lookups, both ways.

    One is over the words of each document, one over the documents of each word: nothing scatters.
    """

    def step(params, rows):
        (of_documents, of_words), (documents, words) = rows
        evidence = gathered(log(params["words"]).T, of_documents)
        # in the order of the documents' buckets, then in their own
        posterior = jax.nn.softmax(log(params["weights"]) + evidence, axis=1)
        counts = gathered(posterior[documents], of_words)[words]
        return {"weights": normalized(posterior.sum(0)), "words": normalized(counts.T)}

    pairs = ("document", "word"), ("word", "document")
    lengths = sizes["num_documents"], sizes["num_words"]
    both = [in_buckets(data, *pair, size) for pair, size in zip(pairs, lengths, strict=True)]
    buckets, places = zip(*both, strict=True)
    return runner(step, start, (buckets, tuple(map(jnp.asarray, places))))


SETUPS = {
    "hand-written JAX": {
        "dawid_skene": dawid_skene,
        "latent_class": latent_class(distinct=False),
        "plsa": plsa,
        "multinomials": multinomials,
    },
    "hand-written JAX, distinct rows": {"latent_class": latent_class(distinct=True)},
}
