"""Scaled messages carried over steps, and their derivatives by a reverse pass that is written out.

A message α_t is a vector of probabilities, and a step is a matrix product: α_t ∝ (α_{t−1} A)
exp(e_t). The reverse pass has β_t = ∂ log Z / ∂ α_t, and the smoothed posterior is α_t β_t. What
does not vary in time is added up as the reverse pass goes, so that nothing of T × K × K is made.

What is done along the last axis is done a vector at a time. Where sequences are many and states
few, the batch therefore comes last, (time, *labels, batch), and first elsewhere.
Source: Baum, Petrie, Soules & Weiss (1970); Rabiner (1989), section V, for scaling.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.chains.operands import Label, axes_in_time
from emjax.elimination.chains.steps import Advance, by_step
from emjax.elimination.factors import Cells
from emjax.elimination.flags import merged, split
from emjax.numerics.arrays import gated
from emjax.numerics.axes import arranged

# The label of the elements of a step, or of the rows of a table that these look up.
BATCH = Label("elements of a step", None)
# The batch comes last where it is so many times as long as a state is large (measured on a CPU:
# last, 5,000 sequences of 4 states take 0.45 × the time, 128 of 8 or 16 as long,
# 64 of 32 1.1 ×).
MANY = 8


@dataclass(frozen=True)
class Recursion:
    """What is static of a scaled recursion.

    - `advance`: one step of it.
    - `window`: the labels of a message.
    - `steps`: how many there are.
    - `densities`: the labels of each density of single steps.
    - `batch_is_last`: whether axes along the batch stand last.
    """

    advance: Advance
    window: tuple[Label, ...]
    steps: int
    densities: tuple[tuple[Label, ...], ...]
    batch_is_last: bool = False

    def axes(self, labels: Sequence[Label]) -> list[Label]:
        """Return the labels of the axes of a table at one step."""
        return [*labels, BATCH] if self.batch_is_last else [BATCH, *labels]

    @property
    def batch(self) -> int:
        """The axis along the batch, of arrays at one step."""
        return -1 if self.batch_is_last else 0

    def at(self, index: Any) -> tuple:
        """Return what reads these rows of a table."""
        return (..., index) if self.batch_is_last else (index,)

    def read(self, cells: Cells) -> Any:
        """Return a table at every element of one step."""
        if cells.index is None:
            return cells.table
        # rows are in range by construction
        rows = cells.table.at[self.at(cells.index)]
        return rows.get(mode="promise_in_bounds", wrap_negative_indices=False)

    def gated(self, cells: Cells, array: Any, otherwise: Any) -> Any:
        """Return an array with another value at elements that do not count."""
        return gated(cells.gate, array, otherwise, self.batch_is_last)

    @property
    def states(self) -> tuple[int, ...]:
        """The axes of a message that its values are numbered along."""
        return axes_in_time(self.axes(self.window), 0)

    def total(self, message: Any) -> Array:
        """Return the sum of a message over the states, whose axes stay with length 1."""
        return message.sum(self.states, keepdims=True)

    def density(self, cells: Sequence[Cells]) -> Any:
        """Return the product of the densities at one step, laid out as a message."""
        product: Any = 1.0
        for density, labels in zip(cells, self.densities, strict=False):
            probability = arranged(self.read(density), self.axes(labels), self.axes(self.window))
            product = product * self.gated(density, probability, 1)
        return product

    def predicted(self, message: Any, probabilities: Sequence, cells: Sequence[Cells]) -> Array:
        """Return α_{t−1} A, for the probabilities of the transitions."""
        gates = [transition.gate for transition in cells[len(self.densities) :]]
        last = [BATCH] if self.batch_is_last else []
        return self.advance.scaled(message, probabilities, gates, last)

    def transitions(self, cells: Sequence[Cells]) -> list:
        """Return the probabilities of the transitions at one step."""
        transitions = cells[len(self.densities) :]
        return [self.read(transition) for transition in transitions]

    def of_densities(self, posterior: Any, cells: Sequence[Cells]) -> list:
        """Return the derivatives with respect to the logarithms of the densities.

        Each is the posterior of what a density is a table of.
        """
        derivatives = []
        for density, labels in zip(cells, self.densities, strict=False):
            counted = self.gated(density, posterior, 0)
            marginal = arranged(counted, self.axes(self.window), self.axes(labels))
            batched = density.table if density.index is None else density.index
            # one table for the whole batch is one operand: its derivative is the sum over it
            is_shared = batched.shape[self.batch] == 1
            derivatives.append(marginal.sum(self.batch, keepdims=True) if is_shared else marginal)
        return derivatives


class _InTime:
    """Tables of probabilities (time, …), some looked up, and where they count.


    - `moving`: the arrays that vary in time, of which a loop hands out one step.
    - `at`: a function of one step of these, which is the cells at that step.
    - `varies`: which tables vary in time.
    """

    def __init__(self, recursion: Recursion, tables: Sequence, fixed: Sequence):
        self.recursion, self.tables = recursion, tables
        all_cells = []
        for table, (index, gate) in zip(tables, fixed, strict=True):
            all_cells.append(Cells(table, index, gate))
        self.varies = [c.index is None and c.table.shape[0] != 1 for c in all_cells]
        self.moving, self.at = by_step(all_cells)

    @property
    def zeros(self) -> list:
        """What the derivatives with respect to tables that do not vary in time are added up in."""
        _, constant = split(self.tables, self.varies)
        return [jnp.zeros_like(table) for table in constant]

    def added(
        self, totals: Sequence, cells: Sequence[Cells], derivatives: Sequence
    ) -> tuple[list, list]:
        """Return the totals after one step, and the derivatives of tables that vary in time."""
        moving, of_constant = split(derivatives, self.varies)
        _, constant = split(cells, self.varies)
        after = []
        for total, table, derivative in zip(totals, constant, of_constant, strict=True):
            if table.index is None:
                after.append(total + derivative[None])
                continue
            # an element adds to the row that it looked up; rows are in range by construction
            rows = total.at[self.recursion.at(table.index)]
            after.append(
                rows.add(derivative, mode="promise_in_bounds", wrap_negative_indices=False)
            )
        return after, moving

    def in_order(self, totals: Sequence, moving: Sequence) -> list:
        """Return what belongs to each table."""
        return merged(moving, totals, self.varies)


def carried(
    recursion: Recursion, message: Any, tables: Sequence, fixed: Sequence, epsilon: Any
) -> tuple[Array, Array]:
    """Return a message after all steps, (batch, *window), and the logarithm of its scale.

    Messages have the sum one; the scale is (batch, *others).

    - `tables`: the logarithms of densities, then of transitions, (time, batch, *labels).
    - `fixed`: the index and the gate of each (see `Cells`).
    - `epsilon`: a zero. The derivative with respect to it is as if it were added to each product.
    """
    is_many = len(message) >= MANY * math.prod(message.shape[1:])
    if not (recursion.batch_is_last or is_many):
        return _carried(recursion, message, tables, fixed, epsilon)
    laid_out = []
    for table, (index, _) in zip(tables, fixed, strict=True):
        laid_out.append(jnp.moveaxis(table, 1 if index is None else 0, -1))
    recursion, message = replace(recursion, batch_is_last=True), jnp.moveaxis(message, 0, -1)
    batch_last: Any = _carried(recursion, message, laid_out, fixed, epsilon)
    last, scale = batch_last
    return jnp.moveaxis(last, -1, 0), jnp.moveaxis(scale, -1, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _carried(
    recursion: Recursion, message: Any, tables: Sequence, fixed: Sequence, epsilon: Any
) -> tuple[Array, Array]:
    """Return what `carried` does, of arrays that are laid out as the recursion says."""
    return _forward(recursion, message, tables, fixed, epsilon)[0]


def _forward(recursion: Recursion, message, tables, fixed, epsilon):
    # ε is zero, and is added nowhere: only its derivative is wanted, which `_backward` writes out
    del epsilon
    in_time = _InTime(recursion, [jnp.exp(table) for table in tables], fixed)

    def step(message, now):
        cells = in_time.at(now)
        predicted = recursion.predicted(message, recursion.transitions(cells), cells)
        product = predicted * recursion.density(cells)
        scale = recursion.total(product)
        # where all is lost the scale is zero, log Z is −∞, and the derivative along ε is infinite
        return product / jnp.where(scale > 0, scale, 1), (message, scale)

    last, (messages, scales) = jax.lax.scan(step, message, in_time.moving, length=recursion.steps)
    log_scale = jnp.log(scales).sum(0).squeeze(recursion.states)
    return (last, log_scale), (in_time.tables, fixed, messages, scales, last)


def _backward(recursion: Recursion, saved, cotangents):
    tables, fixed, messages, scales, last = saved
    in_time = _InTime(recursion, tables, fixed)

    def step(carry, now):
        after, derivative, totals, lost = carry
        (before, scale), of_step = now
        cells = in_time.at(of_step)
        # infinite where everything is lost: so is then the derivative along ε
        at_product = derivative / scale
        _, pull = jax.vjp(
            lambda message, transitions: recursion.predicted(message, transitions, cells),
            before,
            recursion.transitions(cells),
        )
        of_before, of_transitions = pull(at_product * recursion.density(cells))
        of_densities = recursion.of_densities(after * derivative, cells)
        totals, moving = in_time.added(totals, cells, [*of_densities, *of_transitions])
        return (before, of_before, totals, lost + at_product.sum()), moving

    of_last, of_scale = cotangents
    # the last message is a quotient by its sum, whose logarithm is the scale
    of_scale = jnp.expand_dims(of_scale, recursion.states)
    ends = of_last + of_scale - recursion.total(of_last * last)
    carry = (last, ends, in_time.zeros, jnp.zeros((), last.dtype))
    (_, of_first, totals, lost), moving = jax.lax.scan(
        step, carry, ((messages, scales), in_time.moving), length=recursion.steps, reverse=True
    )
    derivatives = in_time.in_order(totals, moving)
    # those of densities are with respect to logarithms already
    for i in range(len(recursion.densities), len(tables)):
        derivatives[i] = tables[i] * derivatives[i]
    return of_first, derivatives, None, lost


_carried.defvjp(_forward, _backward)
