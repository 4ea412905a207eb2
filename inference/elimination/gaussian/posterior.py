"""A Gaussian vector f = μ + L ε, ε ~ N(0, I), under the exponent h̄ᵀf − ½ fᵀJf, whitened.

    M = I + LᵀJL,    V = L M⁻¹ Lᵀ,    E = (I + S J)⁻¹,    J̃ = (I + J S)⁻¹ J,    S = L Lᵀ

V is the covariance of f, V h̄ + E μ its mean, and J̃ what the exponent is in μ. No inverse of S is
taken, so that all is right where that is zero, and nothing is subtracted, so that it is right where
that is large: E is not I − VJ, and J̃ not J − JVJ, but a sum of squares, as in the covariance update
of Bucy & Joseph,

    J̃ = EᵀJE + NᵀN,    N = M⁻¹LᵀJ.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from emjax.numerics.axes import contracted
from emjax.numerics.matrices import inverse, inverse_of_triangular, log_determinant


class Posterior(NamedTuple):
    """What a Gaussian vector of q coordinates is.

    - `log_determinant`: log |M|, (…).
    - `covariance`: V, (…, q, q).
    - `kept`: E, (…, q, q), how much of its mean is that of μ.
    - `precision_left`: J̃, (…, q, q).
    """

    log_determinant: Array
    covariance: Array
    kept: Array
    precision_left: Array


@jax.custom_jvp
def posterior(precision: Array, scale: Array) -> Posterior:
    """Return what a vector is of J (…, q, q) and L, blocks one below the other (…, q, width).

    Leading axes are of length 1 where one of them does not vary.
    """
    size = precision.shape[-1]
    whitened = _blocks_times(scale, precision, "ji")
    identity = jnp.eye(size, dtype=whitened.dtype)
    matrix = identity + _blocks_times(scale, whitened.mT, "ji")
    cholesky, half = _factorized(matrix)
    root = _blocks_times(scale, half.mT, "ij").mT
    explained = contraction(root, "ij", precision, "jk", "ik")
    covariance = contraction(root, "ji", root, "jk", "ik")
    kept = inverse(identity + _blocks_times(scale, whitened, "ij"))
    noise = contraction(half, "ji", explained, "jk", "ik")
    left = contraction(kept, "ji", contraction(precision, "ij", kept, "jk", "ik"), "jk", "ik")
    left = left + contraction(noise, "ji", noise, "jk", "ik")
    return Posterior(log_determinant(cholesky), covariance, kept, left)


def _derivative(primals: Sequence[Array], tangents: Sequence[Any]) -> tuple[Posterior, Posterior]:
    """Return the posterior and its derivative, which is made of the posterior's own matrices.

    d log |M| = tr V dJ + tr J̃ dS,    dV = E dS Eᵀ − V dJ V,
    dJ̃ = Eᵀ dJ E − J̃ dS J̃,            dE = −E dS J̃ − V dJ E.
    """
    precision, scale = primals
    found = posterior(precision, scale)
    _, covariance, kept, left = found
    moved = [jnp.zeros_like(part) for part in found]

    def between(a, middle, b):
        return contraction(contraction(a, "ij", middle, "jk", "ik"), "ij", b, "jk", "ik")

    along, along_scale = tangents
    if not isinstance(along, SymbolicZero):
        along = (along + along.mT) / 2
        moved[0] += contraction(covariance, "ij", along, "ij", "")
        moved[1] -= between(covariance, along, covariance)
        moved[2] -= between(covariance, along, kept)
        moved[3] += between(kept.mT, along, kept)
    if not isinstance(along_scale, SymbolicZero):
        along = squared(scale, along_scale)
        along = along + along.mT
        moved[0] += contraction(left, "ij", along, "ij", "")
        moved[1] += between(kept, along, kept.mT)
        moved[2] -= between(kept, along, left)
        moved[3] -= between(left, along, left)
    return found, Posterior(*moved)


posterior.defjvp(_derivative, symbolic_zeros=True)


def _factorized(matrix: Array) -> tuple[Array, Array]:
    """Return C of positive definite C Cᵀ, and C⁻¹."""
    if matrix.shape[-1] == 1:
        # a number needs no call for each element
        root = jnp.sqrt(matrix)
        return root, 1 / root
    if matrix.shape[-1] == 2:
        # nor does an intercept with a slope
        first = jnp.sqrt(matrix[..., 0, 0])
        below = matrix[..., 1, 0] / first
        second = jnp.sqrt(matrix[..., 1, 1] - below**2)
        zero = jnp.zeros_like(first)
        half = _two_by_two(1 / first, zero, -below / (first * second), 1 / second)
        return _two_by_two(first, zero, below, second), half
    cholesky = jax.lax.linalg.cholesky(matrix)
    return cholesky, inverse_of_triangular(cholesky)


def _two_by_two(*entries: Array) -> Array:
    """Return matrices (…, 2, 2) of their entries, row after row."""
    return jnp.stack(entries, axis=-1).reshape(*entries[0].shape, 2, 2)


def _blocks_times(blocks: Array, matrix: Array, axes: str) -> Array:
    """Return L A of blocks (…, q, width) and a matrix (…, q, columns); Lᵀ A for the axes "ji"."""
    *lead, size, width = blocks.shape
    *matrix_lead, rows, columns = matrix.shape
    count = size // width
    blocks = blocks.reshape(*lead, count, width, width)
    matrix = matrix.reshape(*matrix_lead, count, width, columns)
    result = contraction(blocks, f"b{axes}", matrix, "bjk", "bik")
    return result.reshape(*result.shape[:-3], rows, columns)


def squared(scale: Array, along: Array) -> Array:
    """Return dL Lᵀ of blocks, as a matrix (…, q, q)."""
    *lead, size, _ = scale.shape
    identity = jnp.eye(size, dtype=scale.dtype).reshape((1,) * len(lead) + (size, size))
    return _blocks_times(along, _blocks_times(scale, identity, "ji"), "ij")


def contraction(
    a: Any, a_axes: Sequence[str], b: Any, b_axes: Sequence[str], out: Sequence[str]
) -> Any:
    """Return a contraction over the last axes, which have labels; those before them broadcast.

    A None is zero.
    """
    if a is None or b is None:
        return None
    lead = range(a.ndim - len(a_axes))
    return contracted([a, b], [[*lead, *a_axes], [*lead, *b_axes]], [*lead, *out])
