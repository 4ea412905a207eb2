"""Which unknowns of least squares meet in Q, and which never do: groups that are solved apart.

Q is quadratic in entries of parameters that enter locations, and coefficients of Gaussian latents,
affinely. Two of them meet if a cell of a table depends on both, or if cells of one element's
location and coefficients do: of several coordinates, all of them, since a covariance couples these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emjax.graph.slots import Slot
from emjax.graph.terms import Term
from emjax.graph.wiring import (
    NONE,
    Wire,
    constant_wire,
    free_of_parameters,
    literal_wire,
    moved_entries,
)
from emjax.m_step.wiring_view import WiringView
from emjax.numerics.jaxprs import inlined, interpreted, pruned, rearranged
from emjax.numerics.primitives import Equation, Kind, traits
from emjax.tables.indices import Dense
from emjax.tables.named import Axis, Named, spread, union


def coupled_entries(view: WiringView, names: Sequence[str], terms: Sequence[int]) -> np.ndarray:
    """Return the number of the group that each entry of some parameters is in: (entry).

    Entries are numbered in the order of `names`, each parameter's in C order; `terms`: the numbers
    of those that depend on the parameters, affinely.
    """
    # most programs have no least squares, and do not wait for the import
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    entries = _Entries(view, names)
    for number in terms:
        entries.meet_in(view.graph.terms[number])
    total = sum(math.prod(view.graph.parameters[name].shape) for name in names)
    first, second = np.concatenate([np.zeros((0, 2), int), *entries.meetings]).T
    meetings = coo_array((np.ones(len(first), bool), (first, second)), shape=(total, total))
    return connected_components(meetings, directed=False)[1]


class _Entries:
    """Entries of parameters, and those pairs of them that have been seen to meet.

    Every cell of a table that depends on some is represented by one of them (`NONE`: by none), that
    all others have met which the cell depends on.
    """

    def __init__(self, view: WiringView, names: Sequence[str]):
        self.view, self.meetings = view, []
        self.of_parameter: dict[str, np.ndarray] = {}
        start = 0
        for name in names:
            shape = view.graph.parameters[name].shape
            self.of_parameter[name] = np.arange(start, start + math.prod(shape)).reshape(shape)
            start += math.prod(shape)
        self.in_slots = self._in_slots()

    def _in_slots(self) -> dict[int, np.ndarray]:
        """Return what represents the cells of each slot that a location or coefficients fill."""
        graph = self.view.graph
        slots = []
        for term in graph.terms:
            for table, shape in self.view.arguments(term):
                reads = any(self.view.reads(table, name) for name in self.of_parameter)
                if reads and shape is not None and shape.is_quadratic:
                    assert isinstance(table.array, Slot)  # what is known reads no parameter
                    slots.append(table.array.number)
        closed = inlined(graph.full_jaxpr)
        outputs = [closed.jaxpr.outvars[number] for number in slots]
        closed = pruned(closed.replace(jaxpr=rearranged(closed.jaxpr, outvars=outputs)))
        inputs = [constant_wire(value) for value in closed.consts]
        inputs += [self._wire(name) for name in graph.names]
        inputs += [Wire()] * (len(closed.jaxpr.invars) - len(graph.names))
        wires = interpreted(closed.jaxpr, inputs, literal_wire, self._equation)
        return {number: wire.entries for number, wire in zip(slots, wires, strict=True)}

    def _wire(self, name: str) -> Wire:
        if name not in self.of_parameter:
            return Wire()
        return Wire(frozenset({name}), self.of_parameter[name])

    def meet_in(self, term: Term) -> None:
        """Let the entries meet that cells of one element of a term depend on."""
        rank, name = len(term.elements), term.site.name
        tables = []
        for table, shape in self.view.arguments(term):
            if isinstance(table.array, Slot) and table.array.number in self.in_slots:
                entries = self.in_slots[table.array.number]
                axes = tuple(_without_array(axis) for axis in table.axes)
                tables.append(Named(entries, table.shape, axes))
                if term.site.is_prior:
                    assert shape is not None  # of a slot that is a location
                    rank = len(self.view.graph.parameters[name].shape) - shape.event_dim
        # a prior is quadratic in the step from its location to its value
        if term.site.is_prior and name in self.of_parameter and tables:
            value = self.of_parameter[name]
            tables.append(Named(value, value.shape))
        heads = [self._of_elements(table, rank) for table in tables]
        if len(heads) > 1:
            axes = union(heads)
            self._meet([spread(head, axes, rank) for head in heads])

    def _of_elements(self, table: Named, rank: int) -> Named:
        """Return what represents the cells of each element, whose own cells meet."""
        table = table.padded(rank)
        lead = len(table.axes) + rank
        entries = self._together(table.array, tuple(range(lead, table.array.ndim)))
        axes = tuple(axis.fitted(rank) for axis in table.axes)
        return Named(entries.reshape(entries.shape[:lead]), table.shape[:rank], axes)

    # ── primitives ────────────────────────────────────────────────────────────────────────────────

    def _equation(self, eqn: Equation, inputs: list[Wire]) -> list[Wire]:
        parameters = frozenset().union(*(wire.parameters for wire in inputs))
        if not parameters:
            return free_of_parameters(eqn, inputs)
        results = moved_entries(eqn, inputs)
        if results is None:
            mixed = self._mixed(eqn, inputs)
            results = [np.broadcast_to(mixed, tuple(var.aval.shape)) for var in eqn.outvars]
        return [Wire(parameters, entries) for entries in results]

    def _mixed(self, eqn: Equation, inputs: list[Wire]) -> np.ndarray:
        """Return what represents the cells of a result, up to broadcasting."""
        kind = traits(eqn).kind
        read = [wire.entries for wire in inputs if wire.parameters]
        if kind is Kind.ELEMENTWISE:
            return self._meet([_once(entries) for entries in read])
        if kind is Kind.CONTRACTS:
            return self._contracted(eqn, inputs)
        if kind is Kind.REDUCES:
            axes = tuple(eqn.params["axes"])
            return self._together(read[0], axes).squeeze(axes)
        if kind is Kind.MIXES:
            return self._together(read[0], tuple(traits(eqn).mixes(eqn)))
        # what mixes its operands in any other way mixes all of their cells
        everything = [self._together(each, tuple(range(each.ndim))) for each in read]
        return self._meet([each.reshape(()) for each in everything])

    def _contracted(self, eqn: Equation, inputs: list[Wire]) -> np.ndarray:
        """Return what represents the cells of a product, of whose operands one depends on some."""
        contracting, batch = eqn.params["dimension_numbers"]
        (side,) = (i for i, wire in enumerate(inputs) if wire.parameters)
        cells = self._together(inputs[side].entries, tuple(contracting[side]))
        free = [d for d in range(cells.ndim) if d not in (*contracting[side], *batch[side])]
        cells = cells.transpose([*batch[side], *free, *contracting[side]])
        lead, rank = len(batch[side]), len(eqn.outvars[0].aval.shape)
        ones = (1,) * (rank - lead - len(free))
        own = cells.shape[lead : lead + len(free)]
        return cells.reshape(cells.shape[:lead] + (ones + own if side else own + ones))

    # ── meetings ──────────────────────────────────────────────────────────────────────────────────

    def _meet(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Let the entries of cells at the same place meet; return what represents them."""
        arrays = np.broadcast_arrays(*arrays)
        leaders = np.asarray(np.maximum.reduce(arrays))
        for entries in arrays:
            self._record(entries, leaders)
        return leaders

    def _together(self, entries: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        """Let the entries along some axes meet, which are then of length 1."""
        entries = _once(entries)
        leaders = np.asarray(entries.max(axes, keepdims=True, initial=NONE))
        self._record(entries, np.broadcast_to(leaders, entries.shape))
        return leaders

    def _record(self, entries: np.ndarray, leaders: np.ndarray) -> None:
        are_two = (entries != NONE) & (entries != leaders)
        if are_two.any():
            pairs = np.stack([entries[are_two], leaders[are_two]], -1)
            self.meetings.append(np.unique(pairs, axis=0))


def _once(entries: np.ndarray) -> np.ndarray:
    """Return cells without those that are copies along an axis, which is then of length 1."""
    strides = zip(entries.strides, entries.shape, strict=True)
    return entries[tuple(slice(1) if not step and n > 1 else slice(None) for step, n in strides)]


def _without_array(axis: Axis) -> Axis:
    """Return an axis that is the same to its key and its shape, all that entries ask of it."""
    if not isinstance(axis.index, Dense):
        return axis
    # what is in its place may be a slot, which cannot be moved
    index = axis.index.with_arrays(lambda array: np.broadcast_to(np.int32(0), array.shape))
    return replace(axis, index=index)
