"""log Z of a chain in logarithms, at any temperature, by T · K² exponentials for each sequence.

With e_t the log-densities at step t and A those of the transition, the messages are  α_t = e_t +
log Σ exp(α_{t−1} + A). At a temperature of zero they are those of Viterbi's algorithm.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from emjax.elimination.chains.layout import Chain
from emjax.elimination.chains.operands import Operand
from emjax.elimination.chains.steps import Advance, by_step, first_window, in_steps, over_stretches
from emjax.elimination.reductions import Reduction
from emjax.numerics.axes import arranged
from emjax.numerics.guards import LOG_ZERO


def log_sum(chain: Chain, reduction: Reduction, checkpointed: bool = False) -> Array:
    """Return log Z of a chain in nats, (batch, *others). `checkpointed`: see `over_stretches`."""
    start = first_window(chain, reduction)
    if chain.length <= chain.order:
        return _over_states(start, chain, reduction)
    densities, transitions = in_steps(chain)
    advance = Advance(chain, transitions)

    def stretch(state, operands: Sequence[Operand]):
        moving, at = by_step([operand.cells for operand in operands])

        def step(state, now):
            message, time = state
            tables = [cells.array for cells in at(now)]
            after = advance.plain(message, tables[len(densities) :], reduction.at(time))
            for operand, table in zip(densities, tables, strict=False):
                after = after + arranged(table, operand.labels, chain.window, 1)
            return (jnp.broadcast_to(after, message.shape), time + 1), None

        # the reverse pass keeps the messages alone: tables of K × K for each step are formed again
        step = jax.checkpoint(step)
        last, _ = jax.lax.scan(step, state, moving, length=operands[0].steps)
        return last, jnp.zeros(())

    first = start, jnp.zeros((), jnp.int32)
    operands = [*densities, *transitions]
    (last, _), _ = over_stretches(stretch, first, operands, chain, checkpointed)
    return _over_states(last, chain, reduction)


def _over_states(message, chain: Chain, reduction: Reduction):
    """Return a message (batch, *others, *states) summed over the states."""
    return reduction.over(message, message.ndim - 1 - len(chain.others), 1)


def log_sum_in_parallel(chain: Chain, reduction: Reduction) -> Array:
    """Return what `log_sum` does, in log₂ T rounds: two neighboring steps become one.

    One step is a K × K table of log-densities, two are their product. It takes T · K³ operations
    and T · K² memory for each sequence, all of a round at once: for an accelerator with cores to
    spare. Source: Särkkä & García-Fernández (2021), "Temporal parallelization of Bayesian
    smoothers".
    """
    start = first_window(chain, reduction)
    if chain.length <= chain.order:
        return _over_states(start, chain, reduction)
    steps = _tables_of_steps(chain, reduction)

    @jax.checkpoint
    def product(first, second, round_number):
        pairs = first[..., :, None, :] + jnp.swapaxes(second, -1, -2)[..., None, :, :]
        return reduction.at(round_number).over(pairs, 1, 2)

    rounds = itertools.count()
    while steps.shape[0] > 1:
        even = steps.shape[0] // 2 * 2
        # of an odd number, the last step waits for the next round
        joined = product(steps[:even:2], steps[1:even:2], next(rounds))
        steps = jnp.concatenate([joined, steps[even:]])
    start = start.reshape(*start.shape[: 1 + len(chain.others)], steps.shape[-1], 1)
    return reduction.over(start + steps[0], 2, 1)


def _tables_of_steps(chain: Chain, reduction: Reduction):
    """Return each step as a table of log-densities: (step, batch, *others, state before, state)."""
    densities, transitions = in_steps(chain)
    others = len(chain.others)
    # all steps are elements of one batch here: every state of the window before, as a certainty,
    # carried one step on
    before = tuple(chain.sizes[label] for label in chain.window[others:])
    size = math.prod(before)
    certain = jnp.where(jnp.eye(size, dtype=bool), 0, LOG_ZERO)
    certain = certain.reshape(1, 1, size, *(1,) * others, *before)
    tables = []
    for operand in (*densities, *transitions):
        tables.append(operand.between(chain.order, chain.length).array[:, :, None])
    after = Advance(chain, transitions).plain(certain, tables[len(densities) :], reduction)
    for operand, table in zip(densities, tables, strict=False):
        after = after + arranged(table, operand.labels, chain.window, 3)
    lead = (chain.length - chain.order, *after.shape[1 : 3 + others])
    after = jnp.broadcast_to(after, (*lead, *before))
    return jnp.moveaxis(after.reshape(*lead, size), 2, -2)
