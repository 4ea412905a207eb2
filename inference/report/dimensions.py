"""Names for the axes of parameters: the latents whose values they list, where the wiring shows
them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import Slot
from emjax.graph.wiring import Wire


def parameter_dimensions(graph: FactorGraph) -> dict[str, tuple[str | None, ...]]:
    """Return, for each axis of each parameter, the latent whose values it lists, or None: `weights`
    and `loc` of a mixture of `component`s are ("component",) and ("component", None), the
    `transition` of a chain of `state`s is ("state", "next_state").

    An axis lists the values of a latent if a table reads one entry after another along it as the
    latent's value goes up, or if it holds their probabilities.
    """
    found: dict[str, list[str | None]] = {
        name: [None] * len(parameter.shape) for name, parameter in graph.parameters.items()
    }
    claims: list[tuple[str, int, str, bool]] = []
    for term in graph.terms:
        for argument, table in term.arguments.items():
            wire = graph.wires()[table.array.number] if isinstance(table.array, Slot) else Wire()
            if wire.entries is None:
                continue
            sources: list[str | None] = [
                axis.source if isinstance(axis.source, str) else None for axis in table.axes
            ] + [None] * len(table.compact)
            is_own = (
                term.site.is_latent
                and argument in ("probs", "logits")
                and term.site.arg_constraints[argument].event_dim == 1
            )
            if is_own and wire.entries.shape[-1] == graph.latents[term.site.name].support.shape[0]:
                sources[-1] = term.site.name
            claims += [
                (name, axis, source, is_own and d == wire.entries.ndim - 1)
                for d, source in enumerate(sources)
                if source is not None
                for name, axis in _places(graph, wire.parameters, wire.entries, d)
            ]
    for name, axis, source, is_own in sorted(
        claims, key=lambda claim: claim[3]
    ):  # what a table is looked up by comes first
        if found[name][axis] is not None:
            continue
        if source not in found[name]:
            found[name][axis] = source
        elif is_own and f"next_{source}" not in found[name]:
            found[name][axis] = f"next_{source}"
    return {name: tuple(own) for name, own in found.items()}


def _places(
    graph: FactorGraph, parameters: Collection[str], entries: np.ndarray, d: int
) -> list[tuple[str, int]]:
    """Return which axis of which parameter one axis of a table runs along: (parameter, axis)."""
    offsets, places = graph.offsets(), []
    lines = np.moveaxis(entries, d, -1).reshape(-1, entries.shape[d])
    for name in sorted(parameters):
        shape, first = graph.parameters[name].shape, offsets[name]
        inside = lines[
            ((lines >= first) & (lines < first + int(np.prod(shape, dtype=int)))).all(axis=1)
        ]
        if not inside.size:
            continue
        at = (
            np.stack(np.unravel_index(inside - first, shape), axis=-1)
            if shape
            else np.zeros((*inside.shape, 0), int)
        )
        for axis, size in enumerate(shape):
            others = np.delete(at, axis, axis=-1)
            if (
                size == inside.shape[1]
                and (at[..., axis] == np.arange(size)).all()
                and (others == others[:, :1]).all()
            ):
                places.append((name, axis))
    return places
