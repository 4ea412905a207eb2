"""Which uses of Gaussian latents have no exact integral that this room knows of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax.numpy as jnp

from emjax.elimination.alignment import laid_out
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.elimination.gaussian.grid import Grid
from emjax.tables.lifting import ALIVE_AT_ONCE, available_memory
from emjax.tables.named import Axis, Coordinates


def refuse_discrete(name: Any, factor: Factor) -> NoReturn:
    """Raise the error of a vector of all elements of a latent that meets several labels."""
    labels = [axis.source for axis in factor.axes if not isinstance(axis, Coordinates)]
    raise ValueError(_sentence(name, labels[0]))


def check_discrete(name: Any, factors: Sequence[Factor], remaining: Mapping[Any, Variable]) -> None:
    """Raise `ValueError` if an element of a Gaussian latent meets several of a discrete one.

    `factors`: its pieces, and what it is drawn from.
    """
    variable = remaining[name]
    for factor in factors:
        own = factor.axes_of(name)
        for axis in factor.axes:
            if isinstance(axis, Coordinates):
                continue
            label = remaining[axis.source]
            if variable.encloses(label) or not all(
                determines(along, axis, factor.shape, variable, remaining) for along in own
            ):
                raise ValueError(_sentence(name, axis.source))


def determines(
    along: Axis,
    axis: Axis,
    shape: tuple[int, ...],
    variable: Variable,
    remaining: Mapping[Any, Variable],
) -> bool:
    """Whether each element that one axis reads meets one element along another."""
    cell = Factor((along, axis), shape, Cells(jnp.zeros((1,) * (len(shape) + 2))))
    return laid_out(cell, variable, remaining) is not None


def _sentence(name: Any, label: Any) -> str:
    return (
        f"Site '{name}' is to be integrated out, and one element of it meets several elements of "
        f"the discrete latent '{label}': its exact integral has one term for each of their "
        f"configurations. Either\n"
        f"  - give each element of '{name}' one label: draw '{label}' in the plate of '{name}' "
        f"(for each group, or each sequence), and read it as '{name}' is read, "
        f"`{label}[group]` beside `{name}[group]`, or\n"
        f"  - leave '{name}' out of integrate={{…}}: it is then a parameter, estimated under its "
        "prior."
    )


def count_equally(members: Sequence[Variable], grid: Grid) -> bool:
    """Whether all elements of some latents that meet one another count equally often."""
    first = members[0]
    if any(member.multiplicity_key != first.multiplicity_key for member in members):
        return False
    if first.multiplicity is None:
        return True
    return all(first.multiplicity.shape[d] == 1 for d in grid.inner_of(first))


def refuse_multiplicity(members: Sequence) -> NoReturn:
    """Raise the error of coupled latents whose elements do not count equally often."""
    names = ", ".join(f"'{name}'" for name in members)
    raise ValueError(
        f"Elements of the Gaussian latents {names} are coupled with one another, and do not count "
        "equally often: log Z is no integral of one Gaussian then. Use `handlers.scale`, a "
        "`subsample_size` or weights outside of the plates of these latents, or leave one out of "
        "integrate={…}."
    )


def check_memory_of(names: Sequence, entries: int) -> None:
    """Raise `MemoryError` for matrices of so many entries that this machine cannot hold."""
    needed, available = 8 * entries, available_memory()
    if needed <= available / ALIVE_AT_ONCE:
        return
    listed = ", ".join(f"'{name}'" for name in names)
    raise MemoryError(
        f"The Gaussian latents {listed} are crossed: all their elements are coupled, and their "
        f"covariances as one vector need {needed / 2**30:.3g} GiB several times over, and this "
        f"machine has {available / 2**30:.3g} GiB. Integrate the largest of them alone, the others "
        "being parameters, or pass fewer groups at once."
    )
