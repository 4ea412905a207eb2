"""The entries of a parameter, each once, and what they are called."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpyro.distributions import constraints

from emjax.families.limits import entry_constraint
from emjax.naming.axes import Axis, program_axes
from emjax.run.bound import Bound
from emjax.run.columns import Column

# what is as large above the diagonal as below it, and what is zero above it
SYMMETRIC = {
    type(constraints.positive_definite),
    type(constraints.positive_semidefinite),
    type(constraints.corr_matrix),
}
TRIANGULAR = {type(constraints.lower_cholesky), type(constraints.corr_cholesky)}


@dataclass(frozen=True)
class Entries:
    """What the entries of a parameter are called: loc[component=0, petal_width].

    - `site`: the parameter.
    - `axes`: those of its shape.
    - `numbers`: those of its entries that a table lists, in C order: of a symmetric matrix each
      once, of a triangular one those that are not zero.
    """

    site: str
    axes: tuple[Axis, ...]
    numbers: tuple[int, ...]

    @property
    def all_names(self) -> list[str]:
        """The name of each entry, in C order."""
        if not self.axes:
            return [self.site]
        labels = [axis.printed for axis in self.axes]
        return [f"{self.site}[{', '.join(index)}]" for index in itertools.product(*labels)]

    @property
    def names(self) -> list[str]:
        """The names of those that a table lists."""
        names = self.all_names
        return [names[number] for number in self.numbers]

    def of_shape(self, shape: Sequence[int]) -> Entries:
        """Return those of an array of another shape, such as the coordinates of a matrix.

        Its axes are these as far as their lengths are the same, and counted from there on.
        """
        other, is_other = counted(self.site, shape), False
        axes = list(other.axes)
        for d, (own, size) in enumerate(zip(self.axes, shape, strict=False)):
            is_other = is_other or len(own.labels) != size
            axes[d] = axes[d] if is_other else own
        return replace(other, axes=tuple(axes))

    def at(self, where: np.ndarray) -> list[str]:
        """Return the names of the entries that a table lists where `where`, of its shape, holds."""
        names, flat = self.all_names, np.ravel(where)
        return [names[number] for number in self.numbers if flat[number]]

    def listed(self, array: Any) -> np.ndarray:
        """Return the entries that a table lists of an array of the parameter's shape."""
        return np.ravel(np.asarray(array))[list(self.numbers)]

    def labels(self) -> dict[str, list[Any]]:
        """Return {name of an axis: the label along it of each entry that a table lists}."""
        shape = tuple(len(axis.labels) for axis in self.axes)
        index = np.unravel_index(np.asarray(self.numbers, int), shape) if shape else ()
        labels = {}
        for d, (axis, along) in enumerate(zip(self.axes, index, strict=True)):
            labels[axis.name or f"axis_{d}"] = [axis.labels[i] for i in along]
        return labels


def counted(site: str, shape: Sequence[int]) -> Entries:
    """Return the entries of a parameter whose axes nothing names: loc[0, 1]."""
    axes = tuple(Axis("", tuple(range(size))) for size in shape)
    return Entries(site, axes, tuple(range(int(np.prod(shape, dtype=int)))))


def entries_of(bound: Bound) -> dict[str, Entries]:
    """Return the entries of each parameter of a program on its data, by site."""
    axes, entries = program_axes(bound).of_parameters, {}
    for name, parameter in bound.compiled.graph.parameters.items():
        numbers = _listed(parameter.constraint, parameter.shape)
        entries[name] = Entries(name, axes[name], numbers)
    return entries


def _listed(constraint: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of the entries that say something of their own."""
    kind, is_listed = type(entry_constraint(constraint)), np.ones(shape, bool)
    if kind in SYMMETRIC:
        is_listed = np.triu(is_listed)
    elif kind in TRIANGULAR:
        is_listed = np.tril(is_listed)
    return tuple(np.flatnonzero(is_listed).tolist())


def columns_of_entries(entries: Mapping[str, Entries]) -> list[Column]:
    """Return the columns that say of each row of a table which entry it is.

    `entry` prints; a data frame has the parameter and the labels along its axes, too.
    """
    sites: list[str] = []
    names: list[str] = []
    along: dict[str, list[Any]] = {}
    for site, each in entries.items():
        labels = each.labels()
        for axis in labels:
            # of parameters before that have no such axis
            along.setdefault(axis, [None] * len(names))
        for axis, values in along.items():
            values += labels.get(axis, [None] * len(each.numbers))
        sites += [site] * len(each.numbers)
        names += each.names
    columns = [Column("parameter", sites, is_printed=False)]
    columns += [Column(axis, values, is_printed=False) for axis, values in along.items()]
    return [Column("entry", names, title=""), *columns]
