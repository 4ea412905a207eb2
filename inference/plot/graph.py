"""The program as a graph: plates, latents, observations, and how each parameter is maximized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from emjax.em import EM
from emjax.plot.boxes import Box, Layout, way_around
from emjax.plot.fits import AnyFit, bound_of
from emjax.plot.layout import LOOP, layout_of
from emjax.plot.nodes import Diagram, Node, diagram_of
from emjax.plot.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, panel, styled
from emjax.run.streamed import Streamed

MARGIN = 0.12
# how each parameter is maximized: the exact ones are cool, those that climb are warm
METHODS = {
    "closed form": GREEN,
    "least squares": BLUE,
    "Newton": PURPLE,
    "L-BFGS": VERMILLION,
    "optax": VERMILLION,
    "user": VERMILLION,
    "held": GREY,
}


@styled
def graph(em_or_fit: EM | AnyFit, *args: Any, ax: Any = None, **kwargs: Any) -> Axes:
    """Draw the graph of a program; return the axes.

    Rounded boxes are plates, dashed ones the steps of a scan. Ellipses are sites, shaded ones
    observed; a chain has an arrow to itself. Without an outline are parameters, each with how it is
    maximized, as `em.plan` says. `em_or_fit`: a fit, or an EM, then `args` and `kwargs` are the
    program's own arguments; `ax`: the axes to draw on. Errors: `ValueError` for what is neither.
    """
    bound = _bound(em_or_fit, args, kwargs)
    diagram = diagram_of(bound)
    layout = layout_of(diagram)
    left, right, bottom, top = layout.extent
    width, height = right - left + 2 * MARGIN, top - bottom + 2 * MARGIN
    ax = panel(ax, width, height)
    ax.set(xlim=(left - MARGIN, right + MARGIN), ylim=(bottom - MARGIN, top + MARGIN))
    ax.set_aspect("equal")
    ax.set_axis_off()
    _Drawing(ax, diagram, layout, _scale(ax, width, height)).draw()
    return ax


def _bound(em_or_fit: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(em_or_fit, EM):
        bound = em_or_fit.on(*args, **kwargs)
        return bound.of_first if isinstance(bound, Streamed) else bound
    return bound_of(em_or_fit, "graph", needs_data=False)


def _scale(ax: Axes, width: float, height: float) -> float:
    """Return how large the axes are, of what the drawing takes in inches; at most one."""
    given, inch = ax.get_window_extent(), ax.figure.dpi
    # axes that are made for the drawing are a little smaller than it, for their margins
    return min(1.0, 1.1 * given.width / inch / width, 1.1 * given.height / inch / height)


class _Drawing:
    """A graph on axes, whose text is `scale` times as large as usual."""

    def __init__(self, ax: Axes, diagram: Diagram, layout: Layout, scale: float):
        self.ax, self.diagram, self.layout, self.scale = ax, diagram, layout, scale

    def draw(self) -> None:
        """Draw plates, arrows, nodes, in this order."""
        largest = sorted(self.layout.plates.items(), key=lambda each: -each[1].height)
        for plate, box in largest:
            self.draw_plate(plate, box)
        nodes = {node.name: node for node in self.diagram.nodes}
        for node in self.diagram.nodes:
            for parent in node.parents:
                if parent in nodes:
                    self.draw_arrow(nodes[parent], node)
            if node.reads_itself:
                self.draw_loop(self.layout.nodes[node.name])
        for node in self.diagram.nodes:
            self.draw_node(node, self.layout.nodes[node.name])

    def draw_plate(self, plate: str, box: Box) -> None:
        """Draw a plate: a box, with its name and its size."""
        is_time = plate in self.diagram.steps
        rounded = "round,pad=0,rounding_size=0.1"
        outline = FancyBboxPatch((box.left, box.bottom), box.width, box.height, boxstyle=rounded)
        line = (0, (4, 3)) if is_time else "-"
        outline.set(facecolor="none", edgecolor="#9A9A9A", linewidth=0.9, linestyle=line)
        self.ax.add_patch(outline)
        size = self.diagram.plates[plate]
        text = f"{plate}  {size:,}"
        where = {"ha": "right", "va": "bottom", "color": GREY, "fontsize": 7.5 * self.scale}
        # legible where an arrow goes through it
        rim = {"path_effects": [withStroke(linewidth=3, foreground="white")], "zorder": 2.5}
        self.ax.text(box.right - 0.07, box.bottom + 0.04, text, **where | rim)

    def draw_node(self, node: Node, box: Box) -> None:
        """Draw a node with its name, and what is said of it."""
        if node.kind != "parameter":
            face = "#D5DBE1" if node.kind == "observed" else "white"
            style = {"facecolor": face, "edgecolor": INK, "linewidth": 1.1}
            if node.kind == "prior":
                style |= {"linestyle": (0, (3, 2))}
            self.ax.add_patch(Ellipse((box.x, box.y), box.width, box.height, zorder=3, **style))
        step = 0.13
        y = box.y + step * len(node.lines) / 2
        middle = {"ha": "center", "va": "center", "zorder": 4}
        self.ax.text(box.x, y, node.name, fontsize=9.5 * self.scale, **middle)
        for line in node.lines:
            y -= step if line != node.lines[0] else step * 1.1
            is_method = line == node.method
            color = METHODS.get(line, INK) if is_method else GREY
            style = {"fontsize": 7.5 * self.scale, "color": color}
            self.ax.text(box.x, y, line, **middle | style)

    def draw_arrow(self, parent: Node, node: Node) -> None:
        """Draw an arrow from what is read to what reads it."""
        start, stop = (self.layout.nodes[each.name] for each in (parent, node))
        far = way_around(self.layout.nodes, parent.name, node.name)
        color = GREY if parent.is_estimated else INK
        if far is None:
            first = _edge(start, stop, parent.kind == "parameter")
            last = _edge(stop, start, node.kind == "parameter")
            self.draw_path([first, last], color)
            return
        # a curve of this kind goes three quarters of the way to its corners
        corner = max(start.x, stop.x) + (far - max(start.x, stop.x)) / 0.75
        above, below = (start, stop) if start.y > stop.y else (stop, start)
        ends = [
            _edge(box, Box(far, height, 0, 0), False)
            for box, height in ((above, above.bottom), (below, below.top))
        ]
        path = [ends[0], (corner, above.bottom), (corner, below.top), ends[1]]
        self.draw_path(path if above is start else path[::-1], color)

    def draw_loop(self, box: Box) -> None:
        """Draw an arrow from a node to itself, on its left."""
        high = 0.27 * box.height
        # where the ellipse is at that height
        x = box.x - box.width / 2 * np.sqrt(1 - (2 * high / box.height) ** 2) - 0.02
        far = box.left - LOOP - 0.08
        corners = [(x, box.y + high), (far, box.y + 1.5 * high), (far, box.y - 1.5 * high)]
        self.draw_path([*corners, (x, box.y - high)], INK)

    def draw_path(self, points: Sequence[tuple[float, float]], color: str) -> None:
        """Draw an arrow: straight between two points, or a curve of two corners."""
        kinds = (
            [Path.MOVETO, Path.LINETO] if len(points) == 2 else [Path.MOVETO, *[Path.CURVE4] * 3]
        )
        style = {"arrowstyle": "-|>", "mutation_scale": 9 * self.scale, "linewidth": 0.9}
        arrow = FancyArrowPatch(path=Path(points, kinds), color=color, **style)
        self.ax.add_patch(arrow)


def _edge(box: Box, other: Box, is_rectangle: bool) -> tuple[float, float]:
    """Return where the line from the center of a box to that of another leaves it."""
    dx, dy = other.x - box.x, other.y - box.y
    half_width, half_height = box.width / 2 + 0.03, box.height / 2 + 0.03
    if is_rectangle:
        share = min(half_width / max(abs(dx), 1e-9), half_height / max(abs(dy), 1e-9))
    else:
        share = 1 / np.hypot(dx / half_width, dy / half_height)
    return box.x + share * dx, box.y + share * dy
