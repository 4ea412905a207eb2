"""A term, and what it consists of, on some positions of an axis of its elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from emjax.elimination.factors import Variable
from emjax.graph.terms import Term
from emjax.tables.indices import Affine, Dense
from emjax.tables.named import Axis, Named


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


def cut_term(term: Term, axis: int, start: Any, rows: int) -> Term:
    """Return a term on `rows` positions of an axis of its elements from `start`."""
    inputs = {name: cut(value, axis, start, rows) for name, value in term.statistics.inputs.items()}
    elements = list(term.elements)
    elements[axis] = rows
    return replace(
        term,
        elements=tuple(elements),
        statistics=replace(term.statistics, inputs=inputs),
        arguments=_cut_arguments(term, axis, start, rows),
        base=cut(term.base, axis, start, rows),
        value=cut(term.value, axis, start, rows),
    )


def _cut_arguments(term: Term, axis: int, start: Any, rows: int) -> Mapping[str, Named]:
    if not term.site.is_integrated:
        return term.arguments
    return {name: cut(table, axis, start, rows) for name, table in term.arguments.items()}


def cut(value: Named, axis: int, start: Any, rows: int) -> Named:
    """Return a value on `rows` positions of an axis from `start`."""
    if axis >= len(value.shape):
        return value
    axes = []
    for named in value.axes:
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


def cut_latent(variable: Variable, start: Any, rows: int) -> Variable:
    """Return a latent's elements at `rows` positions of its first axis from `start`."""
    multiplicity = variable.multiplicity
    if multiplicity is not None:
        multiplicity = sliced(multiplicity, 0, start, rows)
    return replace(variable, shape=(rows, *variable.shape[1:]), multiplicity=multiplicity)


def sliced(array: Any, axis: int, start: Any, rows: int) -> Any:
    """Return `rows` positions of an axis of an array from `start`; of length 1, it stays."""
    if array.shape[axis] == 1:
        return array
    return jax.lax.dynamic_slice_in_dim(array, start, rows, axis)
