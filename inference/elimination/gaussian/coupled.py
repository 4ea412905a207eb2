"""Which latents to make one vector of, where elements meet several elements of one another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from emjax.elimination.factors import Factor, Variable
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.grid import Grid, shared_grid
from emjax.elimination.gaussian.refusals import (
    check_discrete,
    check_memory_of,
    count_equally,
    determines,
    refuse_multiplicity,
)
from emjax.elimination.gaussian.whole import Whole
from emjax.tables.named import Coordinates


def coupled_as_whole(
    pieces: Sequence[Factor], conditionals: Sequence[Conditional], remaining: Mapping[Any, Variable]
) -> Whole:
    """Return the smallest latents such that another can be integrated out once they are a vector.

    Errors: `ValueError` where an element meets several elements of a discrete latent, or where
    coupled elements do not count equally often; `MemoryError` for a vector that would not fit.
    """
    names = list(dict.fromkeys(conditional.own.source for conditional in conditionals))
    factors = {name: _touching(name, pieces, conditionals) for name in names}
    for name in names:
        check_discrete(name, factors[name], remaining)
    grids = _grids(names, factors, remaining)
    groups = []
    for name in names:
        group = _with_parents(name, conditionals, remaining, grids[name])
        is_vector = len(group) == 1 and grids[name].count_of(remaining[name]) == 1
        if not (is_vector and not _is_mixed(name, conditionals)):
            groups.append(group)
    groups.sort(key=lambda group: sum(remaining[n].count * remaining[n].size for n in group))
    # a latent that counts several times within another is no part of a vector with others
    equal = []
    for group in groups:
        if count_equally([remaining[name] for name in group], grids[group[0]]):
            equal.append(group)
    if not equal:
        refuse_multiplicity(groups[0])
    chosen = equal[0]
    for group in equal:
        after = last_drawn(conditionals) - set(group)
        if any(_is_ready(name, factors[name], remaining, group) for name in after):
            chosen = group
            break
    members = {member: remaining[member] for member in chosen}
    whole = Whole("' and '".join(chosen), members, grids[chosen[0]])
    _check_memory(whole, pieces, remaining)
    return whole


def _grids(
    names: Sequence, factors: Mapping[Any, Sequence[Factor]], remaining: Mapping[Any, Variable]
) -> dict[Any, Grid]:
    """Return the axes that each latent shares with all that it is coupled with."""
    several = [name for name in names if remaining[name].count > 1]
    grids = {name: Grid((), {}) for name in names}
    while several:
        coupled = [several.pop(0)]
        # those that some factor reads along with one, and those with these
        for name in coupled:
            for factor in factors[name]:
                more = [other for other in several if factor.axes_of(other)]
                coupled += more
                several = [other for other in several if other not in more]
        read = [factor for name in coupled for factor in factors[name]]
        grids |= dict.fromkeys(coupled, shared_grid(coupled, read, remaining))
    return grids


def _check_memory(
    whole: Whole, pieces: Sequence[Factor], remaining: Mapping[Any, Variable]
) -> None:
    """Raise `MemoryError` if what meets a vector, or its own matrix, is too large."""
    names, rows = list(whole.members), math.prod(whole.grid.shape) * whole.size
    for piece in pieces:
        if piece.reads_any(whole.members):
            others = {axis.source for axis in piece.axes if isinstance(axis, Coordinates)}
            for other in others - set(names):
                names.append(other)
                rows += remaining[other].count * remaining[other].size
    check_memory_of(names, rows * whole.size)


def _touching(
    name: Any, pieces: Sequence[Factor], conditionals: Sequence[Conditional]
) -> list[Factor]:
    """Return all factors that read a latent, those of what others are drawn from, too."""
    factors = [*pieces]
    for conditional in conditionals:
        factors += [conditional.mean, conditional.scale, *conditional.coefficients]
    return [factor for factor in factors if factor.axes_of(name)]


def _with_parents(
    name: Any,
    conditionals: Sequence[Conditional],
    remaining: Mapping[Any, Variable],
    grid: Grid,
) -> list:
    """Return a latent with those of which its elements are drawn from several elements."""
    group = [name]
    while True:
        more: list = []
        for conditional in conditionals:
            if conditional.own.source not in group:
                continue
            for axis in itertools.chain(*map(_parents, conditional.coefficients)):
                if any(axis.varies) and grid.count_of(remaining[axis.source]) > 1:
                    more.append(axis.source)
        more = [parent for parent in dict.fromkeys(more) if parent not in group]
        if not more:
            return group
        group += more


def _parents(coefficients: Factor) -> list[Coordinates]:
    return [axis for axis in coefficients.axes if isinstance(axis, Coordinates)][1:]


def _is_mixed(name: Any, conditionals: Sequence[Conditional]) -> bool:
    """Whether a latent is drawn from itself, at other elements."""
    own = [c for c in conditionals if c.own.source == name]
    parents = [axis.source for c in own for r in c.coefficients for axis in _parents(r)]
    return name in parents


def last_drawn(conditionals: Sequence[Conditional]) -> set:
    """Return the latents that no other is drawn from."""
    parents: set = set()
    for conditional in conditionals:
        for coefficients in conditional.coefficients:
            parents |= {axis.source for axis in _parents(coefficients)}
    return {conditional.own.source for conditional in conditionals} - parents


def _is_ready(
    name: Any, factors: Sequence[Factor], remaining: Mapping[Any, Variable], vector: Collection
) -> bool:
    """Whether a latent's elements determine all others that they meet, a vector's aside."""
    variable = remaining[name]
    for factor in factors:
        own = factor.axes_of(name)
        if len({axis.key for axis in own}) > 1:
            return False
        for axis in factor.axes:
            if axis.source == name:
                continue
            if variable.encloses(remaining[axis.source]):
                return False
            if axis.source in vector:
                continue
            if not determines(own[0], axis, factor.shape, variable, remaining):
                return False
    return True
