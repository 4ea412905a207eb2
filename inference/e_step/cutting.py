"""A term, and what it consists of, on some positions of an axis of its elements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from emjax.elimination.factors import Variable
from emjax.graph.terms import Term
from emjax.tables.indices import Affine, Dense
from emjax.tables.named import Axis, Named


@dataclass(frozen=True)
class Plate:
    """A plate that is cut: where it runs through the elements of the latents within it.

    - `size`: its length.
    - `shapes`: {latent: the shape of its elements}.
    - `dims`: {latent: the axis of its elements that runs along the plate}. Of a chain, time is in
      front of it.
    """

    size: int
    shapes: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, int]

    def strides(self, name: str) -> tuple[int, int]:
        """Return how many elements of a latent one row of the plate holds, and all its rows."""
        row = math.prod(self.shapes[name][self.dims[name] + 1 :])
        return row, self.size * row

    def in_block(self, axis: Axis, rows: int) -> Axis:
        """Return an axis that reads a latent's elements as they are numbered in `rows` rows."""
        if axis.source not in self.dims or not isinstance(axis.index, Affine):
            return axis
        row, all_rows = self.strides(str(axis.source))

        def renumbered(number: int) -> int:
            outside, within = divmod(number, all_rows)
            return outside * rows * row + within

        index = axis.index
        # along one row there is no next one; its stride would be taken for that of what is outside
        strides = tuple(
            0 if rows == 1 and stride == row else renumbered(stride) for stride in index.strides
        )
        return replace(axis, index=Affine(renumbered(index.offset), strides))

    def cut(self, name: str, variable: Variable, start: Any, rows: int) -> Variable:
        """Return a latent's elements at `rows` rows of the plate from `start`."""
        dim, multiplicity = self.dims[name], variable.multiplicity
        if multiplicity is not None:
            multiplicity = sliced(multiplicity, dim, start, rows)
        shape = (*variable.shape[:dim], rows, *variable.shape[dim + 1 :])
        return replace(variable, shape=shape, multiplicity=multiplicity)


def can_be_cut(term: Term, naturals: Sequence[Named], axis: int) -> bool:
    """Whether everything that varies along an axis is an array or an index that can be sliced."""
    size = term.elements[axis]
    values = [*term.statistics.inputs.values(), term.base, term.value, *naturals]
    # of a Gaussian latent, what it is drawn from is read, too
    values += term.arguments.values() if term.site.is_integrated else ()
    for value in values:
        if axis >= len(value.shape):
            continue
        if value.compact[axis] not in (1, size):
            return False
        # sliced at a start that a loop computes, a known array would be known no more
        if value.compact[axis] != 1 and value.is_static:
            return False
        for named in value.axes:
            if axis < len(named.varies) and named.varies[axis] and not _moves_along(named):
                return False
    return True


def _moves_along(axis: Axis) -> bool:
    """Whether an index that varies stays right where positions are numbered from a block's start.

    A latent is cut along with its term, so that an affine index reads the same element. Rows of a
    table stay as they are: there an affine index would read others, and an array is sliced.
    """
    return axis.is_latent == isinstance(axis.index, Affine)


def cut_term(term: Term, axis: int, start: Any, rows: int, plate: Plate | None = None) -> Term:
    """Return a term on `rows` positions of an axis of its elements from `start`.

    `plate`: that which the axis runs along, if latents are cut along with it.
    """

    def cut_all(values: Mapping[str, Named]) -> dict[str, Named]:
        return {name: cut(value, axis, start, rows, plate) for name, value in values.items()}

    elements = list(term.elements)
    elements[axis] = rows
    statistics = replace(term.statistics, inputs=cut_all(term.statistics.inputs))
    cut_of_term = replace(
        term,
        elements=tuple(elements),
        statistics=statistics,
        patterns={},
        arguments=cut_all(term.arguments) if term.site.is_integrated else term.arguments,
        base=cut(term.base, axis, start, rows, plate),
        value=cut(term.value, axis, start, rows, plate),
    )
    if plate is None:
        return cut_of_term
    return replace(
        cut_of_term,
        latent_axes=tuple(plate.in_block(each, rows) for each in term.latent_axes),
        reads=tuple(plate.in_block(each, rows) for each in term.reads),
    )


def cut(value: Named, axis: int, start: Any, rows: int, plate: Plate | None = None) -> Named:
    """Return a value on `rows` positions of an axis from `start`; `plate`: as in `cut_term`."""
    if axis >= len(value.shape):
        return value
    axes = []
    for named in value.axes:
        if plate is not None:
            named = plate.in_block(named, rows)
        index = named.index
        if isinstance(index, Dense) and axis < len(index.varies) and index.varies[axis]:
            array = sliced(jnp.asarray(index.array), axis, start, rows)
            named = replace(named, index=replace(index, array=array))
        axes.append(named)
    # what does not vary along the axis is the same in every block
    shape = list(value.shape)
    if shape[axis] != 1:
        shape[axis] = rows
    array = sliced(value.array, len(value.axes) + axis, start, rows)
    return Named(array, tuple(shape), tuple(axes))


def sliced(array: Any, axis: int, start: Any, rows: int) -> Any:
    """Return `rows` positions of an axis of an array from `start`; of length 1, it stays."""
    if array.shape[axis] == 1:
        return array
    return jax.lax.dynamic_slice_in_dim(array, start, rows, axis)
