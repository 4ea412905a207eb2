"""Which elements of a program are its samples, and how many these count as."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from emjax.numerics.jaxprs import pruned, rearranged
from emjax.program.handlers.plates import Plate, plate_named
from emjax.program.handlers.weights import weighted
from emjax.program.trace import Program, trace


def total_multiplicity(
    model: Callable,
    parameters: Mapping,
    data: list,
    plate: Plate,
    args: tuple,
    kwargs: Mapping[str, Any],
    concrete: bool = False,
) -> float:
    """Return how many samples a plate's elements count as.

    That is their number, or the sum of what `handlers.scale` says. The multiplicity of an element
    is that of its latents, or of its observations if it has none. Errors: `ValueError` where these
    differ.
    """
    program = trace(model, parameters, args, kwargs, concrete)
    inside = [site for site in program.sites if plate.name in site.plates]
    sites = [site for site in inside if site.is_latent]
    totals = {}
    for site in sites or [site for site in inside if site.is_observed]:
        number = site.outputs.multiplicity
        if number is None:
            totals[site.name] = float(plate.size)
            continue
        multiplicity = jnp.broadcast_to(_output(program, number, data), site.elements)
        # a site may have several elements for one of the plate
        others = max(math.prod(site.elements), 1) / plate.size
        totals[site.name] = float(multiplicity.sum() / others)
    if len(set(totals.values())) > 1:
        listed = ", ".join(f"'{name}' {total:g}" for name, total in totals.items())
        raise ValueError(
            f"The sites of plate '{plate.name}' count different numbers of samples: {listed}. "
            "Pass num_samples=..."
        )
    # a plate that holds priors alone has no site that counts
    return next(iter(totals.values()), float(plate.size))


def _output(program: Program, number: int, data: list) -> jax.Array:
    """Return an output of a traced program that does not depend on its parameters."""
    jaxpr = program.jaxpr.jaxpr
    jaxpr = rearranged(jaxpr, outvars=[jaxpr.outvars[number]])
    closed = pruned(ClosedJaxpr(jaxpr, program.jaxpr.consts))
    parameters = [program.parameters[name] for name in program.names]
    # any parameters do: nothing that is left reads them
    zeros = [jnp.zeros(parameter.shape, parameter.dtype) for parameter in parameters]
    (value,) = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *zeros, *data)
    return value


@dataclass(frozen=True, eq=False)
class Units:
    """The independent units of a program: the elements of a plate, with rows of other plates.

    - `size`: how many there are.
    - `rows`: {another plate: to which unit each of its rows belongs}.
    """

    plate: str
    size: int
    rows: Mapping[str, np.ndarray]

    @property
    def key(self) -> tuple:
        """What identifies them."""
        rows = [(name, index.tobytes()) for name, index in self.rows.items()]
        return ("units", self.plate, *rows)

    def __str__(self) -> str:
        return f"plate '{self.plate}'" + "".join(
            f", with their rows of '{name}'" for name in self.rows
        )

    def weighted(self, model: Callable) -> Callable:
        """Return the program (weights, *args, **kwargs) in which unit n counts weights[n] times.

        All its rows do so.
        """

        def program(weights, *args, **kwargs):
            with_rows = model
            for name, index in self.rows.items():
                with_rows = partial(weighted(with_rows, name), weights[index])
            return weighted(with_rows, self.plate)(weights, *args, **kwargs)

        return program


def units_of(plates: Mapping[str, Plate], plate: str | None, rows: Mapping | None) -> Units:
    """Return the units that a plate's elements are; by default, of the only outermost one.

    `rows`: {another plate: to which element each of its rows belongs}. Errors: `ValueError` for
    plates that the program does not have, and rows that belong to no element.
    """
    unit = plate_named(plates, plate)
    checked = {
        other: _checked_rows(index, unit, plate_named(plates, other))
        for other, index in dict(rows or {}).items()
    }
    return Units(unit.name, unit.size, checked)


def _checked_rows(index: Any, plate: Plate, other: Plate) -> np.ndarray:
    index = np.asarray(index)
    is_integer = index.shape == (other.size,) and np.issubdtype(index.dtype, np.integer)
    if not is_integer or (index < 0).any() or (index >= plate.size).any():
        raise ValueError(
            f"rows['{other.name}'] must say, for each of the {other.size} elements of that plate, "
            f"which of the {plate.size} elements of '{plate.name}' it belongs to: "
            f"whole numbers from 0. It has shape {index.shape} and type {index.dtype}."
        )
    return index
