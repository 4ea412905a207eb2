"""Motifs by hand: the score of a start is a sum of columns, read along the sequence."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.by_hand import log, normalized, runner
from experiments.benchmarks.contestant import Run

LETTERS = 4


def step(params: dict, data: dict) -> dict:
    """Return the parameters after one EM step, from `letters` one-hot (letter, position, sequence).

    What a start is better than none is linear in log m − log b.
    """
    letters, prior = data["letters"], data["prior"]  # (start, sequence)
    num_starts = len(prior)
    table = log(params["motif"]) - log(params["background"])
    score = prior
    for column, row in enumerate(table):
        there = letters[:, column : column + num_starts]
        score = score + (row[:, None, None] * there).sum(0)
    posterior = jax.nn.softmax(score, axis=0)
    motif = []
    for column in range(len(table)):
        there = letters[:, column : column + num_starts]
        motif.append((posterior * there).sum((1, 2)))
    motif = jnp.stack(motif)
    return {"background": normalized(data["total"] - motif.sum(0)), "motif": normalized(motif)}


def motif(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of one occurrence in every sequence."""
    letters, dtype = data.pop("letters").T, start["motif"].dtype
    indicators = (np.arange(LETTERS)[:, None, None] == letters).astype(dtype)
    num_starts = len(letters) - sizes["width"] + 1
    fits = np.arange(num_starts)[:, None] <= (letters >= 0).sum(axis=0) - sizes["width"]
    with np.errstate(divide="ignore"):
        prior = np.log(fits / fits.sum(axis=0)).astype(dtype)
    total = indicators.sum(axis=(1, 2))
    rows = {"letters": indicators, "prior": prior, "total": total}
    return runner(step, start, jax.tree.map(jnp.asarray, rows))


SETUPS = {"hand-written JAX": {"motif": motif}}
