"""One step of a Gaussian chain integrated out, given the steps before it.

At a step, the latents f that are drawn there meet the *state* before, s: the last steps, and what
does not vary in time, g. All that is read at the step is one vector, w = (g, f, earlier steps), and
the state is w without f. With f = m + R s + L ε, an exponent hᵀw − ½ wᵀJw becomes a quadratic form
in s when ε is integrated out. Nothing is divided by a variance: M = I + LᵀJL is at least I.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.numerics.axes import contracted
from emjax.numerics.matrices import log_determinant


class Message(NamedTuple):
    """A function of a state s, c + hᵀs − ½ sᵀJs, for each element of the batch.

    Arrays are (batch, *discrete, …), of length 1 where they do not vary.
    """

    constant: Array
    linear: Array
    quadratic: Array


class Steps(NamedTuple):
    """What steps of a chain are made of, (time, batch, *discrete, …), of length 1 where constant.

    - `linear`, `quadratic`: h (…, w) and J (…, w, w) of the exponents.
    - `mean`, `coefficients`, `scale`: m (…, f), R (…, f, s), L (…, f, ε).
    """

    linear: Array
    quadratic: Array
    mean: Array
    coefficients: Array
    scale: Array


class Posterior(NamedTuple):
    """What a step is, given the state s before it and all data: w = b + W s + (0, noise, 0).

    - `offset`, `gain`: b (…, w) and W (…, w, s).
    - `covariance`: of f given s, (…, f, f).
    """

    offset: Array
    gain: Array
    covariance: Array


def product(left: Array, right: Array) -> Array:
    """Return products of matrices (…, i, j) and (…, j, k).

    What does not vary along an axis of the batch is multiplied once.
    """
    lead = list(range(left.ndim - 2))
    labels = [[*lead, "i", "j"], [*lead, "j", "k"]]
    return contracted([left, right], labels, [*lead, "i", "k"])


def applied(matrix: Array, vector: Array) -> Array:
    """Return products of matrices (…, i, j) and vectors (…, j), as `product` does."""
    lead = list(range(matrix.ndim - 2))
    return contracted([matrix, vector], [[*lead, "i", "j"], [*lead, "j"]], [*lead, "i"])


def step_integrated(after: Message, step: Steps, outside: int) -> tuple[Message, Posterior]:
    """Return the message on the state before a step, and what the step is given that state.

    - `after`: the message on the state after it.
    - `step`: the step, without an axis for time.
    - `outside`: the number of coordinates of g.
    """
    size, states = step.coefficients.shape[-2:]
    here = slice(outside, outside + size)
    # the state after a step is w without its last coordinates
    exponent = step.linear + padded(after.linear, [(0, size)])
    quadratic = step.quadratic + padded(after.quadratic, [(0, size)] * 2)
    mean = padded(step.mean, [(outside, states - outside)])
    linear = exponent - applied(quadratic, mean)
    prior_gain = _with_others(step.coefficients, outside)
    # M = I + Lᵀ J L = C Cᵀ
    precision = product(product(step.scale.mT, quadratic[..., here, here]), step.scale)
    precision = precision + jnp.eye(precision.shape[-1], dtype=precision.dtype)
    cholesky = jax.lax.linalg.cholesky(precision, symmetrize_input=False)
    # C⁻¹ Lᵀ, and the posterior of ε given s, in units of C
    half = _solved(cholesky, step.scale.mT)
    whitened = applied(half, linear[..., here])
    gain = -product(half, product(quadratic, prior_gain)[..., here, :])
    offset = mean + padded(applied(half.mT, whitened), [(outside, states - outside)])
    posterior_gain = prior_gain + padded(
        product(half.mT, gain), [(outside, states - outside), (0, 0)]
    )
    noise = _solved(cholesky, gain, transpose=True)
    # J − J V J, as a sum of squares: a difference would lose what is far below J
    before = product(posterior_gain.mT, product(quadratic, posterior_gain)) + product(
        noise.mT, noise
    )
    constant = (exponent + linear) * mean / 2
    constant = constant.sum(-1) + (whitened**2).sum(-1) / 2 - log_determinant(cholesky) / 2
    message = Message(after.constant + constant, applied(posterior_gain.mT, linear), before)
    return message, Posterior(offset, posterior_gain, product(half.mT, half))


def no_message(step: Steps) -> Message:
    """Return the message of nothing, of the shape of those that a step makes of it."""
    states = step.coefficients.shape[-1]
    matrices = step.quadratic, step.coefficients, step.scale
    of_precision = jnp.broadcast_shapes(*(matrix.shape[:-2] for matrix in matrices))
    of_all = jnp.broadcast_shapes(of_precision, step.linear.shape[:-1], step.mean.shape[:-1])
    dtype = jnp.result_type(*step)
    return Message(
        jnp.zeros(of_all, dtype),
        jnp.zeros((*of_all, states), dtype),
        jnp.zeros((*of_precision, states, states), dtype),
    )


def padded(array: Array, widths: list[tuple[int, int]]) -> Array:
    """Return an array with zeros around its last axes."""
    if not any(map(any, widths)):
        return array
    return jnp.pad(array, [(0, 0)] * (array.ndim - len(widths)) + widths)


def _with_others(coefficients: Array, outside: int) -> Array:
    """Return R (…, f, s) as what w is of s, (…, w, s): the others are themselves."""
    size, states = coefficients.shape[-2:]
    others = np.insert(np.eye(states), [outside] * size, 0, axis=0)
    rows = padded(coefficients, [(outside, states - outside), (0, 0)])
    return rows + others.astype(coefficients.dtype)


def _solved(cholesky: Array, right: Array, transpose: bool = False) -> Array:
    """Return C⁻¹B, or C⁻ᵀB, for C (…, i, i) and B (…, i, j)."""
    lead = jnp.broadcast_shapes(cholesky.shape[:-2], right.shape[:-2])
    cholesky = jnp.broadcast_to(cholesky, lead + cholesky.shape[-2:])
    right = jnp.broadcast_to(right, lead + right.shape[-2:])
    return jax.lax.linalg.triangular_solve(
        cholesky, right, left_side=True, lower=True, transpose_a=transpose
    )
