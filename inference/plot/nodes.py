"""What a program is made of: its parameters, latents and observations, who reads whom, plates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.m_step.wiring_view import WiringView
from emjax.plan import ParameterPlan, plan
from emjax.program.records import Site
from emjax.run.bound import Bound


@dataclass(frozen=True)
class Node:
    """A parameter or a site.

    - `name`: its own.
    - `kind`: "parameter", "prior" (a `sample` site that is estimated), "latent" or "observed".
    - `lines`: what is said below its name: distribution, axes, how it is maximized.
    - `method`: of an estimate, how it is maximized; else empty.
    - `plates`: those that it is in, the innermost first.
    - `parents`: what it reads.
    - `reads_itself`: whether it is a chain, each step of which reads the one before.
    """

    name: str
    kind: str
    lines: tuple[str, ...]
    method: str
    plates: tuple[str, ...]
    parents: tuple[str, ...]
    reads_itself: bool

    @property
    def is_estimated(self) -> bool:
        """Whether EM estimates it."""
        return self.kind in ("parameter", "prior")


@dataclass(frozen=True)
class Diagram:
    """The nodes of a program, and the sizes of its plates; `steps` are the plates that are time."""

    nodes: tuple[Node, ...]
    plates: dict[str, int]
    steps: frozenset[str]


def diagram_of(bound: Bound) -> Diagram:
    """Return what a program is made of."""
    graph = bound.compiled.graph
    plates: dict[str, int] = {}
    steps: set[str] = set()
    parents, loops = _parents(graph)
    estimates = {each.name: each for each in plan(bound).parameters}
    by_name: dict[str, list[Site]] = {}
    for site in graph.program.sites:
        by_name.setdefault(site.name, []).append(site)
    nodes = []
    for name in [*(each for each in graph.parameters if each not in by_name), *by_name]:
        sites = by_name.get(name, [])
        lines = (*_distributions(sites), *_values(graph, name))
        kind, method, within = "parameter", "", ()
        if sites:
            # the first step of a scan may be a site of its own
            longest = max(sites, key=lambda site: len(site.elements))
            kind = longest.kind if longest.kind in ("observed", "prior") else "latent"
            within = longest.plates + (("time",) if _length(graph, name) else ())
            _add_plates(graph, longest, plates, steps)
        if name in estimates:
            method = estimates[name].method
            lines = (*lines, *_axes(estimates[name]), method)
        read = tuple(sorted(parents.get(name, ())))
        nodes.append(Node(name, kind, lines, method, within, read, name in loops))
    return Diagram(tuple(nodes), plates, frozenset(steps))


def _parents(graph: FactorGraph) -> tuple[dict[str, set[str]], set[str]]:
    """Return what each site reads, by name, and the latents that read themselves."""
    view = WiringView(graph)
    parents: dict[str, set[str]] = {}
    loops: set[str] = set()
    for term in (*graph.terms, *graph.predicted):
        name, read = term.site.name, parents.setdefault(term.site.name, set())
        sources = _sources(term)
        read |= set(sources) - {name}
        if sources.count(name) > 1:
            loops.add(name)
        for table in term.arguments.values():
            read |= view.wire(table).parameters - {name}
    return parents, loops


def _sources(term: Term) -> list[str]:
    """Return the latents that a term reads, once for each element of them."""
    names = []
    for axis in term.all_axes:
        source: Any = axis.source
        names.append(source[0] if isinstance(source, tuple) else source)
    return names


def _distributions(sites: Sequence[Site]) -> tuple[str, ...]:
    """Return what the distributions of a site are called where they are written."""
    names = []
    for site in sites:
        names.append(site.distribution.__name__.removesuffix("Probs").removesuffix("Logits"))
    # of those that a `Select` chooses among, each
    return tuple(dict.fromkeys(names))


def _axes(estimate: ParameterPlan) -> tuple[str, ...]:
    """Return what the axes of a parameter are called, as a line."""
    words = []
    for axis, size in zip(estimate.axes, estimate.shape, strict=True):
        words.append(axis.removeprefix("other_") or str(size))
    return (" × ".join(words),) if words else ()


def _values(graph: FactorGraph, name: str) -> tuple[str, ...]:
    """Return what is said of a latent's values."""
    if name in graph.latents:
        return (f"{len(graph.latents[name].support)} values",)
    if name in graph.gaussians:
        size = graph.gaussians[name].size
        return ("integrated out",) if size == 1 else (f"{size} coordinates", "integrated out")
    return ()


def _length(graph: FactorGraph, name: str) -> int:
    """Return how many steps a site is drawn in; 0 of one that is in no scan."""
    latents = {**graph.latents, **graph.gaussians}
    if name in latents:
        return latents[name].shape[0] if latents[name].is_series else 0
    for term in graph.terms:
        if term.site.name != name:
            continue
        elements, axes = term.elements, term.site.plate_axes
        for source in _sources(term):
            is_series = source in latents and latents[source].is_series
            # its first axis is time, if it is no plate and as long as the latent's
            if is_series and elements and -len(elements) not in axes:
                return elements[0]
    return 0


def _add_plates(graph: FactorGraph, site: Site, plates: dict[str, int], steps: set[str]) -> None:
    """Add the plates of a site, with their sizes."""
    for plate, back in zip(site.plates, site.plate_axes, strict=True):
        if 0 <= len(site.elements) + back < len(site.elements):
            plates.setdefault(plate, site.elements[back])
    length = _length(graph, site.name)
    if length:
        plates["time"] = length
        steps.add("time")
