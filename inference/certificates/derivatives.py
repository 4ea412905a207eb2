"""Derivatives of the objective and of EM's step, along directions of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from emjax.certificates.neighborhood import Neighborhood
from emjax.run.batches import batch_size, in_batches

# Rows of a matrix of derivatives that are computed side by side: more need more memory, fewer more
# passes over the data. Small work has all of them at once: a loop would cost more than it saves.
FEWEST_AT_ONCE = 8


class Slopes(eqx.Module):
    """Derivatives of the objective by the parameters, and how they change along directions.

    **Attributes:**

    - `first`: {parameter: of its shape}.
    - `change`: {parameter: (direction, *its shape)}.
    """

    first: dict
    change: dict


class EMSlopes(eqx.Module):
    """How what an EM step reads and returns changes along directions.

    **Attributes:**

    - `objective`: the objective's derivatives.
    - `of_q`: how those of Q, the expected statistics held, change along each direction:
      {parameter: (direction, *its shape)}.
    - `of_em`: how the free coordinates after the step do, (direction, coordinate).
    """

    objective: Slopes
    of_q: dict
    of_em: Any


def rows_of_derivative(along: Callable, directions: Any, size: int, at_once: int) -> Any:
    """Return the derivatives along each of `size` directions, stacked: (direction, …).

    `along`: direction → the derivative along it, linear; an array or a tree of them. `directions`:
    a tree of arrays, directions first. `at_once`: how many of a graph as large fit into memory.
    """
    rows = max(FEWEST_AT_ONCE, at_once)
    if size == 0:
        none = jax.tree.map(lambda array: jnp.zeros(array.shape[1:], array.dtype), directions)
        shapes = jax.eval_shape(along, none)
        return jax.tree.map(lambda row: jnp.zeros((0, *row.shape), row.dtype), shapes)
    if size <= rows:
        return jax.vmap(along)(directions)
    return in_batches(along, directions, rows)


def slopes_along(around: Neighborhood, directions: Mapping) -> Slopes:
    """Return the derivatives of the objective, and how they change along directions.

    `directions`: {parameter: (coordinate, *its shape)}.
    """
    slopes, along = jax.linearize(jax.grad(around.objective), around.estimated)
    return Slopes(slopes, _rows(around, along, directions))


def em_slopes_along(around: Neighborhood, directions: Mapping) -> EMSlopes:
    """Return the derivatives of the objective, of Q and of EM's step along directions.

    With η(θ) the natural-parameter tables and T(η) the expected statistics, the derivative of the
    objective is η'ᵀ T (Fisher's identity), and its change along a direction d

        ∂² ⟨T, η⟩ d, with T held, + η'ᵀ T' η' d.

    That of EM's step has T' η' d, too.
    """
    here = around.estimated
    # linearized once: what each direction adds is linear
    tables, tables_along = jax.linearize(around.tables, here)
    statistics, statistics_along = jax.linearize(around.statistics, tables)
    slopes, q_along = jax.linearize(lambda at: around.slopes_of_q(at, statistics), here)
    back = jax.linear_transpose(tables_along, here)
    em_along = around.step_along(statistics)

    def along(direction):
        change = statistics_along(tables_along(direction))
        moved = em_along(direction, change)
        # as in Q, impossible cells count nothing
        change = jax.tree.map(lambda t, d: jnp.where(t == 0, 0, d), statistics, change)
        of_q, by_statistics = q_along(direction), back(change)[0]
        return jax.tree.map(jnp.add, of_q, by_statistics), of_q, moved

    of_objective, of_q, of_em = _rows(around, along, directions)
    return EMSlopes(Slopes(slopes, of_objective), of_q, of_em)


def _rows(around: Neighborhood, along: Callable, directions: Mapping) -> Any:
    at_once = batch_size(around.pure.graph)
    return rows_of_derivative(along, directions, around.chart.size, at_once)
