"""log p(data | parameters) of mixtures that are more than one sum, as in `likelihood.py`."""

from collections.abc import Callable

import numpy as np

from experiments.benchmarks.likelihood import gaussian, log, logsumexp


def incomplete(params: dict, data: dict) -> float:
    """Gaussian mixture with `covariance`, of what is observed of each point; NaN is missing."""
    points, total = data["points"], 0.0
    patterns, pattern = np.unique(~np.isnan(points), axis=0, return_inverse=True)
    for number, seen in enumerate(patterns):
        rows = points[pattern.ravel() == number][:, seen]
        some = {"weights": params["weights"], "loc": params["loc"][:, seen]}
        covariance = params["covariance"][:, seen][:, :, seen]
        if seen.any():  # else it says nothing
            total += gaussian(some | {"covariance": covariance}, {"points": rows})
    return total


def motif(params: dict, data: dict) -> float:
    """One occurrence of `motif` (column, letter) in each sequence, on `background` (letter,)."""
    letters, background, columns = data["letters"], params["background"], params["motif"]
    is_there, width = letters >= 0, len(columns)
    plain = np.where(is_there, log(background)[letters], 0.0).sum(axis=1)
    num_starts = letters.shape[1] - width + 1
    fits = np.arange(num_starts) <= is_there.sum(axis=1, keepdims=True) - width
    better = np.zeros(fits.shape)
    for number, column in enumerate(log(columns) - log(background)):
        better += column[letters[:, number : number + num_starts]]
    prior = log(fits / fits.sum(axis=1, keepdims=True))
    return (plain + logsumexp(prior + better)).sum()


LOG_LIKELIHOODS: dict[str, Callable[[dict, dict], float]] = {
    "restarts": gaussian,
    "incomplete_at_random": incomplete,
    "incomplete_in_blocks": incomplete,
    "motif": motif,
    "gaussian_stream": gaussian,
}
