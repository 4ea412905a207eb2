"""An estimate on its data: what certificates and standard errors are about."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from emjax.certificates.coordinates import Coordinates, coordinates
from emjax.certificates.curvature import not_finite
from emjax.certificates.neighborhood import Neighborhood
from emjax.graph.factor_graph import FactorGraph
from emjax.naming.entries import Entries, entries_of
from emjax.run import validation, verdicts
from emjax.run.annotations import Params
from emjax.run.bound import Bound
from emjax.run.vanishing import at_zero


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate on its data.

    - `bound`: the program, compiled for the data.
    - `params`: the estimate, constrained.
    - `chart`: the coordinates that are free at the estimate.
    """

    bound: Bound
    params: Mapping[str, Any]
    chart: Coordinates

    @classmethod
    def of(cls, bound: Bound, result: Params) -> Estimate:
        """Return the estimate of a result, or parameters, which are checked, on data.

        Data are checked where something is asked of them.
        """
        params, compiled = bound.checked(result), bound.compiled
        # a variance that goes to zero is on the boundary, which EM nears for ever
        zeros = at_zero(compiled, bound.data, params)
        names = entries_of(bound)
        chart = coordinates(compiled.graph, compiled.maximizers, params, names, zeros)
        return cls(bound, params, chart)

    def check_finite(self, hessian: np.ndarray, gradient: np.ndarray) -> None:
        """Raise `ValueError` for derivatives that are not finite; it says of which parameter."""
        is_bad = not_finite(hessian, gradient)
        if not is_bad.any():
            return
        start, number = 0, int(np.argmax(is_bad))
        for name, chart in self.chart.charts.items():
            if start <= number < start + len(chart.names):
                finding = verdicts.no_derivative(name, chart.names[number - start], self.how(name))
                raise ValueError(str(finding))
            start += len(chart.names)

    def how(self, name: str) -> str:
        """Return how a parameter is maximized, and why so."""
        for maximizer in self.bound.compiled.maximizers:
            if name in maximizer.names:
                return maximizer.reasons[maximizer.names.index(name)]
        return ""

    @cached_property
    def constants(self) -> Sequence:
        """What depends on the data alone; these are checked."""
        return self.bound.constants()

    @property
    def entries(self) -> Mapping[str, Entries]:
        """What the entries of each parameter are called."""
        return entries_of(self.bound)

    @property
    def graph(self) -> FactorGraph:
        """The program's factor graph."""
        return self.bound.compiled.graph

    def function(self, key: Hashable, asked: Callable, is_called_once: bool = True) -> Callable:
        """Return `asked`, a pure function of (the neighborhood of the estimate, …), compiled.

        What remains is a function of the other arguments. It is compiled once for each key, and
        what is on the boundary. `is_called_once`: see `CompiledFunction`; then what depends on data
        alone, and their checks, are a part of it.
        """
        compiled, chart, graph = self.bound.compiled, self.chart, self.graph

        # what is known of the estimate is passed, not closed over: another one compiles nothing
        def around(params, constants, *others: Any):
            return asked(Neighborhood(compiled.pure, chart, params, constants), *others)

        def on_data(params, data, *others: Any):
            constants = graph.prepare(data)
            return around(params, constants, *others), validation.violations(graph, constants)

        key = (key, chart.key)
        if not is_called_once:
            return partial(compiled.function(key, lambda: around), self.params, self.constants)
        function = compiled.function(key, lambda: on_data, is_called_once=True)

        def checked(*others: Any):
            answer, violations = function(self.params, self.bound.data, *others)
            validation.check_data(graph, violations)
            return answer

        return checked
