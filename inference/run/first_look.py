"""A first pass over data in parts: every datum is checked, what all parts share is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from emjax.run import validation
from emjax.run.compiler import Compiler
from emjax.run.part_program import PartProgram, equal_in_all, part_program
from emjax.sources.part import Part
from emjax.sources.reservoir import Reservoir

# rows that are kept of a stream, for a start to be made of
ROWS_OF_RESERVOIR = 10_000
SEED_OF_RESERVOIR = 0


@dataclass(frozen=True, eq=False)
class FirstLook:
    """What a first pass over a stream has seen.

    - `program`: traced for its parts, in JAX's precision.
    - `sums`: what all parts share, added up in double precision.
    - `first`: its first part; `reservoir`: rows of all parts.
    - `num_rows`: how many rows it has, of each group.
    - `num_reals`: how many real numbers.
    """

    program: PartProgram
    sums: list[np.ndarray]
    first: Part
    reservoir: Part
    num_rows: tuple[int, ...]
    num_reals: int


def first_look(
    compiler: Compiler, parts: Iterable[Part], args: tuple, kwargs: Mapping[str, Any]
) -> FirstLook:
    """Return what a first pass over a stream sees, which checks every datum.

    Errors: `ValueError` for a datum that cannot be, which names its part and row, and for arguments
    without rows that differ between parts.
    """
    program, first, sums = None, None, None
    reservoir = Reservoir(ROWS_OF_RESERVOIR, SEED_OF_RESERVOIR)
    num_rows: list[int] = []
    num_reals = 0
    for number, part in enumerate(parts):
        if program is None or first is None:
            first = part
            program = part_program(compiler.model, compiler.settings, part, args, kwargs)
            num_rows = [0] * len(program.rows.room)
        elif (wider := program.rows.widened(part)).room != program.rows.room:
            program = part_program(compiler.model, compiler.settings, first, args, kwargs, wider)
        if name := equal_in_all(first, part, program.rows):
            raise ValueError(
                f"Chunk {number} of the stream has another argument{name} than the first, which "
                "has no rows: what all share is a further argument, em.run(key, stream, shared)."
            )
        counts = program.rows.counts(part)
        found, violations = jax.device_get(program.looked_at(program.data(part)))
        try:
            validation.check_data(program.pure.graph, violations)
        except ValueError as error:
            before = ", ".join(map(str, num_rows))
            raise ValueError(
                f"Chunk {number} of the stream, which begins at row {before} of all: {error}"
            ) from error
        found = [np.asarray(one, np.float64) for one in found]
        sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        num_rows = [a + b for a, b in zip(num_rows, counts, strict=True)]
        num_reals += _num_reals(part)
        pairs = zip(program.rows.groups, program.rows.along, strict=True)
        reservoir.add(part, [None if group is None else axis for group, axis in pairs])
    if program is None or first is None or sums is None:
        raise ValueError("The stream yields no data.")
    return FirstLook(program, sums, first, reservoir.part, tuple(num_rows), num_reals)


def _num_reals(part: Part) -> int:
    leaves = jax.tree.leaves((part.args, dict(part.kwargs)))
    arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]
    return sum(leaf.size for leaf in arrays if np.issubdtype(leaf.dtype, np.floating))
