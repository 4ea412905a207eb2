"""Parameters fitted to clusters of the rows of data, by steps of a run that is compiled already.

Where all values of a latent have one distribution, an EM step fits it to the data that it is given,
whatever the program: on the rows of one cluster, it is that cluster's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emjax.families.limits import entry_constraint, is_simplex
from emjax.program.records import Parameter
from emjax.run.rerun import Rerun

# so many rows are clustered: clusters that need more are no large ones
MOST_ROWS = 1000
# k-means from so many seeds, of which the best is taken, for so many rounds
NUM_SEEDS, NUM_ROUNDS = 2, 10


def fitted_to_clusters(rerun: Rerun, params: Mapping[str, Any], seed: int) -> dict[str, Any] | None:
    """Return parameters at which each value of a latent has the distribution of a cluster of rows.

    An axis of a parameter that is as long as a latent has values stands for these. None where rows
    have nothing to cluster them by. `params`: of any estimate.
    """
    graph = rerun.compiled.graph
    sizes = {latent.support.shape[0] for latent in graph.latents.values()} - {1}
    number, stride = max(sizes), max(_num_rows(rerun) // MOST_ROWS, 1)
    features = _features(rerun)[::stride]
    if len(features) < number or not features.shape[1]:
        return None
    labels = _clusters(features, number, np.random.default_rng(seed))
    flat = _flat(rerun, params, sizes)
    fits = []
    for label in range(number):
        members = stride * np.flatnonzero(labels == label)
        if not len(members):
            return None
        data = rerun.of_rows({rerun.rows: np.resize(members, rerun.rows)})
        fits.append(rerun.steps(flat, 1, data=data).params)
    start = {}
    for name, parameter in graph.parameters.items():
        of_clusters = np.stack([fit[name] for fit in fits])
        joined = _joined(parameter, of_clusters, sizes)
        start[name] = params[name] if name in rerun.held else joined
    return start


def _num_rows(rerun: Rerun) -> int:
    """Return how many rows count; those that do not are the last ones."""
    return rerun.num_rows.get(rerun.rows, rerun.rows)


def _features(rerun: Rerun) -> np.ndarray:
    """Return (row, feature): all numbers of each row that counts, standardized."""
    length, count = rerun.rows, _num_rows(rerun)
    columns = [np.zeros((count, 0))]
    for array in rerun.arrays:
        is_numeric = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
        if is_numeric and array.shape[:1] == (length,):
            columns.append(array[:count].reshape(count, -1).astype(float))
    values = np.concatenate(columns, axis=1)
    is_known = np.isfinite(values)
    values = np.where(is_known, values, 0)
    # squares of the largest numbers would be none
    values = values / np.maximum(np.abs(values).max(0), np.finfo(float).tiny)
    mean = values.sum(0) / np.maximum(is_known.sum(0), 1)
    deviations = np.where(is_known, values - mean, 0)
    spread = np.sqrt((deviations**2).mean(0))
    varies = spread > 0
    return deviations[:, varies] / spread[varies]


def _clusters(points: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster of each point: the best of several k-means."""
    found = [_lloyd(points, number, rng) for _ in range(NUM_SEEDS)]
    return min(found, key=lambda labels_and_loss: labels_and_loss[1])[0]


def _lloyd(points: np.ndarray, number: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return the cluster of each point, and the sum of squared distances to their means.

    Source: Arthur & Vassilvitskii (2007); Lloyd (1982).
    """
    means = points[rng.integers(len(points), size=1)]
    nearest = np.full(len(points), np.inf)
    while len(means) < number:
        nearest = np.minimum(nearest, ((points - means[-1]) ** 2).sum(1))
        # where every point is a mean already, any will do
        mass = np.cumsum(nearest if nearest.any() else np.ones(len(points)))
        seed = np.searchsorted(mass, rng.random() * mass[-1], side="right")
        means = np.concatenate([means, points[None, min(seed, len(points) - 1)]])
    size = (points**2).sum(1)
    for _ in range(NUM_ROUNDS):
        distances = (means**2).sum(1) - 2 * points @ means.T
        labels = distances.argmin(1)
        members = (labels[:, None] == np.arange(number)).astype(float)
        counts = members.sum(0)[:, None]
        means = np.where(counts > 0, members.T @ points / np.maximum(counts, 1), means)
    return labels, float((distances.min(1) + size).sum())


def _flat(rerun: Rerun, params: Mapping[str, Any], sizes: set[int]) -> dict[str, np.ndarray]:
    """Return the parameters with one distribution for all values of latents."""
    flat = {}
    for name, parameter in rerun.compiled.graph.parameters.items():
        value = np.asarray(params[name])
        axis = _axis_of_values(parameter, sizes)
        if axis is not None:
            # an entry is allowed, whatever the constraint; a mean of several may not be
            first = np.take(value, [0], axis)
            value = np.broadcast_to(first, value.shape)
        flat[name] = _even(parameter, value, sizes)
    return flat


def _joined(parameter: Parameter, fits: np.ndarray, sizes: set[int]) -> np.ndarray:
    """Return a parameter of which each value of a latent has its cluster's, from all (cluster, …).

    What all values share is that of the first cluster; proportions are even.
    """
    axis = _axis_of_values(parameter, sizes)
    value = fits[0]
    if axis is not None:
        by_value = np.moveaxis(fits, 1 + axis, 1)
        numbers = np.arange(by_value.shape[1])
        value = np.moveaxis(by_value[numbers % len(fits), numbers], 0, axis)
    return _even(parameter, value, sizes)


def _axis_of_values(parameter: Parameter, sizes: set[int]) -> int | None:
    """Return the first axis of a parameter's entries that may stand for the values of a latent."""
    tied = entry_constraint(parameter.constraint).event_dim
    lead: Sequence[int] = parameter.shape[: len(parameter.shape) - tied]
    return next((axis for axis, length in enumerate(lead) if length in sizes), None)


def _even(parameter: Parameter, value: np.ndarray, sizes: set[int]) -> np.ndarray:
    """Return even proportions, where a parameter may be those of a latent's values."""
    if is_simplex(parameter.constraint) and value.shape[-1] in sizes:
        return np.full(value.shape, 1 / value.shape[-1], value.dtype)
    return value
