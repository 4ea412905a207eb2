"""The named values of a program's latents, and propagation with them in place of their symbols."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax.extend.core import Jaxpr, Var

from emjax.numerics.jaxprs import dependencies, opened
from emjax.program.latents import Latent, latent_p
from emjax.program.trace import Program
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, MixedElements, Named
from emjax.tables.propagate import propagate
from emjax.tables.reach import Reach

# entries of the largest table over all elements of a latent jointly
LARGEST_JOINT = 2**26

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
    inputs: Sequence[Named],
) -> tuple[list[Named], dict[Var, list[Reach]]]:
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
        latent = program.latents[eqn.params["name"]]
        mixed = jointly.get(latent.name)
        values.append(_one_element(latent) if mixed is None else _all_elements(latent, mixed))
    return propagate(without_symbols, [*inputs, *values], estimated)


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
