"""A recursion over time: where it starts, what one step does, how a state is carried over all.

A state is a table over the window, the latents of the last few steps. Each transition brings the
labels of the new step in; what no later factor reads is summed out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.chains.layout import Chain
from emjax.elimination.chains.operands import Label, Operand
from emjax.elimination.factors import Cells
from emjax.elimination.flags import merged, split
from emjax.elimination.reductions import Reduction
from emjax.numerics.arrays import gated
from emjax.numerics.axes import arranged, contracted


def in_steps(chain: Chain) -> tuple[list[Operand], list[Operand]]:
    """Return the operands after the first window: densities of single steps, and transitions."""
    densities, transitions = [], []
    for operand in chain.operands:
        if operand.stop > chain.order:
            kind = transitions if operand.lag > 0 else densities
            kind.append(operand.spread(chain.order, chain.length))
    return densities, transitions


def first_window(chain: Chain, reduction: Reduction) -> Array:
    """Return the product of all factors of the steps before the first regular one.

    A table (batch, *window) of log-densities; of steps that a short chain lacks it has no axis.
    """
    stop = min(chain.order, chain.length)
    # here a label in time has the time itself in place of a lag
    factors = _before(chain, stop)
    labels = [label for label in chain.window if not label.is_in_time]
    table = jnp.zeros((1,) * (1 + len(labels)))
    for time in range(stop):
        before, labels = labels, labels + [Label(name, time) for name in chain.names]
        table = arranged(table, before, labels, 1)
        for entry_time, values, its_labels in factors:
            # a factor enters with the last step that it reads, when the table has all its labels
            if entry_time == time:
                table = table + arranged(values, its_labels, labels, 1)
    sizes = []
    for label in labels:
        sizes.append(chain.sizes[Label(label.name, 0) if label.is_in_time else label])
    table = jnp.broadcast_to(table, (chain.count, *sizes))
    kept = []
    for label in chain.window:
        if label.lag is None or label.lag < stop:
            kept.append(_at_time(label, stop - 1))
    gone = [label for label in labels if label not in kept]
    table = arranged(table, labels, [*kept, *gone], 1)
    return reduction.over(table, len(gone), 1)


def _before(chain: Chain, stop: int) -> list[tuple[int, Any, list[Label]]]:
    """Return the entries of factors before `stop`: (time, array (batch, *labels), labels)."""
    factors = []
    for operand in chain.operands:
        for time in range(max(0, operand.start), min(stop, operand.stop)):
            labels = [_at_time(label, time) for label in operand.labels]
            factors.append((time, operand.between(time, time + 1).array[0], labels))
    return factors


def _at_time(label: Label, time: int) -> Label:
    """Return a label of an entry at this time with the time that it reads in place of its lag."""
    return label if label.lag is None else Label(label.name, time - label.lag)


# ── one step ──────────────────────────────────────────────────────────────────────────────────────


class _Stage(NamedTuple):
    """What one transition does to the labels of a state.

    - `before`: the state's labels before it.
    - `read`: those that the transition reads.
    - `after`: the state's after it.
    - `gone`: those that are summed out.
    """

    before: list[Label]
    read: list[Label]
    after: list[Label]
    gone: list[Label]


class Advance:
    """One step of a recursion: which labels each transition brings in, and which go after it."""

    def __init__(self, chain: Chain, transitions: Sequence[Operand]):
        self.window = list(chain.window)
        self.stages: list[_Stage] = []
        # what was read `lag` steps before the last step is now one step further back
        labels = [label.back(1) for label in chain.window]
        for i, transition in enumerate(transitions):
            # what neither the window nor a later transition reads is summed out at once
            needed = set(self.window).union(*(later.labels for later in transitions[i + 1 :]))
            met = list(dict.fromkeys([*labels, *transition.labels]))
            after = [label for label in met if label in needed]
            gone = [label for label in met if label not in needed]
            self.stages.append(_Stage(labels, list(transition.labels), after, gone))
            labels = after
        self.last = labels

    def scaled(
        self, state: Any, tables: Sequence, gates: Sequence, last: Sequence[Label] = ()
    ) -> Array:
        """Return probabilities (…, *window, *last) one step on.

        - `tables`: transition probabilities (…, *labels, *last), of length 1 along … where they do
          not vary.
        - `gates`: where each counts.
        - `last`: labels of axes that are nothing to a transition and come last: of the batch, if
          it is not among ….
        """
        lead = state.ndim - len(self.window) - len(last)
        batch = list(range(lead))
        for stage, table, gate in zip(self.stages, tables, gates, strict=True):
            moved = contracted(
                [state, table],
                [[*batch, *stage.before, *last], [*batch, *stage.read, *last]],
                [*batch, *stage.after, *last],
            )
            # a transition that does not count is one everywhere
            if gate is not None:
                same = arranged(state, [*stage.before, *last], [*stage.after, *last], lead)
                moved = gated(gate, moved, same, is_last=bool(last))
            state = moved
        return arranged(state, [*self.last, *last], [*self.window, *last], lead)

    def plain(self, state: Any, tables: Sequence, reduction: Reduction) -> Array:
        """Return log-densities (…, *window) one step on; `tables`: those of the transitions."""
        lead = state.ndim - len(self.window)
        for stage, table in zip(self.stages, tables, strict=True):
            order = [*stage.after, *stage.gone]
            state = arranged(state, stage.before, order, lead)
            state = state + arranged(table, stage.read, order, lead)
            state = reduction.over(state, len(stage.gone), lead)
        unread = [label for label in self.last if label not in self.window]
        state = arranged(state, self.last, [*self.window, *unread], lead)
        return reduction.over(state, len(unread), lead)


# ── all steps ─────────────────────────────────────────────────────────────────────────────────────


def by_step(cells: Sequence[Cells]) -> tuple[list, Callable]:
    """Return what varies in time of cells (time, …), for a loop, and a function of one step of it.

    The function returns the cells at that step, without an axis for time. Tables that are looked
    up have none.
    """
    in_time = []
    for in_all in cells:
        table = None if in_all.index is not None else in_all.table
        in_time.append((table, in_all.index, in_all.gate))
    leaves, tree = jax.tree.flatten(in_time)
    moves = [leaf.shape[0] != 1 for leaf in leaves]
    moving, constant = split(leaves, moves)

    def at(now) -> list[Cells]:
        step = jax.tree.unflatten(tree, merged(now, [leaf[0] for leaf in constant], moves))
        of_step = []
        for in_all, (table, index, gate) in zip(cells, step, strict=True):
            of_step.append(Cells(in_all.table if table is None else table, index, gate))
        return of_step

    return moving, at


def over_stretches(
    function: Callable, state: Any, operands: Sequence[Operand], chain: Chain, checkpointed: bool
) -> tuple:
    """Return a state after all steps behind the first window, and the sum of a function's values.

    `function(state, operands)` is (the state after the operands' steps, a value). `checkpointed`:
    over stretches of √T steps, of which the reverse pass keeps the state before, and computes all
    else again.
    """
    first, steps = chain.order, chain.length - chain.order
    # √T states are kept, and √T steps of one stretch are computed again: the sum is least so
    rows = math.isqrt(steps)
    if not checkpointed or rows < 2:
        return function(state, [operand.between(first, chain.length) for operand in operands])
    count = steps // rows
    arrays, at = zip(*(operand.stretches(first, rows, count) for operand in operands), strict=True)

    @jax.checkpoint
    def stretch(state, now):
        number, of_operands = now
        pairs = zip(at, of_operands, strict=True)
        return function(state, [operand_at(number, moving) for operand_at, moving in pairs])

    state, values = jax.lax.scan(stretch, state, (jnp.arange(count), list(arrays)))
    total = values.sum(0)
    # steps that are left over: fewer than a stretch
    if steps % rows:
        rest = [operand.between(first + rows * count, chain.length) for operand in operands]
        state, value = function(state, rest)
        total = total + value
    return state, total
