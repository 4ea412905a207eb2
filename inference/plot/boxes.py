"""How large the nodes and plates of a program are drawn. Lengths are inches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emjax.plot.nodes import Node

# of a character of 9.5 points, and of 7.5
CHARACTER, SMALL_CHARACTER = 0.083, 0.066
# between neighbors, and between a node and an arrow that goes around it
BETWEEN, AROUND = 0.35, 0.12


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


def way_around(places: Mapping[str, Box], parent: str, child: str) -> float | None:
    """Return how far right an arrow has to go around nodes that are in its way; None if none is."""
    start, stop = places[parent], places[child]
    shares = np.linspace(0.0, 1.0, 41)
    x, y = start.x + shares * (stop.x - start.x), start.y + shares * (stop.y - start.y)
    right = None
    for name, box in places.items():
        if name in (parent, child):
            continue
        distance = np.hypot((x - box.x) / (box.width / 2), (y - box.y) / (box.height / 2))
        if (distance < 1).any():
            right = max(box.right + AROUND, right or box.right)
    return right
