"""Whether densities resolve more than their data do: data are moved by less than matters.

A density that falls by a nat or more where its data are moved by a thousandth of their distance
has shrunk onto them, whatever its family, and however it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.e_step.e_step import log_partition_of
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled_term
from emjax.graph.terms import Term
from emjax.run.collapse import Watched, dense_log_density, log_density
from emjax.tables.named import spread, without_rows

# Moved by this part of the distance to its neighbor, a datum is where it was.
UNRESOLVED = 1e-3


class Fall(NamedTuple):
    """How far a density falls most, where the data are moved by less than they resolve.

    - `nats`: how far, infinite where the density is; None where there is nothing to move.
    - `element`: of the datum where it does.
    - `values`: the numbers of the values of its latents that suit that datum best.
    - `has_data`: whether its site has data of its own (`numpyro.factor` has none).
    """

    nats: float | None
    element: tuple[int, ...]
    values: tuple[int, ...]
    has_data: bool

    @property
    def is_collapse(self) -> bool:
        """Whether the density is sharper than its data."""
        # what cannot be moved is judged by its sharpness alone, which has a unit if it has data
        return self.has_data if self.nats is None else self.nats >= 1


def fall_of(term: Term, found: Mapping[bool, Sequence]) -> Fall:
    """Return how far a term's density falls.

    `found`: what `moved_densities` returns for the data moved up and down, those that are zero
    (True) and those that are not (False).
    """
    has_data, worst, has_moved = math.prod(term.site.event) > 0, None, False
    for zeros, (up, down) in found.items():
        before, best = map(np.asarray, up[:2])
        # what is moved out of the support has no density; within it, a peak falls to both sides
        after = np.maximum(*(np.nan_to_num(each[2], nan=-np.inf) for each in (up, down)))
        is_counted = before > -np.inf
        # whole numbers are not moved, and a program may have data that are none of its arguments
        has_moved |= bool((before != after)[is_counted].any())
        # a program may ask whether a number is zero: what it then gives is a probability
        if zeros:
            is_counted &= before > 0
        if not is_counted.any():
            continue
        fall = np.full(before.shape, -np.inf)
        fall[is_counted] = np.where(before == np.inf, np.inf, before - after)[is_counted]
        at = np.unravel_index(np.argmax(fall), fall.shape)
        if worst is None or fall[at] > worst.nats:
            values = np.unravel_index(best[at], [axis.size for axis in term.latent_axes] or [1])
            worst = Fall(float(fall[at]), tuple(map(int, at)), tuple(map(int, values)), has_data)
    return worst if worst and has_moved else Fall(None, (), (), has_data)


def moved_densities(
    graph: FactorGraph, watch: Watched, params: Mapping, constants: Sequence, moved: Sequence
) -> tuple[Array, Array, Array]:
    """Return each element's log-density, and what it is where the data are moved; traced.

    Under the value of its latents that suits it best: (log-density, number of that value,
    log-density at moved data), each (elements or 1 …). `moved`: what depends on moved data. Where
    Gaussian latents are integrated out, it is the density of all data, at no element.
    """
    if watch.is_integrated:
        before, after = (
            log_partition_of(graph, graph.arrays(params, each)) for each in (constants, moved)
        )
        return before, jnp.zeros((), int), after
    densities = []
    # moved data may be of density one, as what a mask leaves out is
    for each, density in ((constants, dense_log_density), (moved, log_density)):
        term = filled_term(graph.terms[watch.term], graph.arrays(params, each))
        array = spread(without_rows(density(term)), term.latent_axes)
        sizes = [axis.size for axis in term.latent_axes]
        elements = array.shape[len(sizes) :]
        densities.append(jnp.broadcast_to(array, (*sizes, *elements)).reshape(-1, *elements))
    best = densities[0].argmax(0)
    before, after = (jnp.take_along_axis(array, best[None], 0)[0] for array in densities)
    return before, best, after


def moves_of(data: Sequence) -> Callable[[bool], list[list] | None]:
    """Return the function `moved` of data, which moves them once for all who ask."""
    return cache(partial(moved, data))


def moved(data: Sequence, zeros: bool) -> list[list] | None:
    """Return data moved up and moved down, a thousandth of the way to their neighbors.

    None where there are none to move. Up and down are at random, so that what is a difference of
    two moves, too. `zeros`: whether only numbers that are zero are moved, or only the others.
    """
    signs, has_moved = np.random.default_rng(0), False
    up, down = [], []
    for array in map(np.asarray, data):
        step = np.zeros(array.shape)
        if array.ndim and array.size and np.issubdtype(array.dtype, np.floating):
            columns = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
            step = np.stack([_to_neighbor(column) for column in columns.T], 1)
            step = UNRESOLVED * np.where((columns == 0) == zeros, step, 0).reshape(array.shape)
            step = step * signs.choice([-1, 1], step.shape)
        has_moved |= bool(step.any())
        up.append((array + step).astype(array.dtype))
        down.append((array - step).astype(array.dtype))
    return [up, down] if has_moved else None


def _to_neighbor(column: np.ndarray) -> np.ndarray:
    """Return how far each number is from the nearest other one, or zero; 0 if there is none."""
    values = np.unique(column[np.isfinite(column)])
    if len(values) < 2:
        return np.zeros(column.shape)
    gaps = np.diff(values)
    nearest = np.minimum(np.append(gaps, np.inf), np.append(np.inf, gaps))
    # nearer to zero than to its neighbor, a number may be the logarithm's
    nearest = np.where(values == 0, nearest, np.minimum(nearest, np.abs(values)))
    number = np.minimum(np.searchsorted(values, column), len(values) - 1)
    return np.where(np.isfinite(column), nearest[number], 0)
