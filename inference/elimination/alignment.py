"""Lay all factors of one latent out over its elements, so that they add up to one table.

A factor runs over the elements of its own plates. Its rows are brought into the order of the
latent's elements, or are added up by the element that each belongs to; then every other latent that
it meets is read at one element, its *parent*, for each element of this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.elimination.factors import Cells, Factor, Variable
from emjax.numerics.arrays import broadcast, in_order
from emjax.tables.indices import Affine, Dense, Index, index_of
from emjax.tables.named import Axis


@dataclass(frozen=True, eq=False)
class Joint:
    """All factors of one latent, laid out over its elements.

    - `factors`: each has the latent's elements.
    - `axes`: the other latents that they meet.
    """

    factors: tuple[Factor, ...]
    axes: tuple[Axis, ...]


def joined(
    factors: Sequence[Factor], variable: Variable, remaining: Mapping[Any, Variable]
) -> Joint | None:
    """Return all factors of a latent laid out over its elements; None if they cannot be yet."""
    touching = [factor for factor in factors if factor.axes_of(variable.name)]
    if any(len(factor.axes_of(variable.name)) > 1 for factor in touching):
        return None
    members = []
    others: dict = {}
    for factor in touching:
        member = laid_out(factor, variable, remaining)
        if member is None:
            return None
        members.append(member)
        others |= {axis.key: axis for axis in member.axes if axis.source != variable.name}
    return Joint(tuple(members), tuple(others.values()))


def laid_out(
    factor: Factor, variable: Variable, remaining: Mapping[Any, Variable]
) -> Factor | None:
    """Return the factor over the elements of a latent that it reads along one axis.

    Rows that fall on one element are added up. None, where an element would meet several elements
    of another of the `remaining` latents.
    """
    (along,) = factor.axes_of(variable.name)
    # known numbers that happen to be in order need not be added up
    if isinstance(along.index, Dense) and isinstance(along.index.array, np.ndarray):
        in_order = replace(along, index=index_of(along.index.array))
        axes = tuple(in_order if axis is along else axis for axis in factor.axes)
        factor, along = replace(factor, axes=axes), in_order
    order = permutation(along.index, factor.shape, variable.shape)
    if order is not None:
        return _transposed(factor, order, variable)
    # rows of one element that meet different elements of another latent do not add up to one table
    for axis in factor.axes:
        if any(v and not known for v, known in zip(axis.varies, along.varies, strict=True)):
            return None
    return _added_up(factor, along, variable, remaining)


def permutation(
    index: Index, shape: Sequence[int], target: Sequence[int]
) -> list[int | None] | None:
    """Return the axis of `shape` that runs along each axis of `target`, None for one of length 1.

    `index` numbers the elements of `target` at each element of `shape`; the result is None unless
    they match one to one.
    """
    if not isinstance(index, Affine) or index.offset != 0:
        return None
    wanted = Affine.identity(target).strides
    order: list[int | None] = []
    for stride, size in zip(wanted, target, strict=True):
        if stride == 0:
            order.append(None)
            continue
        matches = [
            d
            for d in range(len(shape))
            if index.strides[d] == stride and shape[d] == size and d not in order
        ]
        if not matches:
            return None
        order.append(matches[0])
    # an axis of length 1 may be left out
    return order if all(d in order or shape[d] == 1 for d in range(len(shape))) else None


def _transposed(factor: Factor, order: Sequence[int | None], variable: Variable) -> Factor:
    if list(order) == list(range(len(factor.shape))):
        return factor
    rank = len(factor.shape)
    axes = tuple(axis.placed(order) for axis in factor.axes)
    return factor.mapped(
        lambda array: in_order(array, [*order, *range(rank, array.ndim)]), axes, variable.shape
    )


def _added_up(
    factor: Factor, along: Axis, variable: Variable, remaining: Mapping[Any, Variable]
) -> Factor | None:
    """Return the factor's rows added up by the element of the latent that each belongs to."""
    shape, rank = factor.shape, len(factor.shape)
    index = broadcast(along.index.dense(shape), shape)
    axes = []
    for axis in factor.axes:
        # when rows are added up by the element that they read, element i reads itself
        if axis.source == along.source:
            parent = Affine.identity(variable.shape)
        else:
            num_parents = remaining[axis.source].count
            parent = _parent(axis, along, index, shape, variable, num_parents)
        if parent is None:
            return None
        axes.append(replace(axis, index=parent))

    if factor.rows is not None:
        total = factor.rows.added_up(jnp.asarray(index.reshape(-1)), variable.count)
        cells = Cells(total.reshape(variable.shape + total.shape[1:]))
        return Factor(tuple(axes), variable.shape, cells, factor.without_multiplicity)

    def summed(array):
        rows = jnp.broadcast_to(array, shape + array.shape[rank:]).reshape(-1, *array.shape[rank:])
        zeros = jnp.zeros((variable.count, *rows.shape[1:]), rows.dtype)
        total = zeros.at[index.reshape(-1)].add(
            rows, mode="promise_in_bounds", wrap_negative_indices=False
        )
        return total.reshape(variable.shape + rows.shape[1:])

    return factor.mapped(summed, tuple(axes), variable.shape)


def _parent(
    axis: Axis, along: Axis, index, shape: Sequence[int], variable: Variable, num_parents: int
) -> Index | None:
    """Return which of `num_parents` elements of another latent each element meets; None if several.

    `along` reads the latent itself, at the elements `index`, where `axis` reads the other. An
    element that no row reads may be given any parent: its own sum is a constant to the parent.
    """
    # every row meets one and the same element
    if not any(axis.varies) and axis.index.is_static:
        return Affine(axis.index.dense(shape).item(), (0,) * len(variable.shape))
    if axis.index.key == along.index.key:
        # both read the same numbers: each element meets the one of its own number
        if variable.count <= num_parents:
            return Affine.identity(variable.shape)
        return _on_elements(Dense.of(np.arange(num_parents)), variable.shape)
    # data say which: those of a single row, too
    if not any(axis.varies):
        return axis.index.placed([None] * len(variable.shape))
    if isinstance(axis.index, Dense) and isinstance(along.index, Dense):
        # the other is read through this one, `parent[child[row]]`, whatever the data are
        outer = axis.index.before(along.index)
        if outer is not None:
            return _on_elements(outer, variable.shape)
    if not (axis.index.is_static and isinstance(index, np.ndarray)):
        return None
    return _known_parent(broadcast(axis.index.dense(shape), shape), index, variable)


def _known_parent(parents: np.ndarray, index: np.ndarray, variable: Variable) -> Index | None:
    """Return the parent of each element that the rows `index` read; None if one has several."""
    parents, elements = parents.reshape(-1), index.reshape(-1)
    parent_of = np.zeros(variable.count, np.int32)
    parent_of[elements] = parents
    if not (parent_of[elements] == parents).all():
        return None
    covered = np.zeros(variable.count, bool)
    covered[elements] = True
    return _smooth(parent_of.reshape(variable.shape), covered.reshape(variable.shape))


def _on_elements(outer: Dense, shape: Sequence[int]) -> Dense:
    """Return an index of one axis laid out over a latent's elements.

    Those beyond its end are read by no row, and get 0.
    """
    count = int(np.prod(shape))
    array = outer.array[:count]
    pad = np.pad if isinstance(array, np.ndarray) else jnp.pad
    return replace(outer, array=pad(array, (0, count - array.size)).reshape(shape))


def _smooth(parent: np.ndarray, covered: np.ndarray) -> Index:
    """Return an index that is `parent` where `covered`, constant along axes where it can be."""
    array = parent
    for d in range(array.ndim):
        top = np.where(covered, array, -1).max(axis=d, keepdims=True)
        if np.where(covered, array == top, True).all():
            array, covered = np.maximum(top, 0), np.asarray(covered.any(axis=d, keepdims=True))
    # where no row reads an element, numbers that happen to be affine would claim more than is known
    return index_of(array) if covered.all() else Dense.of(array)
