"""The directions in which free coordinates move the parameters, at an estimate.

Derivatives are taken by the parameters, along these directions, and brought to the coordinates
here, outside what is compiled. With J = ∂ parameters / ∂ coordinates,

    ∇² = Jᵀ ∇²_params J + Σ slope · ∂² parameter / ∂ coordinates².
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.coordinates import Coordinates
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.certificates.tangents import Tangents


@dataclass(frozen=True, eq=False)
class TangentSpace:
    """The free coordinates at an estimate, to second order.

    - `chart`: the coordinates.
    - `tangents`: {parameter: its derivatives by its own coordinates}.
    """

    chart: Coordinates
    tangents: Mapping[str, Tangents]

    @classmethod
    def of(cls, estimate: Estimate) -> TangentSpace:
        """Return the tangent space at an estimate."""
        chart, tangents = estimate.chart, {}
        for name, each in chart.charts.items():
            if each.tangents is None:
                tangents[name] = _by_automatic_differentiation(estimate, name)
            else:
                tangents[name] = each.tangents(np.asarray(estimate.params[name], float))
        return cls(chart, tangents)

    def directions(self, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return {parameter: ∂ value / ∂ coordinate}, (coordinate, *its shape), in its precision.

        Each coordinate moves one parameter, and leaves the others.
        """
        directions = {}
        for name, own, part in self._parts():
            along = np.zeros((self.chart.size, *part.rows.shape[1:]), params[name].dtype)
            along[own] = part.rows
            directions[name] = along
        return directions

    def gradient(self, slopes: Mapping[str, Any]) -> np.ndarray:
        """Return the gradient in the coordinates, of derivatives by the parameters."""
        gradient = np.zeros(self.chart.size, _precision(slopes))
        for name, own, part in self._parts():
            # a slope that is infinite makes a derivative that is no number, which others look for
            with np.errstate(invalid="ignore"):
                gradient[own] = self._inner(name, slopes) @ _as_matrix(part.rows).T
        return gradient

    def second(self, changes: Mapping[str, Any], slopes: Mapping[str, Any]) -> np.ndarray:
        """Return second derivatives in the coordinates: (coordinate, coordinate).

        `slopes`: derivatives by the parameters; `changes`: how they change along the directions.
        """
        second = np.zeros((self.chart.size, self.chart.size), _precision(slopes))
        for name, own, part in self._parts():
            slope = self._inner(name, slopes).reshape(slopes[name].shape)
            # as above
            with np.errstate(invalid="ignore"):
                second[:, own] = self._inner(name, changes) @ _as_matrix(part.rows).T
                second[own, own] += part.bend(slope)
        return second

    def variances(self, covariance: np.ndarray) -> dict[str, np.ndarray]:
        """Return {parameter: the variance of each entry}, of the coordinates' covariance."""
        variances = {}
        for name, own, part in self._parts():
            products = np.tensordot(covariance[own, own], part.rows, 1)
            variances[name] = np.asarray((part.rows * products).sum(0))
        return variances

    def _parts(self) -> Iterator[tuple[str, slice, Tangents]]:
        """Yield each parameter, where its own coordinates are, and its derivatives by them."""
        start = 0
        for name, part in self.tangents.items():
            stop = start + len(part.rows)
            yield name, slice(start, stop), part
            start = stop

    def _inner(self, name: str, slopes: Mapping[str, Any]) -> np.ndarray:
        """Return derivatives by a parameter, flattened, zero for entries on the boundary.

        These may be infinite, and no coordinate moves the entries.
        """
        where = self.chart.on_boundary[name]
        inner = np.where(where, 0, np.asarray(slopes[name], float))
        return inner.reshape(inner.shape[: inner.ndim - where.ndim] + (where.size,))


def _as_matrix(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), int(np.prod(rows.shape[1:])))


def _precision(slopes: Mapping[str, Any]) -> Any:
    """Return the type of the numbers that derivatives were computed in."""
    return np.result_type(*(array.dtype for array in slopes.values()), np.float32)


def _by_automatic_differentiation(estimate: Estimate, name: str) -> Tangents:
    """Return the derivatives of a parameter whose coordinates have none in closed form here."""
    rows = estimate.function(("rows", name), partial(_rows, name))()
    bend = estimate.function(("bend", name), partial(_bend, name))
    return Tangents(np.asarray(rows, float), lambda slope: np.asarray(bend(slope), float))


def _value(name: str, around: Neighborhood) -> tuple[Any, Any]:
    """Return the coordinates of one parameter, and its value as a function of them."""
    chart, value = around.chart.charts[name], around.params[name]
    return chart.to_vector(value), lambda vector: chart.to_value(vector, value)


def _rows(name: str, around: Neighborhood) -> Any:
    vector, value = _value(name, around)
    return jnp.moveaxis(jax.jacfwd(value)(vector), -1, 0)


def _bend(name: str, around: Neighborhood, slope: Any) -> Any:
    vector, value = _value(name, around)
    return jax.hessian(lambda vector: jnp.vdot(slope, value(vector)))(vector)
