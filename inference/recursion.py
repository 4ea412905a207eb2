"""log Z of a chain, by a recursion over time whose cost is T · K² for each sequence.

With e_t the log-densities at step t and A the transition, the messages are  α_t = e_t + log Σ exp(α_{t−1} + A):  here in logarithms,
at any temperature; in `forward_backward` as probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from emjax.chains import Chain, Operand
from emjax.numerics import tempered_logsumexp

# ── tables with labels ─────────────────────────────────────────────────────────────────────────────────────────


def arranged(array, labels: Sequence, order: Sequence, lead: int):
    """Return an array of `lead` axes and labeled ones with its labels in this order, of length 1 where absent."""
    present = [label for label in order if label in labels]
    array = jnp.transpose(array, [*range(lead), *(lead + labels.index(label) for label in present)])
    sizes = dict(zip(present, array.shape[lead:], strict=True))
    return array.reshape(array.shape[:lead] + tuple(sizes.get(label, 1) for label in order))


def reduced(table, lead: int, temperature):
    """Return τ log Σ exp of all axes after the batch and `lead` others."""
    return tempered_logsumexp(table, temperature, table.ndim - 1 - lead) if table.ndim > 1 + lead else table


def in_steps(chain: Chain) -> tuple[list[Operand], list[Operand]]:
    """Return the operands at all steps after the first window: those of one step alone, and transitions."""
    operands = [operand.spread(chain.order, chain.length) for operand in chain.operands if operand.last + operand.steps > chain.order]
    return [o for o in operands if o.lag == 0], [o for o in operands if o.lag > 0]


def first_window(chain: Chain, temperature):
    """Return the sum of all factors of the steps before the first regular one as a table (batch, *window)."""
    stop = min(chain.order, chain.length)
    pieces = []
    for operand in chain.operands:
        for last in range(max(0, operand.last), min(stop, operand.last + operand.steps)):
            labels = tuple((name, lag if lag is None else last - lag) for name, lag in operand.labels)
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
    table = jnp.broadcast_to(table, (chain.count, *(chain.sizes[label if label[1] is None else (label[0], 0)] for label in labels)))
    gone = [label for label in labels if label[1] is not None and label not in kept]
    order = [*(label for label in labels if label[1] is None), *kept, *gone]
    table = arranged(table, labels, order, 1)
    return tempered_logsumexp(table, temperature, len(gone)) if gone else table


class Advance:
    """One step of a recursion: which labels each transition brings in, and which are summed out after it."""

    def __init__(self, chain: Chain, transitions: Sequence[Operand]):
        shifted = [(name, lag if lag is None else lag + 1) for name, lag in chain.window]
        self.start, self.window, self.stages = shifted, list(chain.window), []
        labels = shifted
        for i, transition in enumerate(transitions):
            needed = {*self.window, *(label for later in transitions[i + 1:] for label in later.labels)}
            union = list(dict.fromkeys([*labels, *transition.labels]))
            after = [label for label in union if label in needed]
            self.stages.append((labels, list(transition.labels), after, [label for label in union if label not in after]))
            labels = after
        self.last = labels

    def scaled(self, state, tables: Sequence, gates: Sequence):
        """Advance probabilities (…, *window) by tables of transition probabilities, (…, *labels), of length 1 along … where they do not vary."""
        lead = state.ndim - len(self.start)
        for (labels, own, after, gone), table, gate in zip(self.stages, tables, gates, strict=True):
            moved = _product(state, labels, table, own, after, lead)
            if gate is not None:  # a transition that does not count is one everywhere
                kept = state.sum(tuple(lead + labels.index(label) for label in gone if label in labels), keepdims=True)
                kept = arranged(kept.reshape(kept.shape[:lead] + tuple(n for n, label in zip(kept.shape[lead:], labels, strict=True) if label not in gone)),
                                 [label for label in labels if label not in gone], after, lead)
                moved = jnp.where(gate.reshape(gate.shape + (1,) * len(after)), moved, kept)
            state = moved
        return self._closed(state, lead, lambda array, axes: array.sum(axes))

    def plain(self, state, tables: Sequence, temperature):
        """Advance log-densities (…, *window)."""
        lead = state.ndim - len(self.start)
        for (labels, own, after, gone), table in zip(self.stages, tables, strict=True):
            order = [*after, *gone]
            state = arranged(state, labels, order, lead) + arranged(table, own, order, lead)
            state = tempered_logsumexp(state, temperature, len(gone)) if gone else state
        return self._closed(state, lead, lambda array, axes: tempered_logsumexp(jnp.moveaxis(array, axes, range(-len(axes), 0)), temperature, len(axes)))

    def _closed(self, state, lead: int, total: Callable):
        """Return the state over the window: what no transition reads is summed out."""
        gone = tuple(lead + i for i, label in enumerate(self.last) if label not in self.window)
        state = total(state, gone) if gone else state
        return arranged(state, [label for label in self.last if label in self.window], self.window, lead)


def _product(state, labels: Sequence, table, own: Sequence, after: Sequence, lead: int):
    """Return the sum of products over the labels that are not in `after`, as one contraction."""
    letter = {label: chr(97 + i) for i, label in enumerate(dict.fromkeys([*range(lead), *labels, *own]))}

    def operand(array, its_labels):
        kept = [d for d, n in enumerate(array.shape) if n != 1 or d >= lead]
        named = [*range(lead), *its_labels]
        return array.reshape([array.shape[d] for d in kept]), "".join(letter[named[d]] for d in kept)

    first, its = operand(state, labels)
    second, others = operand(table, own)
    present = [d for d in range(lead) if letter[d] in its + others]
    sizes = {**dict(zip(others, second.shape, strict=True)), **dict(zip(its, first.shape, strict=True))}
    out = "".join(letter[label] for label in [*present, *after])
    found = jnp.einsum(f"{its},{others}->{out}", first, second, precision="highest")
    return found.reshape([*(sizes.get(letter[d], 1) for d in range(lead)), *found.shape[len(present):]])


# ── in logarithms ──────────────────────────────────────────────────────────────────────────────────────────────


def log_sum(chain: Chain, temperature: float | int):
    """Return log Z of a chain, (batch, *others), in nats, in logarithms: K² exponentials a step."""
    start, (densities, transitions) = first_window(chain, temperature), in_steps(chain)
    if chain.length <= chain.order:
        return reduced(start, len(chain.others), temperature)
    advance = Advance(chain, transitions)
    moving, fixed = _split([*densities, *transitions])

    def step(state, own):
        tables = [operand.array[0] for operand in _joined(own, fixed, [*densities, *transitions])]
        after = advance.plain(state, tables[len(densities):], temperature)
        for operand, table in zip(densities, tables, strict=False):
            after = after + arranged(table, operand.labels, chain.window, 1)
        return jnp.broadcast_to(after, state.shape), None

    last, _ = jax.lax.scan(jax.checkpoint(step), start, moving, length=chain.length - chain.order)
    return reduced(last, len(chain.others), temperature)


def _split(operands: Sequence[Operand]):
    """Split the arrays of operands into those that vary in time and the others, each None where the other has it."""
    arrays = [(None if operand.index is not None else operand.table, operand.index, operand.gate) for operand in operands]
    varies = [tuple(array is not None and array.shape[0] != 1 for array in three) for three in arrays]
    moving = [tuple(array if is_moving else None for array, is_moving in zip(three, own, strict=True)) for three, own in zip(arrays, varies, strict=True)]
    fixed = [tuple(None if is_moving else array for array, is_moving in zip(three, own, strict=True)) for three, own in zip(arrays, varies, strict=True)]
    return moving, fixed


def _joined(moving, fixed, operands: Sequence[Operand]) -> list[Operand]:
    """Return operands of one step."""
    found = []
    for own, others, operand in zip(moving, fixed, operands, strict=True):
        table, index, gate = (m[None] if m is not None else f for m, f in zip(own, others, strict=True))
        found.append(Operand(operand.labels, operand.table if operand.index is not None else table, index, gate, 0, 1))
    return found
