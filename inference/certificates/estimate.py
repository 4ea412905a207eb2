"""An estimate on its data: what certificates and standard errors are about."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from emjax.certificates.coordinates import Coordinates, coordinates
from emjax.certificates.neighborhood import Neighborhood
from emjax.graph.factor_graph import FactorGraph
from emjax.run.annotations import Params
from emjax.run.bound import Bound


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate on its data.

    - `bound`: the program, compiled for the data.
    - `params`: the estimate, constrained.
    - `constants`: what depends on the data alone.
    - `chart`: the coordinates that are free at the estimate.
    """

    bound: Bound
    params: Mapping[str, Any]
    constants: Sequence
    chart: Coordinates

    @classmethod
    def of(cls, bound: Bound, result: Params) -> Estimate:
        """Return the estimate of a result, or parameters, on data, all of which are checked."""
        params, constants = bound.at(result)
        compiled = bound.compiled
        chart = coordinates(compiled.graph, compiled.maximizers, params)
        return cls(bound, params, constants, chart)

    @property
    def graph(self) -> FactorGraph:
        """The program's factor graph."""
        return self.bound.compiled.graph

    def function(self, key: Hashable, asked: Callable, is_called_once: bool = True) -> Callable:
        """Return `asked`, a pure function of (the neighborhood of the estimate, …), compiled.

        What remains is a function of the other arguments. It is compiled once for each key, and
        what is on the boundary. `is_called_once`: see `CompiledFunction`.
        """
        compiled, chart = self.bound.compiled, self.chart

        # what is known of the estimate is passed, not closed over: another one compiles nothing
        def around(params, constants, *others: Any):
            return asked(Neighborhood(compiled.pure, chart, params, constants), *others)

        function = compiled.function((key, chart.key), lambda: around, is_called_once)
        return partial(function, self.params, self.constants)
