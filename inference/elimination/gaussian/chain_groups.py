"""Gaussian latents that are coupled over steps, found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emjax.elimination.chains.in_time import dims_in_time
from emjax.elimination.factors import Factor, Variable
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Coordinates


def groups_in_time(
    factors: Sequence[Factor], variables: Mapping[Any, Variable], names: set
) -> list[tuple]:
    """Return the groups of latents that factors couple at different elements.

    `names`: those of the Gaussian latents.
    """
    groups: list[set] = []
    for factor in factors:
        inside = [axis for axis in factor.axes if axis.source in names]
        for i, axis in enumerate(inside):
            for other in inside[:i]:
                if _is_elsewhere(axis, other):
                    groups.append({axis.source, other.source})
    apart: list[set] = []
    for group in groups:
        joint = [other for other in apart if other & group]
        apart = [other for other in apart if not other & group]
        apart.append(group.union(*joint))
    return [_with_all_steps(group, factors, variables, names) for group in apart]


def _is_elsewhere(axis: Axis, other: Axis) -> bool:
    """Whether two axes read different elements of one latent, or of two that are alike."""
    if axis.source == other.source:
        return axis.index.key != other.index.key
    if not (isinstance(axis.index, Affine) and isinstance(other.index, Affine)):
        return False
    is_alike = axis.index.strides == other.index.strides and any(axis.varies)
    return is_alike and axis.index.offset != other.index.offset


def _with_all_steps(
    group: set, factors: Sequence[Factor], variables: Mapping[Any, Variable], names: set
) -> tuple:
    """Return a group with all other Gaussian latents that are read step by step along with it."""
    while True:
        more: set = set()
        for factor in factors:
            dims = dims_in_time(factor, tuple(group), variables)
            more |= {axis.source for axis in factor.axes if any(axis.varies[d] for d in dims)}
        if not more & names - group:
            return tuple(sorted(group, key=str))
        group = group | more & names


def check_no_switching(factor: Factor, names: tuple, variables: Mapping[Any, Variable]) -> None:
    """Raise a `ValueError` for a discrete latent that varies in time along with a chain."""
    inside = [axis for axis in factor.axes if axis.source in names]
    if not all(isinstance(axis.index, Affine) for axis in inside):
        return
    dims = dims_in_time(factor, names, variables)
    for axis in factor.axes:
        if not isinstance(axis, Coordinates) and any(axis.varies[d] for d in dims):
            raise ValueError(
                f"The discrete latent '{axis.source}' varies in time along with the Gaussian "
                f"latent '{inside[0].source}', whose steps are coupled: log Z would have one term "
                f"for each path of '{axis.source}'. Sample '{axis.source}' outside of the scan, "
                "once for each series, which makes a mixture of chains; or observe it; or leave "
                f"'{inside[0].source}' out of `integrate`."
            )
