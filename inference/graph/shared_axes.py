"""Which axes of a program's arrays run along the same thing: columns of data, samples, steps.

Where an axis of one array meets an axis of another, entry by entry, the two are one axis: in a sum
of two arrays, in an inner product, in a distribution whose location has the shape of what is
observed. So `loc[component]` has the columns of the data along its last axis, and the `coefficient`
of `x @ coefficient` those of `x`. Nothing runs, and only shapes are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal, Var

from emjax.graph.lookups import Lookup, Makers
from emjax.graph.meeting_axes import SharedAxes, follow, join_axes
from emjax.program.records import Site
from emjax.program.trace import Program


def shared_axes(program: Program) -> SharedAxes:
    """Return which axes of a traced program's arrays run along the same thing."""
    axes = SharedAxes()
    follow(axes, program.jaxpr.jaxpr)
    makers = Makers(program)
    for lookup in makers.lookups():
        _follow_lookup(axes, lookup, makers)
    outputs = program.jaxpr.jaxpr.outvars
    for site in program.sites:
        _follow_site(axes, site, outputs)
        source = makers.source(outputs[site.outputs.value])
        for name in ("probs", "logits"):
            number = site.outputs.args.get(name)
            if number is None or site.event or site.arg_constraints[name].event_dim != 1:
                continue
            table = outputs[number]
            if source is not None and not isinstance(table, Literal):
                axes.categories.append(((table, len(table.aval.shape) - 1), source))
    return axes


def _follow_site(axes: SharedAxes, site: Site, outputs: Sequence[Any]) -> None:
    """Join the axes of a site's value and of its distribution's arguments."""
    rank, event = len(site.elements), len(site.event)
    sizes = (*site.elements, *site.event)

    def join(number: int, own: int, other: int) -> None:
        atom = outputs[number]
        if not isinstance(atom, Literal) and atom.aval.shape[own] == sizes[other] > 1:
            axes.join((atom, own), (site.name, other, sizes[other]))

    of_value = len(outputs[site.outputs.value].aval.shape)
    for back in range(1, 1 + min(of_value, rank + event)):
        join(site.outputs.value, of_value - back, rank + event - back)
    for name, number in site.outputs.args.items():
        shape, of_entry = outputs[number].aval.shape, site.arg_constraints[name].event_dim
        of_elements = len(shape) - of_entry
        for back in range(1, 1 + min(of_elements, rank)):
            join(number, of_elements - back, rank - back)
        # a covariance has the axis of a location twice; a table of categories has none of them
        for own in range(max(of_elements, 0), len(shape)):
            if event == 1:
                join(number, own, rank)
            elif event == of_entry:
                join(number, own, rank + own - of_elements)


def _follow_lookup(axes: SharedAxes, lookup: Lookup, makers: Makers) -> None:
    """Join an axis of a table with the axis along which it is read entry after entry.

    And keep who else says which entry is read: an input, a latent.
    """
    source = makers.source(lookup.index)
    if source is not None and source not in makers.known:
        axes.read_by.append(((lookup.table, lookup.axis), source))
    numbers = makers.known.get(lookup.index) if isinstance(lookup.index, Var) else None
    if numbers is None:
        return
    table: Any = lookup.table
    size = table.aval.shape[lookup.axis]
    for d, length in enumerate(numbers.shape):
        in_order = np.arange(size).reshape([-1 if e == d else 1 for e in range(numbers.ndim)])
        if length == size and (numbers == in_order).all():
            join_axes(axes, lookup.table, lookup.axis, lookup.index, d)
