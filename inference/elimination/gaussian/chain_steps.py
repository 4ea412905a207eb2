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
from emjax.numerics.matrices import inverse_of_triangular, log_determinant

# Products of matrices of at most so many terms are written out, and become part of the operations
# around them: a step of 4 × 4 takes a third of the time.
MOST_UNROLLED = 8


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


class Transition(NamedTuple):
    """What is drawn next, given the state s before it and data: f = b + F s + noise.

    It is a state's where it is said so: of a stretch of steps, that after them.

    - `offset`, `gain`: b (…, f) and F (…, f, s).
    - `covariance`: of the noise, (…, f, f).
    """

    offset: Array
    gain: Array
    covariance: Array


def product(left: Array, right: Array) -> Array:
    """Return products of matrices (…, i, j) and (…, j, k).

    What does not vary along an axis of the batch is multiplied once.
    """
    if left.shape[-1] <= MOST_UNROLLED:
        terms = [left[..., :, j, None] * right[..., j, None, :] for j in range(left.shape[-1])]
        return sum(terms[1:], terms[0])
    lead = list(range(left.ndim - 2))
    labels = [[*lead, "i", "j"], [*lead, "j", "k"]]
    return contracted([left, right], labels, [*lead, "i", "k"])


def applied(matrix: Array, vector: Array) -> Array:
    """Return products of matrices (…, i, j) and vectors (…, j), as `product` does."""
    if matrix.shape[-1] <= MOST_UNROLLED:
        terms = [matrix[..., :, j] * vector[..., j, None] for j in range(matrix.shape[-1])]
        return sum(terms[1:], terms[0])
    lead = list(range(matrix.ndim - 2))
    return contracted([matrix, vector], [[*lead, "i", "j"], [*lead, "j"]], [*lead, "i"])


def step_integrated(after: Message, step: Steps, outside: int) -> tuple[Message, Transition]:
    """Return the message on the state before a step, and what the step draws given that state.

    The latter is given all data that come with `after`, too, the message on the state after it.

    - `step`: arrays (…, w) and so on: a step, or many side by side.
    - `outside`: the number of coordinates of g.
    """
    size = step.coefficients.shape[-2]
    here = slice(outside, outside + size)
    # the state after a step is w without its last coordinates
    exponent = step.linear + padded(after.linear, [(0, size)])
    quadratic = step.quadratic + padded(after.quadratic, [(0, size)] * 2)
    linear = exponent - applied(quadratic[..., here], step.mean)
    prior_gain = _of_all(step.coefficients, outside)
    # M = I + Lᵀ J L = C Cᵀ, by C⁻¹ and C⁻¹ Lᵀ
    precision = product(product(step.scale.mT, quadratic[..., here, here]), step.scale)
    identity = jnp.eye(precision.shape[-1], dtype=precision.dtype)
    cholesky = jax.lax.linalg.cholesky(precision + identity, symmetrize_input=False)
    inverse = inverse_of_triangular(cholesky)
    half = product(inverse, step.scale.mT)
    # ε given s is −C⁻ᵀ (`slope` s − `whitened`) + noise
    whitened = applied(half, linear[..., here])
    slope = product(half, product(quadratic[..., here, :], prior_gain))
    gain = step.coefficients - product(half.mT, slope)
    of_all = _of_all(gain, outside)
    noise = product(inverse.mT, slope)
    # J − J V J, as a sum of squares: a difference would lose what is far below J
    before = product(of_all.mT, product(quadratic, of_all)) + product(noise.mT, noise)
    constant = ((exponent + linear)[..., here] * step.mean).sum(-1)
    constant = (constant + (whitened**2).sum(-1) - log_determinant(cholesky)) / 2
    message = Message(after.constant + constant, applied(of_all.mT, linear), before)
    offset = step.mean + applied(half.mT, whitened)
    return message, Transition(offset, gain, product(half.mT, half))


def _of_all(gain: Array, outside: int) -> Array:
    """Return what f is of s (…, f, s) as what w is of s (…, w, s): the others are themselves."""
    size, states = gain.shape[-2:]
    others = np.insert(np.eye(states), [outside] * size, 0, axis=0)
    return padded(gain, [(outside, states - outside), (0, 0)]) + others.astype(gain.dtype)


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


def with_unread(message: Message, start: int, stop: int) -> Message:
    """Return a message as one on a state that has coordinates start … stop − 1, too."""
    if start == stop:
        return message
    states = message.linear.shape[-1]
    place = np.insert(np.eye(states), [start] * (stop - start), 0, axis=0)
    place = jnp.asarray(place, message.linear.dtype)
    place = place.reshape((1,) * (message.quadratic.ndim - 2) + place.shape)
    quadratic = product(product(place, message.quadratic), place.mT)
    return Message(message.constant, applied(place, message.linear), quadratic)
