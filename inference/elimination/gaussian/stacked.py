"""Factors that read latents element by element, as arrays over all elements of these latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from emjax.elimination.alignment import laid_out
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.elimination.gaussian.refusals import refuse_label
from emjax.numerics.arrays import broadcast
from emjax.tables.indices import Index, index_of
from emjax.tables.named import Axis

# the source of an axis that numbers the elements of several latents together
_TOGETHER = "elements"


class Stacked(NamedTuple):
    """A factor over all elements of latents that it reads.

    - `array`: (elements of the target…, values of `others`…, coordinates of the target, coordinates
      of all elements of a latent, the same of a second, anything else).
    - `others`: what else it reads, given an element of the target.
    """

    array: Array
    others: tuple[Axis, ...]


def stacked(
    factor: Factor,
    reads: Sequence[Axis],
    remaining: Mapping[Any, Variable],
    target: Axis | None = None,
) -> Stacked:
    """Return a factor over all elements of the latents that it reads along one axis or two.

    - `target`: the axis along which it reads another latent, of which the result has the elements;
      without it, it has one element.

    Axes of the array that are none of these stay last.
    """
    along = [*reads] if target is None else [target, *reads]
    variables = [remaining[axis.source] for axis in along]
    lead = () if target is None else variables[0].shape
    shape = sum((variable.shape for variable in variables), ())
    laid = _laid_out(factor, along, shape, remaining)
    if laid is None:
        refuse_label(reads[0].source, factor, remaining)
    # elements of what is stacked are all there, those of the target only where they differ
    array = laid.array
    full = array.shape[: len(lead)] + shape[len(lead) :] + array.shape[len(shape) :]
    counts = [remaining[axis.source].count for axis in reads]
    array = broadcast(array, full).reshape(
        *array.shape[: len(lead)], *counts, *array.shape[len(shape) :]
    )
    others = laid.axes[1:]
    for axis in others:
        if any(axis.varies[len(lead) :]):
            refuse_label(reads[0].source, factor, remaining)
    others = tuple(axis.placed(range(len(lead))) for axis in others)
    first = len(lead) + len(counts)
    array = array.reshape(array.shape[:first] + array.shape[first + 1 :])
    return Stacked(_interleaved(array, len(lead), len(others), len(reads), target), others)


def _laid_out(
    factor: Factor, along: Sequence[Axis], shape: tuple[int, ...], remaining: Mapping[Any, Variable]
) -> Factor | None:
    """Return a factor over the elements of several latents together.

    The axes of its array are those of `_TOGETHER`, of length 1, others, coordinates, anything else.
    """
    rank = len(factor.shape)
    keys = [axis.key for axis in factor.axes]
    read = [rank + keys.index(axis.key) for axis in along]
    named = [rank + i for i, key in enumerate(keys) if key not in {axis.key for axis in along}]
    more = [d for d in range(rank, factor.array.ndim) if d not in read and d not in named]
    array = jnp.expand_dims(jnp.transpose(factor.array, [*range(rank), *named, *read, *more]), rank)
    together = Axis(_TOGETHER, 1, _number(along, factor.shape, remaining))
    axes = (together, *(factor.axes[d - rank] for d in named))
    variable = Variable(_TOGETHER, 1, shape)
    return laid_out(Factor(axes, factor.shape, Cells(array)), variable, remaining)


def _number(
    along: Sequence[Axis], shape: tuple[int, ...], remaining: Mapping[Any, Variable]
) -> Index:
    """Return the number of the elements of several latents together, at each element."""
    if len(along) == 1:
        return along[0].index
    number: Any = 0
    for axis in along:
        element = broadcast(axis.index.dense(shape), shape)
        number = number * remaining[axis.source].count + element
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
