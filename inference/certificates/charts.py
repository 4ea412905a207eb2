"""The free coordinates of one parameter: ratios of a simplex, else those of NumPyro's bijection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints, transforms

from emjax.families.limits import entry_constraint, limits_of
from emjax.program.records import Parameter

# what an entry's coordinate is called, by the bijection that it comes from
PREFIXES = {
    transforms.IdentityTransform: "",
    transforms.ExpTransform: "log ",
    transforms.SigmoidTransform: "logit ",
}
OTHER_PREFIX = "unconstrained "


@dataclass(frozen=True, eq=False)
class Chart:
    """The free coordinates of one parameter.

    - `names`: what the coordinates are called.
    - `to_vector`: value → its coordinates.
    - `to_value`: (coordinates, value) → value; entries on the boundary stay where they are.
    """

    names: tuple[str, ...]
    to_vector: Callable
    to_value: Callable


def entry_names(name: str, shape: Sequence[int]) -> list[str]:
    """Return the name of each entry of an array: loc[0, 1]."""
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(*shape)]


def is_simplex(parameter: Parameter) -> bool:
    """Whether the rows of a parameter are simplices."""
    return type(entry_constraint(parameter.constraint)) is type(constraints.simplex)


def inverse_shape(parameter: Parameter) -> tuple[int, ...]:
    """Return the shape of the coordinates that NumPyro's bijection gives a parameter."""
    return tuple(biject_to(parameter.constraint).inverse_shape(parameter.shape))


def simplex_chart(parameter: Parameter, boundary: np.ndarray) -> Chart:
    """Return the logarithms of ratios to the last free entry of each simplex."""
    free = ~boundary
    is_last = free & (np.cumsum(free, -1) == free.sum(-1, keepdims=True))
    entries = np.flatnonzero(free & ~is_last)

    def to_vector(value):
        # the logarithm of an entry on the boundary would be infinite, and its derivative with it
        log = jnp.log(jnp.where(free, value, 1))
        return (log - jnp.where(is_last, log, 0).sum(-1, keepdims=True)).reshape(-1)[entries]

    def to_value(vector, value):
        ratios = jnp.zeros(value.size, vector.dtype).at[entries].set(vector).reshape(value.shape)
        on_boundary = jnp.where(boundary, value, 0).sum(-1, keepdims=True)
        # the largest is taken out before the exponential, which would overflow; −10³⁰ where none is
        # free, since an infinity less itself is no number
        largest = jnp.where(free, ratios, -jnp.inf).max(-1, keepdims=True, initial=-1e30)
        largest = jax.lax.stop_gradient(largest)
        weights = jnp.where(free, jnp.exp(jnp.where(free, ratios - largest, 0)), 0)
        total = weights.sum(-1, keepdims=True)
        scaled = (1 - on_boundary) * weights / jnp.where(total > 0, total, 1)
        return jnp.where(boundary, value, scaled).astype(value.dtype)

    return Chart(_names_of_ratios(parameter, entries, is_last), to_vector, to_value)


def _names_of_ratios(parameter: Parameter, entries, is_last: np.ndarray) -> tuple[str, ...]:
    """Return log weights[0]/weights[2] for each of `entries`: itself over the last of its row."""
    names = entry_names(parameter.name, parameter.shape)
    width = parameter.shape[-1]
    last_of_row = np.argmax(is_last.reshape(-1, width), -1)
    # entries are numbered row after row
    ratios = []
    for entry in entries:
        row = entry // width
        ratios.append(f"log {names[entry]}/{names[row * width + last_of_row[row]]}")
    return tuple(ratios)


def bijection_chart(parameter: Parameter, boundary: np.ndarray) -> Chart:
    """Return the coordinates of NumPyro's bijection.

    They are those of each entry where it is elementwise, else of each row that is not on the
    boundary.
    """
    bijection, shape = biject_to(parameter.constraint), inverse_shape(parameter)
    if limits_of(parameter.constraint) is not None:
        prefix, free = _prefix(bijection), ~boundary
    else:
        prefix, free = OTHER_PREFIX, _free_rows(parameter, boundary, shape)
    entries = np.flatnonzero(free)
    names = entry_names(parameter.name, shape)

    def to_vector(value):
        return bijection.inv(value).reshape(-1)[entries]

    def to_value(vector, value):
        full = jnp.zeros(math.prod(shape), vector.dtype).at[entries].set(vector).reshape(shape)
        return jnp.where(boundary, value, bijection(full)).astype(value.dtype)

    return Chart(tuple(prefix + names[entry] for entry in entries), to_vector, to_value)


def _prefix(bijection: transforms.Transform) -> str:
    """Return what stands before the name of an entry: "log " for its logarithm."""
    while isinstance(bijection, transforms.IndependentTransform):
        bijection = bijection.base_transform
    return PREFIXES.get(type(bijection), OTHER_PREFIX)


def _free_rows(parameter: Parameter, boundary: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which coordinates are of rows that are not on the boundary, of shape `shape`."""
    event = entry_constraint(parameter.constraint).event_dim
    batch = parameter.shape[: len(parameter.shape) - event]
    is_free = np.zeros(batch, bool)
    # without coordinates there may be no entries, of which numpy cannot tell how many a row has
    if math.prod(shape):
        is_free = ~boundary.reshape(batch + (-1,)).any(-1)
    return np.broadcast_to(is_free.reshape(batch + (1,) * (len(shape) - len(batch))), shape)
