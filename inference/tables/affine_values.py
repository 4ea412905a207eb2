"""Values that are affine in Gaussian latents: a constant, and a table of coefficients for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emjax.tables.lifting import lift
from emjax.tables.named import Axis, Coordinates, Named, union


@dataclass(frozen=True, eq=False)
class AffineValue:
    """A value of the program, constant + Σ_l R_l f_l, where each f_l is an element of a latent.

    - `constant`: the value where all Gaussian latents are zero.
    - `coefficients`: the R_l, each of the value's shape, with one axis more among its named ones: a
      `Coordinates` that says which element of which latent every position reads.
    """

    constant: Named
    coefficients: tuple[Named, ...]

    @property
    def latent_axes(self) -> tuple[Axis, ...]:
        """The axes of all latents that it reads, discrete ones and Gaussian ones."""
        axes = union([self.constant, *self.coefficients])
        return tuple(axis for axis in axes if axis.is_latent)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.constant.shape


def coordinates_of(coefficients: Named) -> Coordinates:
    """Return the axis of coefficients that runs over a Gaussian latent's coordinates."""
    (axis,) = (axis for axis in coefficients.axes if isinstance(axis, Coordinates))
    return axis


def zero(shape: Sequence[int], dtype: Any) -> Named:
    """Return zero at every position."""
    return Named(np.zeros((1,) * len(shape), dtype), tuple(shape))


def is_zero(value: Any) -> bool:
    """Whether a value is known to be zero everywhere, in whatever latent."""
    return isinstance(value, Named) and value.is_static and not value.array.any()


def zero_of(value: Named) -> Named:
    """Return zero at every position of a value."""
    return zero(value.shape, value.array.dtype)


def affine_value(constant: Named, coefficients: Sequence[Named]) -> Named | AffineValue:
    """Return constant + Σ_l R_l f_l, with one table for each element that a position reads.

    It is the constant where all coefficients are known to be zero.
    """
    merged: dict[tuple, Named] = {}
    for part in coefficients:
        if is_zero(part):
            continue
        key = coordinates_of(part).key
        merged[key] = _sum(merged[key], part) if key in merged else part
    left = tuple(part for part in merged.values() if not is_zero(part))
    return AffineValue(constant, left) if left else constant


def _sum(first: Named, second: Named) -> Named:
    return lift(lambda a, b: a + b, [first, second], first.shape)


def constant_of(value: Any) -> Any:
    """Return a value where all Gaussian latents are zero."""
    return value.constant if isinstance(value, AffineValue) else value


def linearly(
    function: Callable[[list], Sequence[Named]],
    values: Sequence[Any],
    groups: Sequence[dict[int, Named]] | None = None,
) -> list[Named | AffineValue]:
    """Return the results of a function of values that is linear in all of them jointly.

    - `function`: of named values, which returns some.
    - `groups`: {number of a value: its coefficients}: those that become one table in the result;
      by default those that are of the same elements.
    """
    groups = grouped_by_element(values) if groups is None else groups
    constants = [constant_of(value) for value in values]
    results = list(function(constants))
    parts: list[list[Named]] = [[] for _ in results]
    for group in groups:
        operands = [group.get(number, zero_of(value)) for number, value in enumerate(constants)]
        for of_result, part in zip(parts, function(operands), strict=True):
            of_result.append(part)
    return [affine_value(*pair) for pair in zip(results, parts, strict=True)]


def grouped_by_element(values: Sequence[Any]) -> list[dict[int, Named]]:
    """Return the coefficients of values, {number of a value: coefficients} for each element."""
    groups: dict[tuple, dict[int, Named]] = {}
    for number, value in enumerate(values):
        if isinstance(value, AffineValue):
            for part in value.coefficients:
                groups.setdefault(coordinates_of(part).key, {})[number] = part
    return list(groups.values())


def each_alone(values: Sequence[Any]) -> list[dict[int, Named]]:
    """Return the coefficients of values, each by itself."""
    groups = []
    for number, value in enumerate(values):
        if isinstance(value, AffineValue):
            groups += [{number: part} for part in value.coefficients]
    return groups


def grouped_by_latent(values: Sequence[Any]) -> list[dict[int, Named]]:
    """Return the coefficients of values, the n-th of a latent with the n-th of each other value.

    So they become one table where values are put side by side, read at one index after another.
    """
    groups: dict[tuple, dict[int, Named]] = {}
    for number, value in enumerate(values):
        if not isinstance(value, AffineValue):
            continue
        count: dict[Any, int] = {}
        for part in value.coefficients:
            axis = coordinates_of(part)
            count[axis.source] = nth = count.get(axis.source, -1) + 1
            groups.setdefault((axis.source, axis.size, nth), {})[number] = part
    return list(groups.values())
