"""What the axes of a program's parameters and latents are called, and the positions along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.meeting_axes import SharedAxes
from emjax.naming.data_labels import Labels, data_labels
from emjax.naming.latent_axes import parameter_dimensions
from emjax.numerics.guards import is_key
from emjax.program.array_like import is_array
from emjax.program.records import Site
from emjax.run.bound import Bound
from emjax.tables.indices import Affine


@dataclass(frozen=True)
class Axis:
    """What an axis is called, and the positions along it.

    - `name`: the latent whose values it lists, the plate, the columns of data; empty if nothing
      names it.
    - `labels`: one for each position: a latent's values, names of columns, else 0, 1, ….
    - `are_words`: whether data gave the labels, which say by themselves what they are of.
    """

    name: str
    labels: tuple[Any, ...]
    are_words: bool = False

    @property
    def printed(self) -> list[str]:
        """What stands for each position within the brackets of an entry."""
        prefix = f"{self.name}=" if self.name and not self.are_words else ""
        return [f"{prefix}{label}" for label in self.labels]


class ProgramAxes:
    """The names of the axes of a program on its data.

    - `of_parameters`: {parameter: its axes}.
    """

    def __init__(self, bound: Bound):
        self.graph = bound.compiled.graph
        self.shared: SharedAxes = self.graph.shared_axes
        of_inputs = dict(zip(_inputs(bound), data_labels(bound), strict=True))
        self.plates, self.latents = self._plates(), self._latents()
        self.labels = self._labels(of_inputs)
        dimensions = parameter_dimensions(self.graph)
        self.of_parameters = {
            name: self._of_parameter(name, dimensions[name]) for name in self.graph.names
        }

    # ── what is known of axes ─────────────────────────────────────────────────────────────────────

    def _plates(self) -> dict[Any, str]:
        """Return the plate that an axis is, by root."""
        plates = {}
        for site in self.graph.program.sites:
            for plate, back in zip(site.plates, site.plate_axes, strict=True):
                number = len(site.elements) + back
                if 0 <= number < len(site.elements):
                    axis = (site.name, number, site.elements[number])
                    plates.setdefault(self.shared.root(axis), plate)
        return plates

    def _latents(self) -> dict[Any, str]:
        """Return the latent at whose value a table is read along an axis, by root."""
        latents: dict[Any, str] = {}
        for (variable, number), source in self.shared.read_by:
            latent = self.graph.latents.get(source) if isinstance(source, str) else None
            numbers = np.arange(variable.aval.shape[number])
            if latent is not None and np.array_equal(latent.support, numbers):
                latents.setdefault(self.shared.root((variable, number)), latent.name)
        return latents

    def _labels(self, of_inputs: Mapping[Any, Any]) -> dict[Any, Labels]:
        """Return what data say of axes, by root."""
        known: dict[Any, Labels] = {}
        for variable, labels in of_inputs.items():
            if labels is None:
                continue
            for number, along in enumerate((labels.rows, labels.columns)):
                if along is not None:
                    known.setdefault(self.shared.root((variable, number)), along)
        for (variable, number), source in (*self.shared.read_by, *self.shared.categories):
            labels = of_inputs.get(source)
            if labels is None or labels.categories is None:
                continue
            if len(labels.categories.values) == variable.aval.shape[number]:
                known.setdefault(self.shared.root((variable, number)), labels.categories)
        self._extend(known)
        return known

    def _extend(self, known: dict[Any, Labels]) -> None:
        """Add what follows for axes that were cut out of others, or joined of them."""
        root = self.shared.root
        for axis, parts in self.shared.parts:
            sources = [known.get(root(part.axis)) for part in parts]
            if root(axis) in known or not any(sources):
                continue
            values: list[Any] = []
            for part, source in zip(parts, sources, strict=True):
                count = len(range(part.start, part.stop, part.step))
                # what nothing names is counted
                numbers = tuple(range(len(values), len(values) + count))
                cut = slice(part.start, None if part.stop < 0 else part.stop, part.step)
                values += numbers if source is None else source.values[cut]
            name = next(source.name for source in sources if source is not None)
            known[root(axis)] = Labels(name, tuple(values))
        # parameters that were joined to what has names
        for axis, parts in self.shared.parts:
            whole, start = known.get(root(axis)), 0
            for part in parts:
                stop = start + len(range(part.start, part.stop, part.step))
                if whole is not None and (part.start, part.step) == (0, 1) and len(parts) > 1:
                    labels = whole._replace(values=whole.values[start:stop])
                    known.setdefault(root(part.axis), labels)
                start = stop

    # ── the axes of what is asked about ───────────────────────────────────────────────────────────

    def _of_parameter(self, name: str, latents: Sequence[str | None]) -> tuple[Axis, ...]:
        variable = self.graph.program.jaxpr.jaxpr.invars[self.graph.names.index(name)]
        axes: list[Axis] = []
        for d, (latent, size) in enumerate(zip(latents, variable.aval.shape, strict=True)):
            # where what is read is computed on, its tables do not tell
            latent = latent or self.latents.get(self.shared.root((variable, d)))
            if latent is not None:
                axis = Axis(latent, tuple(support_values(self.graph, latent).tolist()))
            else:
                axis = self._axis((variable, d), size)
            # a second axis of one kind, such as a covariance's
            if axis.name in [other.name for other in axes] and axis.name:
                axis = replace(axis, name=f"other_{axis.name}")
            axes.append(axis)
        return tuple(axes)

    def of_elements(self, latent: str) -> tuple[Axis, ...]:
        """Return the axes of a latent's elements."""
        axes = []
        for number, size in enumerate(self.graph.latents[latent].shape):
            axis = self._axis((latent, number, size), size)
            if not axis.name and not number and self.graph.latents[latent].is_series:
                axis = self._time(latent, size)
            axes.append(axis)
        return tuple(axes)

    def of_site(self, site: Site) -> tuple[Axis, ...]:
        """Return the axes of a site's value: of its elements, then of an event."""
        sizes = (*site.elements, *site.event)
        return tuple(self._axis((site.name, d, size), size) for d, size in enumerate(sizes))

    def _time(self, latent: str, size: int) -> Axis:
        """Return the time of a latent of a scan: as that of the observations that read it."""
        for term in self.graph.terms:
            site, read = (
                term.site,
                [axis.index for axis in term.latent_axes if axis.source == latent],
            )
            is_alike = site.is_observed and site.elements[:1] == (size,) and bool(read)
            # what is no plate's is time
            if not is_alike or -len(site.elements) in site.plate_axes:
                continue
            axis = self._axis((site.name, 0, size), size)
            if axis.are_words and isinstance(read[0], Affine):
                # a reversed scan reads the latent from its end
                step = 1 if read[0].strides[0] > 0 else -1
                return replace(axis, name=axis.name or "time", labels=axis.labels[::step])
        return Axis("time", tuple(range(size)))

    def _axis(self, axis: Any, size: int) -> Axis:
        root = self.shared.root(axis)
        labels, plate = self.labels.get(root), self.plates.get(root, "")
        if labels is None or len(labels.values) != size:
            return Axis(plate, tuple(range(size)))
        return Axis(plate or labels.name, labels.values, are_words=True)


def _inputs(bound: Bound) -> list[Any]:
    """Return the variable of a program that holds each of the arrays that it takes; or None."""
    program = bound.compiled.graph.program
    if not bound.looks_at_values:
        return list(program.jaxpr.jaxpr.invars[len(program.names) :])
    # its data are among the constants of the program then
    constants = list(zip(program.jaxpr.jaxpr.constvars, program.jaxpr.consts, strict=True))
    inputs = []
    for array in filter(is_array, jax.tree.leaves(bound.arguments)):
        held = [variable for variable, value in constants if _is_same(value, array)]
        inputs.append(held[0] if held else object())
    return inputs


def _is_same(value: Any, array: Any) -> bool:
    if np.shape(value) != array.shape or is_key(value) or is_key(array):
        return False
    return np.array_equal(np.asarray(value), np.asarray(array))


# to find them, a program is walked through
AXES: WeakKeyDictionary[Bound, ProgramAxes] = WeakKeyDictionary()


def program_axes(bound: Bound) -> ProgramAxes:
    """Return the names of the axes of a program on its data."""
    if bound not in AXES:
        AXES[bound] = ProgramAxes(bound)
    return AXES[bound]


def support_values(graph: FactorGraph, dimension: str) -> np.ndarray:
    """Return the values of the latent that a dimension is named after: 0, 1, … for vectors."""
    # a latent may itself be called `next_…`: its own name goes first
    is_latent = dimension in graph.latents
    latent = graph.latents[dimension if is_latent else dimension.removeprefix("next_")]
    return latent.support if latent.support.ndim == 1 else np.arange(len(latent.support))
