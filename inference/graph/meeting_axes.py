"""What an equation says of axes: which of its operands' are one with which of its results'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, SupportsIndex

from jax.extend.core import Jaxpr, Literal, Var

from emjax.numerics.primitives import Equation, Kind, traits


class Part(NamedTuple):
    """Some entries of an axis, or of another one that it was cut out of or is joined of.

    - `axis`: which.
    - `start`, `stop`, `step`: which of its entries.
    """

    axis: Any
    start: int
    stop: int
    step: int


@dataclass(eq=False)
class SharedAxes:
    """Which axes are one.

    An axis of an array is known by a variable of the program and its number; one of a site by its
    name, its number among those of the elements and then of the event, and its length (the sites of
    a scan's stretches have one name).

    - `parents`: a tree of axes that are one, for each axis that is no root.
    - `parts`: of an axis that was put together or cut out of others, these in a row.
    - `read_by`: (axis, what says which entry along it is read), an input or a latent's name.
    - `categories`: (axis, input) for each axis that lists what the values of an input may be: that
      of the probabilities of an observed category.
    """

    parents: dict = field(default_factory=dict)
    parts: list[tuple[Any, list[Part]]] = field(default_factory=list)
    read_by: list[tuple[Any, Var | str]] = field(default_factory=list)
    categories: list[tuple[Any, Var | str]] = field(default_factory=list)

    def root(self, axis: Any) -> Any:
        """Return the axis that stands for all that are one with it."""
        while axis in self.parents:
            axis = self.parents[axis]
        return axis

    def join(self, one: Any, other: Any) -> None:
        """Take two axes for one."""
        one, other = self.root(one), self.root(other)
        if one != other:
            self.parents[one] = other


def follow(axes: SharedAxes, jaxpr: Jaxpr) -> None:
    """Join the axes that meet in the equations of a program."""
    for eqn in jaxpr.eqns:
        rule = RULES.get(eqn.primitive.name) or BY_KIND.get(traits(eqn).kind)
        if rule is not None:
            rule(axes, eqn)


def join_axes(
    axes: SharedAxes, one: Any, of_one: SupportsIndex, other: Any, of_other: SupportsIndex
) -> None:
    """Take an axis of a variable and one of another for one, if they are of one length."""
    if isinstance(one, Literal) or isinstance(other, Literal):
        return
    if one.aval.shape[of_one] == other.aval.shape[of_other] > 1:
        axes.join((one, of_one), (other, of_other))


def _entry_by_entry(axes: SharedAxes, eqn: Equation) -> None:
    for result in eqn.outvars:
        for operand in eqn.invars:
            if len(operand.aval.shape) == len(result.aval.shape):
                for d in range(len(result.aval.shape)):
                    join_axes(axes, operand, d, result, d)


def _first_operand(axes: SharedAxes, eqn: Equation) -> None:
    """Join the axes of the first operand with those of the result, where they have its place."""
    operand, result = eqn.invars[0], eqn.outvars[0]
    if len(operand.aval.shape) == len(result.aval.shape):
        for d in range(len(result.aval.shape)):
            join_axes(axes, operand, d, result, d)


def _broadcast(axes: SharedAxes, eqn: Equation) -> None:
    for d, place in enumerate(eqn.params["broadcast_dimensions"]):
        join_axes(axes, eqn.invars[0], d, eqn.outvars[0], place)


def _transposed(axes: SharedAxes, eqn: Equation) -> None:
    for place, d in enumerate(eqn.params["permutation"]):
        join_axes(axes, eqn.invars[0], d, eqn.outvars[0], place)


def _left(axes: SharedAxes, operand: Any, gone: Sequence[int], result: Any) -> None:
    """Join the axes of an operand that are left with those of the result, in their order."""
    left = [d for d in range(len(operand.aval.shape)) if d not in gone]
    for place, d in enumerate(left):
        join_axes(axes, operand, d, result, place)


def _squeezed(axes: SharedAxes, eqn: Equation) -> None:
    _left(axes, eqn.invars[0], eqn.params["dimensions"], eqn.outvars[0])


def _reduced(axes: SharedAxes, eqn: Equation) -> None:
    for operand, result in zip(eqn.invars, eqn.outvars, strict=False):
        _left(axes, operand, eqn.params["axes"], result)


def _reversed(axes: SharedAxes, eqn: Equation) -> None:
    operand, result = eqn.invars[0], eqn.outvars[0]
    for d, size in enumerate(operand.aval.shape):
        if d in eqn.params["dimensions"]:
            part = Part((operand, d), size - 1, -1, -1)
            axes.parts.append(((result, d), [part]))
        else:
            join_axes(axes, operand, d, result, d)


def _reshaped(axes: SharedAxes, eqn: Equation) -> None:
    """Join the axes that a reshape leaves whole: as many entries stand before them as before."""
    operand, result = eqn.invars[0], eqn.outvars[0]
    places = _places(result.aval.shape)
    for before, d in _places(operand.aval.shape).items():
        if before in places:
            join_axes(axes, operand, d, result, places[before])


def _places(shape: Sequence[int]) -> dict[int, int]:
    """Return {how many entries stand before an axis: the axis}, of those longer than one."""
    places, before = {}, 1
    for d, size in enumerate(shape):
        if size > 1:
            places[before] = d
        before *= size
    return places


def _sliced(axes: SharedAxes, eqn: Equation) -> None:
    operand, result = eqn.invars[0], eqn.outvars[0]
    steps = eqn.params["strides"] or (1,) * len(operand.aval.shape)
    ends = zip(eqn.params["start_indices"], eqn.params["limit_indices"], steps, strict=True)
    for d, (start, stop, step) in enumerate(ends):
        if result.aval.shape[d] == operand.aval.shape[d]:
            join_axes(axes, operand, d, result, d)
        else:
            axes.parts.append(((result, d), [Part((operand, d), start, stop, step)]))


def _split(axes: SharedAxes, eqn: Equation) -> None:
    operand, axis, start = eqn.invars[0], eqn.params["axis"], 0
    for result in eqn.outvars:
        stop = start + result.aval.shape[axis]
        axes.parts.append(((result, axis), [Part((operand, axis), start, stop, 1)]))
        for d in range(len(result.aval.shape)):
            if d != axis:
                join_axes(axes, operand, d, result, d)
        start = stop


def _concatenated(axes: SharedAxes, eqn: Equation) -> None:
    result, axis, parts = eqn.outvars[0], eqn.params["dimension"], []
    for operand in eqn.invars:
        whole = Part((operand, axis), 0, operand.aval.shape[axis], 1)
        # a literal, such as the column of ones of an intercept, has no axes of its own
        parts.append(whole._replace(axis=None) if isinstance(operand, Literal) else whole)
        for d in range(len(result.aval.shape)):
            if d != axis:
                join_axes(axes, operand, d, result, d)
    axes.parts.append(((result, axis), parts))


def _stacked(axes: SharedAxes, eqn: Equation) -> None:
    result, axis = eqn.outvars[0], eqn.params["axis"]
    for operand in eqn.invars:
        for d in range(len(operand.aval.shape)):
            join_axes(axes, operand, d, result, d if d < axis else d + 1)


def _unstacked(axes: SharedAxes, eqn: Equation) -> None:
    for result in eqn.outvars:
        _left(axes, eqn.invars[0], [eqn.params["axis"]], result)


def _gathered(axes: SharedAxes, eqn: Equation) -> None:
    """Join the axes that a lookup reads whole, and those of its indices with the result's."""
    table, indices = eqn.invars[:2]
    result, numbers = eqn.outvars[0], eqn.params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    left = [d for d in range(len(table.aval.shape)) if d not in gone]
    for place, d in zip(numbers.offset_dims, left, strict=True):
        join_axes(axes, table, d, result, place)
    others = [d for d in range(len(result.aval.shape)) if d not in numbers.offset_dims]
    for d, place in enumerate(others):
        join_axes(axes, indices, d, result, place)


def _contracted(axes: SharedAxes, eqn: Equation) -> None:
    left, right = eqn.invars
    (of_left, of_right), (batch_left, batch_right) = eqn.params["dimension_numbers"]
    pairs = zip((*of_left, *batch_left), (*of_right, *batch_right), strict=True)
    for own, other in pairs:
        join_axes(axes, left, own, right, other)
    result, place = eqn.outvars[0], 0
    for d in batch_left:
        join_axes(axes, left, d, result, place)
        place += 1
    for operand, gone in ((left, (*of_left, *batch_left)), (right, (*of_right, *batch_right))):
        for d in range(len(operand.aval.shape)):
            if d not in gone:
                join_axes(axes, operand, d, result, place)
                place += 1


def _padded(axes: SharedAxes, eqn: Equation) -> None:
    for d, (low, high, inside) in enumerate(eqn.params["padding_config"]):
        if not (low or high or inside):
            join_axes(axes, eqn.invars[0], d, eqn.outvars[0], d)


RULES: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "rev": _reversed,
    "slice": _sliced,
    "squeeze": _squeezed,
    "transpose": _transposed,
    "split": _split,
    "concatenate": _concatenated,
    "stack": _stacked,
    "unstack": _unstacked,
    "pad": _padded,
    # a row of a triangle is that of its matrix; what is sorted is in another order
    "cholesky": _entry_by_entry,
    "cumsum": _entry_by_entry,
    "cumprod": _entry_by_entry,
}
BY_KIND: dict[Kind, Callable] = {
    Kind.ELEMENTWISE: _entry_by_entry,
    Kind.PLACES: _first_operand,
    Kind.GATHERS: _gathered,
    Kind.SLICES: _first_operand,
    Kind.CONTRACTS: _contracted,
    Kind.REDUCES: _reduced,
    # softplus, softmax and the like keep each entry at its place
    Kind.DERIVES: _entry_by_entry,
}
