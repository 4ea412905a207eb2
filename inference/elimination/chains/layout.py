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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from emjax.elimination.alignment import laid_out, permutation
from emjax.elimination.chains.operands import Label, Operand
from emjax.elimination.factors import Cells, Deferred, Factor, Variable, divisor_of
from emjax.numerics.arrays import in_order
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
            dims = _dims_in_time(factor, names, remaining)
            more |= {axis.source for axis in factor.axes if any(axis.varies[d] for d in dims)}
        if more <= set(names):
            return names
        names = (*names, *sorted(more - set(names), key=str))


def _read_in_steps(factor: Factor, remaining: Mapping[Any, Variable]) -> set:
    """Return the latents of which a factor reads the steps one after the other."""
    return {axis.source for axis in factor.axes if _moves(axis, remaining[axis.source])}


def _dims_in_time(factor: Factor, names: tuple, remaining: Mapping[Any, Variable]) -> set[int]:
    """Return the axes of a factor's elements along which it reads latents of a chain in time."""
    dims: set[int] = set()
    for axis in factor.axes:
        if axis.source not in names:
            continue
        varying = {d for d, varies in enumerate(axis.varies) if varies}
        if isinstance(axis.index, Affine):
            step = math.prod(remaining[axis.source].shape[1:])
            varying = {d for d in varying if abs(axis.index.strides[d]) == step}
        dims |= varying
    return dims


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
    for factor in factors:
        in_time = _operand(factor, names, remaining)
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


class _Place(NamedTuple):
    """How a factor's elements run through those of a chain.

    - `time`: which step its first element reads.
    - `dim`: its axis along time; None: it reads one step.
    - `step`: 1, or −1 where it runs backwards.
    - `order`: its axis along each axis of the batch; None where it has none.
    """

    time: int
    dim: int | None
    step: int
    order: tuple[int | None, ...]


def _operand(
    factor: Factor, names: tuple, remaining: Mapping[Any, Variable]
) -> tuple[Operand, list[Axis]] | None:
    """Return a factor in time, and the axes that it reads of latents outside the chain."""
    shape = remaining[names[0]].shape
    inside = [axis for axis in factor.axes if axis.source in names]
    places = [_place(axis, factor.shape, shape) for axis in inside]
    if len(inside) == 1 and places[0] is None:
        # rows in any order can be added up by the element that they read, if they read only one
        factor = laid_out(factor, remaining[inside[0].source], remaining)
        if factor is None:
            return None
        inside = factor.axes_of(inside[0].source)
        places = [_place(inside[0], factor.shape, shape)]
    place = places[0]
    if place is None or any(p is None or p[1:] != place[1:] for p in places):
        return None
    steps = 1 if place.dim is None else factor.shape[place.dim]
    # backwards, the entry that comes first in time is the factor's last
    times = [p.time if p.step > 0 else p.time - (steps - 1) for p in places]
    start = max(times)
    labels, others = [], []
    remaining_times = iter(times)
    for axis in factor.axes:
        if axis.source in names:
            labels.append(Label(axis.source, start - next(remaining_times)))
        # a latent outside that varies in time would have to be part of every message
        elif place.dim is not None and axis.varies[place.dim]:
            return None
        else:
            others.append(axis.placed(place.order))
            labels.append(Label(others[-1].key, None))
    cells = _in_time(factor, place, steps, shape[1:])
    return Operand(tuple(labels), cells, start, steps, factor.without_multiplicity), others


def _in_time(factor: Factor, place: _Place, steps: int, batch: tuple[int, ...]) -> Cells:
    """Return a factor's cells as (time, batch, …)."""
    rank = len(factor.shape)

    def in_time(array):
        # no index, or no gate
        if array is None:
            return None
        tail = array.shape[rank:]
        array = in_order(array, [place.dim, *place.order, *range(rank, array.ndim)])
        if place.step < 0:
            array = jnp.flip(array, 0)
        # the batch becomes one axis: it varies along all of its axes, or along none
        if math.prod(array.shape[1 : 1 + len(batch)]) != 1:
            array = jnp.broadcast_to(array, (array.shape[0], *batch, *tail))
        count = math.prod(array.shape[1 : 1 + len(batch)])
        return array.reshape((array.shape[0], count, *tail))

    table = factor.cells.table
    if isinstance(table, Deferred) and table.dim == place.dim:

        def part(start, rows: int):
            first = start if place.step > 0 else steps - start - rows
            return in_time(factor.cells.table.part(first, rows))

        table = Deferred(part, 0, steps)
    elif factor.cells.index is None:
        table = in_time(table.array if isinstance(table, Deferred) else table)
    return Cells(table, in_time(factor.cells.index), in_time(factor.cells.gate))


def _place(axis: Axis, shape: Sequence[int], target: Sequence[int]) -> _Place | None:
    """Return how an axis reads elements of shape `target`, (time, batch…), if step by step.

    `shape`: that of the factor's elements.
    """
    index, inner = axis.index, math.prod(target[1:])
    if not isinstance(index, Affine) or index.offset % inner:
        return None
    along = []
    for d, stride in enumerate(index.strides):
        # with one element a step, an axis of length 1 has the stride of time, too
        if stride and abs(stride) == inner and (inner > 1 or shape[d] > 1):
            along.append(d)
    if len(along) > 1:
        return None
    dim = along[0] if along else None
    rest = [d for d in range(len(shape)) if d != dim]
    strides = Affine(0, tuple(index.strides[d] for d in rest))
    order = permutation(strides, [shape[d] for d in rest], target[1:])
    if order is None:
        return None
    step = 1 if dim is None or index.strides[dim] > 0 else -1
    return _Place(
        index.offset // inner, dim, step, tuple(None if d is None else rest[d] for d in order)
    )
