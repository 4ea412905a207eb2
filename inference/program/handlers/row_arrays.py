"""Arrays of which the first axis are the rows, nested in dictionaries as columns of a table are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from emjax.program.array_like import no_numbers


class Nested(NamedTuple):
    """Arrays (row, …), and the arguments in which they were found."""

    arrays: list[Shaped[np.ndarray, "row ..."]]
    structure: Any

    def rebuilt(self) -> tuple[Any, ...]:
        """Return the arguments again, with these arrays."""
        return jax.tree.unflatten(self.structure, self.arrays)


def nested(*arguments: Any, where: str = "compress") -> Nested:
    """Return the arrays of arguments, each an array or a dictionary of such.

    Errors: `ValueError` for no array, arrays without rows, of objects, or of unequal length.
    """
    leaves, structure = jax.tree.flatten(
        arguments, is_leaf=lambda node: node is not arguments and not isinstance(node, Mapping)
    )
    arrays = [np.asarray(leaf) for leaf in leaves]
    if not arrays or any(array.ndim == 0 for array in arrays):
        raise ValueError(
            f"{where} takes one or more arrays whose first axis are the rows: "
            "compress(answers), compress(x, y)."
        )
    for number, array in enumerate(arrays):
        if array.dtype == object and (reason := no_numbers(f"Array {number}", array, "x")):
            raise ValueError(reason)
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{where} takes arrays of as many rows as one another, and a weight for each row; "
            f"these have {', '.join(map(str, lengths))}."
        )
    return Nested(arrays, structure)
