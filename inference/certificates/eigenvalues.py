"""The largest eigenvalues of linear maps of which only products are taken."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def largest_eigenvalues(
    along: Callable, size: int, num_steps: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Ritz values of a symmetric matrix, ascending, and the vector of the last.

    The outermost are the first to be right; the last is a lower bound of the largest eigenvalue.
    `along`: direction → matrix @ direction. Source: Lanczos's method, Golub & Van Loan (2013),
    section 10.3, every vector made orthogonal to all before.
    """
    start = np.random.default_rng(seed).normal(size=size)
    basis, diagonal, off = [start / np.linalg.norm(start)], [], []
    num_steps = min(num_steps, size)
    for _ in range(num_steps):
        image = np.asarray(along(basis[-1]), float)
        diagonal.append(image @ basis[-1])
        # once leaves rounding errors of the order of the largest image, twice does not
        for _ in range(2):
            image = image - np.asarray(basis).T @ (np.asarray(basis) @ image)
        length = np.linalg.norm(image)
        is_exhausted = length <= 1e-12 * (1 + np.abs(diagonal).max())
        if is_exhausted or len(diagonal) == num_steps:
            break
        off.append(length)
        basis.append(image / length)
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return values, np.asarray(basis[: len(diagonal)]).T @ vectors[:, -1]


def spectral_radius(matrix: np.ndarray) -> float:
    """Return the largest eigenvalue in absolute value; NaN where an entry is not finite."""
    # NumPy raises for a matrix that is not finite
    if not np.isfinite(matrix).all():
        return float("nan")
    return float(np.max(np.abs(np.linalg.eigvals(matrix)), initial=0.0))


def spectral_radius_of_map(along: Callable, size: int, num_steps: int, seed: int = 0) -> float:
    """Return the largest eigenvalue of a linear map, in absolute value, by power iteration.

    It is a lower bound until it has converged. `along`: direction → its image.
    """
    vector = jax.random.normal(jax.random.key(seed), (size,))
    length = jnp.zeros(())
    for _ in range(num_steps):
        vector = along(vector / jnp.linalg.norm(vector))
        length = jnp.linalg.norm(vector)
        # a map to nothing, or one that is not finite
        if not float(length) > 0:
            break
    return float(length)
