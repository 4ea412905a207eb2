"""Crossed plates: a small latent taken element by element, each a latent of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.elimination.factors import Factor, Variable, settled, without_repeats
from emjax.numerics.arrays import broadcast
from emjax.tables.indices import Affine, Dense, Index, index_of
from emjax.tables.named import Axis

# Each element is summed out by operations of its own, which all have to be traced and compiled.
MOST_SPLIT_ELEMENTS = 64


def split_elements(
    factors: Sequence[Factor], remaining: Mapping[Any, Variable]
) -> tuple[list[Factor], dict[Any, Variable]]:
    """Return factors and latents with the smallest coupled latent taken element by element.

    Each element is then a latent of its own, named (latent, element).
    """
    # an element's name is a tuple: what is one element already cannot be split
    candidates = [v for v in remaining.values() if not isinstance(v.name, tuple)]
    for variable in sorted(candidates, key=lambda v: (v.count, str(v.name))):
        read = [axis for factor in factors for axis in factor.axes_of(variable.name)]
        if variable.count <= MOST_SPLIT_ELEMENTS and all(axis.index.is_static for axis in read):
            rest = {name: v for name, v in remaining.items() if name != variable.name}
            return _split_factors(factors, variable.name), rest | _split_variable(variable)
    coupled = ", ".join(f"'{name}'" for name in remaining)
    raise ValueError(
        f"Latents {coupled} are coupled in a loop: one element of each meets several elements of "
        "another, and no order of elimination keeps the table small. Exact EM needs a tree: "
        "observe one of them, or let each row depend on one of them."
    )


def _split_variable(variable: Variable) -> dict[Any, Variable]:
    """Return each element of a latent as a latent of one element."""
    elements = {}
    for number in range(variable.count):
        multiplicity = variable.multiplicity
        if multiplicity is not None:
            flat = jnp.broadcast_to(multiplicity, variable.shape).reshape(-1)
            multiplicity = flat[number].reshape(())
        name = (variable.name, number)
        elements[name] = replace(variable, name=name, shape=(), multiplicity=multiplicity)
    return elements


def _split_factors(factors: Sequence[Factor], name) -> list[Factor]:
    """Return factors cut by the elements of a latent that they read."""
    pieces = []
    for factor in factors:
        pieces += _pieces(factor, name)
    return pieces


def _pieces(factor: Factor, name) -> list[Factor]:
    """Return a factor cut by the element of a latent that its rows read, one piece for each."""
    if not factor.axes_of(name):
        return [factor]
    rows, indices = _in_rows(factor)
    position = [axis.source for axis in rows.axes].index(name)
    elements = indices[position]
    pieces = []
    for element in np.unique(elements):
        which = np.flatnonzero(elements == element)
        axes = []
        for axis, index in zip(rows.axes, indices, strict=True):
            axes.append(replace(axis, index=_at_rows(index, which)))
        axes[position] = Axis((name, int(element)), axes[position].size, Affine(0, (0,)))
        piece = rows.mapped(lambda array, which=which: array[which], tuple(axes), which.shape)
        # another axis may read the same latent, at other elements
        pieces += _pieces(without_repeats(settled(piece)), name)
    return pieces


def _in_rows(factor: Factor) -> tuple[Factor, list]:
    """Return the factor with its elements in one axis, and the array that is each axis's index."""
    shape, rank = factor.shape, len(factor.shape)
    axes, indices = [], []
    for axis in factor.axes:
        elements = broadcast(axis.index.dense(shape), shape).reshape(-1)
        axes.append(replace(axis, index=Dense.of(elements)))
        indices.append(elements)

    def flattened(array):
        tail = array.shape[rank:]
        return jnp.broadcast_to(array, shape + tail).reshape((-1, *tail))

    return factor.mapped(flattened, tuple(axes), (math.prod(shape),)), indices


def _at_rows(index: Any, which: np.ndarray) -> Index:
    return index_of(index[which])
