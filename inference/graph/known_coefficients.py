"""Which coefficients of Gaussian latents are data, and none of them estimated."""

from __future__ import annotations

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.residuals import coefficients_name
from emjax.graph.slots import Slot
from emjax.tables.named import Named


def known_coefficients(graph: FactorGraph) -> set[tuple[str, int]]:
    """Return (site, number) of the coefficients of observed numbers that are data, row by row."""
    found: set[tuple[str, int]] = set()
    for term in graph.terms:
        if not term.reads or not term.site.is_observed or term.site.event:
            continue
        for number in range(len(term.reads)):
            table = term.arguments.get(coefficients_name(number))
            if table is not None and _is_of_rows(table) and not _is_estimated(graph, table):
                found.add((term.site.name, number))
    return found


def _is_of_rows(table: Named) -> bool:
    """Whether a table has one row for each of many elements, whatever the latents are."""
    return not table.latent_axes and any(size != 1 for size in table.compact[:-1])


def _is_estimated(graph: FactorGraph, table: Named) -> bool:
    """Whether a table depends on parameters."""
    return isinstance(table.array, Slot) and bool(graph.wires[table.array.number].parameters)
