"""Chains: latents whose steps are coupled with the steps before, found and laid out in time.

A factor of a chain couples elements that are a few steps apart: `transition[state[t − 1],
state[t]]`. Its axes are labeled by the latent and by the *lag*, how many steps before the factor's
last one it is read. Everything is brought into one order: time, batch (the elements of one step, of
one axis), labels. What does not vary in time stays of length one, and what data pick stays a table
and an index.

A chain z of second order with five steps, whose third observation is masked:

    time         0    1    2    3    4      start  steps  labels of an entry
    initial      z                            0      1    (z, 0)
    second       z────z                       1      1    (z, 1) (z, 0)
    transition   z────z────z                  2      3    (z, 2) (z, 1) (z, 0)
                      z────z────z
                           z────z────z
    emission     z    z    ·    z    z        0      5    (z, 0), gate 1 1 0 1 1

Its *window* is (z, 0) (z, 1), as many steps as transitions reach back. A message of time t is a
table over it: the first is at time 1, the product of all entries of times 0 and 1. From t to t + 1,
the labels of the message move one step back, to (z, 1) (z, 2); the transition brings (z, 0) in; and
(z, 2), which nothing reads any more, is summed out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from emjax.elimination.chains.in_time import cut_in_time, dims_in_time, operand_in_time
from emjax.elimination.chains.operands import Label, Operand
from emjax.elimination.factors import (
    Cells,
    Factor,
    Variable,
    divisor_of,
)
from emjax.tables.indices import Affine
from emjax.tables.named import Axis


@dataclass(frozen=True, eq=False)
class Chain:
    """All factors of coupled chains.

    - `names`: the latents that it consists of.
    - `window`: the labels of its state: one for each of `others`, and those in time.
    - `others`: latents that do not vary in time.
    - `sizes`: the number of values of each label.
    - `operands`: the factors, in time.
    - `batch`: the shape of the elements of one step.
    - `length`: the number of steps.
    """

    names: tuple
    window: tuple[Label, ...]
    others: tuple[Axis, ...]
    sizes: Mapping[Label, int]
    operands: tuple[Operand, ...]
    batch: tuple[int, ...]
    length: int

    @property
    def order(self) -> int:
        """How many steps back its factors read."""
        return max(operand.lag for operand in self.operands)

    @property
    def count(self) -> int:
        """The number of elements of one step."""
        return math.prod(self.batch)

    @property
    def num_states(self) -> int:
        """The number of states: of values of the window."""
        return math.prod(self.sizes[label] for label in self.window)

    def without_multiplicity(self, multiplicity: Any) -> Chain:
        """Return the chain of what each sequence contributes counted once, in place of totals.

        `multiplicity`: that of each sequence, (batch…).
        """
        divisor = jnp.broadcast_to(divisor_of(multiplicity), self.batch).reshape(1, -1)

        def divided(operand: Operand) -> Operand:
            if operand.without_multiplicity:
                return operand
            array = operand.array / divisor.reshape(divisor.shape + (1,) * len(operand.labels))
            return replace(operand, cells=Cells(array), without_multiplicity=True)

        return replace(self, operands=tuple(map(divided, self.operands)))


# ── which latents form a chain ────────────────────────────────────────────────────────────────────


def chain_among(factors: Sequence[Factor], remaining: Mapping[Any, Variable]) -> Chain | None:
    """Return a chain that can be summed out, if there is one.

    Nothing in it is coupled with a latent that varies in time and is no part of it.
    """
    for group in _coupled_in_time(factors, remaining):
        names = _with_all_steps(group, factors, remaining)
        touching = [factor for factor in factors if factor.reads_any(names)]
        chain = _chain(touching, names, remaining)
        if chain is not None:
            return chain
    return None


def _coupled_in_time(factors: Sequence[Factor], remaining: Mapping[Any, Variable]) -> list[tuple]:
    """Return the groups of latents that factors couple at every step.

    Of each of these latents a factor reads several elements.
    """
    repeated: set = set()
    for factor in factors:
        sources = [axis.source for axis in factor.axes]
        repeated |= {source for source in sources if sources.count(source) > 1}
    # latents that one factor reads go on together: their state is that of both
    groups: list[set] = [{name} for name in repeated]
    for factor in factors:
        met = _read_in_steps(factor, remaining) & repeated
        joint = [group for group in groups if group & met]
        if joint:
            groups = [group for group in groups if not group & met]
            groups.append(set().union(*joint))
    return [tuple(sorted(group, key=str)) for group in groups]


def _with_all_steps(
    names: tuple, factors: Sequence[Factor], remaining: Mapping[Any, Variable]
) -> tuple:
    """Return the names with all other latents that are read step by step along with them.

    Such a latent may consist of single steps, and two steps of the chain read it.
    """
    while True:
        more: set = set()
        for factor in factors:
            dims = dims_in_time(factor, names, remaining)
            more |= {axis.source for axis in factor.axes if any(axis.varies[d] for d in dims)}
        if more <= set(names):
            return names
        names = (*names, *sorted(more - set(names), key=str))


def _read_in_steps(factor: Factor, remaining: Mapping[Any, Variable]) -> set:
    """Return the latents of which a factor reads the steps one after the other."""
    return {axis.source for axis in factor.axes if _moves(axis, remaining[axis.source])}


def _moves(axis: Axis, variable: Variable) -> bool:
    # numbers in no regular order may read any step
    if not isinstance(axis.index, Affine) or not variable.shape:
        return any(axis.varies)
    return math.prod(variable.shape[1:]) in map(abs, axis.index.strides)


# ── their factors in time ─────────────────────────────────────────────────────────────────────────


def _chain(
    factors: Sequence[Factor], names: tuple, remaining: Mapping[Any, Variable]
) -> Chain | None:
    """Return the chain that these latents and all their factors form; None if they form none."""
    variables = [remaining[name] for name in names]
    shape, multiplicity = variables[0].shape, variables[0].multiplicity
    kinds = {(variable.shape, variable.multiplicity_key) for variable in variables}
    # latents of different shapes or multiplicities have no common steps
    if len(kinds) > 1 or not shape:
        return None
    if multiplicity is not None and multiplicity.shape[0] != 1:
        raise ValueError(
            f"Latent '{names[0]}' is in a scan, and its multiplicity varies in time. Give "
            "`handlers.scale` one number for each sequence."
        )
    operands: list[Operand] = []
    others: dict = {}
    steps = [cut_in_time(factor, names, remaining) for factor in factors]
    for factor in itertools.chain.from_iterable(steps):
        in_time = operand_in_time(factor, names, remaining)
        if in_time is None:
            return None
        operands.append(in_time[0])
        others |= {axis.key: axis for axis in in_time[1]}
    lags = dict.fromkeys(names, 0)
    for operand in operands:
        for label in operand.labels:
            if label.lag is not None:
                lags[label.name] = max(lags[label.name], label.lag)
    window = [Label(key, None) for key in others]
    sizes = {Label(key, None): axis.size for key, axis in others.items()}
    for variable in variables:
        # a state holds as many steps as factors reach back, and one where they do not
        reach = lags[variable.name]
        window += [Label(variable.name, lag) for lag in range(max(reach, 1))]
        sizes |= {Label(variable.name, lag): variable.size for lag in range(reach + 1)}
    return Chain(
        names,
        tuple(window),
        tuple(others.values()),
        sizes,
        tuple(operands),
        batch=shape[1:],
        length=shape[0],
    )
