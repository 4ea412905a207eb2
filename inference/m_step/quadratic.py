"""The maximum of a quadratic function whose unknowns fall into groups that do not meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.numerics.guards import MOST_BY_ITSELF
from emjax.numerics.matrices import EXACT, inverse_from_cholesky

# numbers that the derivatives along several directions at once may fill, 32 MB
AT_ONCE = 2**22
# so many turns of a loop are less than one call of a library
FEW_TURNS = 3


def batches_of(group_of: np.ndarray) -> list[np.ndarray]:
    """Return the entries of each group, (group, entry): groups of about one size in one array.

    `group_of`: the number of each entry's group. A row is filled up with the number of entries.
    """
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    by_size: dict[int, list[np.ndarray]] = {}
    for entries in members:
        # a group is padded to twice its size at most
        size = max(len(entries), 1)
        by_size.setdefault(math.ceil(math.log2(size)), []).append(entries)
    batches = []
    for several in by_size.values():
        longest = max(map(len, several))
        batch = np.full((len(several), longest), len(group_of))
        for row, entries in zip(batch, several, strict=True):
            row[: len(entries)] = entries
        batches.append(batch)
    return batches


def quadratic_maximum(
    objective: Callable,
    start: Array,
    batches: Sequence[np.ndarray],
    sizes_of_tables: Sequence[int] = (1,),
) -> Array:
    """Return where a quadratic function has its maximum, by one step from `start`.

    - `batches`: the groups, as `batches_of` returns them: no two entries meet that are in different
      ones, so that as many derivatives of the gradient as the largest group has entries hold the
      Hessian of all (Curtis, Powell & Reid, 1974).
    - `sizes_of_tables`: of the arrays that one such derivative fills on its way.

    Where a group has no one maximum, it goes to the nearest, and one that is not finite stays.
    """
    size = start.size
    directions = np.zeros((max(batch.shape[1] for batch in batches), size))
    for batch in batches:
        for place, entries in enumerate(batch.T):
            directions[place, entries[entries < size]] = 1
    slope, curvature_along = jax.linearize(jax.grad(objective), start)
    several = directions_at_once(len(directions), sizes_of_tables)
    columns = jax.lax.map(curvature_along, jnp.asarray(directions, start.dtype), batch_size=several)
    # what fills a row up reads a column of zeros
    slope, columns = jnp.pad(slope, (0, 1)), jnp.pad(columns, ((0, 0), (0, 1)))
    end = start
    for batch in batches:
        # one batch after another: eigenvectors of several at once may wait for one another for ever
        rows, end = jax.lax.optimization_barrier((columns[: batch.shape[1], batch], end))
        step = ascent_step(-jnp.moveaxis(rows, 0, -1), slope[batch])
        is_number = jnp.isfinite(step).all(-1, keepdims=True)
        end = end.at[batch].add(jnp.where(is_number, step, 0), mode="drop")
    return end


def directions_at_once(number: int, sizes_of_tables: Sequence[int]) -> int:
    """Return along how many of some directions to differentiate at once."""
    most = MOST_BY_ITSELF // max(sizes_of_tables)
    # a few turns cost less than sums that go to a library; all turns take the same number
    for turns in range(2, FEW_TURNS + 1):
        if most < number and number % turns == 0 and number // turns <= most:
            return number // turns
    return max(AT_ONCE // sum(sizes_of_tables), 1)


def ascent_step(curvature: Array, slope: Array) -> Array:
    """Return the shortest step x with C x = s, for positive semidefinite C (…, D, D) and s (…, D).

    It is measured in units of the entries, 1 / √C_ii, in which C has a diagonal of ones: what is
    zero but for rounding is so whatever the units are. Along directions without curvature it is
    zero.
    """
    inverse = _pseudo_inverse(jax.lax.stop_gradient(curvature))

    def product(matrix, vector):
        return (matrix * vector[..., None, :]).sum(-1)

    # corrected for what rounding has left; and the correction has the derivative of the solution,
    # which the inverse has not
    first = product(inverse, slope)
    return first + product(inverse, slope - product(curvature, first))


def _pseudo_inverse(matrix: Array) -> Array:
    """Return the inverse along all directions in which a matrix is not zero but for rounding.

    Directions are those of its eigenvectors, where its diagonal is scaled to one.
    """
    size = matrix.shape[-1]
    diagonal = matrix.reshape(*matrix.shape[:-2], size * size)[..., :: size + 1]
    is_bent = diagonal > 0
    unit = jnp.where(is_bent, jax.lax.rsqrt(jnp.where(is_bent, diagonal, 1)), 0)
    units = unit[..., None] * unit[..., None, :]
    scaled = matrix * units
    least = 10 * size * jnp.finfo(matrix.dtype).eps

    def by_eigenvectors():
        vectors, values = jax.lax.linalg.eigh(scaled)
        is_flat = values <= least * values[..., -1:]
        weights = jnp.where(is_flat, 0, 1 / jnp.where(is_flat, 1, values))
        return jnp.matmul(vectors * weights[..., None, :], vectors.mT, precision=EXACT)

    # entries that nothing depends on: ones in place of zeros
    factor = jax.lax.linalg.cholesky(
        scaled + jnp.eye(size, dtype=matrix.dtype) * ~is_bent[..., None]
    )
    pivots = factor.reshape(*factor.shape[:-2], size * size)[..., :: size + 1]
    # false of what is no number
    is_regular = (pivots**2 > least).all()
    by_factor = partial(inverse_from_cholesky, factor)
    return units * jax.lax.cond(is_regular, by_factor, by_eigenvectors)
