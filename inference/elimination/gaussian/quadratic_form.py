"""All that is known of a Gaussian latent, as one quadratic form over its elements.

Its pieces and what it is drawn from run over the elements of their own plates. Here they are laid
out over the latent's elements and added up, which is possible where each of its elements determines
the elements of all other latents that it meets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.elimination.alignment import laid_out
from emjax.elimination.factors import Factor, Variable, divisor_of
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.meeting import Covered, met_together
from emjax.numerics.axes import arranged
from emjax.tables.named import Axis, Coordinates

# labels of the two axes over the coordinates of the latent itself
OWN, AGAIN = "own", "again"


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """What the elements f of a latent contribute, given the others that they meet.

    The exponent is hᵀf − ½ fᵀJf + Σ_k fᵀC_k g_k, and f ~ N(m + Σ_k R_k g_k, L Lᵀ). All arrays
    begin with the elements of f and the values of `discrete`, of length 1 where they do not vary.

    - `discrete`: the axes of the discrete latents that an element meets.
    - `parents`: the elements g_k of Gaussian latents that it meets.
    - `linear`: h, (…, q). None: zero.
    - `precision`: J, (…, q, q), symmetric. None: zero.
    - `cross`: C_k, (…, q, q_k), by the place of g_k in `parents`.
    - `mean`: m, (…, q). None: zero.
    - `scale`: L, (…, q, q).
    - `coefficients`: R_k, (…, q, q_k), likewise by place.
    """

    variable: Variable
    discrete: tuple[Axis, ...]
    parents: tuple[Coordinates, ...]
    linear: Any
    precision: Any
    cross: Mapping[int, Any]
    mean: Any
    scale: Any
    coefficients: Mapping[int, Any]

    @property
    def num_lead(self) -> int:
        """How many axes elements and values of `discrete` are."""
        return len(self.variable.shape) + len(self.discrete)


@dataclass(frozen=True, eq=False)
class _Entry:
    """A table of the form: what it is, and the factor, laid out over the latent's elements.

    - `labels`: of the axes of the factor's array behind those of its elements.
    """

    kind: str
    factor: Factor
    labels: tuple
    covered: Covered


def quadratic_form(
    name: Any,
    pieces: Sequence[Factor],
    conditionals: Sequence[Conditional],
    remaining: Mapping[Any, Variable],
) -> QuadraticForm | None:
    """Return all of a latent laid out over its elements; None if one would meet several of another.

    - `pieces`: those that read the latent.
    - `conditionals`: what it is drawn from.
    """
    variable = remaining[name]
    entries: list[_Entry] = []
    for kind, factor, is_total in _tables(name, pieces, conditionals):
        entry = _entry(kind, factor, variable, remaining)
        if entry is None:
            return None
        if is_total and variable.multiplicity is not None:
            entry = _divided(entry, variable)
        entries.append(entry)
    entries = _met_together(entries)
    axes: dict = {}
    for entry in entries:
        axes |= {axis.key: axis for axis in entry.factor.axes if axis.source != name}
    discrete = tuple(axis for axis in axes.values() if not isinstance(axis, Coordinates))
    parents = tuple(axis for axis in axes.values() if isinstance(axis, Coordinates))
    return _added_up(entries, variable, discrete, parents)


def _tables(
    name: Any, pieces: Sequence[Factor], conditionals: Sequence[Conditional]
) -> Iterable[tuple[str, Factor, bool]]:
    """Yield the kind of each table of the form, its factor, and whether it is a total."""
    for piece in pieces:
        yield "piece", piece, not piece.without_multiplicity
    for conditional in conditionals:
        if not _is_zero(conditional.mean):
            yield "mean", conditional.mean, False
        yield "scale", conditional.scale, False
        for coefficients in conditional.coefficients:
            yield "coefficients", coefficients, False


def _is_zero(factor: Factor) -> bool:
    """Whether a factor is known to be zero before any parameter is seen."""
    array = factor.array
    return isinstance(array, np.ndarray) and not array.any()


def _entry(
    kind: str, factor: Factor, variable: Variable, remaining: Mapping[Any, Variable]
) -> _Entry | None:
    """Return a table laid out over the elements of a latent; None if that cannot be."""
    own = factor.axes_of(variable.name)
    if len({axis.key for axis in own}) > 1:
        # differences of two elements, such as those of two steps in time
        return None
    rank = len(factor.shape)
    if len(own) == 2:
        # one axis says which element it is; the other goes to the end, without a name
        second = max(i for i, axis in enumerate(factor.axes) if axis.source == variable.name)
        axes = tuple(axis for i, axis in enumerate(factor.axes) if i != second)
        factor = factor.mapped(
            lambda array: jnp.moveaxis(array, rank + second, -1), axes, factor.shape
        )
    laid = laid_out(factor, variable, remaining)
    if laid is None:
        return None
    labels = [OWN if axis.source == variable.name else axis.key for axis in laid.axes]
    if kind == "scale" or len(own) == 2:
        labels.append(AGAIN)
    return _Entry(kind, laid, tuple(labels), Covered.by(own[0], factor.shape, variable))


def _divided(entry: _Entry, variable: Variable) -> _Entry:
    """Return a total divided by how often each element counts."""

    def divided(array):
        divisor = divisor_of(variable.multiplicity)
        return array / divisor.reshape(divisor.shape + (1,) * len(entry.labels))

    factor = entry.factor
    return replace(entry, factor=factor.mapped(divided, factor.axes, factor.shape))


def _met_together(entries: Sequence[_Entry]) -> list[_Entry]:
    """Return the entries with one axis for what those of different elements meet.

    The first step of a scan and the others are drawn apart, and meet another latent apart.
    """
    meetings = []
    for entry in entries:
        meetings += [(axis, entry.covered) for axis in entry.factor.axes]
    one = met_together(meetings)
    merged = []
    for entry in entries:
        axes = tuple(one[axis.key] for axis in entry.factor.axes)
        renamed = {axis.key: one[axis.key].key for axis in entry.factor.axes}
        labels = tuple(renamed.get(label, label) for label in entry.labels)
        merged.append(replace(entry, factor=replace(entry.factor, axes=axes), labels=labels))
    return merged


def _added_up(
    entries: Sequence[_Entry],
    variable: Variable,
    discrete: tuple[Axis, ...],
    parents: tuple[Coordinates, ...],
) -> QuadraticForm:
    """Return the form that entries of the same elements add up to."""
    rank = len(variable.shape)
    values = [axis.key for axis in discrete]
    sums: dict = {}
    for entry in entries:
        kind, coordinates = _place(entry, parents)
        array = jnp.asarray(entry.factor.array)
        array = arranged(array, entry.labels, [*values, *coordinates], rank)
        place = kind, coordinates[1:]
        sums[place] = sums[place] + array if place in sums else array
    square = sums.get(("square", (AGAIN,)))

    def by_parent(kind):
        found = {k: sums.get((kind, (axis.key,))) for k, axis in enumerate(parents)}
        return {k: array for k, array in found.items() if array is not None}

    return QuadraticForm(
        variable,
        discrete,
        parents,
        linear=sums.get(("linear", ())),
        # by both halves, so that derivatives are symmetric
        precision=None if square is None else -(square + square.mT),
        cross=by_parent("cross"),
        mean=sums.get(("mean", ())),
        scale=sums["scale", (AGAIN,)],
        coefficients=by_parent("coefficients"),
    )


def _place(entry: _Entry, parents: Sequence[Coordinates]) -> tuple[str, tuple]:
    """Return which table of the form an entry is a part of, and its axes over coordinates."""
    if AGAIN in entry.labels:
        return ("square" if entry.kind == "piece" else "scale"), (OWN, AGAIN)
    for parent in parents:
        if parent.key in entry.labels:
            return ("cross" if entry.kind == "piece" else "coefficients"), (OWN, parent.key)
    return ("linear" if entry.kind == "piece" else "mean"), (OWN,)
