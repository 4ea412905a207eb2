"""Which coefficients of Gaussian latents are data, and none of them estimated."""

from __future__ import annotations

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.residuals import coefficients_name
from emjax.graph.slots import Slot
from emjax.tables.named import Axis, Named


def known_coefficients(graph: FactorGraph) -> set[tuple[int, int]]:
    """Return (site, number) of the coefficients of observed numbers that are data, row by row.

    A site is told by the number of the output that is its value: several may have one name, those
    of the first steps of a scan and of the others, and do not read the same.
    """
    found: set[tuple[int, int]] = set()
    for term in graph.terms:
        if not term.reads or not term.site.is_observed or term.site.event:
            continue
        for number, axis in enumerate(term.reads):
            table = term.arguments.get(coefficients_name(number))
            if table is None or not _is_of_rows(table, axis):
                continue
            if not is_estimated(graph, table):
                found.add((term.site.outputs.value, number))
    return found


def _is_of_rows(table: Named, axis: Axis) -> bool:
    """Whether a table differs among rows that read different elements of a Gaussian latent."""
    # one row of coefficients for all elements is no more than a natural parameter
    pairs = zip(table.compact, axis.varies, strict=False)
    return not table.latent_axes and any(varies and size != 1 for size, varies in pairs)


def is_estimated(graph: FactorGraph, table: Named) -> bool:
    """Whether a table depends on parameters."""
    return isinstance(table.array, Slot) and bool(graph.wires[table.array.number].parameters)
