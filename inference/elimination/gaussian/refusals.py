"""Which uses of Gaussian latents have no exact integral that this room knows of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from emjax.elimination.alignment import laid_out
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.tables.named import Axis, Coordinates


def check_labels(name: Any, factors: Sequence[Factor], remaining: Mapping[Any, Variable]) -> None:
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
                _determines(along, axis, factor.shape, variable, remaining) for along in own
            ):
                raise ValueError(_sentence(name, axis.source))


def _determines(
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
