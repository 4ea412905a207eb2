"""How parts of the data become arguments of one shape: which arrays have rows, and how many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.program.handlers.plates import Plate, Plates
from emjax.program.handlers.weights import weighted
from emjax.sources.part import Part


@dataclass(frozen=True, eq=False)
class PartRows:
    """Which arguments of a part have rows, and room for how many there is.

    - `plates`: {plate: the number of its group}, of those that a part has some elements of. Rows of
      one group are counted together.
    - `groups`: of each leaf of the part's arguments the number of its group; None: it has no rows,
      and is the same in all parts.
    - `along`: of each leaf the axis that its rows lie along.
    - `room`: how many rows there are of each group, after padding.
    - `axes`: {sample site: {axis of its value, counted from the right: the number of its group}}.
    """

    plates: Mapping[str, int]
    groups: tuple[int | None, ...]
    along: tuple[int, ...]
    room: tuple[int, ...]
    axes: Mapping[str, Mapping[int, int]]

    @classmethod
    def of(cls, seen: Plates, part: Part, are_last: bool = False) -> PartRows:
        """Return the rows of a part. `seen`: the plates of the program on it.

        `are_last`: whether rows lie along the last axis that is as long as a plate, not the first.
        Errors: `ValueError` where no plate is as long as an array of the part.
        """
        shapes = [_shape(leaf) for leaf in leaves_of(part)]
        lengths = [shape[0] for shape in shapes if shape]
        names = _plates_of(seen.plates, part, lengths)
        sizes = [seen.plates[name].size for name in names]
        room = tuple(dict.fromkeys(sizes))
        # plates that are counted apart are so, though they are of one size
        if part.counts:
            room = tuple(sizes)
            plates = {name: number for number, name in enumerate(names)}
        else:
            plates = {name: room.index(size) for name, size in zip(names, sizes, strict=True)}
        groups, along = [], []
        for shape in shapes:
            fitting = [axis for axis, length in enumerate(shape) if length in room]
            axis = fitting[-1 if are_last else 0] if fitting else 0
            groups.append(room.index(shape[axis]) if fitting else None)
            along.append(axis)
        axes: dict[str, dict[int, int]] = {}
        for site, of_site in seen.axes.items():
            axes[site] = {axis: plates[name] for axis, name in of_site.items() if name in plates}
        return cls(plates, tuple(groups), tuple(along), room, axes)

    def program(self, model: Callable) -> Callable:
        """Return the program (a plate's weights …, *args, **kwargs)."""
        for plate in self.plates:
            model = weighted(model, plate)
        return model

    def counts(self, part: Part) -> list[int]:
        """Return how many rows of each group are real."""
        if part.counts:
            return [int(part.counts[name]) for name in self.plates]
        found = list(self.room)
        for group, axis, leaf in zip(self.groups, self.along, leaves_of(part), strict=True):
            if group is not None:
                found[group] = leaf.shape[axis]
        return found

    def widened(self, part: Part) -> PartRows:
        """Return the same with room for this part, too."""
        counts = self.counts(part)
        return replace(self, room=tuple(map(max, self.room, counts)))

    def weights(self, counts: Sequence[int]) -> list[np.ndarray]:
        """Return the weights of the program's plates, in the order in which it takes them."""
        weights = []
        for group in self.plates.values():
            of_plate = np.zeros(self.room[group], jnp.result_type(float))
            of_plate[: counts[group]] = 1
            weights.append(of_plate)
        # the plate that was weighted last is the outermost program's
        return weights[::-1]

    def padded(self, part: Part) -> Part:
        """Return a part with as many rows as there is room for: those added are its first."""
        leaves, tree = jax.tree.flatten((part.args, dict(part.kwargs)))
        filled = []
        for group, axis, leaf in zip(self.groups, self.along, leaves, strict=True):
            has_rows = group is not None
            filled.append(_of_length(leaf, axis, self.room[group]) if has_rows else leaf)
        args, kwargs = jax.tree.unflatten(tree, filled)
        return Part(args, kwargs, part.counts)

    def cut(self, site: str, value: Any, counts: Sequence[int], rank: int) -> Any:
        """Return values of a site, and perhaps more axes, without rows that were added.

        `rank`: the number of axes of its value; a tree of arrays is cut likewise.
        """
        where = [slice(None)] * rank
        for axis, group in self.axes.get(site, {}).items():
            where[rank + axis] = slice(counts[group])
        return jax.tree.map(lambda array: np.asarray(array)[tuple(where)], value)


def leaves_of(part: Part) -> list[Any]:
    """Return the leaves of a part's arguments."""
    return jax.tree.leaves((part.args, dict(part.kwargs)))


def _shape(leaf: Any) -> tuple[int, ...]:
    return leaf.shape if isinstance(leaf, np.ndarray | jax.Array) else ()


def _plates_of(plates: Mapping[str, Plate], part: Part, lengths: Sequence[int]) -> list[str]:
    """Return the names of the plates that a part has some elements of."""
    if part.counts:
        missing = [name for name in part.counts if name not in plates]
        if missing:
            raise ValueError(
                f"A part of the data counts the elements of plate {missing[0]!r}, and the program "
                f"has {', '.join(map(repr, plates)) or 'none'}."
            )
        return list(part.counts)
    with_rows = [plate for plate in plates.values() if plate.has_data and plate.size in lengths]
    outermost = [plate for plate in with_rows if not plate.around]
    if not outermost:
        listed = ", ".join(f"'{plate.name}' ({plate.size})" for plate in plates.values())
        raise ValueError(
            "The data come in parts, so that the program needs an outermost plate of as many "
            f"elements as a part has rows ({', '.join(map(str, lengths))}). Its "
            f"plates (and sizes) are: {listed or 'none'}. Write with numpyro.plate('rows', "
            "len(x)): ..., and take its size from the data."
        )
    return [plate.name for plate in outermost]


def _of_length(leaf: Any, axis: int, length: int) -> np.ndarray:
    """Return rows along an axis, cut or filled up with copies of the first."""
    rows = np.asarray(leaf)
    number = rows.shape[axis]
    if number == length:
        return rows
    where = np.arange(length)
    return rows.take(np.where(where < number, where, 0), axis)
