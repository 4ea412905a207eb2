"""First and second derivatives of the objective in unconstrained coordinates, and what their signs
say.

The objective is log p(x | θ) + log p(θ), every latent summed out, in the plain form, which has
derivatives of every order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.coordinates import NEAR, Coordinates
from emjax.e_step.e_step import log_partition_of
from emjax.graph.factor_graph import FactorGraph
from emjax.run.compiled import CompiledProgram

# rows of a matrix of derivatives that are computed side by side: more need more memory, fewer more
# passes over the data
ROWS_AT_ONCE = 8
# At a maximum, the Newton step in standard errors (or the EM step, in those of the complete data)
# is below this: what EM leaves at its default `tol`, while
# a tenth of a standard error is nothing that a table shows.
STATIONARY = 0.1
# farther than this from the maximum, in standard errors, second derivatives say nothing of it
FARTHEST = 1.0


def objective_along(
    graph: FactorGraph,
    coordinates: Coordinates,
    params: Mapping[str, Any],
    constants: Sequence,
    which: Callable | None = None,
) -> Callable:
    """Return the objective in nats as a function of the coordinates. `which`: a filter on terms."""
    return lambda vector: log_partition_of(
        graph, graph.arrays(coordinates.unflatten(vector, params), constants), which
    )


def rows_of_derivative(along: Callable, size: int, dtype):
    """Return the derivatives along each of `size` coordinates, stacked: `along(direction)` is
    linear, an array or several.
    """
    if size == 0:
        shapes = jax.eval_shape(along, jax.ShapeDtypeStruct((0,), dtype))
        return jax.tree.map(lambda one: jnp.zeros((0, *one.shape), one.dtype), shapes)
    rows = min(size, ROWS_AT_ONCE)
    padded = -(-size // rows) * rows
    found = jax.lax.map(jax.vmap(along), jnp.eye(padded, size, dtype=dtype).reshape(-1, rows, size))
    return jax.tree.map(lambda array: array.reshape(padded, *array.shape[2:])[:size], found)


def gradient_and_hessian(objective: Callable, vector):
    """Return ∇ and ∇² of an objective at a vector."""
    gradient, along = jax.linearize(jax.grad(objective), vector)
    hessian = rows_of_derivative(along, vector.size, vector.dtype)
    return gradient, (hessian + hessian.T) / 2


def increases_inward(
    compiled: CompiledProgram,
    coordinates: Coordinates,
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, np.ndarray]:
    """Return {site: which entries on the boundary the objective would increase from, were they
    moved inward}; EM never moves a probability of zero.

    All of them are moved by a millionth, and the slope is taken there: the logarithm of zero has
    none. A slope counts where it is a thousandth of what the other entries of its simplex have, or
    a thousandth of a nat across an interval. Source: Karush, Kuhn & Tucker; Nocedal & Wright
    (2006), section 12.3.
    """
    graph = compiled.graph
    moved, inward = dict(params), {}
    for name, boundary in coordinates.on_boundary.items():
        value, (low, high) = np.asarray(params[name]), coordinates.limits[name]
        if boundary.any() and coordinates.is_simplex[name]:
            zero = value <= NEAR
            moved[name] = jnp.asarray(
                np.where(zero, NEAR, value * (1 - NEAR * zero.sum(-1, keepdims=True))), value.dtype
            )
        elif boundary.any():
            width = np.where(np.isfinite(high - low), high - low, np.maximum(1, np.abs(value)))
            moved[name] = jnp.asarray(
                np.where(
                    ~boundary,
                    value,
                    np.where(value - low < high - value, low + NEAR * width, high - NEAR * width),
                ),
                value.dtype,
            )

    def objective(params, constants):
        return log_partition_of(graph, graph.arrays(params, constants))

    slopes_at = compiled.function("slopes", lambda: jax.grad(objective))
    slopes = slopes_at({name: jnp.asarray(value) for name, value in moved.items()}, constants)
    for name, boundary in coordinates.on_boundary.items():
        value, slope, (low, high) = (
            np.asarray(moved[name]),
            np.asarray(slopes[name]),
            coordinates.limits[name],
        )
        if coordinates.is_simplex[name]:
            inward[name] = (
                boundary
                & (value <= NEAR)
                & (
                    slope - (value * slope).sum(-1, keepdims=True)
                    > 1e-3 * (value * np.abs(slope)).sum(-1, keepdims=True)
                )
            )
        else:
            width = np.where(np.isfinite(high - low), high - low, np.maximum(1, np.abs(value)))
            inward[name] = np.asarray(
                boundary & (np.where(value - low < high - value, slope, -slope) * width > 1e-3)
            )
    return inward


def scaled(matrix: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return a quadratic form in coordinates that are measured in given units."""
    return matrix * unit[:, None] * unit


def units(diagonal: np.ndarray) -> np.ndarray:
    """Return the units in which a quadratic form of this diagonal has a diagonal of ±1 (or 0)."""
    size = np.abs(diagonal)
    return np.where(size > 0, 1 / np.sqrt(np.where(size > 0, size, 1)), 1.0)


def smallest_resolved(dtype) -> float:
    """Return the least part of a coordinate's own curvature that counts as curvature: half the
    digits.
    """
    return float(np.sqrt(np.finfo(dtype).eps))


def described(direction: np.ndarray, names: Sequence[str], most: int = 4) -> str:
    """Return a direction in words: its largest parts, relative to the largest."""
    order = np.argsort(-np.abs(direction), kind="stable")
    order = [i for i in order[:most] if abs(direction[i]) >= 0.1 * abs(direction[order[0]])]
    return ", ".join(f"{direction[i] / direction[order[0]]:+.2g} {names[i]}" for i in order)


def check_finite(hessian: np.ndarray, gradient: np.ndarray, names: Sequence[str]) -> None:
    """Raise `ValueError` for derivatives that are not finite, and name the coordinate."""
    bad = (
        ~(np.isfinite(hessian).all(1) & np.isfinite(gradient)) if len(names) else np.zeros(0, bool)
    )
    if bad.any():
        raise ValueError(
            f"The derivatives of the objective are not finite along {names[int(np.argmax(bad))]}. "
            "Pass the result of a run that ended well; a scale that has shrunk "
            "to nothing needs a floor (constraints.greater_than(...)) or a prior."
        )


def inverse_information(hessian, gradient, own: Coordinates) -> tuple[np.ndarray, float]:
    """Return (−∇²)⁻¹ and the distance to the maximum in standard errors.

    Errors: `ValueError` where a derivative is not finite, where −∇² is not positive definite, or
    where the maximum is far.
    """
    information, gradient = -np.asarray(hessian, float), np.asarray(gradient, float)
    check_finite(information, gradient, own.names)
    unit = units(np.diag(information))
    values, vectors = np.linalg.eigh(scaled(information, unit))
    resolved = smallest_resolved(np.asarray(hessian).dtype)
    if len(values) and values[0] < resolved:
        where = described(unit * vectors[:, 0], own.names)
        if values[0] < -resolved:
            raise ValueError(
                f"These parameters are no maximum: the objective curves upward along {where}. Run "
                "EM to convergence from another start; "
                "em.diagnose(result, ...) says more."
            )
        raise ValueError(
            f"The data do not determine these parameters: the objective is flat along {where}. Use "
            "fewer values of the latent, hold a parameter, or "
            "state a prior."
        )
    half = (unit[:, None] * vectors) / np.sqrt(values)
    distance = float(np.linalg.norm(half.T @ gradient))
    if distance > FARTHEST:
        raise ValueError(
            f"These parameters are {distance:.2g} standard errors from the maximum. Run EM to "
            "convergence: em.run(key, ..., init_params=params), with a "
            "smaller tol or a larger max_steps."
        )
    return half @ half.T, distance


def largest_eigenvalues(
    along: Callable, size: int, num_steps: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Ritz values of a symmetric matrix, ascending, and the vector of the last:
    Lanczos's method, every vector orthogonal to all before.

    The outermost are the first to be right; the last is a lower bound of the largest eigenvalue.
    Source: Golub & Van Loan (2013), section 10.3.
    """
    start = np.random.default_rng(seed).normal(size=size)
    basis, diagonal, off = [start / np.linalg.norm(start)], [], []
    for _ in range(min(num_steps, size)):
        image = np.asarray(along(basis[-1]), float)
        diagonal.append(image @ basis[-1])
        for _ in range(2):
            image = image - np.asarray(basis).T @ (np.asarray(basis) @ image)
        length = np.linalg.norm(image)
        if length <= 1e-12 * (1 + np.abs(diagonal).max()) or len(diagonal) == min(num_steps, size):
            break
        off.append(length)
        basis.append(image / length)
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return values, np.asarray(basis[: len(diagonal)]).T @ vectors[:, -1]
