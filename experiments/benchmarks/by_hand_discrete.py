"""Dawid–Skene, latent classes and topics by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp
from jax.ops import segment_sum

from experiments.benchmarks.by_hand import log, normalized, runner
from experiments.benchmarks.contestant import Run


def dawid_skene(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of Dawid–Skene on rows sorted by item.

    Each row reads one row of the table (annotator · label, class).
    """
    num_items, num_classes = sizes["num_items"], sizes["num_classes"]

    def step(params, rows):
        item, index = rows
        log_confusion = log(params["confusion"]).transpose(0, 2, 1).reshape(-1, num_classes)

        def log_z(tables):
            prevalence, confusion = tables
            evidence = segment_sum(confusion[index], item, num_items, indices_are_sorted=True)
            return logsumexp(prevalence + evidence, axis=1).sum()

        classes, labels = jax.grad(log_z)((log(params["prevalence"]), log_confusion))
        labels = labels.reshape(-1, num_classes, num_classes).transpose(0, 2, 1)
        return {"prevalence": normalized(classes), "confusion": normalized(labels)}

    index = data["annotator"] * num_classes + data["label"]
    return runner(step, start, (jnp.asarray(data["item"]), jnp.asarray(index)))


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


def multinomials(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the mixture of multinomials on rows sorted by document."""
    num_documents = sizes["num_documents"]

    def step(params, rows):
        document, word, count = rows

        def log_z(tables):
            weights, words = tables
            terms = count[:, None] * words[word]
            evidence = segment_sum(terms, document, num_documents, indices_are_sorted=True)
            return logsumexp(weights + evidence, axis=1).sum()

        weights, words = jax.grad(log_z)((log(params["weights"]), log(params["words"]).T))
        return {"weights": normalized(weights), "words": normalized(words.T)}

    rows = tuple(jnp.asarray(data[name]) for name in ("document", "word", "count"))
    return runner(step, start, rows)


SETUPS = {
    "hand-written JAX": {
        "dawid_skene": dawid_skene,
        "latent_class": latent_class(distinct=False),
        "plsa": plsa,
        "multinomials": multinomials,
    },
    "hand-written JAX, distinct rows": {"latent_class": latent_class(distinct=True)},
}
