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
    inverse, log_determinant = _inverse(precision)
    return 0.5 * ((inverse * linear).sum(1) * linear).sum(0) - 0.5 * log_determinant


@log_integral.defjvp
def _log_integral_jvp(primals, tangents):
    """The derivatives are the moments of N(A⁻¹h, A⁻¹): its mean, and −½ its second moment."""
    (linear, precision), (along, matrix) = primals, tangents
    inverse, log_determinant = _inverse(precision)
    mean = (inverse * linear).sum(1)
    second = inverse + mean[:, None] * mean[None]
    value = 0.5 * (mean * linear).sum(0) - 0.5 * log_determinant
    return value, (mean * along).sum(0) - 0.5 * (second * matrix).sum((0, 1))


def _inverse(matrix):
    """Return A⁻¹ and log |A|: swept on all coordinates."""
    negative, log_determinant = swept(matrix, jnp.ones(matrix.shape[1:], bool))
    return -negative, log_determinant


@jax.custom_jvp
def swept(matrix: Array, where: Array) -> tuple[Array, Array]:
    """Return symmetric matrices (D, D, …) swept on the coordinates `where` (D, …), and log |A|.

    With A the matrix among these coordinates, B between them and the others: −A⁻¹ among them, A⁻¹B
    between, and the Schur complement of A among the others.

    Source: Beaton (1964); Little & Rubin (2019), section 7.4.3.
    """
    size = len(matrix)
    is_pivot = jnp.eye(size, dtype=bool).reshape((size, size) + (1,) * (matrix.ndim - 2))

    def turn(k, carry):
        matrix, log_determinant = carry
        here, row, column = is_pivot[k], matrix[k], matrix[:, k]
        pivot = jnp.where(where[k], row[k], 1)
        inverse = jnp.where(where[k], 1 / pivot, 0)
        # with −A⁻¹ and A⁻¹B negative in columns that were swept on, a turn is of rank one
        left = jnp.where(here, pivot - 1, column)
        right = jnp.where(here, where[k] + inverse, row * inverse)
        return matrix - left[:, None] * right[None], log_determinant + jnp.log(pivot)

    start = matrix, jnp.zeros(matrix.shape[2:], matrix.dtype)
    after, log_determinant = jax.lax.fori_loop(0, size, turn, start)
    return jnp.where(where[None], -after, after), log_determinant


@swept.defjvp
def _swept_jvp(primals, tangents):
    """With N the identity, and −W in the rows that were swept on: dW = Nᵀ dP N."""
    (matrix, where), (along, _) = primals, tangents
    after, log_determinant = swept(matrix, where)
    identity = jnp.eye(len(matrix), dtype=after.dtype)
    identity = identity.reshape(identity.shape + (1,) * (matrix.ndim - 2))
    turned = jnp.where(where[:, None], -after, identity)
    moved = jnp.einsum("ji...,jk...,kl...->il...", turned, along, turned, precision="highest")
    among = jnp.where(where[:, None] & where[None], after, 0)
    return (after, log_determinant), (moved, -(among * along).sum((0, 1)))
