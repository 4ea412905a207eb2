"""A mixture on a memory map by hand: a compiled sum over a chunk, a loop over chunks, an M-step."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.benchmarks.by_hand import CACHE, gradient_over_blocks
from experiments.benchmarks.by_hand_gaussian import diagonal_log_z, diagonal_table, from_diagonal
from experiments.benchmarks.contestant import Fit, Run

CHUNK = 2**20  # numbers


def mapped(points: Float[np.ndarray, "sample feature"]) -> np.ndarray:
    """Return the points as a memory map of a file that is gone once nobody has it open."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.npy"
        np.save(path, points)
        return np.load(path, mmap_mode="r")


@jax.jit
def added(
    total: Array, table: Array, chunk: Float[Array, "row feature"]
) -> Float[Array, "statistic component"]:
    """Return the total and the expected statistics of a chunk, whose blocks stay in the cache."""
    width = 2 * chunk.shape[1] + table.shape[1]
    size = min(len(chunk), CACHE // (chunk.dtype.itemsize * width))
    num_blocks = len(chunk) // size
    whole, rest = jnp.split(chunk, [num_blocks * size])
    blocks = whole.reshape(num_blocks, size, -1)
    total = total + gradient_over_blocks(diagonal_log_z, table, blocks)
    return total + jax.grad(diagonal_log_z)(table, rest) if len(rest) else total


def stream(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture with diagonal covariances."""
    points = mapped(data.pop("points"))
    rows = CHUNK // points.shape[1]
    table_of, after = jax.jit(diagonal_table), jax.jit(from_diagonal)

    def run(num_steps: int) -> Fit:
        params = start
        for _ in range(num_steps):
            table = table_of(params)
            total = jnp.zeros_like(table)
            for first in range(0, len(points), rows):
                # a call returns before it has computed: the next chunk is read meanwhile
                total = added(total, table, points[first : first + rows])
            params = after(total)
        return Fit({name: np.asarray(value) for name, value in params.items()}, num_steps)

    return run


SETUPS = {"hand-written JAX": {"gaussian_stream": stream}}
