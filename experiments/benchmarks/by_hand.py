"""What an expert would write by hand in JAX: EM as the gradient of log Z, for one model at a time.

Each model (`by_hand_gaussian.py`, `by_hand_discrete.py`) has tables η of natural parameters, log
Z(η) for the rows of the data, and the M-step as a function of ∂ log Z / ∂η. Where the temporaries
are large, rows go through in blocks, and the gradients add up. The whole loop is compiled; the
number of steps is an argument of it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from experiments.benchmarks.contestant import Fit, Run

MOST_ROWS = 10_000  # of a block
CACHE = 2_500_000  # bytes of temporaries for a block


def runner(step: Callable, start: dict, data: PyTree) -> Run:
    """Return the compiled loop over `step(params, data)`."""

    @jax.jit
    def loop(params, data, num_steps):
        return lax.fori_loop(0, num_steps, lambda _, params: step(params, data), params)

    params = {name: jnp.asarray(value) for name, value in start.items()}

    def run(num_steps: int) -> Fit:
        after = loop(params, data, num_steps)
        return Fit({name: np.asarray(value) for name, value in after.items()}, num_steps)

    return run


def blocks(rows: Float[np.ndarray, "row ..."], width: int) -> Float[Array, "block row ..."]:
    """Return the rows in blocks of equal size.

    It is the largest size that divides them and whose temporaries, `width` numbers a row, stay in
    the cache.
    """
    most = min(MOST_ROWS, len(rows), max(1, CACHE // (rows.itemsize * width)))
    size = next(size for size in range(most, 0, -1) if len(rows) % size == 0)
    return jnp.asarray(rows.reshape(-1, size, *rows.shape[1:]))


def gradient_over_blocks(log_z: Callable, tables: PyTree, data: PyTree) -> PyTree:
    """Return ∂/∂η of log Z summed over blocks."""

    def add(total, block):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(log_z)(tables, block)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, tables))
    return lax.scan(add, zero, data)[0][1]


def normalized(expected: Float[Array, "... value"]) -> Float[Array, "... value"]:
    """Return expected counts as probabilities over the last axis."""
    return expected / expected.sum(-1, keepdims=True)


def log(probability: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the logarithm, finite at 0."""
    return jnp.log(jnp.maximum(probability, jnp.finfo(probability.dtype).tiny))
