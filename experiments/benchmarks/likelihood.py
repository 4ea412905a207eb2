"""log p(data | parameters) of each model, in nats, summed over the data.

It is written once, in NumPy and float64.

Every implementation is judged by this function at the parameters that it ends with, not by what it
reports of itself. The multinomial coefficient is left out everywhere.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_array

BLOCK = 100_000  # rows: some 10 MB


def logsumexp(values: np.ndarray) -> np.ndarray:
    """Return log Σ exp over the last axis."""
    largest = values.max(axis=-1, keepdims=True)
    return np.log(np.exp(values - largest).sum(axis=-1)) + largest[..., 0]


def log(values: np.ndarray) -> np.ndarray:
    """Return the logarithm, with log 0 = -1e300, so that 0 · log 0 = 0."""
    return np.log(values, where=values > 0, out=np.full(values.shape, -1e300))


def gaussian(params: dict, data: dict) -> float:
    """Return that of a Gaussian mixture.

    Its spread is `covariance` (component, feature, feature), or `scale` (component, feature) or
    (component,).
    """
    points = data["points"].reshape(len(data["points"]), -1)
    loc = params["loc"].reshape(len(params["loc"]), -1)
    if "covariance" in params:
        factor = np.linalg.cholesky(params["covariance"])
        whitening = np.linalg.inv(factor).swapaxes(1, 2)  # x ↦ x whitening
        log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    else:
        scale = params["scale"].reshape(loc.shape)
        whitening, log_det = np.eye(loc.shape[1]) / scale[:, None, :], np.log(scale).sum(axis=1)
    constant = np.log(params["weights"]) - log_det - loc.shape[1] / 2 * np.log(2 * np.pi)
    total = 0.0
    for first in range(0, len(points), BLOCK):
        block = points[first : first + BLOCK].astype(np.float64)
        distance = [
            (((block - m) @ w) ** 2).sum(axis=1) for m, w in zip(loc, whitening, strict=True)
        ]
        total += logsumexp(constant - 0.5 * np.stack(distance, axis=1)).sum()
    return total


def dawid_skene(params: dict, data: dict) -> float:
    """Dawid–Skene with `prevalence` (class,) and `confusion` (annotator, class, label)."""
    table, item = log(params["confusion"]), data["item"]
    evidence = [
        np.bincount(item, table[data["annotator"], c, data["label"]])
        for c in range(len(params["prevalence"]))
    ]
    return logsumexp(log(params["prevalence"]) + np.stack(evidence, axis=1)).sum()


def latent_class(params: dict, data: dict) -> float:
    """Latent classes of binary items with `weights` (class,) and `probs` (class, item)."""
    answers, probs = data["answers"], params["probs"]
    evidence = answers @ log(probs).T + (1 - answers) @ log(1 - probs).T
    return logsumexp(log(params["weights"]) + evidence).sum()


def plsa(params: dict, data: dict) -> float:
    """pLSA with `theta` (document, topic) and `words` (topic, word)."""
    mixed = np.einsum(
        "tk,tk->t", params["theta"][data["document"]], params["words"].T[data["word"]]
    )
    return (data["count"] * np.log(mixed)).sum()


def multinomials(params: dict, data: dict) -> float:
    """Mixture of multinomials with `weights` (topic,) and `words` (topic, word)."""
    counts = coo_array((data["count"], (data["document"], data["word"]))).tocsr()
    return logsumexp(log(params["weights"]) + counts @ log(params["words"]).T).sum()


def hidden_markov(params: dict, log_density: np.ndarray) -> float:
    """Return that of a hidden Markov model.

    It has `initial` (state,) and `transition` (state, next state); `log_density` is log p(x_t |
    z_t), (time, sequence, state).
    """
    largest = log_density.max(axis=-1, keepdims=True)
    density = np.exp(log_density - largest)
    scales = np.empty((*density.shape[:2], 1))
    message = params["initial"] * density[0]
    for t in range(len(density)):
        message = message if t == 0 else (message @ params["transition"]) * density[t]
        scales[t] = message.sum(axis=-1, keepdims=True)
        message = message / scales[t]
    return (np.log(scales) + largest).sum()


def hmm_categorical(params: dict, data: dict) -> float:
    """Hidden Markov model of symbols, with `emission` (state, symbol)."""
    return hidden_markov(params, log(params["emission"]).T[data["symbols"]])


def hmm_gaussian(params: dict, data: dict) -> float:
    """Hidden Markov model of points, with `loc` and `scale` (state, feature)."""
    log_density = np.zeros((*data["points"].shape[:2], len(params["loc"])))
    for x, m, s in zip(
        np.moveaxis(data["points"], -1, 0), params["loc"].T, params["scale"].T, strict=True
    ):
        log_density -= 0.5 * ((x[..., None] - m) / s) ** 2 + np.log(s) + 0.5 * np.log(2 * np.pi)
    return hidden_markov(params, log_density)


LOG_LIKELIHOODS: dict[str, Callable[[dict, dict], float]] = {
    "gaussian_full": gaussian,
    "gaussian_diagonal": gaussian,
    "gaussian_1d": gaussian,
    "dawid_skene": dawid_skene,
    "latent_class": latent_class,
    "plsa": plsa,
    "multinomials": multinomials,
    "hmm_categorical": hmm_categorical,
    "hmm_gaussian": hmm_gaussian,
}
