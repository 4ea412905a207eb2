"""Short runs of EM from several random subsets, of which the best goes on: for every program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.e_step.e_step import e_step
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.m_step import m_step
from emjax.m_step.maximizer import Maximizer
from emjax.starts.subsets import random_subsets

# How many runs take how many steps, round by round: 88 steps in all. Measured on latent classes: as
# good as 20 runs of 10 steps each, and better than 8 runs in rounds, or 10 of 10 steps.
ROUNDS = ((16, 3), (6, 4), (2, 8))
# Where a step is cheap, 368 of them: optima that hardly differ do so late.
ROUNDS_OF_LITTLE = ((16, 3), (8, 10), (4, 60))
# so many values of all elements of the latents are little
LITTLE = 2**15
# Of single elements for each value, runs differ most, and the best of them is higher than of four.
NUM_SEEDS = 1


def short_runs(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
) -> dict[str, Array]:
    """Return the parameters where the best of several short runs of EM stands.

    Runs start at random elements, one for each value, beside all others (`random_subsets`). In each
    of the rounds the best of them take some more steps: those with the larger objective, as it
    was when they entered their last step. Steps are soft, whatever the run's own are. Source:
    Biernacki, Celeux & Govaert (2003), em-EM; the rounds: Jamieson & Talwalkar (2016), successive
    halving.
    """

    def draw(key):
        return random_subsets(graph, maximizers, key, params, constants, NUM_SEEDS)

    def step(_, carried):
        (params, states), _ = carried
        expected = e_step(graph, graph.arrays(params, constants))
        after = m_step(maximizers, params, states, constants, expected.statistics)
        return after, expected.log_partition

    def turn(carried, scheduled):
        runs, height, order = carried
        place, num_steps, is_first = scheduled
        # NaN would be sorted above all numbers
        ranked = jnp.argsort(-jnp.where(jnp.isfinite(height), height, -jnp.inf))
        order = jnp.where(is_first, ranked, order)
        number = order[place]
        at = jax.tree.map(lambda leaf: leaf[number], runs)
        at = at, tuple(maximizer.init(at) for maximizer in maximizers)
        (at, _), objective = jax.lax.fori_loop(0, num_steps, step, (at, jnp.zeros(())))
        runs = jax.tree.map(lambda leaf, new: leaf.at[number].set(new), runs, at)
        return (runs, height.at[number].set(objective), order), None

    size = sum(math.prod(of.shape) * of.support.shape[0] for of in graph.latents.values())
    rounds = ROUNDS_OF_LITTLE if size <= LITTLE else ROUNDS
    # in turn: side by side they would take memory for all of them at once
    num_runs = rounds[0][0]
    runs = jax.lax.map(draw, jax.random.split(rng_key, num_runs))
    carried = runs, jnp.zeros(num_runs), jnp.arange(num_runs)
    (runs, height, _), _ = jax.lax.scan(turn, carried, _schedule(rounds))
    best = jnp.argmax(jnp.where(jnp.isfinite(height), height, -jnp.inf))
    return jax.tree.map(lambda leaf: leaf[best], runs)


def _schedule(
    rounds: Sequence[tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, of each turn, the place in its round, its steps, and whether it is the first."""
    places, steps, first = [], [], []
    for number, num_steps in rounds:
        places += range(number)
        steps += [num_steps] * number
        first += [True] + [False] * (number - 1)
    return np.asarray(places), np.asarray(steps), np.asarray(first)
