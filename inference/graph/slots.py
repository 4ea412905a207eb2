"""Slots in place of the arrays of a factor graph, which are known only when the program runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from emjax.graph.terms import Features, Term, naturals_of
from emjax.tables.indices import Dense
from emjax.tables.named import Axis, Named


@dataclass(frozen=True)
class Slot:
    """Stands for an array that is known only when the program runs."""

    number: int
    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Slots:
    """Puts slots in place of traced arrays; `arrays` are these, in the order of their numbers."""

    def __init__(self):
        self.arrays: list = []

    def stored(self, value: Named) -> Named:
        """Return the value with slots in place of its traced arrays."""
        axes = _axes_with(self._slot, value.axes)
        return Named(self._slot(value.array), value.shape, axes, value.content)

    def stored_term(self, term: Term) -> Term:
        """Return the term with slots in place of its traced arrays."""
        # its latents' axes are no named value of their own
        axes, reads = (_axes_with(self._slot, each) for each in (term.latent_axes, term.reads))
        return replace(_term_with(self.stored, term), latent_axes=axes, reads=reads)

    def _slot(self, array):
        # what is known is no slot, nor is what is computed in every step
        if isinstance(array, np.ndarray | np.generic | jax.ShapeDtypeStruct):
            return array
        self.arrays.append(array)
        return Slot(len(self.arrays) - 1, tuple(array.shape), array.dtype)


def filled(value: Named, arrays: Sequence) -> Named:
    """Return the value with the arrays of its slots."""
    array = _in_slot(value.array, arrays)
    return replace(value, array=array, axes=filled_axes(value.axes, arrays))


def filled_axes(axes: Sequence[Axis], arrays: Sequence) -> tuple[Axis, ...]:
    """Return the axes with the arrays of their indices' slots."""
    return _axes_with(lambda array: _in_slot(array, arrays), axes)


def filled_term(term: Term, arrays: Sequence) -> Term:
    """Return the term with arrays in place of its slots."""
    axes, reads = (filled_axes(each, arrays) for each in (term.latent_axes, term.reads))
    filled_values = _term_with(lambda value: filled(value, arrays), term)
    return replace(filled_values, latent_axes=axes, reads=reads)


def term_naturals(term: Term, arrays: Sequence, instead: Features | None = None) -> list[Named]:
    """Return a term's natural-parameter tables η_i at the parameters that arrays are those of."""
    return naturals_of(filled_term(term, arrays), instead)


def _in_slot(array, arrays: Sequence):
    return arrays[array.number] if isinstance(array, Slot) else array


def _axes_with(function: Callable, axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Return axes with a function applied to the arrays of their indices."""
    return tuple(
        replace(axis, index=axis.index.with_arrays(function))
        if isinstance(axis.index, Dense)
        else axis
        for axis in axes
    )


def _term_with(function: Callable[[Named], Named], term: Term) -> Term:
    """Return a term with a function applied to its named values, all but its latents' axes."""

    def each(values: Mapping[str, Named]) -> dict[str, Named]:
        return {name: function(value) for name, value in values.items()}

    return replace(
        term,
        arguments=each(term.arguments),
        statistics=replace(term.statistics, inputs=each(term.statistics.inputs)),
        base=function(term.base),
        naturals=tuple(map(function, term.naturals)),
        origin=None if term.origin is None else function(term.origin),
        value=function(term.value),
        prior_arguments=each(term.prior_arguments),
        ones=None if term.ones is None else function(term.ones),
        gate=None if term.gate is None else function(term.gate),
        counted=tuple(map(function, term.counted)),
        patterns=each(term.patterns),
    )
