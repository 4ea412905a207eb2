"""The named values of a program's latents, and propagation with them in place of their symbols."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Var

from emjax.numerics.arrays import LARGEST_KNOWN
from emjax.numerics.jaxprs import dependencies, opened
from emjax.program.latents import GaussianLatent, Latent, latent_p
from emjax.program.trace import Program
from emjax.tables.affine_values import AffineValue, affine_value, zero
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Coordinates, MixedElements, Named
from emjax.tables.propagate import Value, propagate
from emjax.tables.reach import Reach

# entries of the largest table over all elements of a latent jointly
LARGEST_JOINT = 2**26
# Coordinates of the longest vector that is integrated out at once: a Cholesky factorization of its
# matrix takes a second or so, and a gigabyte with its derivative.
MOST_COORDINATES = 4000

REMEDY = "Make the observation of each element depend on that element alone, or use fewer elements."
IN_STEPS = (
    "If one element depends on the one before it, write the loop as "
    "`numpyro.contrib.control_flow.scan` with the latent sampled inside; else make the "
    "observation of each element depend on that element alone."
)
BY_LATENT = (
    "Which element is read depends on another latent: exchange them, so that the latent is a "
    "value that a table of parameters is read at, or use fewer elements."
)
REMEDIES = {
    "gather": BY_LATENT,
    **dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "scan", "while"), IN_STEPS
    ),
}


def propagate_program(
    program: Program,
    jaxpr: Jaxpr,
    jointly: Mapping[str, MixedElements],
    inputs: Sequence[Value],
) -> tuple[list[Value], dict[Var, list[Reach]]]:
    """Return the named value of every output of a program's jaxpr, and where its lookups reach.

    - `jaxpr`: the program's, or what is left of it.
    - `jointly`: what mixes the elements of latents, which are therefore enumerated jointly.
    - `inputs`: the named values of the jaxpr's constants and inputs.
    """
    # choices that move with the parameters are no rows
    parameters = jaxpr.invars[: len(program.parameters)]
    estimated = dependencies(jaxpr, dict.fromkeys(parameters, "parameter"))
    without_symbols, symbols = opened(jaxpr, latent_p)
    values = []
    for eqn in symbols:
        name = eqn.params["name"]
        if name in program.gaussians:
            values.append(_gaussian(program.gaussians[name]))
            continue
        latent, mixed = program.latents[name], jointly.get(name)
        values.append(_one_element(latent) if mixed is None else _all_elements(latent, mixed))
    return propagate(without_symbols, [*inputs, *values], estimated)


def _gaussian(latent: GaussianLatent) -> Named | AffineValue:
    """Return a Gaussian latent's value: position i reads the coordinates of its element."""
    elements, shape = latent.element_axes, latent.shape
    if latent.size > MOST_COORDINATES:
        raise MemoryError(
            f"An element of Gaussian latent '{latent.name}' has {latent.size} coordinates, more "
            f"than the {MOST_COORDINATES} that are integrated out at once. Draw them in a plate, "
            "and let each observation read its own."
        )
    order = [elements.index(d) if d in elements else None for d in range(len(shape))]
    index = Affine.identity(latent.elements).placed(order)
    # the identity, a row for each coordinate
    eye: Any = np.eye if latent.size**2 <= LARGEST_KNOWN else jnp.eye
    sizes = [1 if d in elements else size for d, size in enumerate(shape)]
    table = eye(latent.size, dtype=latent.dtype).reshape((latent.size, *sizes))
    coefficients = Named(table, shape, (Coordinates(latent.name, latent.size, index),))
    return affine_value(zero(shape, latent.dtype), [coefficients])


def jointly_integrated(program: Program, mixed: MixedElements) -> Program:
    """Return a program in which the elements of a Gaussian latent that it mixes are coordinates.

    Errors: `ValueError` for steps of a `scan`, `MemoryError` for more coordinates than can be
    integrated out at once; `mixed` itself where nothing can be done.
    """
    latent = program.gaussians[mixed.latent]
    axes = _mixed_axes(latent, mixed)
    if not axes:
        raise mixed
    if latent.is_series and 0 in axes:
        raise ValueError(
            f"The program mixes the steps of Gaussian latent '{latent.name}' {_where(mixed)}. "
            "Carry what several steps make together as a state of the `scan`, which is a latent "
            f"itself: numpyro.sample('{latent.name}', dist.Normal(previous, scale))."
        )
    joint = replace(latent, joint=tuple(sorted({*latent.joint, *axes})))
    if joint.size > MOST_COORDINATES:
        raise MemoryError(
            f"The program mixes elements of Gaussian latent '{latent.name}' {_where(mixed)}, so "
            f"that {joint.size} coordinates would be integrated out at once. "
            "Make the observation of each element depend on that element alone, or use fewer."
        )
    return replace(program, gaussians={**program.gaussians, latent.name: joint})


def _mixed_axes(latent: GaussianLatent, mixed: MixedElements) -> list[int]:
    """Return the axes of a latent's value along which the elements that are mixed lie."""
    index, axes = mixed.index, latent.element_axes
    if not isinstance(index, np.ndarray):
        # data say which elements: the shortest axis first, then the next, until that will do
        free = [axis for axis in axes if not (latent.is_series and axis == 0)]
        return sorted(free or axes, key=lambda axis: latent.shape[axis])[:1]
    found = []
    dims = range(index.ndim) if mixed.dims is None else mixed.dims
    for axis, numbers in zip(axes, np.unravel_index(index, latent.elements), strict=True):
        for dim in dims:
            first = np.take(numbers, [0], dim) if dim < numbers.ndim else numbers
            if (numbers != first).any():
                found.append(axis)
                break
    return found


def _where(mixed: MixedElements) -> str:
    """Return what mixes the elements of a latent, and in which line."""
    return f"at {mixed.line}, by '{mixed.primitive}'" if mixed.line else f"in '{mixed.primitive}'"


def _one_element(latent: Latent) -> Named:
    """Return a latent's value as its support: position i reads element i."""
    size, *event = latent.support.shape
    rank = len(latent.shape) + len(event)
    axis = Axis(latent.name, size, Affine.identity(latent.shape)).fitted(rank)
    table = latent.support.reshape((size, *(1,) * len(latent.shape), *event))
    return Named(table, (*latent.shape, *event), (axis,))


def _all_elements(latent: Latent, mixed: MixedElements) -> Named:
    """Return a latent's value with one axis for each element, for a program that mixes them."""
    size, *event = latent.support.shape
    count = math.prod(latent.shape)
    if size**count * count > LARGEST_JOINT:
        # beyond 300 elements the number of gigabytes is no float any more
        gigabytes = 8.0 * size ** min(count, 300) * count / 2**30
        raise MemoryError(
            f"The program mixes the {count} elements of latent '{latent.name}' "
            f"{_where(mixed)}, so that all {size}^{count} joint values would be enumerated: "
            f"a table of {gigabytes:.2g} GiB. {REMEDIES.get(mixed.primitive, REMEDY)}"
        )
    numbers = np.meshgrid(*[np.arange(size)] * count, indexing="ij")
    values = latent.support[:0]
    if numbers:
        values = np.stack([latent.support[number] for number in numbers], axis=count)
    shape = (*latent.shape, *event)
    axes = tuple(
        Axis(latent.name, size, Affine(element, (0,) * len(shape))) for element in range(count)
    )
    return Named(values.reshape((size,) * count + shape), shape, axes)
