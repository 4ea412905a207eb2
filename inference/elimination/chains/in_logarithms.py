"""log Z of a chain, by a recursion over time whose cost is T · K² for each sequence.

With e_t the log-densities at step t and A the transition, the messages are  α_t = e_t + log Σ
exp(α_{t−1} + A):  here in logarithms, at any temperature; in `scaled` as probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from emjax.elimination.chains.layout import Chain, Operand
from emjax.numerics.arrays import gated
from emjax.numerics.guards import LOG_ZERO, tempered_logsumexp

# ── tables with labels ────────────────────────────────────────────────────────────────────────────


def arranged(array, labels: Sequence, order: Sequence, lead: int):
    """Return an array of `lead` axes and labeled ones with its labels in this order, of length 1
    where absent.
    """
    present = [label for label in order if label in labels]
    array = jnp.transpose(array, [*range(lead), *(lead + labels.index(label) for label in present)])
    sizes = dict(zip(present, array.shape[lead:], strict=True))
    return array.reshape(array.shape[:lead] + tuple(sizes.get(label, 1) for label in order))


def reduced(table, lead: int, temperature):
    """Return τ log Σ exp of all axes after the batch and `lead` others."""
    return (
        tempered_logsumexp(table, temperature, table.ndim - 1 - lead)
        if table.ndim > 1 + lead
        else table
    )


def in_steps(chain: Chain) -> tuple[list[Operand], list[Operand]]:
    """Return the operands at all steps after the first window: those of one step alone, and
    transitions.
    """
    operands = [
        operand.spread(chain.order, chain.length)
        for operand in chain.operands
        if operand.last + operand.steps > chain.order
    ]
    return [o for o in operands if o.lag == 0], [o for o in operands if o.lag > 0]


def first_window(chain: Chain, temperature):
    """Return the sum of all factors of the steps before the first regular one as a table (batch,
    *window).
    """
    stop = min(chain.order, chain.length)
    pieces = []
    for operand in chain.operands:
        for last in range(max(0, operand.last), min(stop, operand.last + operand.steps)):
            labels = tuple(
                (name, lag if lag is None else last - lag) for name, lag in operand.labels
            )
            pieces.append((operand.between(last, last + 1).array[0], labels))
    own = [(name, time) for name in chain.names for time in range(stop)]
    table, labels = jnp.zeros((1,)), [label for label in chain.window if label[1] is None]
    table = table.reshape((1,) * (1 + len(labels)))
    kept = [(name, stop - 1 - lag) for name, lag in chain.window if lag is not None and lag < stop]
    for time in range(stop):
        new = [label for label in own if label[1] == time]
        table, labels = table.reshape(table.shape + (1,) * len(new)), [*labels, *new]
        for piece, its_labels in pieces:
            if max(t for _, t in its_labels if t is not None) == time:
                table = table + arranged(piece, its_labels, labels, 1)
    table = jnp.broadcast_to(
        table,
        (
            chain.count,
            *(chain.sizes[label if label[1] is None else (label[0], 0)] for label in labels),
        ),
    )
    gone = [label for label in labels if label[1] is not None and label not in kept]
    order = [*(label for label in labels if label[1] is None), *kept, *gone]
    table = arranged(table, labels, order, 1)
    return tempered_logsumexp(table, temperature, len(gone)) if gone else table


class Advance:
    """One step of a recursion: which labels each transition brings in, and which are summed out
    after it.
    """

    def __init__(self, chain: Chain, transitions: Sequence[Operand]):
        shifted = [(name, lag if lag is None else lag + 1) for name, lag in chain.window]
        self.start, self.window, self.stages = shifted, list(chain.window), []
        labels = shifted
        for i, transition in enumerate(transitions):
            needed = {
                *self.window,
                *(label for later in transitions[i + 1 :] for label in later.labels),
            }
            union = list(dict.fromkeys([*labels, *transition.labels]))
            after = [label for label in union if label in needed]
            self.stages.append(
                (
                    labels,
                    list(transition.labels),
                    after,
                    [label for label in union if label not in after],
                )
            )
            labels = after
        self.last = labels

    def scaled(self, state, tables: Sequence, gates: Sequence):
        """Advance probabilities (…, *window) by tables of transition probabilities, (…, *labels),
        of length 1 along … where they do not vary.
        """
        lead = state.ndim - len(self.start)
        for (labels, own, after, gone), table, gate in zip(self.stages, tables, gates, strict=True):
            moved = _product(state, labels, table, own, after, lead)
            if gate is not None:  # a transition that does not count is one everywhere
                kept = state.sum(
                    tuple(lead + labels.index(label) for label in gone if label in labels),
                    keepdims=True,
                )
                kept = arranged(
                    kept.reshape(
                        kept.shape[:lead]
                        + tuple(
                            n
                            for n, label in zip(kept.shape[lead:], labels, strict=True)
                            if label not in gone
                        )
                    ),
                    [label for label in labels if label not in gone],
                    after,
                    lead,
                )
                moved = gated(gate, moved, kept)
            state = moved
        return self._closed(state, lead, lambda array, axes: array.sum(axes))

    def plain(self, state, tables: Sequence, temperature):
        """Advance log-densities (…, *window)."""
        lead = state.ndim - len(self.start)
        for (labels, own, after, gone), table in zip(self.stages, tables, strict=True):
            order = [*after, *gone]
            state = arranged(state, labels, order, lead) + arranged(table, own, order, lead)
            state = tempered_logsumexp(state, temperature, len(gone)) if gone else state
        return self._closed(
            state,
            lead,
            lambda array, axes: tempered_logsumexp(
                jnp.moveaxis(array, axes, range(-len(axes), 0)), temperature, len(axes)
            ),
        )

    def _closed(self, state, lead: int, total: Callable):
        """Return the state over the window: what no transition reads is summed out."""
        gone = tuple(lead + i for i, label in enumerate(self.last) if label not in self.window)
        state = total(state, gone) if gone else state
        return arranged(
            state, [label for label in self.last if label in self.window], self.window, lead
        )


def _product(state, labels: Sequence, table, own: Sequence, after: Sequence, lead: int):
    """Return the sum of products over the labels that are not in `after`, as one contraction."""
    letter = {
        label: chr(97 + i) for i, label in enumerate(dict.fromkeys([*range(lead), *labels, *own]))
    }

    def operand(array, its_labels):
        kept = [d for d, n in enumerate(array.shape) if n != 1 or d >= lead]
        named = [*range(lead), *its_labels]
        return array.reshape([array.shape[d] for d in kept]), "".join(
            letter[named[d]] for d in kept
        )

    first, its = operand(state, labels)
    second, others = operand(table, own)
    present = [d for d in range(lead) if letter[d] in its + others]
    sizes = {
        **dict(zip(others, second.shape, strict=True)),
        **dict(zip(its, first.shape, strict=True)),
    }
    out = "".join(letter[label] for label in [*present, *after])
    found = jnp.einsum(f"{its},{others}->{out}", first, second, precision="highest")
    return found.reshape(
        [*(sizes.get(letter[d], 1) for d in range(lead)), *found.shape[len(present) :]]
    )


# ── in logarithms ─────────────────────────────────────────────────────────────────────────────────


def log_sum(chain: Chain, temperature: ArrayLike, checkpointed: bool = False):
    """Return log Z of a chain, (batch, *others), in nats, in logarithms: K² exponentials a step.
    `checkpointed`: see `over_stretches`.
    """
    start, (densities, transitions) = first_window(chain, temperature), in_steps(chain)
    if chain.length <= chain.order:
        return reduced(start, len(chain.others), temperature)
    advance, count = Advance(chain, transitions), len(densities)

    def stretch(state, operands: Sequence[Operand]):
        moving, complete = by_step(
            [(None if o.index is not None else o.table, o.index, o.gate) for o in operands]
        )

        def step(state, own):
            tables = []
            for operand, (table, index, gate) in zip(operands, complete(own), strict=True):
                tables.append(
                    replace(
                        operand,
                        table=operand.table if table is None else table,
                        index=index,
                        gate=gate,
                    ).array
                )
            after = advance.plain(state, tables[count:], temperature)
            for operand, table in zip(operands[:count], tables, strict=False):
                after = after + arranged(table, operand.labels, chain.window, 1)
            return jnp.broadcast_to(after, state.shape), None

        return jax.lax.scan(jax.checkpoint(step), state, moving, length=operands[0].steps)[
            0
        ], jnp.zeros(())

    last, _ = over_stretches(stretch, start, [*densities, *transitions], chain, checkpointed)
    return reduced(last, len(chain.others), temperature)


def by_step(values) -> tuple[list, Callable]:
    """Split a tree of arrays (time, …): those that vary in time, and a function of one step of
    these that is the tree without its time axis.
    """
    leaves, tree = jax.tree.flatten(values)
    moves = [leaf.shape[0] != 1 for leaf in leaves]

    def complete(own):
        own = iter(own)
        return jax.tree.unflatten(
            tree,
            [
                next(own) if is_moving else leaf[0]
                for leaf, is_moving in zip(leaves, moves, strict=True)
            ],
        )

    return [leaf for leaf, is_moving in zip(leaves, moves, strict=True) if is_moving], complete


def over_stretches(
    function: Callable, state, operands: Sequence[Operand], chain: Chain, checkpointed: bool
):
    """Carry a state over all steps after the first window: return it, and the sum of the values of
    function(state, operands) = (state, value).

    `checkpointed`: over stretches of √T steps, of which the reverse pass keeps the state before,
    and computes all else again.
    """
    first, steps = chain.order, chain.length - chain.order
    rows = math.isqrt(steps)
    if not checkpointed or rows < 2:
        return function(state, [operand.between(first, chain.length) for operand in operands])
    count = steps // rows
    cut = [operand.stretches(first, rows, count) for operand in operands]

    @jax.checkpoint
    def stretch(state, own):
        number, arrays = own
        return function(state, [at(number, one) for (_, at), one in zip(cut, arrays, strict=True)])

    state, values = jax.lax.scan(stretch, state, (jnp.arange(count), [moving for moving, _ in cut]))
    total = values.sum(0)
    if steps % rows:
        state, value = function(
            state, [operand.between(first + rows * count, chain.length) for operand in operands]
        )
        total = total + value
    return state, total


# ── in parallel ───────────────────────────────────────────────────────────────────────────────────


def log_sum_in_parallel(chain: Chain, temperature: ArrayLike):
    """Return what `log_sum` does, in log₂ T rounds: two neighboring steps become one, a product of
    K × K tables in logarithms.

    It takes T · K³ operations and T · K² memory for each sequence, all of a round at once: for an
    accelerator with cores to spare. Source: Särkkä & García-Fernández (2021), "Temporal
    parallelization of Bayesian smoothers".
    """
    start, (densities, transitions) = first_window(chain, temperature), in_steps(chain)
    others, steps = len(chain.others), chain.length - chain.order
    if steps <= 0:
        return reduced(start, others, temperature)
    # every state of the window before, as a certainty, carried one step on
    before = tuple(chain.sizes[label] for label in chain.window[others:])
    size = math.prod(before)
    certain = jnp.where(jnp.eye(size, dtype=bool), 0, LOG_ZERO).reshape(
        1, 1, size, *(1,) * others, *before
    )
    advance = Advance(chain, transitions)
    tables = [
        operand.between(chain.order, chain.length).array[:, :, None]
        for operand in (*densities, *transitions)
    ]
    moved = advance.plain(certain, tables[len(densities) :], temperature)
    for operand, table in zip(densities, tables, strict=False):
        moved = moved + arranged(table, operand.labels, chain.window, 3)
    moved = jnp.broadcast_to(moved, (steps, *moved.shape[1 : 3 + others], *before))
    moved = jnp.moveaxis(
        moved.reshape(*moved.shape[: 3 + others], size), 2, -2
    )  # (step, batch, *others, state before, state)

    @jax.checkpoint
    def product(first, second):
        return tempered_logsumexp(
            first[..., :, None, :] + jnp.swapaxes(second, -1, -2)[..., None, :, :], temperature, 1
        )

    while moved.shape[0] > 1:
        pairs = moved.shape[0] // 2
        moved = jnp.concatenate(
            [product(moved[: 2 * pairs : 2], moved[1 : 2 * pairs : 2]), moved[2 * pairs :]]
        )
    total = start.reshape(*start.shape[: 1 + others], size, 1) + moved[0]
    return tempered_logsumexp(total, temperature, 2)
