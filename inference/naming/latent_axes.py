"""Names for the axes of parameters: the latents whose values they list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.graph.wiring import Wire
from emjax.m_step.wiring_view import WiringView
from emjax.tables.named import Named


class _Claim(NamedTuple):
    """That an axis of a parameter lists the values of a latent.

    - `parameter`, `axis`: which axis.
    - `latent`: whose values.
    - `is_distribution`: whether it is their probabilities that are along the axis; else a table is
      looked up by the latent.
    """

    parameter: str
    axis: int
    latent: str
    is_distribution: bool


def parameter_dimensions(graph: FactorGraph) -> dict[str, tuple[str | None, ...]]:
    """Return, for each axis of each parameter, the latent whose values it lists, or None.

    `weights` and `loc` of a mixture of `component`s are ("component",) and ("component", None), the
    `transition` of a chain of `state`s is ("state", "next_state"). An axis lists the values of a
    latent if a table reads one entry after another along it as the latent's value goes up, or if it
    holds their probabilities.
    """
    dimensions: dict[str, list[str | None]] = {
        name: [None] * len(parameter.shape) for name, parameter in graph.parameters.items()
    }
    claims: list[_Claim] = []
    view = WiringView(graph)
    for term in graph.terms:
        claims += _claims_of(view, term)
    # what a table is looked up by comes first: the rows of a transition matrix are `state`
    for claim in sorted(claims, key=lambda claim: claim.is_distribution):
        of_parameter = dimensions[claim.parameter]
        if of_parameter[claim.axis] is None:
            of_parameter[claim.axis] = _free_name(claim, of_parameter)
    return {name: tuple(of_parameter) for name, of_parameter in dimensions.items()}


def _free_name(claim: _Claim, taken: Sequence[str | None]) -> str | None:
    """Return what an axis is called, beside the names that other axes have."""
    if claim.latent not in taken:
        return claim.latent
    following = f"next_{claim.latent}"
    return following if claim.is_distribution and following not in taken else None


def _claims_of(view: WiringView, term: Term) -> list[_Claim]:
    """Return what the tables of a term say of the axes of parameters."""
    claims, graph = [], view.graph
    for argument, table in term.arguments.items():
        wire = view.wire(table)
        # cells that are known or computed are nobody's entries
        if wire.entries is None:
            continue
        latents = _latents_along(table)
        is_distribution = _is_distribution(term, argument)
        if is_distribution:
            num_values = graph.latents[term.site.name].support.shape[0]
            # otherwise the table is broadcast to all values
            if wire.entries.shape[-1] == num_values:
                latents[-1] = term.site.name
        last = wire.entries.ndim - 1
        for d, latent in enumerate(latents):
            if latent is None:
                continue
            for parameter, axis in _places(view, wire, d):
                claims.append(_Claim(parameter, axis, latent, is_distribution and d == last))
    return claims


def _latents_along(table: Named) -> list[str | None]:
    """Return the latent that each axis of a table stands for; None for rows that data pick."""
    latents = [axis.source if isinstance(axis.source, str) else None for axis in table.axes]
    return latents + [None] * len(table.compact)


def _is_distribution(term: Term, argument: str) -> bool:
    """Whether an argument holds the probabilities of a latent's values, along its last axis."""
    if not term.site.is_latent or argument not in ("probs", "logits"):
        return False
    return term.site.arg_constraints[argument].event_dim == 1


def _places(view: WiringView, wire: Wire, d: int) -> list[tuple[str, int]]:
    """Return which axis of which parameter axis `d` of a table runs along: (parameter, axis)."""
    assert wire.entries is not None
    places = []
    lines = np.moveaxis(wire.entries, d, -1).reshape(-1, wire.entries.shape[d])
    for name in sorted(wire.parameters):
        shape, start = view.graph.parameters[name].shape, view.offsets[name]
        is_inside = (lines >= start) & (lines < start + math.prod(shape))
        inside = lines[is_inside.all(axis=1)]
        if not inside.size:
            continue
        # where in the parameter each entry of the lines is: (line, position along it, axis)
        at = np.zeros((*inside.shape, 0), int)
        if shape:
            at = np.stack(np.unravel_index(inside - start, shape), axis=-1)
        for axis, size in enumerate(shape):
            others = np.delete(at, axis, axis=-1)
            runs_along = size == inside.shape[1] and (at[..., axis] == np.arange(size)).all()
            if runs_along and (others == others[:, :1]).all():
                places.append((name, axis))
    return places
