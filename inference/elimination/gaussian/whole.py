"""Gaussian latents all of whose elements become the coordinates of one vector.

Two latents that are crossed, y ~ a[i] + b[j], meet each other at several elements; the vector of
all b is one element, which every a[i] meets. Then a is integrated out element by element, which is
the Schur complement on b, and b by one Cholesky factorization. Where they share axes along which
they are not coupled, there is a vector for each cell of that grid.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.elimination.factors import Cells, Factor, Variable
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.grid import Grid
from emjax.elimination.gaussian.stacked import stacked
from emjax.numerics.arrays import in_order
from emjax.numerics.axes import arranged
from emjax.numerics.matrices import EXACT, inverse
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Coordinates


@dataclass(frozen=True, eq=False)
class Whole:
    """A vector of all elements of some latents, one after the other.

    - `name`: what it is called.
    - `members`: the latents.
    - `grid`: the axes along which they are not coupled.
    """

    name: Any
    members: Mapping[Any, Variable]
    grid: Grid

    @property
    def size(self) -> int:
        """The number of its coordinates."""
        return sum(self._sizes.values())

    @property
    def _sizes(self) -> dict:
        """The number of coordinates of each member."""
        members = self.members.values()
        return {member.name: self.grid.count_of(member) * member.size for member in members}

    @property
    def variable(self) -> Variable:
        """The vector as a latent, whose elements are the cells of the grid."""
        members = list(self.members.values())
        multiplicity = members[0].multiplicity
        if multiplicity is not None:
            multiplicity = in_order(multiplicity, self.grid.kept_of(members[0]))
        return Variable(
            self.name,
            self.size,
            self.grid.shape,
            multiplicity,
            members[0].multiplicity_key,
            frozenset.intersection(*(member.plates for member in members)),
            max(member.order for member in members),
        )

    @property
    def axis(self) -> Coordinates:
        """The axis over its coordinates, of a factor whose elements are the cells of the grid."""
        return Coordinates(self.name, self.size, Affine.identity(self.grid.shape))

    # ── pieces ────────────────────────────────────────────────────────────────────────────────────

    def piece(self, piece: Factor, remaining: Mapping[Any, Variable]) -> Factor:
        """Return a piece with the vector in place of its members."""
        mine = self._axes_of(piece)
        if not mine:
            return piece
        for axis in piece.axes:
            is_outside = isinstance(axis, Coordinates) and axis.source not in self.members
            if is_outside and self.grid.count_of(remaining[axis.source]) > 1:
                return self._beside(piece, axis, remaining)
        if len(mine) == 1:
            return self._linear(piece, remaining)
        if mine[0].key == mine[1].key:
            return self._blocks(piece, remaining)
        square = self._between(piece, mine, remaining)
        return square.mapped(lambda array: (array + array.mT) / 2, square.axes, square.shape)

    def _axes_of(self, factor: Factor) -> list[Axis]:
        return [axis for axis in factor.axes if axis.source in self.members]

    def _linear(self, factor: Factor, remaining: Mapping[Any, Variable]) -> Factor:
        """Return a factor that is linear in a member.

        Its array may have one axis more than names, the last.
        """
        (own,) = self._axes_of(factor)
        array, others = stacked(factor, [own], remaining, self.grid)
        array = self._padded(array, own, len(self.grid.shape) + len(others))
        return factor.mapped(lambda _: array, (*others, self.axis), self.grid.shape)

    def _blocks(self, factor: Factor, remaining: Mapping[Any, Variable]) -> Factor:
        """Return a factor that is quadratic in each element of a member: blocks of a matrix.

        The second axis over coordinates may have no name, and then is the last.
        """
        own = self._axes_of(factor)[0]
        array, others = stacked(factor, [own], remaining, self.grid)
        array = _block_diagonal(array, self.grid.count_of(remaining[own.source]))
        array = self._padded(self._padded(array, own, -2), own, -1)
        return factor.mapped(lambda _: array, (*others, self.axis, self.axis), self.grid.shape)

    def _between(
        self, factor: Factor, mine: Sequence[Axis], remaining: Mapping[Any, Variable]
    ) -> Factor:
        """Return a factor that is linear in two elements of members: a matrix, in this order."""
        array, others = stacked(factor, mine, remaining, self.grid)
        array = self._padded(self._padded(array, mine[0], -2), mine[1], -1)
        return factor.mapped(lambda _: array, (*others, self.axis, self.axis), self.grid.shape)

    def _beside(self, factor: Factor, outside: Axis, remaining: Mapping[Any, Variable]) -> Factor:
        """Return a factor that is linear in a member and in another latent, over its elements."""
        (own,) = self._axes_of(factor)
        array, others = stacked(factor, [own], remaining, self.grid, outside)
        array = self._padded(array, own, -1)
        variable = remaining[outside.source]
        outside = replace(outside, index=Affine.identity(variable.shape))
        vector = replace(self.axis, index=self.grid.cell_of_elements(variable))
        return factor.mapped(lambda _: array, (*others, outside, vector), variable.shape)

    def _padded(self, array: Array, member: Axis, dim: int) -> Array:
        """Return an array whose axis `dim` is that of a member with the vector's in its place."""
        place = list(self._sizes).index(member.source)
        before = list(self._sizes.values())[:place]
        after = list(self._sizes.values())[place + 1 :]
        if not before and not after:
            return array
        widths = [(0, 0)] * array.ndim
        widths[dim] = (sum(before), sum(after))
        return jnp.pad(array, widths)

    # ── what it is drawn from ─────────────────────────────────────────────────────────────────────

    def conditionals(
        self, conditionals: Sequence[Conditional], remaining: Mapping[Any, Variable]
    ) -> list[Conditional]:
        """Return what the vector is drawn from, and what others are, given the vector."""
        mine = [c for c in conditionals if c.own.source in self.members]
        others = [c for c in conditionals if c.own.source not in self.members]
        return [self._own(mine, remaining), *(self._given(c, remaining) for c in others)]

    def _own(
        self, conditionals: Sequence[Conditional], remaining: Mapping[Any, Variable]
    ) -> Conditional:
        """Return what the vector is drawn from."""
        means, scales, mixing = [], [], []
        by_parent: dict = {}
        for conditional in conditionals:
            means.append(self._linear(conditional.mean, remaining))
            scales.append(conditional.scale)
            for coefficients in conditional.coefficients:
                mine = self._axes_of(coefficients)
                if len(mine) == 2:
                    mixing.append(self._between(coefficients, mine, remaining))
                else:
                    linear = self._linear(coefficients, remaining)
                    by_parent.setdefault(self._parent(linear).key, []).append(linear)
        # independent elements of one size have blocks, which are not laid out as a matrix
        sizes = {member.size for member in self.members.values()}
        laid_out = self._linear if not mixing and len(sizes) == 1 else self._blocks
        scales = [laid_out(scale, remaining) for scale in scales]
        axes = _discrete_axes_of([*means, *scales, *mixing, *itertools.chain(*by_parent.values())])
        total = functools.partial(self._total, axes)
        through = _Through(total(mixing, ["own", "more"]) if mixing else None)
        scale = through.matrix(total(scales, ["own", "more"]))
        coefficients = []
        for factors in by_parent.values():
            array = through.matrix(total(factors, ["own", "parent"]))
            coefficients.append(self._factor(array, (*axes, self.axis, self._parent(factors[0]))))
        return Conditional(
            self.axis,
            self._factor(through.vector(total(means, ["own"])), (*axes, self.axis)),
            self._factor(scale, (*axes, self.axis)),
            coefficients,
        )

    def _factor(self, array: Array, axes: tuple[Axis, ...]) -> Factor:
        return Factor(axes, self.grid.shape, Cells(array))

    def _parent(self, factor: Factor) -> Axis:
        """Return the axis over the coordinates of another Gaussian latent."""
        (parent,) = (
            axis
            for axis in factor.axes
            if isinstance(axis, Coordinates) and axis.source != self.name
        )
        return parent

    def _total(self, axes: Sequence[Axis], factors: Sequence[Factor], last: Sequence[str]) -> Array:
        """Return the sum of factors on the grid: (cells…, values of `axes`…, the `last` axes)."""
        order = [*(axis.key for axis in axes), *last]
        arrays = []
        for factor in factors:
            labels: list = []
            for axis in factor.axes:
                if axis.source == self.name:
                    labels.append("more" if "own" in labels else "own")
                else:
                    labels.append("parent" if isinstance(axis, Coordinates) else axis.key)
            array = jnp.asarray(factor.array)
            # an axis without a name is the last
            labels += ["more"] * (array.ndim - len(factor.shape) - len(labels))
            arrays.append(arranged(array, labels, order, len(factor.shape)))
        return sum(arrays[1:], arrays[0])

    def _given(self, conditional: Conditional, remaining: Mapping[Any, Variable]) -> Conditional:
        """Return what another latent is drawn from, given the vector."""
        given = []
        for coefficients in conditional.coefficients:
            reads = self._axes_of(coefficients)
            given.append(self._chosen(coefficients, remaining) if reads else coefficients)
        return replace(conditional, coefficients=given)

    def _chosen(self, coefficients: Factor, remaining: Mapping[Any, Variable]) -> Factor:
        """Return coefficients (…, own, member) as those of the vector, zero at other elements."""
        *axes, parent = coefficients.axes
        shape, array = coefficients.shape, jnp.asarray(coefficients.array)
        variable = remaining[parent.source]
        count = self.grid.count_of(variable)
        place = jnp.asarray(self.grid.place(parent, shape, variable))
        is_read = place[..., None] == np.arange(count)
        is_read = is_read.reshape(*place.shape, *(1,) * len(axes), count, 1)
        array = jnp.where(is_read, array[..., None, :], 0)
        array = array.reshape(*array.shape[:-2], count * parent.size)
        array = self._padded(array, parent, -1)
        vector = replace(self.axis, index=self.grid.cell(parent, shape, variable))
        return coefficients.mapped(lambda _: array, (*axes, vector), shape)


class _Through:
    """What elements contribute that are drawn from one another, F = x + R F: (I − R)⁻¹ x."""

    def __init__(self, mixing: Array | None):
        self._inverse = None
        if mixing is not None:
            self._inverse = inverse(jnp.eye(mixing.shape[-1], dtype=mixing.dtype) - mixing)

    def matrix(self, array: Array) -> Array:
        """Return it for columns, (…, coordinates, columns)."""
        return array if self._inverse is None else jnp.matmul(self._inverse, array, precision=EXACT)

    def vector(self, array: Array) -> Array:
        """Return it for a vector, (…, coordinates)."""
        return self.matrix(array[..., None])[..., 0]


def _discrete_axes_of(factors: Sequence[Factor]) -> tuple[Axis, ...]:
    """Return the axes of discrete latents that factors of one element read."""
    axes = {axis.key: axis for factor in factors for axis in factor.axes}
    return tuple(axis for axis in axes.values() if not isinstance(axis, Coordinates))


def _block_diagonal(rows: Array, count: int) -> Array:
    """Return blocks, one below the other, (…, count · q, q), as a block-diagonal matrix."""
    size = rows.shape[-1]
    blocks = rows.reshape(*rows.shape[:-2], count, size, 1, size)
    identity = jnp.eye(count, dtype=rows.dtype)[:, None, :, None]
    return (blocks * identity).reshape(*rows.shape[:-2], count * size, count * size)
