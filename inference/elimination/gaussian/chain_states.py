"""What many steps of a Gaussian chain do to a state, and the moments of states.

Some steps together are what one is: given the state before them and their own data, the state after
them is Gaussian, and linear in it; and they leave a message on the state before them. Source: the
elements (A, b, C, η, J) of Särkkä & García-Fernández (2021), which take no inverse of a covariance.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.elimination.gaussian.chain_steps import Message, Transition, applied, padded, product
from emjax.numerics.axes import contracted
from emjax.numerics.matrices import inverse


class Moments(NamedTuple):
    """A weight ω, and ω E[s] and ω E[s sᵀ] of a state, for each element of the batch.

    There are as few second moments as quadratic forms: where these do not vary along an axis of the
    batch, they are sums along it.
    """

    weight: Array
    first: Array
    second: Array


def of_state(drawn: Transition, outside: int) -> Transition:
    """Return the whole state after a step, given that before, of what the step draws."""
    size, states = drawn.gain.shape[-2:]
    rest = states - outside - size
    # g stays, and the last of the earlier steps is read no more
    earlier = np.eye(states)
    kept = np.concatenate([earlier[:outside], np.zeros((size, states)), earlier[outside:-size]])
    around = (outside, rest)
    gain = padded(drawn.gain, [around, (0, 0)]) + kept.astype(drawn.gain.dtype)
    covariance = padded(drawn.covariance, [around, around])
    return Transition(padded(drawn.offset, [around]), gain, covariance)


def one_after_another(earlier: Transition, later: Transition) -> Transition:
    """Return the state after two stretches of steps, given that before them."""
    offset = applied(later.gain, earlier.offset) + later.offset
    covariance = product(product(later.gain, earlier.covariance), later.gain.mT)
    gain = product(later.gain, earlier.gain)
    return Transition(offset, gain, covariance + later.covariance)


def met(state: Transition, after: Message) -> tuple[Message, Transition]:
    """Return the message on the state before some steps, and the state after them given that.

    - `state`: the state after them, given that before and their own data.
    - `after`: the message on the state after them, of data behind. Its constant is left as it is.
    """
    identity = jnp.eye(state.gain.shape[-1], dtype=state.gain.dtype)
    # D = (I + C J)⁻¹, not symmetric, of eigenvalues in (0, 1]
    shrink = inverse(identity + product(state.covariance, after.quadratic))
    gain = product(shrink, state.gain)
    offset = applied(shrink, state.offset + applied(state.covariance, after.linear))
    covariance = product(shrink, state.covariance)
    seen = product(after.quadratic, gain)
    slope = after.linear - applied(after.quadratic, state.offset)
    # sums of squares, as in a single step
    quadratic = product(gain.mT, seen) + product(seen.mT, product(state.covariance, seen))
    squared = product(product(covariance, after.quadratic), covariance.mT)
    covariance = product(covariance, shrink.mT) + squared
    message = Message(after.constant, applied(gain.mT, slope), quadratic)
    return message, Transition(offset, gain, covariance)


def moved_on(before: Moments, drawn: Transition) -> tuple[Array, Array, Array]:
    """Return ω E[f], ω E[f sᵀ] and ω E[f fᵀ] of what is drawn, of the moments of the state s."""
    lead = before.second.shape[:-2]
    weight = summed_to(before.weight, lead)[..., None, None]
    cross = product(drawn.gain, before.second) + _outer(drawn.offset, before.first, lead)
    first = applied(drawn.gain, before.first) + before.weight[..., None] * drawn.offset
    second = product(cross, drawn.gain.mT) + _outer(first, drawn.offset, lead)
    return first, cross, second + weight * drawn.covariance


def after_steps(before: Moments, state: Transition) -> Moments:
    """Return the moments of a state, of those before some steps and what these do."""
    first, _, second = moved_on(before, state)
    return Moments(before.weight, first, second)


def after_step(before: Moments, drawn: Transition, outside: int) -> Moments:
    """Return the moments of the state after a step, of those before and what the step draws."""
    first, cross, second = moved_on(before, drawn)
    states = before.first.shape[-1]
    return Moments(
        before.weight,
        with_drawn(before.first, first, outside)[..., :states],
        with_both(before.second, cross, second, outside)[..., :states, :states],
    )


def with_drawn(state: Array, drawn: Array, outside: int) -> Array:
    """Return w (…, w), of the state s (…, s) and what is drawn (…, f)."""
    return jnp.concatenate([state[..., :outside], drawn, state[..., outside:]], -1)


def with_both(state: Array, cross: Array, drawn: Array, outside: int) -> Array:
    """Return a table (…, w, w), of (…, s, s), (…, f, s) and (…, f, f); it is symmetric."""
    rows = with_drawn(cross, drawn, outside)
    columns = jnp.concatenate([state[..., :outside], cross.mT, state[..., outside:]], -1)
    upper, lower = columns[..., :outside, :], columns[..., outside:, :]
    return jnp.concatenate([upper, rows, lower], -2)


def summed_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Return an array summed along the axes along which a shape of as many axes is of length 1."""
    gone = tuple(d for d, size in enumerate(shape) if size == 1 and array.shape[d] != 1)
    return array.sum(gone, keepdims=True) if gone else array


def _outer(left: Array, right: Array, lead: tuple[int, ...]) -> Array:
    """Return Σ left rightᵀ of vectors (…, i) and (…, j), summed as `summed_to` does."""
    axes = list(range(len(lead)))
    kept = [("sum", d) if size == 1 else d for d, size in enumerate(lead)]
    return contracted([left, right], [[*axes, "i"], [*axes, "j"]], [*kept, "i", "j"])
