"""Many runs of one program side by side, as many at a time as is fast and fits in memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from emjax.graph.factor_graph import FactorGraph

# what the runs of one batch work on together: a few times what the caches hold, and little beside
# the data. Not tuned.
BATCH_BYTES = 2**25


def batch_size(graph: FactorGraph) -> int:
    """Return how many runs to compute side by side: as many as their tables of elements × values
    fit in 32 MB, at least one.
    """
    elements = [
        math.prod(term.elements) * math.prod(axis.size for axis in term.latent_axes)
        for term in graph.terms
    ]
    return max(1, BATCH_BYTES // (16 * max(sum(elements), 1)))


def in_batches(function: Callable, inputs, size: int):
    """Return function over the leading axis of `inputs`, `size` of them at a time: one compilation,
    whatever the number.
    """
    number = len(jax.tree.leaves(inputs)[0])
    size = min(size, number)
    num_batches = -(-number // size)
    padded = jax.tree.map(
        lambda x: jnp.concatenate([x, x[:1].repeat(num_batches * size - number, 0)]).reshape(
            num_batches, size, *x.shape[1:]
        ),
        inputs,
    )
    outputs = jax.lax.map(jax.vmap(function), padded)
    return jax.tree.map(lambda x: x.reshape(num_batches * size, *x.shape[2:])[:number], outputs)
