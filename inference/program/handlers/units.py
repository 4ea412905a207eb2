"""Which elements of a program are its independent units, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from emjax.program.handlers.plates import Plate, plate_named
from emjax.program.handlers.weights import weighted


@dataclass(frozen=True, eq=False)
class Units:
    """The independent units of a program: the elements of a plate, with rows of other plates.

    - `size`: how many there are.
    - `rows`: {another plate: to which unit each of its rows belongs}.
    """

    plate: str
    size: int
    rows: Mapping[str, np.ndarray]

    @property
    def key(self) -> tuple:
        """What identifies them."""
        rows = [(name, index.tobytes()) for name, index in self.rows.items()]
        return ("units", self.plate, *rows)

    def __str__(self) -> str:
        return f"plate '{self.plate}'" + "".join(
            f", with their rows of '{name}'" for name in self.rows
        )

    def weighted(self, model: Callable) -> Callable:
        """Return the program (weights, *args, **kwargs) in which unit n counts weights[n] times.

        All its rows do so.
        """

        def program(weights, *args, **kwargs):
            with_rows = model
            for name, index in self.rows.items():
                with_rows = partial(weighted(with_rows, name), weights[index])
            return weighted(with_rows, self.plate)(weights, *args, **kwargs)

        return program


def units_of(plates: Mapping[str, Plate], plate: str | None, rows: Mapping | None) -> Units:
    """Return the units that a plate's elements are; by default, of the only outermost one.

    `rows`: {another plate: to which element each of its rows belongs}. Errors: `ValueError` for
    plates that the program does not have, and rows that belong to no element.
    """
    unit = plate_named(plates, plate)
    checked = {
        other: _checked_rows(index, unit, plate_named(plates, other))
        for other, index in dict(rows or {}).items()
    }
    return Units(unit.name, unit.size, checked)


def _checked_rows(index: Any, plate: Plate, other: Plate) -> np.ndarray:
    index = np.asarray(index)
    is_integer = index.shape == (other.size,) and np.issubdtype(index.dtype, np.integer)
    if not is_integer or (index < 0).any() or (index >= plate.size).any():
        raise ValueError(
            f"rows['{other.name}'] must say, for each of the {other.size} elements of that plate, "
            f"which of the {plate.size} elements of '{plate.name}' it belongs to: "
            f"whole numbers from 0. It has shape {index.shape} and type {index.dtype}."
        )
    return index
