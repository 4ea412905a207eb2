"""Weights for the elements of a plate: how often each counts, as data.

What depends on single samples is a derivative, or another value, of the weights: a sample's own
log-likelihood is ∂ log p / ∂ weight; folds of a cross-validation are weights of zeros and ones; a
bootstrap's draws are multinomial weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from numpyro.primitives import Messenger

from emjax.numerics.jaxprs import pruned, rearranged
from emjax.program.trace import initial_values, trace


class Weighted(Messenger):
    """Multiply the multiplicity of every site within a plate by the plate's weights, within a
    `scan` as well; `seen` collects the sizes of all plates.
    """

    def __init__(self, fn: Callable, plate: str, weights, seen: dict):
        self.plate, self.weights, self.seen = plate, weights, seen
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "control_flow" and "history" in msg["kwargs"]:
            step, *others = msg["args"]
            msg["args"] = (Weighted(step, self.plate, self.weights, self.seen), *others)
        if msg["type"] != "sample" or msg.get("_control_flow_done"):
            return
        self.seen |= {frame.name: frame.size for frame in msg["cond_indep_stack"]}
        for frame in msg["cond_indep_stack"]:
            if frame.name == self.plate:
                if jnp.shape(self.weights) != (frame.size,):
                    raise ValueError(
                        f"Plate '{self.plate}' has {frame.size} elements, its weights have shape "
                        f"{jnp.shape(self.weights)}. Pass one weight "
                        "for each element."
                    )
                along = jnp.reshape(self.weights, (frame.size,) + (1,) * (-frame.dim - 1))
                msg["scale"] = along if msg["scale"] is None else along * msg["scale"]


def weighted(model: Callable, plate: str) -> Callable:
    """Return the program (weights, *args, **kwargs) in which element n of a plate counts weights[n]
    times.

    `weights`: (elements of the plate,), at least 0. A weight of 2 is the row twice, a weight of 0
    is no row: log p and every EM step are the same. Every site of the plate is weighted, latents
    included, so that a sample's weight is that of its latents and of all their observations. Rows
    of another plate that look up its elements (`truth[item]`) are not in the plate: weight theirs
    too (`weighted` can be applied twice).

    Errors: `ValueError` for a plate that the program does not have, or weights of another length.
    """

    def program(weights, *args, **kwargs):
        seen: dict = {}
        result = Weighted(model, plate, weights, seen)(*args, **kwargs)
        if plate not in seen:
            raise ValueError(
                f"The program has no plate '{plate}' with a sample site in it; its plates are "
                f"{', '.join(map(repr, seen)) or 'none'}."
            )
        return result

    return program


# ── the plates of a program ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Plate:
    """A plate of a program: its size, the plates `around` it, and whether observations or discrete
    latents are in it (`has_data`).
    """

    name: str
    size: int
    around: frozenset[str]
    has_data: bool


class PlateRecorder(Messenger):
    """Record the plates that a program's sample sites are in, those of the step of a `scan`
    included; `axes`: {site: {axis from the right: plate}}.
    """

    def __init__(self, fn: Callable, seen: dict[str, Plate], axes: dict[str, dict[int, str]]):
        self.seen, self.axes = seen, axes
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "control_flow" and "history" in msg["kwargs"]:
            step, *others = msg["args"]
            msg["args"] = (PlateRecorder(step, self.seen, self.axes), *others)
        if msg["type"] != "sample" or msg.get("_control_flow_done"):
            return
        is_data = bool(
            msg["is_observed"] or (msg["fn"].support is not None and msg["fn"].support.is_discrete)
        )
        stack = msg["cond_indep_stack"]  # the innermost plate first
        event = len(msg["fn"].event_shape)
        self.axes[msg["name"]] = {frame.dim - event: frame.name for frame in stack}
        for i, frame in enumerate(stack):
            known = self.seen.get(frame.name)
            around = frozenset(outer.name for outer in stack[i + 1 :])
            self.seen[frame.name] = Plate(
                frame.name,
                frame.size,
                around | (known.around if known else frozenset()),
                is_data or bool(known and known.has_data),
            )


class Plates(NamedTuple):
    """The plates of a program.

    - `plates`: by name.
    - `axes`: {sample site: {axis of its value, counted from the right (−1 is the last): the name of
      its plate}}.
    """

    plates: dict[str, Plate]
    axes: dict[str, dict[int, str]]


def plates(
    model: Callable, init: Callable, args: tuple, kwargs: Mapping[str, Any], concrete: bool = False
) -> Plates:
    """Return a program's plates; nothing runs on the data.

    `init`: the strategy that gives continuous latents their start; `concrete`: whether the program
    looks at its data in Python.
    """
    found = Plates({}, {})
    initial_values(PlateRecorder(model, *found), init, args, kwargs, concrete)
    return found


def plate_named(found: Mapping[str, Plate], plate: str | None) -> Plate:
    """Return the plate of the given name, or the only outermost one that holds data.

    Errors: `ValueError` for a name that the program does not have, and without a name for several
    such plates, or none.
    """
    listed = ", ".join(f"'{name}' ({p.size})" for name, p in found.items()) or "none"
    if plate is not None:
        if plate not in found:
            raise ValueError(
                f"The program has no plate {plate!r} with a sample site in it; its plates (and "
                f"sizes) are: {listed}."
            )
        return found[plate]
    outermost = [p for p in found.values() if p.has_data and not p.around]
    if len(outermost) == 1:
        return outermost[0]
    if not outermost:
        raise ValueError(
            "The program has no plate, so that what a sample is remains open. Put its independent "
            "samples in one: with numpyro.plate('samples', "
            "len(data)): ..."
        )
    raise ValueError(
        f"The program has several outermost plates: which one's elements are the samples? Pass "
        f"plate={outermost[0].name!r} (or "
        f"{' or '.join(repr(p.name) for p in outermost[1:])}). Its plates (and sizes) "
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
    """Return how many samples a plate's elements count as: their number, or the sum of what
    `handlers.scale` says.

    The multiplicity of an element is that of its latents, or of its observations if it has none.
    Errors: `ValueError` where these differ.
    """
    program = trace(model, parameters, args, kwargs, concrete)
    inside = [site for site in program.sites if plate.name in site.plates]
    sites = [site for site in inside if site.is_latent] or [
        site for site in inside if site.is_observed
    ]
    totals = {}
    for site in sites:
        number, size = site.outputs.multiplicity, max(math.prod(site.elements), 1)
        if number is None:
            totals[site.name] = float(plate.size)
            continue
        jaxpr = program.jaxpr.jaxpr
        only = pruned(
            ClosedJaxpr(rearranged(jaxpr, outvars=[jaxpr.outvars[number]]), program.jaxpr.consts)
        )
        values = [
            jnp.zeros(parameters[name].shape, parameters[name].dtype) for name in sorted(parameters)
        ]
        (scale,) = jax.core.eval_jaxpr(only.jaxpr, only.consts, *values, *data)
        totals[site.name] = float(
            jnp.broadcast_to(scale, site.elements).sum() * (plate.size / size)
        )
    if len(set(totals.values())) > 1:
        listed = ", ".join(f"'{name}' {total:g}" for name, total in totals.items())
        raise ValueError(
            f"The sites of plate '{plate.name}' count different numbers of samples: {listed}. Pass "
            "num_samples=..."
        )
    return next(iter(totals.values()), float(plate.size))


@dataclass(frozen=True, eq=False)
class Units:
    """The independent units of a program: the `size` elements of a `plate`, and with them the rows
    of other plates: `rows[name]` says to which unit each belongs.
    """

    plate: str
    size: int
    rows: Mapping[str, np.ndarray]

    @property
    def key(self) -> tuple:
        """What identifies them."""
        return (
            "units",
            self.plate,
            *((name, index.tobytes()) for name, index in self.rows.items()),
        )

    def __str__(self) -> str:
        return f"plate '{self.plate}'" + "".join(
            f", with their rows of '{name}'" for name in self.rows
        )

    def weighted(self, model: Callable) -> Callable:
        """Return the program (weights, *args, **kwargs) in which unit n counts weights[n] times,
        with all its rows.
        """

        def program(weights, *args, **kwargs):
            own = model
            for name, index in self.rows.items():
                own = partial(weighted(own, name), weights[index])
            return weighted(own, self.plate)(weights, *args, **kwargs)

        return program


def units_of(found: Mapping[str, Plate], plate: str | None, rows: Mapping | None) -> Units:
    """Return the units that a plate's elements are (default: those of the only outermost one), with
    the rows of other plates: `rows[name]` says which element each of its rows belongs to. Errors:
    `ValueError` for plates that the program does not have, and rows that belong to no element.
    """
    chosen = plate_named(found, plate)
    return Units(
        chosen.name,
        chosen.size,
        {
            other: _checked_rows(index, chosen, plate_named(found, other))
            for other, index in dict(rows or {}).items()
        },
    )


def _checked_rows(index, plate: Plate, other: Plate) -> np.ndarray:
    index = np.asarray(index)
    if (
        index.shape != (other.size,)
        or not np.issubdtype(index.dtype, np.integer)
        or (index < 0).any()
        or (index >= plate.size).any()
    ):
        raise ValueError(
            f"rows['{other.name}'] must say, for each of the {other.size} elements of that plate, "
            f"which of the {plate.size} elements of "
            f"'{plate.name}' it belongs to: whole numbers from 0. It has shape {index.shape} and "
            f"type {index.dtype}."
        )
    return index
