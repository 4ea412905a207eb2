"""What is left of a multivariate normal when the coordinates that are missing are integrated out.

With natural parameters b = P μ, −P/2 and c, o the indicator of what is observed, m = 1 − o, and y =
o ∘ x,

    log ∫ exp(bᵀx − ½ xᵀP x + c) dx_missing
        =  bᵀy − ½ yᵀP y + c  +  ½ hᵀ A⁻¹ h − ½ log |A|  +  ½ n_missing log 2π,

h = m ∘ (b − P y) and A = P among the missing coordinates, the identity elsewhere. It is no longer
linear in the natural parameters, but its derivatives with respect to them are still the expected
statistics: E[x | y] for b, E[x xᵀ | y] for −P/2. Nothing else of EM changes. Source: Little & Rubin
(2019), Statistical Analysis with Missing Data, sections 7.5 and 11.2; Ghahramani & Jordan (1994).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Entries of the matrices A that are worked on at once: enough to keep a core busy, few enough to
# stay in its cache; an accelerator wants more.
ENTRIES = {"cpu": 2**20}
ENTRIES_ELSEWHERE = 2**26


def log_marginal(
    linear: Array, quadratic: Array, constant: Array, x: Array, observed: Array
) -> Array:
    """Return log ∫ exp(⟨b, x⟩ + ⟨Q, x xᵀ⟩ + c) dx_missing − ½ n_missing log 2π in nats.

    Leading axes of the arrays, as many in each, broadcast:

    - `linear`: b (…, D).
    - `quadratic`: Q = −P/2 (…, D, D), whose derivative is symmetric.
    - `constant`: c (…).
    - `x` (…, D): anything finite where it is missing.
    - `observed` (…, D).

    Where the matrices A of all elements are large, those of some rows are worked on after others:
    memory does not grow with the rows.
    """
    arrays = (linear, quadratic, constant, x, observed)
    leads = [a.shape[: a.ndim - event] for a, event in zip(arrays, (1, 2, 0, 1, 1), strict=True)]
    lead = np.broadcast_shapes(*leads)
    size = math.prod(lead) * x.shape[-1] ** 2
    largest = ENTRIES.get(jax.default_backend(), ENTRIES_ELSEWHERE)
    if size <= largest or not lead:
        return _log_marginal(*arrays)
    # along the longest axis: the most stretches to choose among
    dim = int(np.argmax(lead))
    padded = []
    for array, shape in zip(arrays, leads, strict=True):
        padded.append(array.reshape((1,) * (len(lead) - len(shape)) + array.shape))
    varies = [array.shape[dim] > 1 for array in padded]
    rows = [jnp.moveaxis(a, dim, 0) for a, varying in zip(padded, varies, strict=True) if varying]

    # the reverse pass computes a stretch again, rather than keep the matrices of all of them
    @jax.checkpoint
    def of_row(row):
        rest = iter(row)
        parts = []
        for array, varying in zip(padded, varies, strict=True):
            parts.append(next(rest) if varying else jnp.squeeze(array, dim))
        return _log_marginal(*parts)

    values = jax.lax.map(of_row, rows, batch_size=max(1, largest * lead[dim] // size))
    return jnp.moveaxis(values, 0, dim)


def _log_marginal(linear, quadratic, constant, x, observed):
    # coordinates first, elements last: each operation then runs along elements
    linear, x, observed = (jnp.moveaxis(array, -1, 0) for array in (linear, x, observed))
    precision = -jnp.moveaxis(quadratic + quadratic.mT, (-2, -1), (0, 1))
    known = jnp.where(observed, x, 0)
    pulled = (precision * known).sum(1)
    pull = jnp.where(observed, 0, linear - pulled)
    identity = jnp.eye(len(x), dtype=precision.dtype)
    identity = identity.reshape(identity.shape + (1,) * (precision.ndim - 2))
    among_missing = jnp.where(observed[:, None] | observed[None], identity, precision)
    return ((linear - 0.5 * pulled) * known).sum(0) + constant + log_integral(pull, among_missing)


@jax.custom_jvp
def log_integral(linear: Array, precision: Array) -> Array:
    """Return log ∫ exp(hᵀx − ½ xᵀA x) dx − ½ D log 2π, of h (D, …) and a symmetric A (D, D, …).

    It is ½ hᵀ A⁻¹ h − ½ log |A|.
    """
    inverse, log_determinant = swept_inverse(precision)
    return 0.5 * ((inverse * linear).sum(1) * linear).sum(0) - 0.5 * log_determinant


@log_integral.defjvp
def _log_integral_jvp(primals, tangents):
    """The derivatives are the moments of N(A⁻¹h, A⁻¹): its mean, and −½ its second moment."""
    (linear, precision), (along, matrix) = primals, tangents
    inverse, log_determinant = swept_inverse(precision)
    mean = (inverse * linear).sum(1)
    second = inverse + mean[:, None] * mean[None]
    value = 0.5 * (mean * linear).sum(0) - 0.5 * log_determinant
    return value, (mean * along).sum(0) - 0.5 * (second * matrix).sum((0, 1))


@jax.custom_jvp
def swept_inverse(matrix: Array) -> tuple[Array, Array]:
    """Return A⁻¹ and log |A| of positive definite matrices A (D, D, …).

    All of them are swept on one coordinate after another, so that the work runs along elements.

    Source: Beaton (1964); Little & Rubin (2019), section 7.4.3.
    """
    size = len(matrix)
    is_pivot = jnp.eye(size, dtype=bool).reshape((size, size) + (1,) * (matrix.ndim - 2))

    def swept(k, carry):
        matrix, log_determinant = carry
        column = matrix[:, k]
        pivot, here = column[k], is_pivot[k]
        row = column / pivot
        in_row, in_column = here[:, None], here[None]
        crossing = jnp.where(in_row, row[None], row[:, None])
        elsewhere = matrix - column[:, None] * row[None]
        after = jnp.where(in_row | in_column, crossing, elsewhere)
        after = jnp.where(in_row & in_column, -1 / pivot, after)
        return after, log_determinant + jnp.log(pivot)

    start = matrix, jnp.zeros(matrix.shape[2:], matrix.dtype)
    negative, log_determinant = jax.lax.fori_loop(0, size, swept, start)
    return -negative, log_determinant


@swept_inverse.defjvp
def _swept_inverse_jvp(primals, tangents):
    (matrix,), (along,) = primals, tangents
    inverse, log_determinant = swept_inverse(matrix)
    # the formula, of the inverse at hand: the sweep's own steps are not differentiated
    moved = -jnp.einsum("ij...,jk...,kl...->il...", inverse, along, inverse, precision="highest")
    return (inverse, log_determinant), (moved, (inverse * along).sum((0, 1)))
