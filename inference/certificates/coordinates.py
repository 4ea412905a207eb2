"""The free coordinates of what EM estimates.

They say which entries are free, which lie on the boundary, and how many there are. Second
derivatives of the log-likelihood, and standard errors with them, are taken in these coordinates. An
entry on the boundary of what its constraint allows has none: a maximum there is no place where a
derivative is zero. The other entries of its simplex are free on the face that is left.

The loop leaps in coordinates of its own, `m_step.unconstrained`: there parameters are traced, so
that no entry can be left out and no name be given; here they are known, and what is left out and
what it is called is the point.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import biject_to

from emjax.certificates.charts import (
    POSITIVE_DEFINITE,
    Chart,
    bijection_chart,
    inverse_shape,
    simplex_chart,
)
from emjax.families.limits import (
    NEAR,
    entry_constraint,
    entry_limits,
    is_simplex,
    limits_of,
    near_limits,
)
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.m_step import estimated
from emjax.m_step.maximizer import Maximizer
from emjax.naming.entries import Entries
from emjax.program.records import Parameter


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The free coordinates of a program's estimated parameters.

    - `charts`: {parameter: its coordinates}, of those that are estimated.
    - `held`: the parameters that are not estimated.
    - `on_boundary`: {parameter: which of its entries lie on the boundary}.
    - `limits`: {parameter: (low, high)}, between which single entries lie; infinite where nothing
      bounds them.
    - `is_simplex`: {parameter: whether its rows are simplices}.
    - `key`: what tells apart the coordinates of one program.
    """

    charts: Mapping[str, Chart]
    held: tuple[str, ...]
    on_boundary: Mapping[str, np.ndarray]
    limits: Mapping[str, tuple[np.ndarray, np.ndarray]]
    is_simplex: Mapping[str, bool]
    key: tuple

    @property
    def names(self) -> tuple[str, ...]:
        """What the coordinates are called, in their order."""
        names: list[str] = []
        for chart in self.charts.values():
            names += chart.names
        return tuple(names)

    @property
    def size(self) -> int:
        """How many coordinates there are."""
        return len(self.names)

    def only(self, parameters: Collection[str]) -> Coordinates:
        """Return the coordinates of some of the parameters."""
        return replace(self, charts={name: self.charts[name] for name in parameters})

    def flatten(self, params: Mapping[str, Any]) -> Array:
        """Return the coordinates of parameters, one vector."""
        parts = [chart.to_vector(jnp.asarray(params[name])) for name, chart in self.charts.items()]
        return jnp.concatenate(parts) if parts else jnp.zeros(0)

    def unflatten(self, vector: Array, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters at coordinates; what is not free is that of `params`."""
        values, start = dict(params), 0
        # the vector is cut where `flatten` joined it
        for name, chart in self.charts.items():
            stop = start + len(chart.names)
            values[name] = chart.to_value(vector[start:stop], jnp.asarray(params[name]))
            start = stop
        return values


def coordinates(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    params: Mapping[str, Any] | None = None,
    entries: Mapping[str, Entries] | None = None,
    zeros: Mapping[str, np.ndarray] | None = None,
) -> Coordinates:
    """Return the free coordinates at known parameters; None: where nothing is on the boundary.

    `entries`: what those of the parameters are called; None: their numbers. `zeros`: entries that
    are on the boundary though they are not near, by parameter.

    An entry of a parameter with bounds has the coordinate that NumPyro's bijection gives it (its
    logarithm, its log-odds), other parameters have those of their bijection; an entry of a simplex
    has the logarithm of its ratio to the last entry that is not zero. Source: Aitchison (1982),
    section 2.
    """
    free = estimated(maximizers)
    charts, on_boundary = {}, {}
    # in the order of the graph's names, which that of the coordinates follows
    for name in graph.names:
        parameter = graph.parameters[name]
        on_boundary[name] = np.zeros(parameter.shape, bool)
        if name not in free:
            continue
        if params is not None:
            near = np.asarray(_on_boundary(parameter, np.asarray(params[name])))
            on_boundary[name] = np.asarray(near | (zeros or {}).get(name, False))
        chart_of = simplex_chart if is_simplex(parameter.constraint) else bijection_chart
        named = None if entries is None else entries[name]
        charts[name] = chart_of(parameter, on_boundary[name], named)
    return Coordinates(
        charts,
        held=tuple(name for name in graph.names if name not in free),
        on_boundary=on_boundary,
        limits={name: _limits(graph.parameters[name]) for name in graph.names},
        is_simplex={name: is_simplex(graph.parameters[name].constraint) for name in graph.names},
        key=tuple((name, on_boundary[name].tobytes()) for name in charts),
    )


def num_free_parameters(graph: FactorGraph, maximizers: Sequence[Maximizer]) -> int:
    """Return how many real numbers EM estimates.

    That is the dimension of the parameters under their constraints, those that are held aside.
    """
    return sum(_dimension(graph.parameters[name]) for name in estimated(maximizers))


def _dimension(parameter: Parameter) -> int:
    """Return how many numbers a parameter is free to choose within its constraint."""
    # without entries there is nothing to choose, and NumPyro's transforms may fail
    if not math.prod(parameter.shape):
        return 0
    try:
        return math.prod(inverse_shape(parameter))
    except NotImplementedError as error:
        raise ValueError(
            f"Parameter '{parameter.name}': NumPyro has no transform onto its constraint "
            f"({parameter.constraint}), from which its free numbers would be counted. "
            "Pass num_free_parameters=..."
        ) from error


# ── boundaries ────────────────────────────────────────────────────────────────────────────────────


def _limits(parameter: Parameter) -> tuple[np.ndarray, np.ndarray]:
    return entry_limits(parameter.constraint, parameter.shape)


def _on_boundary(parameter: Parameter, value: np.ndarray) -> np.ndarray | np.bool_:
    """Return which entries lie on the boundary of what their constraint allows."""
    if value.size == 0:
        return np.zeros(value.shape, bool)
    if is_simplex(parameter.constraint):
        is_zero = value <= NEAR
        num_zeros, num_entries = is_zero.sum(-1, keepdims=True), value.shape[-1]
        # at a vertex nothing is free, the one entry that is not zero neither
        return is_zero | ((num_zeros == num_entries - 1) & (num_entries > 1))
    if limits_of(parameter.constraint) is None:
        return _without_coordinates(parameter, value)
    is_low, is_high = near_limits(value, *_limits(parameter))
    return is_low | is_high


def _without_coordinates(parameter: Parameter, value: np.ndarray) -> np.ndarray:
    """Return which entries are in a row, such as a matrix, to which no coordinates lead."""
    constraint = entry_constraint(parameter.constraint)
    event = constraint.event_dim
    batch = value.shape[: value.ndim - event]
    if type(constraint) in POSITIVE_DEFINITE:
        is_inside = _are_positive_definite(value)
    else:
        # one compiled function, rather than one for each operation
        bijection = biject_to(parameter.constraint)
        coordinate = np.asarray(jax.jit(lambda value: bijection.inv(value))(value))
        is_inside = np.isfinite(coordinate).reshape(batch + (-1,)).all(-1)
    return np.broadcast_to(~is_inside.reshape(batch + (1,) * event), value.shape)


def _are_positive_definite(matrices: np.ndarray) -> np.ndarray:
    """Return which of some matrices, along the last two axes, have a Cholesky factor."""
    are = np.zeros(matrices.shape[:-2], bool)
    for index in np.ndindex(are.shape):
        try:
            are[index] = np.isfinite(np.linalg.cholesky(matrices[index])).all()
        except np.linalg.LinAlgError:
            are[index] = False
    return are
