"""What primitives do to values that are affine in Gaussian latents.

A primitive that is linear in an operand acts on its constant and on each of its tables of
coefficients alike, by the rules that there are for named values. Any other use has no exact
integral.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import broadcast, transposed
from emjax.numerics.primitives import Equation, Kind, Linear, traits
from emjax.tables.affine_values import (
    AffineValue,
    coordinates_of,
    each_alone,
    grouped_by_element,
    grouped_by_latent,
    is_zero,
    linearly,
    zero,
)
from emjax.tables.joined import carried_out
from emjax.tables.lifting import lift
from emjax.tables.named import Coordinates, Named, full, spread, union, without_rows


class Misused(Exception):
    """A primitive is not linear in an operand that is affine in Gaussian latents.

    - `axes`: over the coordinates of these.
    """

    def __init__(self, values: Sequence[Any], primitive: str):
        self.axes, self.primitive = coordinate_axes(values), primitive
        super().__init__(primitive)


@dataclass(frozen=True, eq=False)
class NotAffine:
    """A value of the program that is no affine function of the Gaussian latents that it reads.

    - `axes`: over the coordinates of these.
    - `primitive`: what is no affine function of them.
    - `line`: where the program does so, "" if that is unknown.
    """

    axes: tuple[Coordinates, ...]
    primitive: str
    line: str = ""
    is_static: ClassVar[bool] = False

    @property
    def latent_axes(self) -> tuple[Coordinates, ...]:
        return self.axes

    @property
    def how(self) -> str:
        """How the latents are read, in words."""
        return f"by '{self.primitive}'" + (f" at {self.line}" if self.line else "")


def coordinate_axes(values: Sequence[Any]) -> tuple[Coordinates, ...]:
    """Return the axes over the coordinates of the Gaussian latents that values read."""
    axes = []
    for value in values:
        if isinstance(value, AffineValue):
            axes += [coordinates_of(part) for part in value.coefficients]
        elif isinstance(value, NotAffine):
            axes += value.axes
    return tuple(axes)


def gaussians_of(value: Any) -> list[str]:
    """Return the names of the Gaussian latents that a value reads, each once."""
    return list(dict.fromkeys(str(axis.source) for axis in coordinate_axes([value])))


def is_affine(value: Any) -> bool:
    """Whether a value reads Gaussian latents, and is affine in them."""
    return isinstance(value, AffineValue)


def affine_outputs(eqn: Equation, values: Sequence[Any], outputs: Callable) -> list:
    """Return the values of the outputs of an equation, some of whose operands are affine.

    `outputs(eqn, values)`: those of an equation without such operands. Errors: `Misused`.
    """
    linear = _linear_operands(eqn, values)
    if any(is_affine(value) and number not in linear for number, value in enumerate(values)):
        raise Misused(values, eqn.primitive.name)
    outvars = eqn.outvars

    def results(operands: list) -> list[Named]:
        """Return the results for operands that are linear: zero, if all these are."""
        if all(is_zero(carried_out(operands[i])) for i in linear):
            return [zero(tuple(var.aval.shape), var.aval.dtype) for var in outvars]
        shortcut = SHORTCUTS.get(eqn.primitive.name)
        result = None if shortcut is None else shortcut(eqn, list(map(carried_out, operands)))
        found = outputs(eqn, operands) if result is None else [result]
        return [carried_out(value) for value in found]

    def all_results(in_linear: list) -> list[Named]:
        operands = list(values)
        for number, value in zip(linear, in_linear, strict=True):
            operands[number] = value
        return results(operands)

    taken = [carried_out(values[number]) for number in linear]
    return linearly(all_results, taken, _groups(eqn, taken))


def _linear_operands(eqn: Equation, values: Sequence[Any]) -> list[int]:
    """Return the operands that an equation is linear in, jointly, while others are constants."""
    numbers = list(range(len(values)))
    # the whole part of a number is not linear in it
    if not all(jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in eqn.outvars):
        return []
    linear = traits(eqn).linear
    if linear is Linear.ANY_ONE:
        affine = [number for number in numbers if is_affine(values[number])]
        return affine if len(affine) == 1 else []
    without_others = {
        Linear.ALL: numbers,
        Linear.FIRST: numbers[:1],
        Linear.FIRST_TWO: numbers[:2],
        Linear.BUT_FIRST: numbers[1:],
        Linear.BUT_SECOND: [0, *numbers[2:]],
    }
    return without_others.get(linear, [])


def _groups(eqn: Equation, values: Sequence[Any]) -> list[dict[int, Named]]:
    """Return which coefficients become one table in the result."""
    kind = traits(eqn).kind
    if kind is Kind.ELEMENTWISE or len(values) == 1:
        return grouped_by_element(values)
    if kind in (Kind.JOINS, Kind.PLACES) and traits(eqn).copies:
        return grouped_by_latent(values)
    # where operands are of several shapes, indices of equal keys say different things
    return each_alone(values)


# ── what is known beforehand ──────────────────────────────────────────────────────────────────────


def _added(eqn: Equation, values: Sequence[Named]) -> Named | None:
    """Return a sum of which one part is zero."""
    shape = tuple(eqn.outvars[0].aval.shape)
    first, second = values
    if is_zero(second):
        return replace(first.padded(len(shape)), shape=shape)
    if not is_zero(first):
        return None
    second = replace(second.padded(len(shape)), shape=shape)
    is_difference = eqn.primitive.name == "sub"
    return lift(lambda value: -value, [second], shape) if is_difference else second


def _multiplied(eqn: Equation, values: Sequence[Named]) -> Named | None:
    """Return a product of which one factor is known to be one, so that the other is recognized."""
    shape = tuple(eqn.outvars[0].aval.shape)
    for ones, other in (values, values[::-1]):
        if not ones.is_static or not (ones.array == 1).all():
            continue
        ones, other = ones.padded(len(shape)), other.padded(len(shape))
        axes = union([ones, other])
        sizes = [axis.size for axis in axes]
        return Named(broadcast(spread(other, axes), (*sizes, *other.compact)), shape, axes)
    return None


def _put_into(eqn: Equation, values: Sequence[Named]) -> Named | None:
    """Return an operand to which nothing is added at places of it."""
    return values[0] if is_zero(values[-1]) else None


def _contracted(eqn: Equation, values: Sequence[Named]) -> Named | None:
    """Return a product with coefficients that pick entries, such as those of the latent itself."""
    contracting, _ = eqn.params["dimension_numbers"]
    if len(contracting[0]) == 1:
        for side in (0, 1):
            picked = _picked(values[side], int(contracting[side][0]))
            if picked is not None:
                return _with_picked(eqn, values, side, picked)
    return None


def _picked(value: Named, dim: int) -> np.ndarray | None:
    """Return which entry along an axis each coordinate of coefficients picks, (coordinate,).

    None, where they are no such coefficients, or vary along other axes, too.
    """
    if not value.is_static or len(value.axes) != 1:
        return None
    if not isinstance(value.axes[0], Coordinates) or value.axes[0].varies[dim]:
        return None
    if any(size != 1 for d, size in enumerate(value.compact) if d != dim):
        return None
    matrix = full(value, [dim]).reshape(value.axes[0].size, value.shape[dim])
    is_one = matrix == 1
    if not (is_one.sum(1) == 1).all() or (matrix[~is_one] != 0).any():
        return None
    return is_one.argmax(1)


def _with_picked(
    eqn: Equation, values: Sequence[Named], side: int, picked: np.ndarray
) -> Named | None:
    """Return the product of coefficients that pick entries along one axis, and another value."""
    contracting, batching = eqn.params["dimension_numbers"]
    along, other = int(contracting[1 - side][0]), values[1 - side]
    if any(axis.varies[along] for axis in other.latent_axes):
        return None
    other = without_rows(other, [axis for axis in other.row_axes if axis.varies[along]])
    shape = tuple(eqn.outvars[0].aval.shape)
    # the result has the batch axes, the free ones of the first, and those of the second
    sources: list[dict[int, int]] = []
    first_free = len(batching[0])
    for value, contracted, batch in zip(values, contracting, batching, strict=True):
        free = [d for d in range(len(value.shape)) if d not in contracted and d not in batch]
        sources.append(dict(enumerate(batch)) | {first_free + i: d for i, d in enumerate(free)})
        first_free += len(free)
    coordinates = coordinates_of(values[side])
    coordinates = coordinates.placed([sources[side].get(d) for d in range(len(shape))])
    order = [sources[1 - side].get(d) for d in range(len(shape))]
    other = replace(other, array=full(other, [along])).placed([*order, along])
    array = other.array
    if not np.array_equal(picked, np.arange(array.shape[-1])):
        array = array[..., picked]
    last = array.ndim - 1
    array = transposed(array, [last, *range(last)])
    axes = tuple(axis.fitted(len(shape)) for axis in other.axes)
    return Named(array, shape, (coordinates, *axes))


SHORTCUTS: dict[str, Callable[[Equation, list], Named | None]] = {
    "add": _added,
    "add_any": _added,
    "sub": _added,
    "mul": _multiplied,
    "scatter-add": _put_into,
    "scatter-sub": _put_into,
    "dot_general": _contracted,
}
