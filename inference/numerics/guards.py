"""Numbers with derivatives: logarithms of zero, and sums of exponentials whose gradients are used.

These gradients are posteriors and expected statistics, and must not be NaN. What every program
takes is written in `lax`: of `jax.numpy`, JAX traces each function anew for each shape, which takes
ten times as long.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

# exp(LOG_ZERO + anything a model adds) is exactly 0 in float32 and float64, and LOG_ZERO · 0 = 0,
# where -inf · 0 is NaN. Larger in magnitude than any log-density; small enough that 1e8 of them
# still add up in float32.
LOG_ZERO = -1e30
# A total below this means that some datum has probability zero.
IMPOSSIBLE = 0.5 * LOG_ZERO
# Of more entries, XLA for CPUs leaves sums and maxima to a library. Where each is over so few
# values, that takes up to four times as long as a loop of XLA's own. Sums and maxima are recognized
# by their form, which a bound that changes nothing is not.
MOST_BY_ITSELF = 2**12
FEW_VALUES = 8
# A log-density larger than this is some multiple of `LOG_ZERO`, of a coefficient of at least 1e-10.
INFINITE = -1e-10 * LOG_ZERO


# ── logarithms of zero ────────────────────────────────────────────────────────────────────────────


def safe_log(x: Any) -> Array:
    """Return log x, and `LOG_ZERO` for x = 0 (gradient zero there)."""
    x = as_float(x)
    positive = lax.gt(x, lax.full_like(x, 0))
    # the branch that is not taken is differentiated, too: log 0 must not be part of it
    logarithm = lax.log(or_number(positive, x, 1))
    is_zero = lax.eq(x, lax.full_like(x, 0))
    return lax.select(positive, logarithm, or_number(is_zero, lax.full_like(x, LOG_ZERO), jnp.nan))


def or_number(condition: Array, x: Array, number: float | int) -> Array:
    """Return x where a condition of its shape holds, and a number elsewhere."""
    return lax.select(condition, x, lax.full_like(x, number))


def bounded_below(log_density: Any) -> Array:
    """Return a log-density with `LOG_ZERO` in place of -inf; NaN stays NaN."""
    log_density = as_float(log_density)
    least = lax.full_like(log_density, LOG_ZERO)
    return lax.select(lax.lt(log_density, least), least, log_density)


def infinite_at_zero(log_density: Any) -> Array:
    """Return Σ c log p + …, computed with `LOG_ZERO` for log 0, with what it is at p = 0.

    That is `LOG_ZERO` where a positive c meets it, +inf where a negative one does.
    """
    above = jnp.where(log_density > INFINITE, jnp.inf, log_density)
    return jnp.where(log_density < -INFINITE, LOG_ZERO, above)


def finite_logits(logits: Any) -> Array:
    """Return logits with ±`LOG_ZERO` in place of ±∞.

    There, log-sigmoid and log-softmax have NaN gradients.
    """
    return jnp.clip(logits, LOG_ZERO, -LOG_ZERO)


# ── sums of exponentials ──────────────────────────────────────────────────────────────────────────


def is_soft(temperature: Any) -> bool:
    """Whether a temperature is known to be one."""
    return isinstance(temperature, int | float) and temperature == 1


def tempered_logsumexp(x: Any, temperature: ArrayLike, num_axes: int) -> Array:
    """Return τ log Σ exp(x / τ) over the last axes; of none, x itself.

    τ = 0 is the maximum, whose gradient is one-hot (first of equals). The gradient is the
    posterior; `jax.scipy.special.logsumexp` has a NaN gradient where every entry is -inf, but
    entries here are never below `LOG_ZERO`. Source: Darwiche (2003), theorem 1.
    """
    if num_axes == 0:
        return x
    flat = x if num_axes == 1 else x.reshape(*x.shape[: x.ndim - num_axes], -1)
    if isinstance(temperature, int | float) and temperature == 0:
        # not `max`, whose gradient is shared among equals: a hard E-step chooses one value
        best = lax.stop_gradient(jnp.argmax(flat, axis=-1))
        return jnp.take_along_axis(flat, best[..., None], axis=-1)[..., 0]
    last = flat.ndim - 1
    is_few = flat.shape[last] <= FEW_VALUES and flat.size > MOST_BY_ITSELF
    is_few &= jax.default_backend() == "cpu"
    held = lax.stop_gradient(flat)
    largest = _largest_of_few(held) if is_few else lax.reduce_max(held, axes=(last,))
    above = lax.sub(flat, lax.broadcast_in_dim(largest, flat.shape, range(last)))
    if not is_soft(temperature):
        above = above / temperature
    powers = lax.exp(above)
    total = _sum_of_few(powers) if is_few else lax.reduce_sum(powers, axes=(last,))
    log_total = lax.log(total)
    return lax.add(largest, log_total if is_soft(temperature) else temperature * log_total)


def _largest_of_few(x: Array) -> Array:
    """Return the largest number along the last axis, of numbers that single precision holds."""
    least = float(jnp.finfo(jnp.float32).min)

    def larger(a, b):
        return lax.max(lax.max(a, b), lax.full_like(a, least))

    return lax.reduce(x, np.array(-np.inf, x.dtype), larger, (x.ndim - 1,))


@jax.custom_jvp
def _sum_of_few(x: Array) -> Array:
    """Return the sum along the last axis, of numbers that are not negative."""

    def added(a, b):
        return lax.max(lax.add(a, b), lax.full_like(a, 0))

    return lax.reduce(x, np.array(0, x.dtype), added, (x.ndim - 1,))


@_sum_of_few.defjvp
def _sum_of_few_jvp(primals, tangents):
    (along,) = tangents
    return _sum_of_few(*primals), lax.reduce_sum(along, axes=(along.ndim - 1,))


# ── numbers and what is none ──────────────────────────────────────────────────────────────────────


def as_float(value: Any) -> Array:
    """Return numbers as floating-point numbers, which have derivatives."""
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    return value.astype(jnp.result_type(float))


def as_parameter(value: Any) -> Array:
    """Return numbers in the precision that JAX computes in, at least.

    What a program holds from before double precision was switched on has that of then, and steps
    rounded to it would decrease an objective in double.
    """
    value = as_float(value)
    return value.astype(jnp.promote_types(value.dtype, jnp.result_type(float)))


def is_key(array: Any) -> bool:
    """Whether an array is one of random keys, which are no numbers."""
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def is_random_key(value: Any) -> bool:
    """Whether a value is a random key, new or old style."""
    return isinstance(value, jax.Array) and (is_key(value) or value.dtype == jnp.uint32)
