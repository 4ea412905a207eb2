"""Where the rows of data are in what an equation computes, if each row stays by itself.

A rule for each kind of primitive says along which axis of the results the rows lie that lie along
an axis of the operands. What mixes rows, picks some, or reads them in another order has no such
axis, and a primitive without a rule is taken for one that does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from emjax.numerics.primitives import Equation, Kind, traits

Axis = int | None


class RowsMeet(Exception):
    """What is computed for one row depends on other rows, or on how many there are."""


def row_axes(eqn: Equation, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axis of each result along which the rows of the operands lie.

    `axes`: those of the operands, of which one at least has rows; None: it has none. Errors:
    `RowsMeet`.
    """
    name = eqn.primitive.name
    rule = RULES.get(name) or RULES_BY_KIND.get(traits(eqn).kind)
    if rule is None:
        raise RowsMeet(f"rows go into {name}")
    return rule(eqn, axes)


def _keep(condition: bool, eqn: Equation) -> None:
    if not condition:
        raise RowsMeet(f"{eqn.primitive.name} does not keep rows apart")


def _shape(var) -> tuple[int, ...]:
    # some sizes are NumPy's integers
    return tuple(map(int, var.aval.shape))


def _only(eqn: Equation, axes: Sequence[Axis]) -> int:
    """Return the one axis that all operands with rows have in common."""
    (first, *others) = {axis for axis in axes if axis is not None}
    _keep(not others, eqn)
    return first


def _without(axis: int, removed: Sequence[int]) -> int:
    """Return the number that an axis has once others are gone."""
    return axis - sum(int(other) < axis for other in removed)


def _is_whole(eqn: Equation, axis: int) -> bool:
    """Return whether what is read of a table is as long as the table along an axis."""
    return int(eqn.params["slice_sizes"][axis]) == _shape(eqn.invars[0])[axis]


def _same_axis(eqn, axes):
    return [_only(eqn, axes)] * len(eqn.outvars)


def _one_by_one(eqn, axes):
    return list(axes)


def _broadcast(eqn, axes):
    axis = _only(eqn, axes)
    return [int(eqn.params["broadcast_dimensions"][axis])]


def _reshape(eqn, axes):
    old, new, axis = _shape(eqn.invars[0]), _shape(eqn.outvars[0]), _only(eqn, axes)
    _keep(eqn.params["dimensions"] is None, eqn)
    # the axis stays whole where as many entries come before it as did, and it is as long
    for target in range(len(new)):
        before = math.prod(new[:target]) == math.prod(old[:axis])
        if before and new[target] == old[axis] and 0 not in old:
            return [target]
    raise RowsMeet("reshape does not keep the row axis whole")


def _transpose(eqn, axes):
    return [list(eqn.params["permutation"]).index(_only(eqn, axes))]


def _squeeze(eqn, axes):
    return [_without(_only(eqn, axes), eqn.params["dimensions"])]


def _reverse(eqn, axes):
    axis = _only(eqn, axes)
    _keep(axis not in eqn.params["dimensions"], eqn)
    return [axis]


def _slice(eqn, axes):
    axis, strides = _only(eqn, axes), eqn.params["strides"]
    start, stop = eqn.params["start_indices"][axis], eqn.params["limit_indices"][axis]
    _keep((int(start), int(stop)) == (0, _shape(eqn.invars[0])[axis]), eqn)
    _keep(strides is None or int(strides[axis]) == 1, eqn)
    return [axis]


def _dynamic_slice(eqn, axes):
    axis = axes[0]
    # where a slice starts is a number, and has no rows; XLA moves one that does not fit
    _keep(axis is not None and _is_whole(eqn, axis), eqn)
    return [axis]


def _pad(eqn, axes):
    axis = axes[0]
    _keep(axis is not None and tuple(eqn.params["padding_config"][axis]) == (0, 0, 0), eqn)
    return [axis]


def _concatenate(eqn, axes):
    axis = _only(eqn, axes)
    _keep(axis != eqn.params["dimension"], eqn)
    return [axis]


def _stack(eqn, axes):
    axis = _only(eqn, axes)
    return [axis + (eqn.params["axis"] <= axis)]


def _split(eqn, axes):
    axis = _only(eqn, axes)
    _keep(axis != eqn.params["axis"], eqn)
    return [axis] * len(eqn.outvars)


def _reduce(eqn, axes):
    axis = _only(eqn, axes)
    _keep(axis not in eqn.params["axes"], eqn)
    return [_without(axis, eqn.params["axes"])] * len(eqn.outvars)


def _mix(eqn, axes):
    axis = _only(eqn, axes)
    _keep(axis not in traits(eqn).mixes(eqn), eqn)
    return [axis] * len(eqn.outvars)


def _contract(eqn, axes):
    """Rows are a batch of products, or rows of one of the two matrices."""
    contracted, batch = eqn.params["dimension_numbers"]
    found = set()
    # of the result, batch axes come first, then what is left of the first operand
    first_free = len(batch[0])
    for side, var in enumerate(eqn.invars):
        used = [*contracted[side], *batch[side]]
        axis = axes[side]
        if axis is not None:
            _keep(axis not in contracted[side], eqn)
            is_batch = axis in batch[side]
            free = first_free + _without(axis, used)
            found.add(list(batch[side]).index(axis) if is_batch else free)
        first_free += len(_shape(var)) - len(used)
    return [_only(eqn, list(found))]


def _gather(eqn, axes):
    """Rows are those of the indices, or an axis of the table that is read as a whole.

    Either way each row reads its own entries, or entries without rows.
    """
    numbers, table, indices = eqn.params["dimension_numbers"], axes[0], axes[1]
    found = []
    if indices is not None:
        # a promise about the indices of the rows is none about copies of a row
        _keep(not (eqn.params["indices_are_sorted"] or eqn.params["unique_indices"]), eqn)
        # indices lie along the last axis; the others are axes of the result, in their order
        _keep(indices < len(_shape(eqn.invars[1])) - 1, eqn)
        rank = len(_shape(eqn.outvars[0]))
        over = [axis for axis in range(rank) if axis not in numbers.offset_dims]
        found.append(over[indices])
    if table is not None and table in numbers.operand_batching_dims:
        paired = list(numbers.operand_batching_dims).index(table)
        _keep(int(numbers.start_indices_batching_dims[paired]) == indices, eqn)
    elif table is not None:
        removed = [*numbers.collapsed_slice_dims, *numbers.operand_batching_dims]
        _keep(table not in removed and table not in numbers.start_index_map, eqn)
        _keep(_is_whole(eqn, table), eqn)
        found.append(int(numbers.offset_dims[_without(table, removed)]))
    return [_only(eqn, found)]


RULES_BY_KIND: dict[Kind, Callable] = {
    Kind.ELEMENTWISE: _same_axis,
    Kind.JOINS: _concatenate,
    Kind.GATHERS: _gather,
    Kind.SLICES: _dynamic_slice,
    Kind.CONTRACTS: _contract,
    Kind.REDUCES: _reduce,
    Kind.MIXES: _mix,
}

RULES: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "rev": _reverse,
    "slice": _slice,
    "pad": _pad,
    "stack": _stack,
    "split": _split,
    # a batch of systems, or the right sides of one: its matrix would have rows along both axes
    "triangular_solve": _same_axis,
    # it hands on each of its operands
    "optimization_barrier": _one_by_one,
}
