"""Where the nodes of a program are drawn: layers from what is read to what reads it.

Sites are in layers, the longest chain of reads above each. Estimates that are in no plate stand
outside: above the first layer, below the last, beside those between. Lengths are inches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emjax.plot.nodes import Diagram, Node

# of a character of 9.5 points, and of 7.5
CHARACTER, SMALL_CHARACTER = 0.083, 0.066
BETWEEN, LAYER, OUTSIDE = 0.35, 1.05, 0.85
PADDING, NESTED = 0.16, 0.13


@dataclass(frozen=True)
class Box:
    """A rectangle: its center, and how wide and high it is."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2

    @property
    def top(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True)
class Layout:
    """Where nodes and plates are, by name."""

    nodes: dict[str, Box]
    plates: dict[str, Box]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """What all of it spans: left, right, bottom, top."""
        boxes = [*self.nodes.values(), *self.plates.values()]
        return (
            min(box.left for box in boxes),
            max(box.right for box in boxes),
            min(box.bottom for box in boxes),
            max(box.top for box in boxes),
        )


def size_of(node: Node) -> tuple[float, float]:
    """Return how wide and high a node is drawn."""
    below = max((len(line) for line in node.lines), default=0)
    width = max(CHARACTER * len(node.name), SMALL_CHARACTER * below)
    lines = 0.17 + 0.125 * len(node.lines)
    if node.kind == "parameter":
        return width + 0.1, lines + 0.05
    # text within an ellipse
    return max(0.95, 1.3 * width + 0.18), lines + 0.24


def layout_of(diagram: Diagram) -> Layout:
    """Return where everything is."""
    nodes = {node.name: node for node in diagram.nodes}
    outside = {name for name, node in nodes.items() if node.is_estimated and not node.plates}
    sites = [name for name in nodes if name not in outside]
    layers = _layers(nodes, sites)
    places = _places(nodes, layers)
    plates = _plates(diagram, places)
    for name, box in _outside(nodes, outside, layers, places, plates).items():
        places[name] = box
    return Layout(places, plates)


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


def _places(nodes: Mapping[str, Node], layers: Sequence[Sequence[str]]) -> dict[str, Box]:
    """Return where the sites are: near what they read, those of a plate side by side."""
    places: dict[str, Box] = {}
    for number, layer in enumerate(layers):

        def wanted(name: str) -> float:
            above = [places[each].x for each in nodes[name].parents if each in places]
            return sum(above) / len(above) if above else 0.0

        order = sorted(layer, key=lambda name: (wanted(name), nodes[name].plates[::-1]))
        widths = [size_of(nodes[name])[0] for name in order]
        left = -(sum(widths) + BETWEEN * (len(order) - 1)) / 2
        center = sum(map(wanted, order)) / len(order)
        for name, width in zip(order, widths, strict=True):
            height = size_of(nodes[name])[1]
            places[name] = Box(center + left + width / 2, -LAYER * number, width, height)
            left += width + BETWEEN
    return places


def _plates(diagram: Diagram, places: Mapping[str, Box]) -> dict[str, Box]:
    """Return a box around the members of each plate, outside of the plates that are within it."""
    members, order = {}, []
    for plate in diagram.plates:
        inside = [node.name for node in diagram.nodes if plate in node.plates]
        members[plate] = frozenset(name for name in inside if name in places)
        order.append(plate)
    boxes = {}
    for plate in order:
        if not members[plate]:
            continue
        depth = sum(_is_within(diagram, other, plate, members) for other in order)
        pad = PADDING + NESTED * depth
        inside = [places[name] for name in members[plate]]
        left, right = min(b.left for b in inside) - pad, max(b.right for b in inside) + pad
        # below, there is a line for its name
        bottom = min(b.bottom for b in inside) - pad - 0.12 - 0.06 * depth
        top = max(b.top for b in inside) + pad
        width, height = right - left, top - bottom
        boxes[plate] = Box((left + right) / 2, (top + bottom) / 2, width, height)
    return boxes


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


# ── what is outside of plates ─────────────────────────────────────────────────────────────────────


def _outside(
    nodes: Mapping[str, Node],
    outside: set[str],
    layers: Sequence[Sequence[str]],
    places: Mapping[str, Box],
    plates: Mapping[str, Box],
) -> dict[str, Box]:
    """Return where the estimates are that are in no plate."""
    boxes = [*places.values(), *plates.values()]
    top = max((box.top for box in boxes), default=0.0)
    bottom = min((box.bottom for box in boxes), default=0.0)
    right = max((box.right for box in boxes), default=0.0)
    layer_of = {name: number for number, layer in enumerate(layers) for name in layer}
    rows: dict[tuple[str, int], list[str]] = {}
    distances = _distances(nodes, outside)
    readers = {name: _readers(nodes, name, outside) for name in outside}
    for name in [each for each in nodes if each in outside]:
        numbers = {layer_of[reader] for reader in readers[name] if reader in layer_of}
        side = _side(numbers, len(layers))
        rows.setdefault((side, distances[name]), []).append(name)
    placed: dict[str, Box] = {}
    for (side, distance), names in rows.items():

        def wanted(name: str) -> float:
            at = [places[reader].x for reader in readers[name] if reader in places]
            return sum(at) / len(at) if at else right

        if side == "beside":
            placed |= _stacked(nodes, names, readers, places, right + OUTSIDE * (distance - 1))
            continue
        heights = max(size_of(nodes[name])[1] for name in names)
        away = 0.38 + heights / 2 + OUTSIDE * (distance - 1)
        y = top + away if side == "above" else bottom - away
        placed |= _in_a_row(nodes, names, {name: wanted(name) for name in names}, y)
    return placed


def _side(numbers: set[int], num_layers: int) -> str:
    """Return on which side stands what sites of these layers read."""
    if not numbers or numbers == {0}:
        return "above"
    if numbers == {num_layers - 1}:
        return "below"
    return "beside"


def _readers(nodes: Mapping[str, Node], name: str, outside: set[str]) -> set[str]:
    """Return the sites that read an estimate, also by way of other estimates."""
    found: set[str] = set()
    for other in nodes.values():
        if name in other.parents:
            is_between = other.name in outside
            found |= _readers(nodes, other.name, outside) if is_between else {other.name}
    return found


def _distances(nodes: Mapping[str, Node], outside: set[str]) -> dict[str, int]:
    """Return how many reads away from the sites each estimate is."""
    distances: dict[str, int] = {}

    def distance(name: str) -> int:
        if name not in distances:
            readers = [n.name for n in nodes.values() if name in n.parents and n.name in outside]
            distances[name] = 1 + max(map(distance, readers), default=0)
        return distances[name]

    for name in outside:
        distance(name)
    return distances


def _in_a_row(
    nodes: Mapping[str, Node], names: Sequence[str], wanted: Mapping[str, float], y: float
) -> dict[str, Box]:
    """Return places in a row, each as near as may be to where it is wanted."""
    order = sorted(names, key=lambda name: wanted[name])
    groups: list[list[str]] = []
    for name in order:
        if groups and abs(wanted[groups[-1][0]] - wanted[name]) < 1e-9:
            groups[-1].append(name)
        else:
            groups.append([name])
    placed, end = {}, float("-inf")
    for group in groups:
        widths = [size_of(nodes[name])[0] for name in group]
        total = sum(widths) + BETWEEN * (len(group) - 1)
        left = max(wanted[group[0]] - total / 2, end + BETWEEN)
        for name, width in zip(group, widths, strict=True):
            placed[name] = Box(left + width / 2, y, width, size_of(nodes[name])[1])
            left += width + BETWEEN
        end = left - BETWEEN
    return placed


def _stacked(
    nodes: Mapping[str, Node],
    names: Sequence[str],
    readers: Mapping[str, set[str]],
    places: Mapping[str, Box],
    right: float,
) -> dict[str, Box]:
    """Return places one above the other, right of everything, near those who read them."""
    heights = {}
    for name in names:
        at = [places[reader].y for reader in readers[name] if reader in places]
        heights[name] = sum(at) / len(at)
    placed, last = {}, float("inf")
    for name in sorted(names, key=lambda name: -heights[name]):
        width, height = size_of(nodes[name])
        together = [other for other in names if heights[other] == heights[name]]
        shift = (len(together) - 1) / 2 - together.index(name)
        y = min(heights[name] + shift * (height + 0.1), last - height / 2 - 0.1)
        placed[name] = Box(right + 0.45 + width / 2, y, width, height)
        last = y - height / 2
    return placed
