"""Crossed plates: a small latent taken element by element, each a latent of its own."""

from __future__ import annotations

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from emjax.elimination.factors import Factor, Variable, settled
from emjax.tables.indices import Affine, Dense
from emjax.tables.lookup import affine
from emjax.tables.named import Axis, constant

MOST_SPLIT_ELEMENTS = 64


def split_elements(factors: list[Factor], remaining: dict) -> tuple[list[Factor], dict]:
    """Take the smallest coupled latent element by element: its elements become latents of their
    own.
    """
    candidates = sorted(
        (math.prod(v.shape), str(name))
        for name, v in remaining.items()
        if not isinstance(name, tuple)
    )
    names = {str(name): name for name in remaining}
    for count, text in candidates:
        name = names[text]
        known = all(axis.index.is_known for f in factors for axis in f.axes if axis.source == name)
        if known and count <= MOST_SPLIT_ELEMENTS:
            return _split(factors, remaining, name)
    coupled = ", ".join(f"'{name}'" for name in remaining)
    raise ValueError(
        f"Latents {coupled} are coupled in a loop: one element of each meets several elements of "
        "another, and no order of elimination "
        "keeps the table small. Exact EM needs a tree: observe one of them, or let each row depend "
        "on one of them."
    )


def _split(factors, remaining, name):
    variable = remaining.pop(name)
    count = math.prod(variable.shape)
    for element in range(count):
        multiplicity = (
            None
            if variable.multiplicity is None
            else jnp.broadcast_to(variable.multiplicity, variable.shape)
            .reshape(-1)[element]
            .reshape(())
        )
        remaining[(name, element)] = Variable(
            (name, element),
            variable.size,
            (),
            multiplicity,
            variable.multiplicity_key,
            variable.plates,
            variable.order,
        )
    return [piece for factor in factors for piece in _pieces(factor, name)], remaining


def _pieces(factor: Factor, name) -> list[Factor]:
    """Cut a factor by the element of a latent that it touches."""
    position = next((i for i, axis in enumerate(factor.axes) if axis.source == name), None)
    if position is None:
        return [factor]
    axis, shape, rank = factor.axes[position], factor.shape, len(factor.shape)
    flat = np.broadcast_to(axis.index.dense(shape), shape).reshape(-1)
    array = factor.array
    values = jnp.broadcast_to(array, shape + array.shape[rank:]).reshape((-1,) + array.shape[rank:])
    pieces = []
    for element in np.unique(flat):
        rows = np.flatnonzero(flat == element)
        axes = []
        for i, other in enumerate(factor.axes):
            if i == position:
                axes.append(Axis((name, int(element)), axis.size, Affine(0, (0,))))
            else:
                dense = other.index.dense(shape)
                dense = (
                    (np if isinstance(dense, np.ndarray) else jnp)
                    .broadcast_to(dense, shape)
                    .reshape(-1)[rows]
                )
                found = affine(constant(dense)) if isinstance(dense, np.ndarray) else None
                axes.append(replace(other, index=found or Dense.of(dense)))
        piece = settled(factor.replaced(values[rows], tuple(axes), (len(rows),)))
        pieces.extend(_pieces(_without_repeats(piece), name))
    return pieces


def _without_repeats(factor: Factor) -> Factor:
    """Two axes of a factor that read the same element become one."""
    keys = [axis.key for axis in factor.axes]
    for i, key in enumerate(keys):
        if key in keys[:i]:
            rank = len(factor.shape)
            first = keys.index(key)
            array = jnp.moveaxis(
                jnp.diagonal(factor.array, axis1=rank + first, axis2=rank + i), -1, rank + first
            )
            return _without_repeats(
                factor.replaced(array, factor.axes[:i] + factor.axes[i + 1 :], factor.shape)
            )
    return factor
