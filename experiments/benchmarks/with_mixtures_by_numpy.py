"""EM in NumPy, as one writes it: incomplete points pattern by pattern, motifs by columns.

Source: Ghahramani & Jordan (1994), "Supervised learning from incomplete data via an EM approach",
NeurIPS 6.
"""

import numpy as np

from experiments.benchmarks.contestant import Run
from experiments.benchmarks.with_numpy import log, posterior, runner

LETTERS = 4


def incomplete(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture of incomplete points."""
    points = data.pop("points")
    observed, pattern = np.unique(~np.isnan(points), axis=0, return_inverse=True)
    parts = []
    for number, seen in enumerate(observed):
        parts.append((np.flatnonzero(seen), np.flatnonzero(~seen), points[pattern == number]))

    def step(params):
        num_components = len(params["loc"])
        count, first = np.zeros(num_components), np.zeros_like(params["loc"])
        second = np.zeros_like(params["covariance"])
        for seen, missing, rows in parts:
            filled, left, joint = [], [], []
            for loc, covariance in zip(params["loc"], params["covariance"], strict=True):
                inverse = np.linalg.inv(covariance[np.ix_(seen, seen)])
                away = rows[:, seen] - loc[seen]
                gain = covariance[np.ix_(missing, seen)] @ inverse
                complete = rows.copy()
                complete[:, missing] = loc[missing] + away @ gain.T
                filled.append(complete)
                unknown = covariance[np.ix_(missing, missing)]
                left.append(unknown - gain @ covariance[np.ix_(seen, missing)])
                log_det = np.linalg.slogdet(inverse)[1]
                distance = ((away @ inverse) * away).sum(axis=1)
                constant = 0.5 * (log_det - len(seen) * np.log(2 * np.pi))
                joint.append(constant - 0.5 * distance)
            r = posterior(np.stack(joint, axis=1) + log(params["weights"]))
            for k in range(num_components):
                weighted = r[:, k, None] * filled[k]
                count[k] += r[:, k].sum()
                first[k] += weighted.sum(axis=0)
                second[k] += weighted.T @ filled[k]
                second[k][np.ix_(missing, missing)] += r[:, k].sum() * left[k]
        loc = first / count[:, None]
        covariance = second / count[:, None, None] - loc[:, :, None] * loc[:, None, :]
        return {"weights": count / count.sum(), "loc": loc, "covariance": covariance}

    return runner(step, start)


def motif(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of one occurrence in every sequence: a lookup for each column and start."""
    letters, width = data.pop("letters"), sizes["width"]
    num_starts = letters.shape[1] - width + 1
    fits = np.arange(num_starts) <= (letters >= 0).sum(axis=1, keepdims=True) - width
    with np.errstate(divide="ignore"):
        prior = np.log(fits / fits.sum(axis=1, keepdims=True))
    total = np.bincount(letters[letters >= 0], minlength=LETTERS)
    # a start that does not fit has no probability, whatever is read there
    columns = [np.maximum(letters[:, first : first + num_starts], 0) for first in range(width)]

    def step(params):
        score = prior.copy()
        for column, row in zip(
            columns, log(params["motif"]) - log(params["background"]), strict=True
        ):
            score += row[column]
        r = posterior(score).ravel()
        counts = np.stack([np.bincount(column.ravel(), r, LETTERS) for column in columns])
        outside = total - counts.sum(axis=0)
        motif = counts / counts.sum(axis=1, keepdims=True)
        return {"background": outside / outside.sum(), "motif": motif}

    return runner(step, start)


SETUPS = {
    "NumPy": {"motif": motif},
    "NumPy, by pattern": {
        "incomplete_at_random": incomplete,
        "incomplete_in_blocks": incomplete,
    },
}
