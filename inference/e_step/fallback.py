"""Values and gradients in a fast form where it loses nothing, and in the plain form elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.numerics.fast_forms import FastForms


def value_and_gradient(
    function: Callable,
    argument: Any,
    plain: bool = False,
    is_often: bool = False,
    is_once: bool = False,
) -> tuple[Any, Any]:
    """Return the value and the gradient of `function(argument, fast)`, with or without fast forms.

    `plain`: without, since these have no forward derivatives; `is_often`, `is_once`: see
    `FastForms`.
    """
    if plain:
        return jax.value_and_grad(lambda argument: function(argument, None))(argument)

    def derived(fast: FastForms | None):
        if fast is None:
            return value_and_gradient(function, argument, plain=True), jnp.inf

        def perturbed(argument, epsilon):
            fast.epsilon = epsilon
            value = function(argument, fast)
            return value, fast.margin

        (value, margin), (gradient, lost) = jax.value_and_grad(
            perturbed, argnums=(0, 1), has_aux=True
        )(argument, jnp.zeros(()))
        # `lost` bounds, in units of the smallest number, what probabilities below it would add
        return (value, gradient), jnp.minimum(margin, 1 / lost)

    return fast_or_plain(derived, is_often, is_once)


def fast_or_plain(function: Callable, is_often: bool = False, is_once: bool = False) -> Any:
    """Return the result of `function(fast)` if no fast form loses anything, else in the plain form.

    `function(fast)` is (result, margin), `fast` being `FastForms` or None.
    """
    fast = FastForms(is_often, is_once)
    result, margin = function(fast)
    # no fast form applied: the plain one was computed, and nothing has to be compiled beside it
    if not fast.is_taken:
        return result
    # what underflows is less than `tiny`; beside the margin, it must be no more than rounding
    limits = jnp.finfo(jnp.result_type(float))
    is_right = _of_all(jax.lax.stop_gradient(margin) > limits.tiny / limits.eps)
    return jax.lax.cond(is_right, lambda: result, lambda: function(None)[0])


@jax.custom_batching.custom_vmap
def _of_all(flag: Array) -> Array:
    """Return a flag; under `vmap`, whether all are true.

    A branch that some elements of a batch take and others do not is computed for all of them, and
    so is the other one.
    """
    return flag


@_of_all.def_vmap
def _over_batch(axis_size: int, in_batched: list, flags: Array) -> tuple[Array, bool]:
    return _of_all(jnp.all(flags)), False
