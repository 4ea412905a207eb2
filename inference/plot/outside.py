"""Where the estimates stand that are in no plate: above the sites, below them, or beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from emjax.plot.boxes import BETWEEN, Box, size_of
from emjax.plot.nodes import Node

# from the plates to the first row, and from row to row
AWAY, ROW = 0.36, 0.85


class Outside:
    """The estimates that are in no plate.

    - `nodes`: all nodes, by name; `names`: the estimates; `layers`: the sites.
    - `side`: of each, "above", "below" or "beside"; `distance`: how many reads from the sites.
    - `readers`: the sites that read it, also by way of other estimates.
    """

    def __init__(
        self, nodes: Mapping[str, Node], names: Collection[str], layers: Sequence[Sequence[str]]
    ):
        self.nodes = nodes
        # in the order of the program
        self.names = [name for name in nodes if name in names]
        self.readers = {name: self._readers(name) for name in self.names}
        self.distance = {name: self._distance(name) for name in self.names}
        layer_of = {name: number for number, layer in enumerate(layers) for name in layer}
        self.side = {}
        for name in self.names:
            numbers = {layer_of[reader] for reader in self.readers[name] if reader in layer_of}
            self.side[name] = _side(numbers, len(layers))

    def _readers(self, name: str) -> set[str]:
        found: set[str] = set()
        for other in self.nodes.values():
            if name in other.parents:
                is_between = other.name in self.names
                found |= self._readers(other.name) if is_between else {other.name}
        return found

    def _distance(self, name: str) -> int:
        readers = [each for each in self.names if name in self.nodes[each].parents]
        return 1 + max(map(self._distance, readers), default=0)

    def width_at(self, site: str) -> float:
        """Return how wide the estimates are together that a site alone reads, above or below it."""
        widths: dict[tuple[str, int], float] = {}
        for name in self.names:
            if self.readers[name] == {site} and self.side[name] != "beside":
                row = self.side[name], self.distance[name]
                widths[row] = widths.get(row, -BETWEEN) + size_of(self.nodes[name])[0] + BETWEEN
        return max(widths.values(), default=0.0)

    def placed(self, places: Mapping[str, Box], plates: Mapping[str, Box]) -> dict[str, Box]:
        """Return where they are, among sites and plates that have their places."""
        boxes = [*places.values(), *plates.values()] or [Box(0.0, 0.0, 0.0, 0.0)]
        top, bottom = max(box.top for box in boxes), min(box.bottom for box in boxes)
        right = max(box.right for box in boxes)
        rows: dict[tuple[str, int], list[str]] = {}
        for name in self.names:
            rows.setdefault((self.side[name], self.distance[name]), []).append(name)
        placed: dict[str, Box] = {}
        for (side, distance), names in rows.items():
            if side == "beside":
                placed |= self._stacked(names, places, right + 1.3 * (distance - 1))
                continue
            height = max(size_of(self.nodes[name])[1] for name in names)
            away = AWAY + height / 2 + ROW * (distance - 1)
            y = top + away if side == "above" else bottom - away
            placed |= self._in_a_row(names, places, y)
        return placed

    def _wanted(self, name: str, places: Mapping[str, Box]) -> Box:
        """Return the middle of the sites that read an estimate."""
        read = [places[reader] for reader in sorted(self.readers[name]) if reader in places]
        if not read:
            return Box(0.0, 0.0, 0.0, 0.0)
        x, y = (sum(each) / len(read) for each in zip(*((b.x, b.y) for b in read), strict=True))
        return Box(x, y, 0.0, 0.0)

    def _in_a_row(
        self, names: Sequence[str], places: Mapping[str, Box], y: float
    ) -> dict[str, Box]:
        """Return places in a row, each as near as may be to who reads it."""
        groups: dict[float, list[str]] = {}
        for name in names:
            groups.setdefault(round(self._wanted(name, places).x, 6), []).append(name)
        placed: dict[str, Box] = {}
        end = float("-inf")
        for x in sorted(groups):
            widths = [size_of(self.nodes[name])[0] for name in groups[x]]
            total = sum(widths) + BETWEEN * (len(widths) - 1)
            left = max(x - total / 2, end + BETWEEN)
            for name, width in zip(groups[x], widths, strict=True):
                placed[name] = Box(left + width / 2, y, width, size_of(self.nodes[name])[1])
                left += width + BETWEEN
            end = left - BETWEEN
        return placed

    def _stacked(
        self, names: Sequence[str], places: Mapping[str, Box], right: float
    ) -> dict[str, Box]:
        """Return places one above the other, right of everything, near those who read them."""
        heights = {name: self._wanted(name, places).y for name in names}
        placed: dict[str, Box] = {}
        last = float("inf")
        for name in sorted(names, key=lambda name: -heights[name]):
            width, height = size_of(self.nodes[name])
            together = [other for other in names if heights[other] == heights[name]]
            shift = (len(together) - 1) / 2 - together.index(name)
            y = min(heights[name] + shift * (height + 0.1), last - height / 2 - 0.1)
            placed[name] = Box(right + AWAY + width / 2, y, width, height)
            last = y - height / 2
        return placed


def _side(numbers: set[int], num_layers: int) -> str:
    """Return on which side stands what sites of these layers read."""
    if not numbers or numbers == {0}:
        return "above"
    return "below" if numbers == {num_layers - 1} else "beside"
