"""Many runs of one program side by side, as many at a time as is fast and fits in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term

# what the runs of one batch work on together: a few times what the caches hold, and little beside
# the data. Not tuned.
BATCH_BYTES = 2**25
# Entries of the tables of all runs together up to which these are called one after another: they
# then are one compiled function, the best of them goes on in it, and each stops by itself. Many
# starts of little data are faster side by side.
FEW_CELLS = 2**16


def batch_size(graph: FactorGraph) -> int:
    """Return how many runs to compute side by side, at least one.

    As many as their tables of elements × values fit in 32 MB.
    """
    return max(1, BATCH_BYTES // (16 * max(num_cells(graph.terms), 1)))


def are_few(graph: FactorGraph, number: int) -> bool:
    """Whether that many runs are done soonest one after another, their compilation included."""
    return jax.default_backend() == "cpu" and number * num_cells(graph.terms) <= FEW_CELLS


def num_cells(terms: Iterable[Term]) -> int:
    """Return how many entries the tables of elements × values have."""
    num_cells = 0
    for term in terms:
        num_cells += math.prod(term.elements) * math.prod(axis.size for axis in term.latent_axes)
    return num_cells


def in_batches(function: Callable, inputs: Any, size: int) -> Any:
    """Return a function over the leading axis of `inputs`, `size` of them at a time.

    There is one compilation, whatever their number.
    """
    number = len(jax.tree.leaves(inputs)[0])
    # few runs are not filled up to a whole batch
    size = min(size, number)
    num_batches = -(-number // size)
    num_missing = num_batches * size - number

    def batches(x):
        # the last batch is filled up with the first input, whose output is dropped again
        padded = jnp.concatenate([x, x[:1].repeat(num_missing, 0)])
        return padded.reshape(num_batches, size, *x.shape[1:])

    def in_a_row(x):
        return x.reshape(num_batches * size, *x.shape[2:])[:number]

    outputs = jax.lax.map(jax.vmap(function), jax.tree.map(batches, inputs))
    return jax.tree.map(in_a_row, outputs)
