"""The plates of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpyro.primitives import Messenger

from emjax.program.statements import has_run, is_scan
from emjax.program.trace import initial_values


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
        # the step runs under `block`: handlers around the scan do not see its statements
        if is_scan(msg):
            step, *others = msg["args"]
            msg["args"] = (PlateRecorder(step, self.seen), *others)
        if msg["type"] != "sample" or has_run(msg):
            return
        fn, stack = msg["fn"], msg["cond_indep_stack"]  # the innermost plate first
        is_latent = fn.support is not None and fn.support.is_discrete
        is_data = bool(msg["is_observed"] or is_latent)
        event = len(fn.event_shape)
        # a plate's axis is counted among the batch axes; those of the event are to its right
        self.seen.axes[msg["name"]] = {frame.dim - event: frame.name for frame in stack}
        for i, frame in enumerate(stack):
            around = frozenset(outer.name for outer in stack[i + 1 :])
            has_data = is_data
            known = self.seen.plates.get(frame.name)
            if known is not None:
                # several sites may be in it: it is outermost only if it is so for all of them
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
                f"The program has no plate {name!r} with a sample site in it; "
                f"its plates (and sizes) are: {listed}."
            )
        return plates[name]
    outermost = [plate for plate in plates.values() if plate.has_data and not plate.around]
    if len(outermost) == 1:
        return outermost[0]
    if not outermost:
        raise ValueError(
            "The program has no plate, so that what a sample is remains open. "
            "Put its independent samples in one: with numpyro.plate('samples', len(data)): ..."
        )
    others = " or ".join(repr(plate.name) for plate in outermost[1:])
    raise ValueError(
        "The program has several outermost plates: which one's elements are the samples? "
        f"Pass plate={outermost[0].name!r} (or {others}). "
        f"Its plates (and sizes) are: {listed}."
    )
