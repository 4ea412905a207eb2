"""What a program states: its latents, its plates, and the sites where it observes samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro import handlers

from emjax.sklearn.precision import ONE_AT_A_TIME


class Statement(NamedTuple):
    """A `numpyro.sample` statement.

    - `is_discrete`: whether its support is; `num_values`: how many values it has, 0 where that is
      not a finite number. `first`: the least of them, from which on they are whole numbers.
    - `shape`: of its value.
    - `plates`: the names of the plates that it stands in, the outermost first; `axes`: which axis
      of its value is of each.
    """

    name: str
    is_observed: bool
    is_discrete: bool
    num_values: int
    shape: tuple[int, ...]
    plates: tuple[str, ...]
    first: int
    axes: tuple[int, ...]


def statements(program: Callable, args: tuple, kwargs: Mapping[str, Any]) -> list[Statement]:
    """Return what a program samples, in its order; nothing is computed."""
    found: list[Statement] = []

    def run(key):
        seeded = handlers.seed(program, key)
        for site in handlers.trace(seeded).get_trace(*args, **kwargs).values():
            if site["type"] == "sample":
                found.append(_statement(site))

    # on symbols in place of numbers; the data are what they are, for a program that looks at them
    with ONE_AT_A_TIME:
        jax.eval_shape(run, jax.random.key(0))
    return found


def _statement(site: Mapping[str, Any]) -> Statement:
    distribution = site["fn"]
    support, num_values, first = distribution.support, 0, 0
    is_discrete = support is not None and support.is_discrete
    # how many values data could have is not asked, and not every distribution of data can say
    if is_discrete and distribution.has_enumerate_support and not site["is_observed"]:
        num_values = len(distribution.enumerate_support(expand=False))
        first = int(np.min(getattr(support, "lower_bound", 0)))
    frames = site["cond_indep_stack"][::-1]
    shape = tuple(np.shape(site["value"]))
    num_batch = len(shape) - distribution.event_dim
    return Statement(
        site["name"],
        site["is_observed"],
        is_discrete,
        num_values,
        shape,
        tuple(frame.name for frame in frames),
        first,
        tuple(num_batch + frame.dim for frame in frames),
    )


def observed_sites(program: Callable, args: tuple, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the names of the sites where a program observes data."""
    return [s.name for s in statements(program, args, kwargs) if s.is_observed]


def latents_in(
    program: Callable, args: tuple, kwargs: Mapping[str, Any], plate: str
) -> list[Statement]:
    """Return what a program samples in a plate and does not observe."""
    found = statements(program, args, kwargs)
    return [s for s in found if plate in s.plates and not s.is_observed]


def plate_of_samples(program: Callable, args: tuple, kwargs: Mapping[str, Any]) -> str:
    """Return the outermost plate that observations stand in.

    Errors: `ValueError` where there is not one such plate.
    """
    found = statements(program, args, kwargs)
    plates = {s.plates[0]: None for s in found if s.is_observed and s.plates}
    if len(plates) != 1:
        raise ValueError(
            f"Which plate holds the samples? The program has {', '.join(plates) or 'none'}. "
            "Name it: plate='samples'."
        )
    return next(iter(plates))
