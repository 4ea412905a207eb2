"""log Z of a chain by scaled messages, and its derivatives by their reverse pass, written out.

A message α_t is a vector of probabilities, and a step is a matrix product: α_t ∝ (α_{t−1} A)
exp(e_t). The reverse pass has β_t = ∂ log Z / ∂ α_t, and the smoothed posterior is α_t β_t.

Probabilities below the smallest number are lost. So every message has an ε added to it, which is
zero: what is lost changes log Z by at most the smallest number times ∂ log Z / ∂ε, and where that
is not small, the caller does all again in logarithms. Source: Baum, Petrie, Soules & Weiss (1970);
Rabiner (1989), section V, for scaling; ε: ours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from emjax.elimination.chains.in_logarithms import (
    Advance,
    arranged,
    by_step,
    first_window,
    in_steps,
    over_stretches,
)
from emjax.elimination.chains.layout import Chain, Operand
from emjax.elimination.chains.segments import in_segments, number_of_segments, with_starts
from emjax.numerics.arrays import gated, rows_of


def scaled_log_sum(chain: Chain, epsilon, checkpointed: bool = False):
    """Return log Z of a chain longer than its order, (batch, *others), in nats. `epsilon`: a zero,
    see above; `checkpointed`: see `over_stretches`.

    Exponentials are taken of tables before they are looked up, relative to the largest of each
    step.
    """
    start, (densities, transitions) = first_window(chain, 1), in_steps(chain)
    others = [label for label in chain.window if label[1] is None]

    def stretch(message, operands: Sequence[Operand]):
        steps, tables, offset = operands[0].steps, [], jnp.zeros((1,) * (1 + len(others)))
        for operand in operands:
            largest = jax.lax.stop_gradient(_largest(operand))
            tables.append(operand.table - largest)
            shift = operand.gated(operand.read(largest), 0)
            shift = arranged(
                shift.reshape(
                    [
                        n
                        for i, n in enumerate(shift.shape)
                        if i < 2 or operand.labels[i - 2][1] is None
                    ]
                ),
                [label for label in operand.labels if label[1] is None],
                others,
                2,
            )
            offset = offset + (shift[0] * steps if shift.shape[0] == 1 else shift.sum(0))
        fixed = [(operand.index, operand.gate) for operand in operands]
        message, scale = _carried_over(chain, operands, message, tables, fixed, steps, epsilon)
        return message, offset + scale

    states = tuple(i for i, label in enumerate(chain.window, 1) if label[1] is not None)
    largest = jax.lax.stop_gradient(start.max(states, keepdims=True))
    first = jnp.exp(start - largest) + epsilon
    total = first.sum(states, keepdims=True)
    _, value = over_stretches(
        stretch, first / total, [*densities, *transitions], chain, checkpointed
    )
    return value + (largest + jnp.log(total)).squeeze(states)


def _carried_over(
    chain: Chain,
    operands: Sequence[Operand],
    message,
    tables: Sequence,
    fixed: Sequence,
    steps: int,
    epsilon,
):
    """Do what `_carried` does; in segments, where the chain is long and its steps are small."""

    def carried(message, tables, fixed, steps: int, chain: Chain = chain):
        transitions = [operand for operand in operands if operand.lag > 0]
        densities = tuple(operand.labels for operand in operands if operand.lag == 0)
        return _carried(
            _Recursion(Advance(chain, transitions), chain.window, steps, densities),
            message,
            tables,
            fixed,
            epsilon,
        )

    segments = number_of_segments(chain, steps)
    if segments == 1:
        return carried(message, tables, fixed, steps)
    # the steps that are left over come first, so that nothing comes after the segments
    rows, is_row = steps // segments, [operand.index is not None for operand in operands]
    rest = steps - rows * segments
    looked_up = [table for table, own in zip(tables, is_row, strict=True) if own]
    in_time = ([table for table, own in zip(tables, is_row, strict=True) if not own], fixed)

    def complete(tables):
        tables, others = iter(tables), iter(looked_up)
        return [next(others) if own else next(tables) for own in is_row]

    def between(start: int, stop: int):
        return jax.tree.map(
            lambda array: array if array.shape[0] == 1 else array[start:stop], in_time
        )

    before = jnp.zeros(())
    if rest:
        own_tables, own_fixed = between(0, rest)
        message, before = carried(message, complete(own_tables), own_fixed, rest)
    wide = with_starts(chain)

    def of_segment(message, arrays, of_starts: bool):
        own_tables, own_fixed = arrays
        own_tables = complete(own_tables)
        return carried(
            message,
            jax.lax.stop_gradient(own_tables) if of_starts else own_tables,
            own_fixed,
            rows,
            wide if of_starts else chain,
        )

    message, scale = in_segments(
        of_segment,
        message,
        between(rest, steps),
        len(chain.others),
        segments,
        rows * segments,
        epsilon,
    )
    return message, before + scale


def _largest(operand: Operand):
    """Return the largest entry of each step and batch element (of all, for a transition that does
    not vary), with axes of length 1.
    """
    lead = 2 if operand.index is None else 1
    return operand.table.max(
        tuple(lead + i for i, label in enumerate(operand.labels) if label[1] is not None),
        keepdims=True,
    )


@dataclass(frozen=True)
class _Recursion:
    """What is static of a scaled recursion: the labels of its state, of the densities of single
    steps, and of transitions.
    """

    advance: Advance
    window: tuple
    steps: int
    densities: tuple[tuple, ...]

    @property
    def states(self) -> tuple[int, ...]:
        """The axes of a message (batch, *window) that its values are numbered along."""
        return tuple(i for i, label in enumerate(self.window, 1) if label[1] is not None)

    def total(self, message):
        return message.sum(self.states, keepdims=True)

    def density(self, probabilities: Sequence, gates: Sequence):
        """Return the product of the densities at one step, laid out as a message."""
        product: Any = 1.0
        for probability, gate, labels in zip(probabilities, gates, self.densities, strict=False):
            product = product * gated(gate, arranged(probability, labels, self.window, 1), 1)
        return product

    def predicted(self, message, probabilities: Sequence, gates: Sequence):
        """Return α_{t−1} A."""
        first = len(self.densities)
        return self.advance.scaled(message, probabilities[first:], gates[first:])

    def of_densities(self, posterior, probabilities: Sequence, gates: Sequence) -> list:
        """Return the derivatives with respect to the logarithms of the densities: the posterior of
        what each of them is a table of.
        """
        found = []
        for probability, gate, labels in zip(probabilities, gates, self.densities, strict=False):
            own = gated(gate, posterior, 0).sum(
                tuple(i for i, label in enumerate(self.window, 1) if label not in labels)
            )
            kept = [label for label in self.window if label in labels]
            own = arranged(own, kept, labels, 1)
            found.append(own.sum(0, keepdims=True) if probability.shape[0] == 1 else own)
        return found


class _InTime:
    """Tables of probabilities, some looked up, and gates: `moving` are the arrays that vary in
    time, of which a loop hands out one step.
    """

    def __init__(self, tables: Sequence, fixed: Sequence):
        self.tables = tables
        self.is_row = [index is not None for index, _ in fixed]
        self.varies = [
            not is_row and table.shape[0] != 1
            for table, is_row in zip(tables, self.is_row, strict=True)
        ]
        moving, self.complete = by_step(fixed)
        self.moving = (
            [table for table, varies in zip(tables, self.varies, strict=True) if varies],
            moving,
        )

    def at(self, moving) -> tuple[list, list, list]:
        """Return the tables, indices and gates of one step."""
        own_tables, fixed = iter(moving[0]), self.complete(moving[1])
        tables = []
        for table, (index, _), varies in zip(self.tables, fixed, self.varies, strict=True):
            if index is not None:
                tables.append(rows_of(table, index))
            else:
                tables.append(next(own_tables) if varies else table[0])
        return tables, [index for index, _ in fixed], [gate for _, gate in fixed]

    @property
    def zeros(self) -> list:
        """What the derivatives with respect to tables that do not vary in time are added up in."""
        return [
            jnp.zeros_like(table)
            for table, varies in zip(self.tables, self.varies, strict=True)
            if not varies
        ]

    def added(
        self, totals: Sequence, indices: Sequence, derivatives: Sequence
    ) -> tuple[list, list]:
        """Add one step's derivatives to the totals; return those, and the derivatives with respect
        to tables that vary in time.
        """
        totals, after, moving = iter(totals), [], []
        for derivative, index, varies in zip(derivatives, indices, self.varies, strict=True):
            if varies:
                moving.append(derivative)
            elif index is None:
                after.append(next(totals) + derivative[None])
            else:
                after.append(
                    next(totals)
                    .at[index]
                    .add(derivative, mode="promise_in_bounds", wrap_negative_indices=False)
                )
        return after, moving

    def in_order(self, totals: Sequence, moving: Sequence) -> list:
        totals, moving = iter(totals), iter(moving)
        return [next(moving) if varies else next(totals) for varies in self.varies]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _carried(recursion: _Recursion, message, tables, fixed, epsilon):
    """Carry a message (batch, *window) of sum one on: return the message after the last step, and
    the logarithm of its scale, (batch, *others).

    `tables`: logarithms of densities, then of transitions; `fixed`: their indices and gates.
    """
    return _forward(recursion, message, tables, fixed, epsilon)[0]


def _forward(recursion: _Recursion, message, tables, fixed, epsilon):
    in_time = _InTime([jnp.exp(table) for table in tables], fixed)

    def step(message, own):
        probabilities, _, gates = in_time.at(own)
        product = recursion.predicted(message, probabilities, gates) * recursion.density(
            probabilities, gates
        )
        scale = recursion.total(product)
        return product / jnp.where(scale > 0, scale, 1), (message, scale)

    last, (messages, scales) = jax.lax.scan(step, message, in_time.moving, length=recursion.steps)
    return (last, jnp.log(scales).sum(0).squeeze(recursion.states)), (
        in_time.tables,
        fixed,
        messages,
        scales,
        last,
    )


def _backward(recursion: _Recursion, saved, cotangents):
    tables, fixed, messages, scales, last = saved
    in_time = _InTime(tables, fixed)

    def step(carry, own):
        after, derivative, totals, lost = carry
        (before, scale), own = own
        probabilities, indices, gates = in_time.at(own)
        at_product = derivative / scale  # infinite where everything is lost
        received = at_product * recursion.density(probabilities, gates)
        transitions = probabilities[len(recursion.densities) :]

        def predicted(message, transitions):
            return recursion.advance.scaled(message, transitions, gates[len(recursion.densities) :])

        _, pull = jax.vjp(predicted, before, transitions)
        of_before, of_transitions = pull(received)
        of_densities = recursion.of_densities(after * derivative, probabilities, gates)
        totals, moving = in_time.added(totals, indices, [*of_densities, *of_transitions])
        return (before, of_before, totals, lost + at_product.sum()), moving

    of_last, of_scale = cotangents
    # the last message is a quotient by its sum, whose logarithm is the scale
    ends = (
        of_last
        + of_scale.reshape(of_scale.shape + (1,) * len(recursion.states))
        - recursion.total(of_last * last)
    )
    carry = (last, ends, in_time.zeros, jnp.zeros((), last.dtype))
    (_, of_first, totals, lost), moving = jax.lax.scan(
        step, carry, ((messages, scales), in_time.moving), length=recursion.steps, reverse=True
    )
    found = in_time.in_order(totals, moving)
    count = len(
        recursion.densities
    )  # of densities, the derivatives are those with respect to logarithms already
    return (
        of_first,
        [
            *found[:count],
            *(table * d for table, d in zip(tables[count:], found[count:], strict=True)),
        ],
        None,
        lost,
    )


_carried.defvjp(_forward, _backward)
