"""log Z of a chain by scaled messages, and the smoothed posterior by their reverse pass, written out.

A message α_t is a vector of probabilities, and a step is a matrix product: α_t ∝ (α_{t−1} A) exp(e_t). Probabilities below the smallest number are lost.
What is lost at step t is at most the smallest number times β_t / s_t, with β the reverse messages, scaled such that Σ α_t β_t = 1, and s_t the scale of α_t:
the *margin* is the least s_t / β_t, and where it comes near zero, the caller does all again in logarithms.
Source: Baum, Petrie, Soules & Weiss (1970); Rabiner (1989), section V, for scaling; the margin: ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from emjax.chains import Chain
from emjax.recursion import Advance, arranged, first_window, in_steps


def scaled_log_sum(chain: Chain, margins: list):
    """Return log Z of a chain longer than its order, (batch, *others), in nats; append its margin.

    Exponentials are taken of tables before they are looked up. Derivatives go to the logarithms, whose values are not needed.
    """
    start, (densities, transitions) = first_window(chain, 1), in_steps(chain)
    others = [label for label in chain.window if label[1] is None]
    steps = chain.length - chain.order
    log_density = sum((_in_window(o.array, o.labels, chain) for o in densities), jnp.zeros((1,) * (2 + len(chain.window))))
    shape = (steps, chain.count, *(chain.sizes[label] if any(label in o.labels for o in densities) or label[1] == 0 else 1 for label in chain.window))
    log_density = jnp.broadcast_to(log_density, tuple(n if label is None or label[1] in (None, 0) else 1 for n, label in zip(shape, [None, None, *chain.window], strict=True)))
    density, offset = jnp.ones((1,) * log_density.ndim), jnp.zeros((1,) * (1 + len(others)))
    for operand in densities:
        table = jax.lax.stop_gradient(operand.table)
        lead = 2 if operand.index is None else 1
        own = tuple(lead + i for i, label in enumerate(operand.labels) if label[1] is not None)
        largest = table.max(own, keepdims=True)
        density = density * _in_window(operand.gated(operand.read(jnp.exp(table - largest)), 1), operand.labels, chain)
        shift = operand.gated(operand.read(largest), 0)
        offset = offset + _total_in_time(arranged(shift.reshape([n for i, n in enumerate(shift.shape) if i < 2 or operand.labels[i - 2][1] is None]),
                                                   [label for label in operand.labels if label[1] is None], others, 2), steps)
    tables = []
    for operand in transitions:
        largest = jax.lax.stop_gradient(operand.table.max())
        tables.append(operand.table - largest)
        counted = jnp.ones((1, 1)) if operand.gate is None else operand.gate
        total = _total_in_time(counted * largest, steps)
        offset = offset + total.reshape(total.shape + (1,) * len(others))
    fixed = [(operand.index, operand.gate) for operand in transitions]
    density = jnp.broadcast_to(jax.lax.stop_gradient(density), log_density.shape)
    value, margin = _forward_backward(_Recursion(chain, transitions), start, log_density, tables, density, fixed)
    margins.append(jax.lax.stop_gradient(margin))
    return value + jax.lax.stop_gradient(offset)


def _in_window(array, labels: Sequence, chain: Chain):
    return arranged(array, labels, chain.window, 2)


def _total_in_time(array, steps: int):
    """Return the sum over time of an array (time, …), of length 1 where it does not vary."""
    return array[0] * steps if array.shape[0] == 1 else array.sum(0)


class _Recursion:
    """The scaled recursion of a chain: what is static of it."""

    def __init__(self, chain: Chain, transitions: Sequence):
        self.advance = Advance(chain, transitions)
        self.labels = [operand.labels for operand in transitions]
        self.looked_up = [operand.index is not None for operand in transitions]
        self.states = tuple(i for i, label in enumerate(chain.window, 1) if label[1] is not None)

    def step(self, state, tables: Sequence, fixed: Sequence, lead: int = 1):
        """Advance a state (batch, *window) by logarithms of transitions at one step (or at all of them, with a time axis: `lead` 2)."""
        probabilities = []
        for table, (index, _) in zip(tables, fixed, strict=True):
            probability = jnp.exp(table)
            probabilities.append(probability if index is None else probability.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False))
        return self.advance.scaled(state, probabilities, [gate for _, gate in fixed])

    def total(self, state):
        return state.sum(self.states, keepdims=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward_backward(recursion: _Recursion, start, log_density, tables, density, fixed):
    """Return (log Z, (batch, *others); margin). `density`: exp of `log_density`, up to a factor of each step, (time, batch, *window)."""
    return _forward_backward_fwd(recursion, start, log_density, tables, density, fixed)[0]


def _at_each_step(values: Any) -> tuple[Any, Callable]:
    """Split a tree of arrays (time, …) into those that vary in time and a function that puts the others, without their time axis, back."""
    leaves, tree = jax.tree.flatten(values)
    moves = [leaf.shape[0] != 1 for leaf in leaves]
    moving = [leaf for leaf, is_moving in zip(leaves, moves, strict=True) if is_moving]

    def complete(own):
        own = iter(own)
        return jax.tree.unflatten(tree, [next(own) if is_moving else leaf[0] for leaf, is_moving in zip(leaves, moves, strict=True)])

    return moving, complete


def _forward_backward_fwd(recursion: _Recursion, start, log_density, tables, density, fixed):
    in_time = [table for table, is_row in zip(tables, recursion.looked_up, strict=True) if not is_row]
    moving, complete = _at_each_step((in_time, fixed))
    rows = [table for table, is_row in zip(tables, recursion.looked_up, strict=True) if is_row]

    def transitions(own):
        own_tables, own_fixed = complete(own)
        own_tables, own_rows = iter(own_tables), iter(rows)
        return [next(own_rows if is_row else own_tables) for is_row in recursion.looked_up], own_fixed

    def forward(state, own):
        own_density, own = own
        product = recursion.step(state, *transitions(own)) * own_density
        scale = recursion.total(product)
        after = product / jnp.where(scale > 0, scale, 1)
        return after, (after, scale)

    def backward(message, own):
        own_density, scale, own = own
        least = (scale / message.max(recursion.states, keepdims=True)).min()
        weight = own_density * message / jnp.where(scale > 0, scale, 1)
        before = jax.linear_transpose(lambda state: recursion.step(state, *transitions(own)), message)(weight)[0]
        return before, (message, least)

    largest = jax.lax.stop_gradient(start.max(recursion.states, keepdims=True))
    first = jnp.exp(start - largest)
    total = recursion.total(first)
    first = first / total
    _, (states, scales) = jax.lax.scan(forward, first, (density, moving))
    message, (messages, least) = jax.lax.scan(backward, jnp.ones_like(first), (density, scales, moving), reverse=True)
    value = (largest + jnp.log(total)).reshape(start.shape[: 1 + start.ndim - 1 - len(recursion.states)])
    value = value + jnp.log(scales).sum(0).reshape(value.shape)
    margin = jnp.minimum(least.min(), (1 / message).min()) / scales.size
    return (value, margin), (first, message, states, messages, scales, tables, density, fixed, log_density.shape)


def _forward_backward_bwd(recursion: _Recursion, saved, cotangents):
    first, message, states, messages, scales, tables, density, fixed, shape = saved
    weight = cotangents[0].reshape(cotangents[0].shape + (1,) * len(recursion.states))
    of_start = weight * first * message
    posterior = weight * states * messages
    over = tuple(d for d, (n, own) in enumerate(zip(posterior.shape, shape, strict=True)) if own == 1 and n != 1)
    of_density = posterior.sum(over, keepdims=True)
    received = weight * density * messages / scales
    before = jnp.concatenate([first[None], states[:-1]])
    return of_start, of_density, _of_tables(recursion, before, tables, fixed, received), None, None


def _of_tables(recursion: _Recursion, before, tables, fixed, received):
    """Return the derivatives with respect to the transitions: matrix products over all steps; step by step where they are looked up."""
    if not any(recursion.looked_up):
        return jax.vjp(lambda tables: recursion.step(before, tables, fixed, lead=2), tables)[1](received)[0]
    in_time = [table for table, is_row in zip(tables, recursion.looked_up, strict=True) if not is_row]
    rows = [table for table, is_row in zip(tables, recursion.looked_up, strict=True) if is_row]
    moving, complete = _at_each_step((in_time, fixed))

    def step(total, own):
        state, weight, own = own
        own_tables, own_fixed = complete(own)

        def advanced(own_tables, rows):
            a, b = iter(own_tables), iter(rows)
            return recursion.step(state, [next(b if is_row else a) for is_row in recursion.looked_up], own_fixed)

        of_tables, of_rows = jax.vjp(advanced, own_tables, rows)[1](weight)
        is_moving = [table.shape[0] != 1 for table in in_time]
        constant = [d for d, moves in zip(of_tables, is_moving, strict=True) if not moves]
        total = jax.tree.map(jnp.add, total, (of_rows, constant))
        return total, [d for d, moves in zip(of_tables, is_moving, strict=True) if moves]

    zeros = (jax.tree.map(jnp.zeros_like, rows), [jnp.zeros_like(table[0]) for table in in_time if table.shape[0] == 1])
    (of_rows, constant), varying = jax.lax.scan(step, zeros, (before, received, moving))
    of_rows, constant, varying = iter(of_rows), iter(constant), iter(varying)
    of_tables = iter([next(constant)[None] if table.shape[0] == 1 else next(varying) for table in in_time])
    return [next(of_rows if is_row else of_tables) for is_row in recursion.looked_up]


_forward_backward.defvjp(_forward_backward_fwd, _forward_backward_bwd)
