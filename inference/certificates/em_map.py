"""EM as a map from coordinates to coordinates, and its derivative, whose largest eigenvalue is the
rate of convergence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

from emjax.certificates.coordinates import Coordinates
from emjax.e_step.e_step import e_step
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.objective import expected_log_likelihood


def m_step_along(
    graph: FactorGraph, maximizers: Sequence[Maximizer], coordinates: Coordinates, params, constants
) -> Callable:
    """Return the M-step in coordinates: (coordinates, expected statistics) → coordinates, every
    maximizer in turn. It has forward derivatives.
    """

    def stepped(vector, statistics):
        own = coordinates.unflatten(vector, params)
        for maximizer in maximizers:
            if maximizer.is_iterated:
                values = _implicit(graph, maximizer, coordinates, own, constants, statistics)
            else:
                values, _ = maximizer.update(own, maximizer.init(own), constants, statistics)
            own = own | values
        return coordinates.flatten(own)

    return stepped


def statistics_along(graph: FactorGraph, coordinates: Coordinates, params, constants) -> Callable:
    """Return the expected statistics as a function of the coordinates: a plain E-step, which has
    forward derivatives.
    """
    return lambda vector: (
        e_step(
            graph, graph.arrays(coordinates.unflatten(vector, params), constants), plain=True
        ).statistics
    )


def _implicit(
    graph: FactorGraph,
    maximizer: Maximizer,
    coordinates: Coordinates,
    params: Mapping,
    constants,
    statistics,
) -> dict:
    """Return what an iterated maximizer does, with the derivative that the implicit function
    theorem gives it.

    Where ∇Q(u; s) = 0, du = (−∇²Q)⁻¹ d∇Q(u; s): the derivative of one Newton step from the maximum.
    """
    own = replace(coordinates, charts={name: coordinates.charts[name] for name in maximizer.names})
    held = jax.tree.map(jax.lax.stop_gradient, (dict(params), statistics))
    found, _ = maximizer.update(held[0], maximizer.init(held[0]), constants, held[1])

    def objective(vector, params, statistics):
        return expected_log_likelihood(
            graph, own.unflatten(vector, dict(params) | found), constants, statistics
        )

    vector = jax.lax.stop_gradient(own.flatten(found))
    curvature = jax.lax.stop_gradient(-jax.hessian(objective)(vector, *held))
    slope = jax.grad(objective)(vector, params, statistics)
    moved = own.unflatten(
        vector + jnp.linalg.pinv(curvature, hermitian=True) @ slope, dict(params) | found
    )
    return {name: moved[name] for name in maximizer.names}


def largest_multiplier(along: Callable, size: int, num_steps: int, seed: int = 0) -> float:
    """Return the largest eigenvalue of a linear map, in absolute value, by power iteration: a lower
    bound until it has converged.
    """
    vector = jax.random.normal(jax.random.key(seed), (size,))
    length = jnp.zeros(())
    for _ in range(num_steps):
        vector = along(vector / jnp.linalg.norm(vector))
        length = jnp.linalg.norm(vector)
        if not float(length) > 0:
            break
    return float(length)
