"""EM by hand in NumPy and SciPy, as one writes it without JAX.

It is made of bincounts, matrix products and sparse matrices.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from experiments.benchmarks.contestant import Fit, Run


def runner(step: Callable[[dict], dict], start: dict) -> Run:
    """Return the loop over `step`."""

    def run(num_steps: int) -> Fit:
        params = start
        for _ in range(num_steps):
            params = step(params)
        return Fit(params, num_steps)

    return run


def log(probability: np.ndarray) -> np.ndarray:
    """Return the logarithm, finite at 0."""
    return np.log(np.maximum(probability, np.finfo(probability.dtype).tiny))


def posterior(log_joint: np.ndarray) -> np.ndarray:
    """Return p(z | x) from log p(x, z), the values of z last; overwrites its argument."""
    log_joint -= log_joint.max(axis=1, keepdims=True)
    np.exp(log_joint, out=log_joint)
    log_joint /= log_joint.sum(axis=1, keepdims=True)
    return log_joint


def dawid_skene(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of Dawid–Skene: a bincount for each class, there and back."""
    item, num_items = data["item"], sizes["num_items"]
    num_annotators, num_classes = sizes["num_annotators"], sizes["num_classes"]
    index = data["annotator"] * num_classes + data["label"]

    def step(params):
        # (class, annotator · label)
        table = log(params["confusion"]).transpose(1, 0, 2).reshape(num_classes, -1)
        joint = np.stack([np.bincount(item, row[index], num_items) for row in table], axis=1)
        r = posterior(joint + log(params["prevalence"]))
        labels = [
            np.bincount(index, r[item, c], num_annotators * num_classes) for c in range(num_classes)
        ]
        counts = np.stack(labels).reshape(num_classes, num_annotators, num_classes)
        counts = counts.transpose(1, 0, 2)
        confusion = counts / counts.sum(axis=2, keepdims=True)
        return {"prevalence": r.mean(axis=0), "confusion": confusion}

    return runner(step, start)


def latent_class(distinct: bool) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of latent classes, on all rows or on distinct rows with counts."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        answers, count = data.pop("answers"), None
        if distinct:
            answers, count = np.unique(answers, axis=0, return_counts=True)
            count = count.astype(answers.dtype)[:, None]

        def step(params):
            wrong = np.log1p(-params["probs"])
            joint = answers @ (np.log(params["probs"]) - wrong).T
            joint += np.log(params["weights"]) + wrong.sum(axis=1)
            r = posterior(joint)
            if distinct:
                r *= count
            totals = r.sum(axis=0)
            return {"weights": totals / totals.sum(), "probs": (r.T @ answers) / totals[:, None]}

        return runner(step, start)

    return setup


def plsa(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of pLSA: the mixed probability of each row, then two sparse products."""
    document, word, count = data["document"], data["word"], data["count"]
    shape = sizes["num_documents"], sizes["num_words"]
    counts = csr_array((count, (document, word)), shape)

    def step(params):
        theta, words = params["theta"], np.ascontiguousarray(params["words"].T)
        ratio = counts.copy()
        ratio.data = count / np.einsum("tk,tk->t", theta[document], words[word])
        shares, topics = theta * (ratio @ words), (words * (ratio.T @ theta)).T
        return {
            "theta": shares / shares.sum(axis=1, keepdims=True),
            "words": topics / topics.sum(axis=1, keepdims=True),
        }

    return runner(step, start)


def multinomials(dense: bool) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of a mixture of multinomials on sparse or dense counts."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        shape = sizes["num_documents"], sizes["num_words"]
        counts = csr_array((data["count"], (data["document"], data["word"])), shape)
        counts = counts.toarray() if dense else counts
        transposed = counts.T if dense else counts.T.tocsr()

        def step(params):
            r = posterior(counts @ log(params["words"]).T + log(params["weights"]))
            words = (transposed @ r).T
            return {"weights": r.mean(axis=0), "words": words / words.sum(axis=1, keepdims=True)}

        return runner(step, start)

    return setup


SETUPS = {
    "NumPy": {"dawid_skene": dawid_skene, "latent_class": latent_class(distinct=False)},
    "NumPy, distinct rows": {"latent_class": latent_class(distinct=True)},
    "NumPy, dense": {"multinomials": multinomials(dense=True)},
    "SciPy": {"plsa": plsa, "multinomials": multinomials(dense=False)},
}
