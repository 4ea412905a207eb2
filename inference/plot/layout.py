"""Where the nodes of a program are drawn: layers from what is read to what reads it.

Sites are in layers, the longest chain of reads above each. Estimates that are in no plate stand
outside: above the first layer, below the last, beside those between. Lengths are inches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from emjax.plot.boxes import BETWEEN, SMALL_CHARACTER, Box, Layout, size_of, way_around
from emjax.plot.nodes import Diagram, Node
from emjax.plot.outside import Outside

# between layers, without plates; around the members of a plate, and of one within it
LAYER, PADDING, NESTED = 0.36, 0.16, 0.13
# the line with the name of a plate, and an arrow from a node to itself
NAME, LOOP = 0.15, 0.24


def layout_of(diagram: Diagram) -> Layout:
    """Return where everything is."""
    nodes = {node.name: node for node in diagram.nodes}
    names = {name for name, node in nodes.items() if node.is_estimated and not node.plates}
    layers = _layers(nodes, [name for name in nodes if name not in names])
    outside = Outside(nodes, names, layers)
    places = _places(nodes, layers, outside)
    plates = _plates(diagram, places)
    return Layout({**places, **outside.placed(places, plates)}, plates)


def _layers(nodes: Mapping[str, Node], sites: Sequence[str]) -> list[list[str]]:
    """Return the sites in layers, each below all that it reads."""
    depth: dict[str, int] = {}

    def depth_of(name: str, above: tuple[str, ...] = ()) -> int:
        if name not in depth:
            read = [each for each in nodes[name].parents if each in sites]
            # what reads each other in turns over time is drawn in the order of the program
            read = [each for each in read if each not in above and each != name]
            depth[name] = 1 + max((depth_of(each, (*above, name)) for each in read), default=-1)
        return depth[name]

    for name in sites:
        depth_of(name)
    layers: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for name in sites:
        layers[depth[name]].append(name)
    return layers


def _places(
    nodes: Mapping[str, Node], layers: Sequence[Sequence[str]], outside: Outside
) -> dict[str, Box]:
    """Return where the sites are: near what they read, those of a plate side by side."""
    places: dict[str, Box] = {}
    y, above = 0.0, []
    for layer in layers:

        def wanted(name: str) -> float:
            read = [places[each].x for each in nodes[name].parents if each in places]
            return sum(read) / len(read) if read else 0.0

        order = sorted(layer, key=lambda name: (wanted(name), nodes[name].plates[::-1]))
        y -= _step_down(nodes, above, order)
        slots = [max(size_of(nodes[name])[0], outside.width_at(name)) for name in order]
        pairs = itertools.pairwise(order)
        gaps = [BETWEEN + _apart(nodes[left], nodes[right]) for left, right in pairs]
        left = sum(map(wanted, order)) / len(order) - (sum(slots) + sum(gaps)) / 2
        for name, slot, gap in zip(order, slots, [*gaps, 0.0], strict=True):
            width, height = size_of(nodes[name])
            places[name] = Box(left + slot / 2, y, width, height)
            left += slot + gap
        above = order
    return places


def _step_down(nodes: Mapping[str, Node], above: Sequence[str], below: Sequence[str]) -> float:
    """Return how far below a layer the next one is: there is room for plates that end and begin."""
    if not above:
        return 0.0
    upper, lower = (max(size_of(nodes[name])[1] for name in layer) for layer in (above, below))
    before, after = (
        {plate for name in layer for plate in nodes[name].plates} for layer in (above, below)
    )
    ended, begun = len(before - after), len(after - before)
    room = (PADDING + NAME) * bool(ended) + NESTED * ended + PADDING * bool(begun) + NESTED * begun
    return upper / 2 + lower / 2 + LAYER + room


def _apart(left: Node, right: Node) -> float:
    """Return how much more room is between neighbors, for the plates that one of them is in."""
    differ = set(left.plates) ^ set(right.plates)
    return (PADDING + NESTED * len(differ)) * bool(differ) + LOOP * right.reads_itself


# ── plates ────────────────────────────────────────────────────────────────────────────────────────


def _plates(diagram: Diagram, places: Mapping[str, Box]) -> dict[str, Box]:
    """Return a box around the members of each plate, outside of the plates that are within it."""
    members: dict[str, frozenset[str]] = {}
    loops = {node.name for node in diagram.nodes if node.reads_itself}
    for plate in diagram.plates:
        inside = [node.name for node in diagram.nodes if plate in node.plates]
        members[plate] = frozenset(name for name in inside if name in places)
    boxes, detours = {}, _detours(diagram, places)
    for plate in diagram.plates:
        if not members[plate]:
            continue
        depth = sum(_is_within(diagram, other, plate, members) for other in diagram.plates)
        pad = PADDING + NESTED * depth
        inside = [places[name] for name in members[plate]]
        left = min(places[name].left - LOOP * (name in loops) for name in members[plate]) - pad
        # there is a line for its name
        name = SMALL_CHARACTER * (len(plate) + len(f"{diagram.plates[plate]:,}") + 2) + 0.2
        around = [arrow.far for arrow in detours if arrow.ends <= members[plate]]
        right = max(max([*(box.right for box in inside), *around]) + pad, left + name)
        bottom = min(box.bottom for box in inside) - pad - NAME - 0.05 * depth
        top = max(box.top for box in inside) + pad
        boxes[plate] = Box((left + right) / 2, (top + bottom) / 2, right - left, top - bottom)
    return boxes


class _Detour(NamedTuple):
    """An arrow that goes around other nodes: between which two, and how far right."""

    ends: frozenset[str]
    far: float


def _detours(diagram: Diagram, places: Mapping[str, Box]) -> list[_Detour]:
    """Return the arrows between sites that others are in the way of."""
    found = []
    for node in diagram.nodes:
        for parent in node.parents:
            if parent in places and node.name in places:
                far = way_around(places, parent, node.name)
                if far is not None:
                    found.append(_Detour(frozenset({parent, node.name}), far))
    return found


def _is_within(
    diagram: Diagram, inner: str, outer: str, members: Mapping[str, frozenset[str]]
) -> bool:
    """Whether a plate is drawn within another."""
    if inner == outer or not members[inner]:
        return False
    if members[inner] != members[outer]:
        return members[inner] < members[outer]
    # of the same members: as the program nests them
    plates = next(node.plates for node in diagram.nodes if node.name in members[inner])
    return plates.index(inner) < plates.index(outer)
