"""Matrices (…, D, D): solutions, inverses, roots, log-determinants, and derivatives.

Those of positive definite ones are by Cholesky, as exact as LU, which XLA takes five times as long
to compile. The derivatives are products with what is at hand: those of a factorization's own steps
would be many more to compile.

Of many matrices at once, JAX's LU, QR, eigenvectors and singular values wait, on a CPU, for threads
of the pool that they run in: as many such calls side by side as there are threads never end
(JAX 0.10, two cores). Cholesky factors and triangular solutions do not wait; what else is needed of
many matrices is done here in plain arithmetic.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

# of products of matrices: an accelerator's default drops half the digits of single precision
EXACT = "highest"
# loops of more turns than this are compiled as loops
UNROLLED = 6


def solved(matrix: Array, vector: Array) -> Array:
    """Return M⁻¹v of positive definite matrices M (…, D, D), and v (…, D)."""
    # the derivative is one more solution, by the same factor
    factor = jax.lax.linalg.cholesky(jax.lax.stop_gradient(matrix), symmetrize_input=False)

    def product(x):
        return (matrix * x[..., None, :]).sum(-1)

    def solution(_, right):
        return jax.scipy.linalg.cho_solve((factor, True), right[..., None])[..., 0]

    return jax.lax.custom_linear_solve(product, vector, solution, symmetric=True)


def log_determinant(cholesky: Array) -> Array:
    """Return log |L Lᵀ| of lower-triangular L."""
    size = cholesky.shape[-1]
    # `diagonal` is a gather, which takes longer to trace and to compile
    diagonal = cholesky.reshape(*cholesky.shape[:-2], size * size)[..., :: size + 1]
    return 2 * jnp.log(diagonal).sum(-1)


def inverse_of_triangular(cholesky: Array) -> Array:
    """Return L⁻¹ of lower-triangular L."""
    identity = jnp.broadcast_to(jnp.eye(cholesky.shape[-1], dtype=cholesky.dtype), cholesky.shape)
    return jax.lax.linalg.triangular_solve(cholesky, identity, left_side=True, lower=True)


@jax.custom_jvp
def inverse_from_cholesky(cholesky: Array) -> Array:
    """Return (L Lᵀ)⁻¹ for lower-triangular L."""
    # L is solved, not L Lᵀ, whose condition number is the square of its own
    half = inverse_of_triangular(cholesky)
    return jnp.matmul(half.mT, half, precision=EXACT)


@inverse_from_cholesky.defjvp
def _inverse_from_cholesky_jvp(primals, tangents):
    (cholesky,), (along,) = primals, tangents
    inverse = inverse_from_cholesky(cholesky)
    moved = jnp.matmul(cholesky, along.mT, precision=EXACT)
    return inverse, _inverse_moved(inverse, moved + moved.mT)


def _inverse_moved(inverse, moved):
    """Return the derivative −P (dΣ) P of an inverse P = Σ⁻¹."""
    return -jnp.matmul(jnp.matmul(inverse, moved, precision=EXACT), inverse, precision=EXACT)


@jax.custom_jvp
def log_determinant_and_inverse(matrix: Array) -> tuple[Array, Array]:
    """Return log |Σ| and Σ⁻¹ of positive definite Σ."""
    cholesky = jax.lax.linalg.cholesky(matrix)
    return log_determinant(cholesky), inverse_from_cholesky(cholesky)


@log_determinant_and_inverse.defjvp
def _log_determinant_and_inverse_jvp(primals, tangents):
    (matrix,), (along,) = primals, tangents
    log_determinant, inverse = log_determinant_and_inverse(matrix)
    along = (along + along.mT) / 2
    moved = (inverse * along).sum((-2, -1)), _inverse_moved(inverse, along)
    return (log_determinant, inverse), moved


@jax.custom_jvp
def inverse(matrix: Array) -> Array:
    """Return A⁻¹ of any regular A: Gauss–Jordan elimination, the largest pivot of each column."""
    size = matrix.shape[-1]
    if size == 1:
        return 1 / matrix
    identity = jnp.broadcast_to(jnp.eye(size, dtype=matrix.dtype), matrix.shape)
    rows = jnp.arange(size)

    def eliminated(k, both):
        column = both[..., :, k]
        pivot = jnp.argmax(jnp.where(rows >= k, jnp.abs(column), -1), -1)[..., None]
        # row k and that of the pivot change places
        source = jnp.where(rows == k, pivot, jnp.where(rows == pivot, k, rows))
        both = jnp.take_along_axis(both, source[..., None], -2)
        own = both[..., k, :] / both[..., k, k][..., None]
        factor = jnp.where(rows == k, 0, both[..., :, k])[..., None]
        left = both - factor * own[..., None, :]
        return jnp.where((rows == k)[:, None], own[..., None, :], left)

    both = jnp.concatenate([matrix, identity], -1)
    return jax.lax.fori_loop(0, size, eliminated, both, unroll=size <= UNROLLED)[..., size:]


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    (matrix,), (along,) = primals, tangents
    inverted = inverse(matrix)
    return inverted, _inverse_moved(inverted, along)


def semidefinite_root(matrix: Array) -> Array:
    """Return lower-triangular L of positive semidefinite L Lᵀ, a Cholesky factor if it is regular.

    A pivot that is zero but for rounding has a column of zeros, and no derivative.
    """
    size = matrix.shape[-1]
    diagonal = matrix.reshape(*matrix.shape[:-2], size * size)[..., :: size + 1]
    least = size * jnp.finfo(matrix.dtype).eps * diagonal
    rows = jnp.arange(size)

    def with_column(k, state):
        left, root = state
        pivot = left[..., k, k][..., None]
        is_seen = pivot > least[..., k][..., None]
        column = left[..., :, k] * jax.lax.rsqrt(jnp.where(is_seen, pivot, 1))
        column = jnp.where(is_seen & (rows >= k), column, 0)
        left = left - column[..., :, None] * column[..., None, :]
        return left, root.at[..., :, k].set(column)

    start = matrix, jnp.zeros_like(matrix)
    return jax.lax.fori_loop(0, size, with_column, start, unroll=size <= UNROLLED)[1]
