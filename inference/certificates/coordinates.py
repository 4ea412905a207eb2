"""Unconstrained coordinates of what EM estimates: which entries are free, which lie on the
boundary, and how many there are.

Second derivatives of the log-likelihood, and standard errors with them, are taken in these
coordinates. An entry on the boundary of what its constraint allows has none: a maximum there is no
place where a derivative is zero. The other entries of its simplex are free on the face that is
left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints, transforms

from emjax.families.bounds import bounds_of, entry_constraint
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.m_step import estimated
from emjax.m_step.maximizer import Maximizer
from emjax.program.records import Parameter

# An entry is on the boundary if it is nearer to a bound than this part of the interval's width (of
# the bound itself, if there is one only). A probability that n data determine is either zero or at
# least of the order of 1/n: no data set that is summed out exactly is so large that a millionth is
# neither.
NEAR = 1e-6
PREFIXES = {
    transforms.IdentityTransform: "",
    transforms.ExpTransform: "log ",
    transforms.SigmoidTransform: "logit ",
}


@dataclass(frozen=True, eq=False)
class Chart:
    """The free coordinates of one parameter: `to_vector(value)`, and `to_value(vector, value)`,
    whose entries on the boundary stay where they are.
    """

    names: tuple[str, ...]
    to_vector: Callable
    to_value: Callable


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The free coordinates of a program's estimated parameters.

    `charts`: those of each parameter; `held`: the parameters that are not estimated; `on_boundary`:
    {site: which entries lie on the boundary}; `limits`: {site: (low, high)}, between which single
    entries lie (infinite where nothing bounds them); `is_simplex`: {site: whether its rows are
    simplices}; `key`: what identifies the charts of one program.
    """

    charts: Mapping[str, Chart]
    held: tuple[str, ...]
    on_boundary: Mapping[str, np.ndarray]
    limits: Mapping[str, tuple[np.ndarray, np.ndarray]]
    is_simplex: Mapping[str, bool]
    key: tuple

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for chart in self.charts.values() for name in chart.names)

    @property
    def size(self) -> int:
        return len(self.names)

    def flatten(self, params: Mapping[str, Any]):
        """Return the coordinates of parameters, one vector."""
        parts = [chart.to_vector(jnp.asarray(params[name])) for name, chart in self.charts.items()]
        return jnp.concatenate(parts) if parts else jnp.zeros(0)

    def unflatten(self, vector, params: Mapping[str, Any]) -> dict:
        """Return the parameters at coordinates; what is not free is that of `params`."""
        values, start = dict(params), 0
        for name, chart in self.charts.items():
            stop = start + len(chart.names)
            values[name] = chart.to_value(vector[start:stop], jnp.asarray(params[name]))
            start = stop
        return values

    def jacobian(self, params: Mapping[str, Any]) -> dict:
        """Return {site: ∂ value / ∂ coordinates}, (entries…, coordinate)."""
        found = jax.jacfwd(lambda vector: self.unflatten(vector, params))(self.flatten(params))
        return {name: found[name] for name in self.charts}


def coordinates(
    graph: FactorGraph, maximizers: Sequence[Maximizer], params: Mapping[str, Any] | None = None
) -> Coordinates:
    """Return the free coordinates at known parameters (None: at parameters none of which is on the
    boundary).

    An entry of a parameter with bounds has the coordinate that NumPyro's bijection gives it (its
    logarithm, its log-odds), other parameters have those of their bijection; an entry of a simplex
    has the logarithm of its ratio to the last entry that is not zero. Source: Aitchison (1982),
    section 2.
    """
    free = estimated(maximizers)
    held = tuple(name for name in graph.names if name not in free)
    charts, boundary, limits = {}, {}, {}
    for name in graph.names:
        parameter = graph.parameters[name]
        limits[name] = _limits(parameter)
        outside = name in held or params is None
        boundary[name] = (
            np.zeros(parameter.shape, bool)
            if outside
            else np.asarray(_on_boundary(parameter, np.asarray(params[name])))
        )
        if name not in held:
            charts[name] = (_simplex_chart if _is_simplex(parameter) else _bijection_chart)(
                parameter, boundary[name]
            )
    key = tuple((name, boundary[name].tobytes()) for name in charts)
    return Coordinates(
        charts,
        held,
        boundary,
        limits,
        {name: _is_simplex(graph.parameters[name]) for name in graph.names},
        key,
    )


def num_free_parameters(graph: FactorGraph, maximizers: Sequence[Maximizer]) -> int:
    """Return how many real numbers EM estimates: the dimension of the parameters under their
    constraints, those that are held aside.
    """
    return sum(_dimension(graph.parameters[name]) for name in estimated(maximizers))


def _dimension(parameter: Parameter) -> int:
    """Return how many numbers a parameter is free to choose within its constraint."""
    if not math.prod(parameter.shape):
        return 0
    try:
        return math.prod(_inverse_shape(parameter))
    except NotImplementedError as error:
        raise ValueError(
            f"Parameter '{parameter.name}': NumPyro has no transform onto its constraint "
            f"({parameter.constraint}), from which its free numbers "
            "would be counted. Pass num_free_parameters=..."
        ) from error


def entry_names(name: str, shape: Sequence[int]) -> list[str]:
    """Return the name of each entry of an array: loc[0, 1]."""
    return [
        name + (f"[{', '.join(map(str, index))}]" if index else "") for index in np.ndindex(*shape)
    ]


# ── boundaries ────────────────────────────────────────────────────────────────────────────────────


def _is_simplex(parameter: Parameter) -> bool:
    return type(entry_constraint(parameter.constraint)) is type(constraints.simplex)


def _inverse_shape(parameter: Parameter) -> tuple[int, ...]:
    return tuple(biject_to(parameter.constraint).inverse_shape(parameter.shape))


def _limits(parameter: Parameter) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of single entries."""
    found = bounds_of(parameter.constraint)
    low, high = (
        (0.0, 1.0)
        if _is_simplex(parameter)
        else (-np.inf, np.inf)
        if found is None
        else (found.low, found.high)
    )
    return np.broadcast_to(low, parameter.shape), np.broadcast_to(high, parameter.shape)


def _on_boundary(parameter: Parameter, value: np.ndarray):
    """Return which entries lie on the boundary of what their constraint allows."""
    if value.size == 0:
        return np.zeros(value.shape, bool)
    if _is_simplex(parameter):
        zero = value <= NEAR
        return zero | (
            (zero.sum(-1, keepdims=True) == value.shape[-1] - 1) & (value.shape[-1] > 1)
        )  # a vertex: nothing is free
    if bounds_of(parameter.constraint) is None:
        coordinate = np.asarray(biject_to(parameter.constraint).inv(jnp.asarray(value)))
        event = entry_constraint(parameter.constraint).event_dim
        rows = np.isfinite(coordinate).reshape(value.shape[: value.ndim - event] + (-1,)).all(-1)
        return np.broadcast_to(~rows.reshape(rows.shape + (1,) * event), value.shape)
    low, high = _limits(parameter)
    from_low, from_high = value - low, high - value
    with np.errstate(invalid="ignore"):
        width = high - low
        # one bound alone: only zero itself is near zero, whatever the unit of measurement
        width = np.where(np.isfinite(width), width, np.abs(np.where(np.isfinite(low), low, high)))
    return (np.isfinite(low) & (from_low <= NEAR * width)) | (
        np.isfinite(high) & (from_high <= NEAR * width)
    )


# ── charts ────────────────────────────────────────────────────────────────────────────────────────


def _simplex_chart(parameter: Parameter, boundary: np.ndarray) -> Chart:
    """Return the logarithms of ratios to the last free entry of each simplex."""
    free = ~boundary
    last = free & (np.cumsum(free, -1) == free.sum(-1, keepdims=True))
    chosen = np.flatnonzero(free & ~last)
    names = np.asarray(entry_names(parameter.name, parameter.shape), object).reshape(
        parameter.shape
    )
    width = parameter.shape[-1]
    reference = names.reshape(-1, width)[
        chosen // width, np.argmax(last.reshape(-1, width), -1)[chosen // width]
    ]

    def to_vector(value):
        log = jnp.log(jnp.where(free, value, 1))
        return (log - jnp.where(last, log, 0).sum(-1, keepdims=True)).reshape(-1)[chosen]

    def to_value(vector, value):
        ratios = jnp.zeros(value.size, vector.dtype).at[chosen].set(vector).reshape(value.shape)
        rest = jnp.where(boundary, value, 0).sum(-1, keepdims=True)
        largest = jax.lax.stop_gradient(
            jnp.where(free, ratios, -jnp.inf).max(-1, keepdims=True, initial=-1e30)
        )
        weights = jnp.where(free, jnp.exp(jnp.where(free, ratios - largest, 0)), 0)
        total = weights.sum(-1, keepdims=True)
        return jnp.where(
            boundary, value, (1 - rest) * weights / jnp.where(total > 0, total, 1)
        ).astype(value.dtype)

    return Chart(
        tuple(
            f"log {one}/{other}"
            for one, other in zip(names.reshape(-1)[chosen], reference, strict=True)
        ),
        to_vector,
        to_value,
    )


def _bijection_chart(parameter: Parameter, boundary: np.ndarray) -> Chart:
    """Return the coordinates of NumPyro's bijection: of each entry where it is elementwise, else of
    each row that is not on the boundary.
    """
    bijection, shape = biject_to(parameter.constraint), _inverse_shape(parameter)
    if bounds_of(parameter.constraint) is not None:
        inner = bijection
        while isinstance(inner, transforms.IndependentTransform):
            inner = inner.base_transform
        prefix = next(
            (text for kind, text in PREFIXES.items() if type(inner) is kind), "unconstrained "
        )
        names, free = (
            [prefix + entry for entry in entry_names(parameter.name, parameter.shape)],
            ~boundary,
        )
    else:
        event = entry_constraint(parameter.constraint).event_dim
        lead = parameter.shape[: len(parameter.shape) - event]
        rows = ~boundary.reshape(lead + (-1,)).any(-1) if math.prod(shape) else np.zeros(lead, bool)
        names = [f"unconstrained {entry}" for entry in entry_names(parameter.name, shape)]
        free = np.broadcast_to(rows.reshape(lead + (1,) * (len(shape) - len(lead))), shape)
    chosen = np.flatnonzero(free)

    def to_vector(value):
        return bijection.inv(value).reshape(-1)[chosen]

    def to_value(vector, value):
        full = jnp.zeros(math.prod(shape), vector.dtype).at[chosen].set(vector).reshape(shape)
        return jnp.where(boundary, value, bijection(full)).astype(value.dtype)

    return Chart(tuple(names[i] for i in chosen), to_vector, to_value)
