"""Draws of all latents from their joint posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from emjax.e_step.draws import joint_draws
from emjax.graph.factor_graph import FactorGraph
from emjax.run.annotations import Params, Whole
from emjax.run.bound import Bound, checked_key
from emjax.run.compilation import is_traced
from emjax.run.described import short
from emjax.run.pure import PureProgram
from emjax.run.settings import is_whole_number

# How many draws are made side by side: each number is compiled when it is asked for first. The pass
# forward, which all of them share, is little beside 64 passes back.
SIDE_BY_SIDE = (1, 8, 64)
# Entries of the latents' tables of all draws of a batch: 64 MB of them in double precision.
MOST_ENTRIES = 2**23
KEY_OF_DRAWS = "The first argument is a random key: fit.sample_posterior(jax.random.key(0), 100)."


def sample_posterior(
    bound: Bound, params: Params, rng_key: Any, num_samples: Whole = 1
) -> dict[str, Array]:
    """Return draws of all latents from p(latents | data, params): {latent: (draw, *its shape)}."""
    key = checked_key(rng_key, KEY_OF_DRAWS)
    check_is_number(num_samples)
    drawn = bound.in_its_precision(lambda bound: draws_of(bound, params, key, num_samples))
    # whole numbers of the width that JAX has here
    return jax.device_put(drawn)


def draws_of(bound: Bound, params: Params, key: Array, num_samples: int) -> dict[str, Any]:
    """Return draws in the precision that JAX has; draw i is the same for every `num_samples`."""
    size = side_by_side(num_samples, num_entries(bound.traced.graph))
    question = JointDraws(size)

    def of_batch(first):
        return bound.draws_of_latents(question, params, key, first)

    return in_batches_of_draws(of_batch, num_samples, size)


@dataclass(frozen=True)
class JointDraws:
    """The question for `size` draws; of equal ones the same code is the answer."""

    size: int

    @property
    def is_called_once(self) -> bool:
        """Whether it is asked a few times: single draws may be steps of something else."""
        return self.size > 1

    def __call__(
        self, pure: PureProgram, params: Mapping, constants: Any, key: Array, first: Any
    ) -> dict[str, Array]:
        """Return {latent: (draw, *its shape)} of draws `first`, …"""
        graph, keys = pure.graph, numbered_keys(key, first, self.size)
        values = {}
        for name, drawn in joint_draws(graph, graph.arrays(params, constants), keys).items():
            latent = graph.latents.get(name)
            values[name] = drawn if latent is None else jnp.asarray(latent.support)[drawn]
        return values


# ── how many at a time ────────────────────────────────────────────────────────────────────────────


def check_is_number(num_samples: Any) -> None:
    """Raise `ValueError` for what is no number of draws."""
    if not is_whole_number(num_samples) or num_samples < 1:
        raise ValueError(
            f"num_samples={short(num_samples)} must be a whole number, of at least one; "
            "data, if they are others than those that were fitted, follow it."
        )


def num_entries(graph: FactorGraph) -> int:
    """Return how many entries the tables have that each draw has for itself."""
    latents = graph.latents.values()
    entries = sum(math.prod(latent.shape) * len(latent.support) for latent in latents)
    entries += sum(math.prod(g.elements) * g.size**2 for g in graph.gaussians.values())
    for term in (*graph.terms, *graph.predicted):
        sizes = [axis.size for axis in term.latent_axes]
        # of a chain, step by step, only the tables of one step are there at once
        is_in_steps = any(graph.latents[axis.source].is_series for axis in term.latent_axes)
        if sizes and (not is_in_steps or graph.chains == "parallel"):
            entries = max(entries, math.prod(term.elements) * math.prod(sizes))
    return entries


def side_by_side(num_samples: int, entries: int) -> int:
    """Return how many draws are made at a time, of so many entries each."""
    fitting = [size for size in SIDE_BY_SIDE if size * entries <= MOST_ENTRIES]
    size = max(fitting, default=1)
    # no more than a few are filled up to a whole batch
    return min(
        (one for one in SIDE_BY_SIDE if one <= size and num_samples <= 2 * one), default=size
    )


def numbered_keys(key: Array, first: Any, size: int) -> Array:
    """Return the keys of draws `first`, … : draw i has the same in every batch."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(first + jnp.arange(size))


def in_batches_of_draws(of_batch: Callable, num_samples: int, size: int) -> Any:
    """Return as many draws, a tree of (draw, …), of a function of the number of a batch's first."""
    batches = [of_batch(np.int32(first)) for first in range(0, num_samples, size)]

    def joined(*parts):
        # NumPy, which compiles nothing for each number of draws
        together = jnp.concatenate(parts) if is_traced(parts) else np.concatenate(parts)
        return together[:num_samples]

    return jax.tree.map(joined, *batches)
