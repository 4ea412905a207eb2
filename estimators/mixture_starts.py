"""Where `GaussianMixture` starts: responsibilities as scikit-learn draws them, and one M-step."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

# scikit-learn's; other names are those of `emjax.EM(init=…)`
METHODS = ("kmeans", "k-means++", "random", "random_from_data")
# of its M-step: a component without samples has no mean otherwise
LEAST_COUNT = 10 * np.finfo(np.float64).eps
# A variance of this part of the data's is none. EM calls a component collapsed that has no more.
SINGULAR = 1e-10


def filled_in(X: np.ndarray) -> np.ndarray:
    """Return samples with what is missing at its column's mean: for a start, and nothing else."""
    missing = np.isnan(X)
    if not missing.any():
        return X
    counts = np.maximum((~missing).sum(axis=0), 1)
    return np.where(missing, np.nansum(X, axis=0) / counts, X)


def responsibilities(
    X: np.ndarray,
    num_components: int,
    method: str,
    rng: np.random.RandomState,
    weights: np.ndarray | None,
    labels: np.ndarray | None,
) -> np.ndarray:
    """Return responsibilities, (n_samples, n_components), as scikit-learn's mixture draws them.

    `weights`: of samples, in k-means. `labels`: where they are known, they are what they say, and
    k-means begins with the means of those that bear one.
    """
    if method == "kmeans":
        start: Any = "k-means++" if labels is None else _centers(X, num_components, rng, labels)
        k_means = KMeans(num_components, init=start, n_init=1, random_state=rng)
        found = np.eye(num_components)[k_means.fit(X, sample_weight=weights).labels_]
    elif method == "random":
        found = rng.uniform(size=(len(X), num_components))
        found /= found.sum(axis=1, keepdims=True)
    else:
        if method == "random_from_data":
            rows = rng.choice(len(X), size=num_components, replace=False)
        else:
            _, rows = kmeans_plusplus(X, num_components, random_state=rng)
        found = np.zeros((len(X), num_components))
        found[rows, np.arange(num_components)] = 1
    if labels is not None:
        known = labels >= 0
        found[known] = np.eye(num_components)[labels[known]]
    return found


def _centers(
    X: np.ndarray, num_components: int, rng: np.random.RandomState, labels: np.ndarray
) -> np.ndarray:
    """Return the mean of those that bear each label; of others, points far from one another."""
    centers, _ = kmeans_plusplus(X, num_components, random_state=rng)
    for label in np.unique(labels[labels >= 0]):
        centers[label] = X[labels == label].mean(axis=0)
    return centers


def maximum(
    X: np.ndarray, found: np.ndarray, covariance_type: str, weights: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return {"weights", "means", "covariances"} of the M-step at responsibilities.

    `covariances`: (K, D, D), (D, D), (K, D) or (K,), as `covariance_type` says. One that is
    singular, of a component with few samples, is that of all samples.
    """
    if weights is not None:
        found = found * weights[:, None]
    counts = found.sum(axis=0) + LEAST_COUNT
    means = found.T @ X / counts[:, None]
    each = np.stack([_covariance(X, r, mean) for r, mean in zip(found.T, means, strict=True)])
    every = np.ones(len(X)) if weights is None else weights
    of_all = _covariance(X, every, every @ X / every.sum())
    if covariance_type == "tied":
        total = np.tensordot(counts, each, 1) / counts.sum()
        covariances = _regular(total, of_all)
    elif covariance_type == "full":
        covariances = np.stack([_regular(covariance, of_all) for covariance in each])
    else:
        variances, variance_of_all = _variances(each), _variances(of_all)
        if covariance_type == "spherical":
            variances, variance_of_all = variances.mean(axis=1), variance_of_all.mean()
        is_positive = variances > SINGULAR * variance_of_all
        covariances = np.where(is_positive, variances, _positive(variance_of_all))
    return {"weights": counts / counts.sum(), "means": means, "covariances": covariances}


def _covariance(X: np.ndarray, counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    deviations = X - mean
    return (counts * deviations.T) @ deviations / (counts.sum() + LEAST_COUNT)


def _variances(covariances: np.ndarray) -> np.ndarray:
    return np.diagonal(covariances, axis1=-2, axis2=-1)


def _regular(covariance: np.ndarray, of_all: np.ndarray) -> np.ndarray:
    """Return a covariance, that of all samples where it is singular, or else their variances."""
    units = np.sqrt(_positive(_variances(of_all)))
    for candidate in (covariance, of_all):
        if np.linalg.eigvalsh(candidate / np.outer(units, units))[0] > SINGULAR:
            return candidate
    return np.diag(units**2)


def _positive(variances: np.ndarray) -> np.ndarray:
    """Return variances, and 1 in place of those of features that do not vary."""
    return np.where(variances > 0, variances, 1)
