"""Lay all factors of one latent out over its elements, so that they add up to one table.

A factor runs over the elements of its own plates. Its rows are brought into the order of the
latent's elements, or are added up by the element that each belongs to; then every other latent that
it meets is read at one element, its *parent*, for each element of this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.elimination.factors import Factor, Variable
from emjax.numerics.arrays import in_order
from emjax.tables.indices import Affine, Dense, Index
from emjax.tables.lookup import affine
from emjax.tables.named import Axis, constant


@dataclass(frozen=True, eq=False)
class Joint:
    """All factors of one latent, aligned with its elements: `axes` are the other latents that it
    meets.
    """

    factors: tuple[Factor, ...]
    axes: tuple[Axis, ...]


def joined(
    factors: Sequence[Factor], variable: Variable, remaining: Mapping[Any, Variable]
) -> Joint | None:
    """Align every factor of a latent with its elements, or return None if that cannot be
    done yet.
    """
    touching = [
        (factor, own)
        for factor in factors
        if (own := [axis for axis in factor.axes if axis.source == variable.name])
    ]
    if any(len(own) > 1 for _, own in touching):
        return None
    found = []
    for factor, own in touching:
        one = laid_out(factor, own[0], variable, remaining)
        if one is None:
            return None
        found.append(one)
    axes = {
        axis.key: axis for factor in found for axis in factor.axes if axis.source != variable.name
    }
    return Joint(tuple(found), tuple(axes.values()))


def laid_out(
    factor: Factor, own: Axis, variable: Variable, remaining: Mapping[Any, Variable]
) -> Factor | None:
    """Return the factor with its elements in the latent's own order, summed where several fall on
    one.
    """
    if isinstance(own.index, Dense) and isinstance(own.index.array, np.ndarray):
        found = affine(constant(own.index.array))
        own = replace(own, index=found) if found is not None else own
    order = permutation(own.index, factor.shape, variable.shape)
    if order is not None:
        return _transposed(factor, order, variable)
    varies = own.varies
    if any(
        axis.varies[d] and not varies[d] for axis in factor.axes for d in range(len(factor.shape))
    ):
        return None
    return _scattered(factor, own, variable, remaining)


def permutation(index: Index, shape, target) -> list | None:
    """Return, for each axis of the latent, the factor's axis that runs along it, if they match one
    to one.
    """
    if not isinstance(index, Affine) or index.offset != 0:
        return None
    wanted = Affine.identity(target).strides
    order: list[int | None] = []
    for stride, size in zip(wanted, target, strict=True):
        matches = [
            d
            for d in range(len(shape))
            if stride != 0 and index.strides[d] == stride and shape[d] == size and d not in order
        ]
        if stride != 0 and not matches:
            return None
        order.append(matches[0] if matches else None)
    used = [d for d in order if d is not None]
    return order if all(d in used for d in range(len(shape))) else None


def _transposed(factor: Factor, order: Sequence[int | None], variable: Variable) -> Factor:
    if list(order) == list(range(len(variable.shape))):
        return factor
    lead = len(factor.shape)
    array = in_order(factor.array, [*order, *range(lead, lead + len(factor.axes))])
    return factor.replaced(array, tuple(axis.placed(order) for axis in factor.axes), variable.shape)


def _scattered(
    factor: Factor, own: Axis, variable: Variable, remaining: Mapping[Any, Variable]
) -> Factor | None:
    """Add a factor's rows up by the element of the latent that each belongs to."""
    shape = factor.shape
    index = (
        np.broadcast_to(own.index.dense(shape), shape)
        if own.index.is_known
        else jnp.broadcast_to(own.index.dense(shape), shape)
    )
    parents = []
    for axis in factor.axes:
        if axis.source == own.source:
            parents.append(replace(axis, index=Affine.identity(variable.shape)))
            continue
        parent = _parent(axis, own, index, shape, variable, math.prod(remaining[axis.source].shape))
        if parent is None:
            return None
        parents.append(replace(axis, index=parent))
    rank = len(shape)
    array = factor.array
    values = jnp.broadcast_to(array, shape + array.shape[rank:]).reshape((-1,) + array.shape[rank:])
    zeros = jnp.zeros((math.prod(variable.shape),) + values.shape[1:], values.dtype)
    total = zeros.at[index.reshape(-1)].add(
        values, mode="promise_in_bounds", wrap_negative_indices=False
    )
    return factor.replaced(
        total.reshape(variable.shape + values.shape[1:]), tuple(parents), variable.shape
    )


def _parent(
    axis: Axis, own: Axis, index, shape, variable: Variable, num_parents: int
) -> Index | None:
    """Return which of the `num_parents` elements of another latent each element of this one meets,
    if it is always the same.

    An element of this latent that no row reads may be given any parent: its own sum is a constant
    to the parent.
    """
    count = math.prod(variable.shape)
    if not any(axis.varies):
        return (
            Affine(axis.index.dense(shape).item(), (0,) * len(variable.shape))
            if axis.index.is_known
            else None
        )
    if axis.index.key == own.index.key:
        return (
            Affine.identity(variable.shape)
            if count <= num_parents
            else _on_elements(Dense.of(np.arange(num_parents)), variable.shape)
        )
    if (
        isinstance(axis.index, Dense)
        and isinstance(own.index, Dense)
        and (outer := axis.index.before(own.index)) is not None
    ):
        return _on_elements(outer, variable.shape)
    if not (axis.index.is_known and isinstance(index, np.ndarray)):
        return None
    other = np.broadcast_to(axis.index.dense(shape), shape).reshape(-1)
    flat = index.reshape(-1)
    parent = np.zeros(count, np.int32)
    parent[flat] = other
    if not (parent[flat] == other).all():
        return None
    covered = np.zeros(count, bool)
    covered[flat] = True
    parent = parent.reshape(variable.shape)
    return _smooth(parent, covered.reshape(variable.shape))


def _on_elements(outer: Dense, shape: Sequence[int]) -> Dense:
    """Lay an index of one axis out over a latent's elements; those beyond its end are read by no
    row, and get 0.
    """
    count = math.prod(shape)
    array = outer.array[:count]
    array = (np if isinstance(array, np.ndarray) else jnp).pad(array, (0, count - array.size))
    return replace(outer, array=array.reshape(shape))


def _smooth(parent: np.ndarray, covered: np.ndarray) -> Index:
    """Return an index that agrees with `parent` on the covered elements, constant along axes where
    it can be.
    """
    array = parent
    for d in range(array.ndim):
        filled = np.where(covered, array, -1)
        top = filled.max(axis=d, keepdims=True)
        if (np.where(covered, array == top, True)).all():
            array, covered = np.maximum(top, 0), covered.any(axis=d, keepdims=True)
    found = affine(constant(array))
    return found if found is not None and covered.all() else Dense.of(array)
