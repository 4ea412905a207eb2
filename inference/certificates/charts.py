"""The free coordinates of one parameter: ratios of a simplex, else those of NumPyro's bijection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints, transforms

from emjax.certificates.tangents import of_interval, of_positive_definite, of_simplex, of_triangular
from emjax.families.jacobians import is_elementary
from emjax.families.limits import entry_constraint, limits_of
from emjax.naming.entries import Entries, counted
from emjax.program.records import Parameter

# what an entry's coordinate is called, by the bijection that it comes from
PREFIXES = {
    transforms.IdentityTransform: "",
    transforms.ExpTransform: "log ",
    transforms.SigmoidTransform: "logit ",
}
OTHER_PREFIX = "unconstrained "
LOWER_TRIANGULAR = type(constraints.lower_cholesky)
POSITIVE_DEFINITE = {type(constraints.positive_definite), type(constraints.positive_semidefinite)}


@dataclass(frozen=True, eq=False)
class Chart:
    """The free coordinates of one parameter.

    - `names`: what the coordinates are called.
    - `to_vector`: value → its coordinates.
    - `to_value`: (coordinates, value) → value; entries on the boundary stay where they are.
    - `tangents`: value → its derivatives by the coordinates, `Tangents`; None where these have no
      closed form here.
    """

    names: tuple[str, ...]
    to_vector: Callable
    to_value: Callable
    tangents: Callable | None


def _named(parameter: Parameter, entries: Entries | None) -> Entries:
    return counted(parameter.name, parameter.shape) if entries is None else entries


def _taken(array: Any, entries: np.ndarray) -> Any:
    """Return some entries of a flattened array."""
    flat = array.reshape(-1)
    # as a rule all are free, and a gather would be compiled for nothing
    if len(entries) == flat.size:
        return flat
    return _at(flat, entries)


def _at(vectors: Any, entries: np.ndarray) -> Any:
    """Return entries along the last axis, which are known to be within it."""
    return vectors.at[..., entries].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _put(vector: Any, entries: np.ndarray, shape: Sequence[int]) -> Any:
    """Return an array of zeros, but for some entries of it flattened."""
    if len(entries) == math.prod(shape):
        return vector.reshape(shape)
    zeros = jnp.zeros(math.prod(shape), vector.dtype)
    at_entries = zeros.at[entries]
    full = at_entries.set(vector, mode="promise_in_bounds", wrap_negative_indices=False)
    return full.reshape(shape)


def inverse_shape(parameter: Parameter) -> tuple[int, ...]:
    """Return the shape of the coordinates that NumPyro's bijection gives a parameter."""
    return tuple(biject_to(parameter.constraint).inverse_shape(parameter.shape))


def simplex_chart(
    parameter: Parameter, boundary: np.ndarray, entries: Entries | None = None
) -> Chart:
    """Return the logarithms of ratios to the last free entry of each simplex."""
    free = ~boundary
    is_last = free & (np.cumsum(free, -1) == free.sum(-1, keepdims=True))
    numbers = np.flatnonzero(free & ~is_last)

    def to_vector(value):
        # the logarithm of an entry on the boundary would be infinite, and its derivative with it
        log = jnp.log(jnp.where(free, value, 1))
        return _taken(log - jnp.where(is_last, log, 0).sum(-1, keepdims=True), numbers)

    def to_value(vector, value):
        ratios = _put(vector, numbers, value.shape)
        on_boundary = jnp.where(boundary, value, 0).sum(-1, keepdims=True)
        # the largest is taken out before the exponential, which would overflow; −10³⁰ where none is
        # free, since an infinity less itself is no number
        largest = jnp.where(free, ratios, -jnp.inf).max(-1, keepdims=True, initial=-1e30)
        largest = jax.lax.stop_gradient(largest)
        weights = jnp.where(free, jnp.exp(jnp.where(free, ratios - largest, 0)), 0)
        total = weights.sum(-1, keepdims=True)
        scaled = (1 - on_boundary) * weights / jnp.where(total > 0, total, 1)
        return jnp.where(boundary, value, scaled).astype(value.dtype)

    names = _names_of_ratios(_named(parameter, entries).all_names, numbers, is_last)
    return Chart(names, to_vector, to_value, lambda value: of_simplex(value, numbers, free))


def _names_of_ratios(
    names: Sequence[str], numbers: np.ndarray, is_last: np.ndarray
) -> tuple[str, ...]:
    """Return log weights[0]/weights[2] for each of `numbers`: itself over the last of its row."""
    width = is_last.shape[-1]
    last_of_row = np.argmax(is_last.reshape(-1, width), -1)
    # entries are numbered row after row
    ratios = []
    for entry in numbers:
        row = entry // width
        ratios.append(f"log {names[entry]}/{names[row * width + last_of_row[row]]}")
    return tuple(ratios)


def bijection_chart(
    parameter: Parameter, boundary: np.ndarray, entries: Entries | None = None
) -> Chart:
    """Return the coordinates of NumPyro's bijection.

    They are those of each entry where it is elementwise, else of each row that is not on the
    boundary.
    """
    bijection, shape = _bijection(parameter), inverse_shape(parameter)
    if limits_of(parameter.constraint) is not None:
        prefix, free = _prefix(biject_to(parameter.constraint)), ~boundary
    else:
        prefix, free = OTHER_PREFIX, _free_rows(parameter, boundary, shape)
    numbers = np.flatnonzero(free)
    names = _named(parameter, entries).of_shape(shape).all_names

    def to_vector(value):
        return _taken(bijection.inverse(value), numbers)

    def to_value(vector, value):
        full = bijection.forward(_put(vector, numbers, shape))
        # what is free throughout, as a rule, asks nothing of the value
        return (jnp.where(boundary, value, full) if boundary.any() else full).astype(value.dtype)

    return Chart(
        tuple(prefix + names[number] for number in numbers),
        to_vector,
        to_value,
        _tangents_of_bijection(parameter, numbers),
    )


def _tangents_of_bijection(parameter: Parameter, entries: np.ndarray) -> Callable | None:
    """Return value → `Tangents` of the bijection onto a parameter's constraint, if it is known."""
    limits, kind = limits_of(parameter.constraint), type(entry_constraint(parameter.constraint))
    if kind is LOWER_TRIANGULAR:
        return lambda value: of_triangular(value, entries)
    if kind in POSITIVE_DEFINITE:
        return lambda value: of_positive_definite(value, entries)
    if limits is None or not is_elementary(parameter.constraint):
        return None
    low, high = (np.broadcast_to(end, parameter.shape) for end in (limits.low, limits.high))
    return lambda value: of_interval(value, entries, low, high)


class _Bijection(NamedTuple):
    """From coordinates to values, and back."""

    forward: Callable
    inverse: Callable


def _bijection(parameter: Parameter) -> _Bijection:
    """Return NumPyro's bijection onto a parameter's constraint."""
    kind = type(entry_constraint(parameter.constraint))
    if kind is LOWER_TRIANGULAR:
        return _Bijection(_triangle, _coordinates_of_triangle)
    if kind in POSITIVE_DEFINITE:
        return _Bijection(
            lambda vector: _squared(_triangle(vector)),
            lambda value: _coordinates_of_triangle(jnp.linalg.cholesky(value)),
        )
    bijection = biject_to(parameter.constraint)
    return _Bijection(bijection, bijection.inv)


# NumPyro's own bijection finds out in compiled code where a triangle lies: as many operations again
# as a small E-step has, at each place where derivatives are taken of it


def _triangle(vector: Any) -> Any:
    """Return the triangular matrices of coordinates: below the diagonal, then its logarithms."""
    size = round((math.sqrt(1 + 8 * vector.shape[-1]) - 1) / 2)
    number = np.zeros((size, size), int)
    number[np.tril_indices(size, -1)] = np.arange(vector.shape[-1] - size)
    number[np.diag_indices(size)] = np.arange(vector.shape[-1] - size, vector.shape[-1])
    full = _at(vector, number)
    is_diagonal = np.eye(size, dtype=bool)
    entries = jnp.where(is_diagonal, jnp.exp(jnp.where(is_diagonal, full, 0)), full)
    return jnp.where(np.tri(size, dtype=bool), entries, 0)


def _coordinates_of_triangle(matrix: Any) -> Any:
    size = matrix.shape[-1]
    flat = matrix.reshape(*matrix.shape[:-2], size * size)
    rows, columns = np.tril_indices(size, -1)
    diagonal = _at(flat, np.arange(size) * (size + 1))
    return jnp.concatenate([_at(flat, rows * size + columns), jnp.log(diagonal)], -1)


def _squared(triangle: Any) -> Any:
    return triangle @ jnp.swapaxes(triangle, -2, -1)


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
