"""Factors that read latents element by element, as arrays over all elements of these latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from emjax.elimination.alignment import laid_out
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.elimination.gaussian.grid import Grid
from emjax.elimination.gaussian.refusals import refuse_discrete
from emjax.numerics.arrays import broadcast
from emjax.tables.indices import Index, index_of
from emjax.tables.named import Axis

# the source of an axis that numbers the elements of several latents together
_TOGETHER = "elements"


class Stacked(NamedTuple):
    """A factor over all elements, in a cell of a grid, of latents that it reads.

    - `array`: (elements…, values of `others`…, coordinates of the target, coordinates of all
      elements of a latent, the same of a second, anything else).
    - `others`: what else it reads at each element.
    """

    array: Array
    others: tuple[Axis, ...]


def stacked(
    factor: Factor,
    reads: Sequence[Axis],
    remaining: Mapping[Any, Variable],
    grid: Grid,
    target: Axis | None = None,
) -> Stacked:
    """Return a factor over all elements of the latents that it reads along one axis or two.

    - `target`: the axis along which it reads another latent, whose elements are those of the
      result; without it, they are the cells of the grid.

    Axes of the array that are none of these stay last.
    """
    along = [*reads] if target is None else [target, *reads]
    variables = [remaining[axis.source] for axis in along]
    # of the first latent all elements, of others those in the same cell of the grid
    shape = variables[0].shape
    for variable in variables[1:]:
        shape += tuple(variable.shape[d] for d in grid.inner_of(variable))
    laid = _laid_out(factor, along, shape, remaining, grid)
    if laid is None:
        refuse_discrete(reads[0].source, factor)
    num_first = len(variables[0].shape)
    lead = grid.kept_of(variables[0]) if target is None else tuple(range(num_first))
    inner = [d for d in range(len(shape)) if d not in lead]
    others = laid.axes[1:]
    if any(axis.varies[d] for axis in others for d in inner):
        refuse_discrete(reads[0].source, factor)
    counts = [grid.count_of(remaining[axis.source]) for axis in reads]
    # elements that are stacked are all there, the others only where they differ
    full = list(laid.array.shape)
    for d in inner:
        full[d] = shape[d]
    array = broadcast(laid.array, full)
    array = jnp.transpose(array, [*lead, *inner, *range(len(shape), array.ndim)])
    # behind the elements is the axis of what numbers them
    values = array.shape[len(shape) + 1 :]
    array = array.reshape(*array.shape[: len(lead)], *counts, *values)
    others = tuple(axis.placed(lead) for axis in others)
    return Stacked(_interleaved(array, len(lead), len(others), len(reads), target), others)


def _laid_out(
    factor: Factor,
    along: Sequence[Axis],
    shape: tuple[int, ...],
    remaining: Mapping[Any, Variable],
    grid: Grid,
) -> Factor | None:
    """Return a factor over the elements of several latents together.

    The axes of its array are those of `_TOGETHER`, of length 1, others, coordinates, anything else.
    """
    rank = len(factor.shape)
    keys = [axis.key for axis in factor.axes]
    read = [rank + keys.index(axis.key) for axis in along]
    keys_along = {axis.key for axis in along}
    named = [rank + i for i, key in enumerate(keys) if key not in keys_along]
    more = [d for d in range(rank, factor.array.ndim) if d not in read and d not in named]
    array = jnp.expand_dims(jnp.transpose(factor.array, [*range(rank), *named, *read, *more]), rank)
    together = Axis(_TOGETHER, 1, _number(along, factor.shape, remaining, grid))
    axes = (together, *(factor.axes[d - rank] for d in named))
    variable = Variable(_TOGETHER, 1, shape)
    return laid_out(Factor(axes, factor.shape, Cells(array)), variable, remaining)


def _number(
    along: Sequence[Axis], shape: tuple[int, ...], remaining: Mapping[Any, Variable], grid: Grid
) -> Index:
    """Return the number of the elements of several latents together, at each element."""
    if len(along) == 1:
        return along[0].index
    number: Any = broadcast(along[0].index.dense(shape), shape)
    for axis in along[1:]:
        variable = remaining[axis.source]
        place = broadcast(grid.place(axis, shape, variable), shape)
        number = number * grid.count_of(variable) + place
    return index_of(number)


def _interleaved(
    array: Array, num_lead: int, num_others: int, num_reads: int, target: Axis | None
) -> Array:
    """Return (lead…, elements…, others…, coordinates…, more) with coordinates beside elements."""
    elements = [num_lead + i for i in range(num_reads)]
    start = num_lead + num_reads
    before = [*range(num_lead), *range(start, start + num_others)]
    start += num_others
    if target is not None:
        before.append(start)
        start += 1
    pairs: list[int] = []
    for i, element in enumerate(elements):
        pairs += [element, start + i]
    after = range(start + num_reads, array.ndim)
    array = jnp.transpose(array, [*before, *pairs, *after])
    first = len(before)
    sizes = [math.prod(array.shape[first + 2 * i : first + 2 * i + 2]) for i in range(num_reads)]
    return array.reshape(*array.shape[:first], *sizes, *array.shape[first + 2 * num_reads :])
