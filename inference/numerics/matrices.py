"""Positive definite matrices (…, D, D): solutions, inverses, log-determinants, and derivatives.

All of them are by Cholesky, as exact as LU, which XLA takes five times as long to compile. The
derivatives are products with what is at hand: those of a factorization's own steps would be many
more to compile.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

# of products of matrices: an accelerator's default drops half the digits of single precision
EXACT = "highest"


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


@jax.custom_jvp
def inverse_from_cholesky(cholesky: Array) -> Array:
    """Return (L Lᵀ)⁻¹ for lower-triangular L."""
    identity = jnp.broadcast_to(jnp.eye(cholesky.shape[-1], dtype=cholesky.dtype), cholesky.shape)
    # L is solved, not L Lᵀ, whose condition number is the square of its own
    half = jax.lax.linalg.triangular_solve(cholesky, identity, left_side=True, lower=True)
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
