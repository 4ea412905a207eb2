"""Gaussian latents coupled in time, integrated out as one state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emjax.elimination.factors import Cells, Factor, Variable
from emjax.elimination.gaussian.chain_groups import groups_in_time
from emjax.elimination.gaussian.chain_layout import GaussianChain, chain_of
from emjax.elimination.gaussian.chain_parallel import messages_in_parallel, moments_in_parallel
from emjax.elimination.gaussian.chain_passes import (
    Passes,
    integrated_in_stretches,
    integrated_steps,
)
from emjax.elimination.gaussian.chain_sequential import (
    message_of_one,
    messages_in_sequence,
    moments_in_sequence,
    moments_of_one,
)
from emjax.elimination.gaussian.chain_steps import Message, Steps, no_message, with_unread
from emjax.elimination.gaussian.conditional import Conditional
from emjax.tables.named import Axis

IN_SEQUENCE = Passes(messages_in_sequence, moments_in_sequence)
ALONE = Passes(message_of_one, moments_of_one)
IN_PARALLEL = Passes(messages_in_parallel, moments_in_parallel)


class ChainIntegrated(NamedTuple):
    """What is left of a chain of Gaussian latents.

    - `names`: the latents that are integrated out, whose pieces and conditionals are used up.
    - `factors`: on what they met: a factor on discrete latents alone, and pieces on Gaussian ones.
    """

    names: tuple
    factors: list[Factor]


def chain_integrated(
    pieces: Sequence[Factor],
    conditionals: Sequence[Conditional],
    variables: Mapping[Any, Variable],
    chains: str = "sequential",
) -> ChainIntegrated | None:
    """Return what is left of latents that are coupled in time; None if there are none.

    - `conditionals`: what each Gaussian latent that remains is drawn from.
    - `variables`: of all latents, discrete and Gaussian.
    - `chains`: how steps are taken (see `EM`).

    Errors: `ValueError` for a discrete latent that varies in time along with them.
    """
    names = {conditional.own.source for conditional in conditionals}
    factors = [*pieces]
    for conditional in conditionals:
        factors += [conditional.mean, *conditional.coefficients]
    for group in groups_in_time(factors, variables, names):
        chain = chain_of(group, pieces, conditionals, variables)
        if chain is not None:
            message = _message(chain, chains)
            multiplicity = variables[group[0]].multiplicity
            return ChainIntegrated(group, _factors(chain, message, multiplicity))
    return None


def _message(chain: GaussianChain, chains: str) -> Message:
    """Return the message of a chain on what does not vary in time."""
    if chain.regular is None:
        message = no_message(Steps(*(array[0] for array in chain.first[-1])))
    else:
        passes = IN_PARALLEL if chains == "parallel" else IN_SEQUENCE
        through = integrated_in_stretches if chains == "checkpointed" else integrated_steps
        after = no_message(Steps(*(array[0] for array in chain.regular)))
        message = through(passes, chain.length, chain.size_late, after, chain.regular)
        message = with_unread(message, chain.size_late, chain.size_outside)
    for step in reversed(chain.first):
        message = integrated_steps(ALONE, 1, chain.size_outside, message, step)
    return message


def _factors(chain: GaussianChain, message: Message, multiplicity: Any) -> list[Factor]:
    """Return a message as factors on what it is a function of."""
    tables: list[tuple[Any, tuple[Axis, ...]]] = [(message.constant, ())]
    start = 0
    starts = {}
    for axis in chain.outside:
        starts[axis.key] = slice(start, start + axis.size)
        start += axis.size
    for i, axis in enumerate(chain.outside):
        here = starts[axis.key]
        tables.append((message.linear[..., here], (axis,)))
        tables.append((-message.quadratic[..., here, here] / 2, (axis, axis)))
        for other in chain.outside[:i]:
            # both halves of a symmetric form
            cross = message.quadratic[..., here, starts[other.key]]
            tables.append((-cross, (axis, other)))
    return [_factor(chain, *table, multiplicity) for table in tables]


def _factor(chain: GaussianChain, table: Any, axes: tuple[Axis, ...], multiplicity: Any) -> Factor:
    """Return a factor on elements of one step, of a table (batch, *discrete, *axes)."""
    count, *values = table.shape[: 1 + len(chain.discrete)]
    coordinates = table.shape[1 + len(chain.discrete) :]
    # what does not vary with a latent is no function of it
    met = [axis for axis, size in zip(chain.discrete, values, strict=True) if size == axis.size]
    batch = chain.batch if count > 1 else (1,) * len(chain.batch)
    table = table.reshape((*batch, *(axis.size for axis in met), *coordinates))
    if multiplicity is not None:
        times = multiplicity[0]
        table = table * times.reshape(times.shape + (1,) * (len(met) + len(axes)))
    return Factor((*met, *axes), chain.batch, Cells(table))
