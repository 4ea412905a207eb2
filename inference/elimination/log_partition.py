"""log Z: sum every latent out of a factor graph, plates and all.

A factor is an array over the elements of plates (first) and the values of latents (last). A latent
can be summed out once each of its elements determines which element of every other latent it meets:
then all its factors add up to one table over its elements, and log Σ exp of that table is a factor
on the rest. Latents in inner plates go first; where none qualifies (crossed plates), a small one is
taken element by element. Everything enters with its multiplicity s, so that a latent with s copies
contributes s log Σ exp(φ / s). Source: Obermeyer et al. (2019), for trees of plates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from emjax.elimination.alignment import Joint, joined
from emjax.elimination.chains.in_logarithms import log_sum, log_sum_in_parallel
from emjax.elimination.chains.layout import Chain, chain_among
from emjax.elimination.chains.scaled import scaled_log_sum
from emjax.elimination.crossed import split_elements
from emjax.elimination.factors import Factor, Variable, settled
from emjax.numerics import guards
from emjax.numerics.guards import FastForms, is_soft, tempered_logsumexp
from emjax.tables.indices import Affine
from emjax.tables.lifting import check_memory
from emjax.tables.named import Axis


def log_partition(
    factors: Sequence[Factor],
    variables: Mapping[Any, Variable],
    temperature: ArrayLike,
    fast: FastForms | None = None,
    chains: str = "sequential",
):
    """Return log Z in nats; its gradient with respect to a factor's array is the posterior of its
    latents.

    `temperature`: 1 sums, 0 maximizes (hard E-step), between is tempered. `fast`: leave to take
    forms that are right unless probabilities come near zero; `chains`: how they are summed out (see
    `EM`). Errors: `MemoryError` for a table that would not fit, `ValueError` for a coupling that no
    order of elimination resolves.
    """
    factors, remaining = [settled(f) for f in factors], dict(variables)
    while remaining:
        choices = {
            name: joined(factors, variable, remaining) for name, variable in remaining.items()
        }
        ready = {
            name: joint
            for name, joint in choices.items()
            if joint is not None and _innermost(joint, remaining[name], remaining)
        }
        orderly = {name: joint for name, joint in ready.items() if not _scatters_steps(joint)}
        if not orderly and (chain := chain_among(factors, remaining)) is not None:
            factors = [f for f in factors if not any(axis.source in chain.names for axis in f.axes)]
            factors.append(settled(summed_chain(chain, remaining, temperature, fast, chains)))
            remaining = {
                name: variable for name, variable in remaining.items() if name not in chain.names
            }
            continue
        if not ready:
            factors, remaining = split_elements(factors, remaining)
            continue
        ready = orderly or ready
        name = min(ready, key=lambda n: _size(ready[n], remaining[n]))
        variable, joint = remaining.pop(name), ready[name]
        check_memory(
            (*joint.axes, Axis(name, variable.size, Affine.identity(variable.shape))),
            (_size(joint, variable),),
        )
        factors = [f for f in factors if all(axis.source != name for axis in f.axes)]
        summed = (
            log_of_sums(joint, variable, fast)
            if fast is not None and is_soft(temperature)
            else None
        )
        factors.append(
            settled(eliminated(joint, variable, temperature) if summed is None else summed)
        )
    return sum((f.array.reshape(()) for f in factors), jnp.zeros(()))


def _scatters_steps(joint: Joint) -> bool:
    """Whether a latent meets several elements of another in no regular order, so that the other
    would be a chain no more.
    """
    sources = [axis.source for axis in joint.axes]
    return any(
        sources.count(axis.source) > 1 and not isinstance(axis.index, Affine) for axis in joint.axes
    )


def _innermost(joint: Joint, variable: Variable, remaining: Mapping[Any, Variable]) -> bool:
    """Whether no latent that it meets has copies of its own: those are independent given this one,
    and go first.
    """
    return not any(variable.encloses(remaining[axis.source]) for axis in joint.axes)


def _size(joint: Joint, variable: Variable) -> int:
    return math.prod(variable.shape) * variable.size * math.prod(axis.size for axis in joint.axes)


def eliminated(joint: Joint, variable: Variable, temperature) -> Factor:
    """Return the factor that is left when a latent is summed out of all its factors."""
    rank = len(variable.shape)
    # a latent whose own probability does not depend on its value (uniform) may touch no factor at
    # all
    table = jnp.zeros((1,) * (rank + len(joint.axes)) + (variable.size,))
    multiplicity = (
        None
        if variable.multiplicity is None
        else variable.multiplicity.reshape(variable.multiplicity.shape + (1,) * len(joint.axes))
    )
    for factor in joint.factors:
        own = [axis.key for axis in factor.axes]
        order = [own.index(axis.key) for axis in joint.axes if axis.key in own]
        last = [i for i, axis in enumerate(factor.axes) if axis.source == variable.name]
        array = jnp.transpose(
            factor.array, [*range(rank), *(rank + i for i in order), rank + last[0]]
        )
        sizes = [axis.size if axis.key in own else 1 for axis in joint.axes]
        array = array.reshape((*array.shape[:rank], *sizes, variable.size))
        table = table + (
            array
            if multiplicity is None or factor.per_copy
            else array / jnp.where(multiplicity == 0, 1, multiplicity)[..., None]
        )
    message = tempered_logsumexp(table, temperature, 1)
    message = message if multiplicity is None else multiplicity * message
    return Factor(joint.axes, variable.shape, message)


def summed_chain(
    chain: Chain, remaining: Mapping[Any, Variable], temperature, fast: FastForms | None, how: str
) -> Factor:
    """Return the factor that is left when a chain is summed out over time."""
    multiplicity = remaining[chain.names[0]].multiplicity
    multiplicity = None if multiplicity is None else multiplicity[0]
    chain = chain if multiplicity is None else chain.of_one_copy(multiplicity)
    work = chain.length * chain.count * chain.num_states * max(chain.sizes.values())
    if how == "parallel":
        message = log_sum_in_parallel(chain, temperature)
    elif (
        fast is not None
        and fast.epsilon is not None
        and is_soft(temperature)
        and chain.length > chain.order
        and work >= guards.FEWEST_FAST
    ):
        message = scaled_log_sum(chain, fast.perturbed(), how == "checkpointed")
    else:
        message = log_sum(chain, temperature, how == "checkpointed")
    message = message.reshape(chain.batch + tuple(axis.size for axis in chain.others))
    message = (
        message
        if multiplicity is None
        else multiplicity.reshape(multiplicity.shape + (1,) * len(chain.others)) * message
    )
    return Factor(chain.others, chain.batch, message)


def log_of_sums(joint: Joint, variable: Variable, fast: FastForms) -> Factor | None:
    """Return what `eliminated` does, as log Σ_k Π_f p_f(k) of the factors' exponentials; None where
    these would be no fewer.

    A million rows that look up tables of a thousand cells need a thousand exponentials. Each cell's
    largest entry is divided out; the margin is the least sum, which may underflow.
    """
    entries = math.prod(variable.shape) * variable.size
    if (
        entries < guards.FEWEST_FAST
        or joint.axes
        or not joint.factors
        or 2 * sum(factor.table.size for factor in joint.factors) > entries
    ):
        return None
    if variable.multiplicity is not None and not all(factor.per_copy for factor in joint.factors):
        return None
    product: Any = 1.0
    offset: Any = 0.0
    for factor in joint.factors:
        largest = jax.lax.stop_gradient(factor.table.max(-1, keepdims=True))
        product = product * factor.gated(factor.read(jnp.exp(factor.table - largest)), 1)
        offset = offset + factor.gated(factor.read(largest[..., 0]), 0)
    total = product.sum(-1)
    fast.margins.append(jax.lax.stop_gradient(total).min())
    message = offset + jnp.log(total)
    return Factor(
        (),
        variable.shape,
        message if variable.multiplicity is None else variable.multiplicity * message,
    )
