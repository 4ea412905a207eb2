"""The plates of a program, and the units that the elements of one are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from numpyro.primitives import Messenger

from emjax.numerics.jaxprs import pruned, rearranged
from emjax.program.handlers.weights import weighted
from emjax.program.trace import Program, initial_values, trace


@dataclass(frozen=True)
class Plate:
    """A plate of a program.

    - `around`: the names of the plates that it is in.
    - `has_data`: whether observations or discrete latents are in it.
    """

    name: str
    size: int
    around: frozenset[str]
    has_data: bool


class Plates(NamedTuple):
    """The plates of a program.

    - `plates`: by name.
    - `axes`: {sample site: {axis of its value, counted from the right (−1 is the last): the name of
      its plate}}.
    """

    plates: dict[str, Plate]
    axes: dict[str, dict[int, str]]


class PlateRecorder(Messenger):
    """Record the plates that a program's sample sites are in, within a `scan` as well."""

    def __init__(self, fn: Callable, seen: Plates):
        self.seen = seen
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Record the plates of a statement."""
        if msg["type"] == "control_flow" and "history" in msg["kwargs"]:
            step, *others = msg["args"]
            msg["args"] = (PlateRecorder(step, self.seen), *others)
        if msg["type"] != "sample" or msg.get("_control_flow_done"):
            return
        fn, stack = msg["fn"], msg["cond_indep_stack"]  # the innermost plate first
        is_latent = fn.support is not None and fn.support.is_discrete
        is_data = bool(msg["is_observed"] or is_latent)
        event = len(fn.event_shape)
        self.seen.axes[msg["name"]] = {frame.dim - event: frame.name for frame in stack}
        for i, frame in enumerate(stack):
            around = frozenset(outer.name for outer in stack[i + 1 :])
            has_data = is_data
            known = self.seen.plates.get(frame.name)
            if known is not None:
                around, has_data = around | known.around, has_data or known.has_data
            self.seen.plates[frame.name] = Plate(frame.name, frame.size, around, has_data)


def plates(
    model: Callable, init: Callable, args: tuple, kwargs: Mapping[str, Any], concrete: bool = False
) -> Plates:
    """Return a program's plates; nothing runs on the data.

    `init`: the strategy that gives continuous latents their start; `concrete`: whether the program
    looks at its data in Python.
    """
    seen = Plates({}, {})
    initial_values(PlateRecorder(model, seen), init, args, kwargs, concrete)
    return seen


def plate_named(plates: Mapping[str, Plate], name: str | None) -> Plate:
    """Return the plate of the given name; without one, the only outermost plate that holds data.

    Errors: `ValueError` for a name that the program does not have, and without a name for several
    such plates, or none.
    """
    listed = ", ".join(f"'{plate.name}' ({plate.size})" for plate in plates.values()) or "none"
    if name is not None:
        if name not in plates:
            raise ValueError(
                f"The program has no plate {name!r} with a sample site in it; its plates (and "
                f"sizes) are: {listed}."
            )
        return plates[name]
    outermost = [plate for plate in plates.values() if plate.has_data and not plate.around]
    if len(outermost) == 1:
        return outermost[0]
    if not outermost:
        raise ValueError(
            "The program has no plate, so that what a sample is remains open. Put its independent "
            "samples in one: with numpyro.plate('samples', "
            "len(data)): ..."
        )
    others = " or ".join(repr(plate.name) for plate in outermost[1:])
    raise ValueError(
        f"The program has several outermost plates: which one's elements are the samples? Pass "
        f"plate={outermost[0].name!r} (or "
        f"{others}). Its plates (and sizes) "
        f"are: {listed}."
    )


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
            f"The sites of plate '{plate.name}' count different numbers of samples: {listed}. Pass "
            "num_samples=..."
        )
    return next(iter(totals.values()), float(plate.size))


def _output(program: Program, number: int, data: list) -> jax.Array:
    """Return an output of a traced program that does not depend on its parameters."""
    jaxpr = program.jaxpr.jaxpr
    jaxpr = rearranged(jaxpr, outvars=[jaxpr.outvars[number]])
    closed = pruned(ClosedJaxpr(jaxpr, program.jaxpr.consts))
    parameters = [program.parameters[name] for name in program.names]
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
            f"which of the {plate.size} elements of "
            f"'{plate.name}' it belongs to: whole numbers from 0. It has shape {index.shape} and "
            f"type {index.dtype}."
        )
    return index
