"""EM on the same data with other weights: one program, compiled once.

It serves the folds of a cross-validation, bootstraps, scores, and the log-likelihood of single
samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emjax.numerics.guards import IMPOSSIBLE
from emjax.program.handlers.plates import Plate, Plates, plate_named, plates
from emjax.program.handlers.units import Units, units_of
from emjax.program.records import Site
from emjax.run.annotations import Params
from emjax.run.bound import LEAST_MULTIPLICITY, Bound
from emjax.run.compilation import is_traced
from emjax.run.compiled import CompiledProgram
from emjax.run.settings import Settings

# its multiples modulo one are all different: weights by which to see whether log p is linear in
# them
GOLDEN_RATIO = 1.618033988749895


# ── plates and their units ────────────────────────────────────────────────────────────────────────


# to find them, a program is run on symbols
PLATES: WeakKeyDictionary[CompiledProgram, Plates] = WeakKeyDictionary()


def plates_of(bound: Bound) -> Plates:
    """Return the plates of a program on its data."""
    if bound.compiled not in PLATES:
        compiler = bound.compiler
        PLATES[bound.compiled] = plates(
            compiler.model,
            compiler.settings.strategy,
            *bound.arguments,
            bound.looks_at_values,
        )
    return PLATES[bound.compiled]


def plate_of(bound: Bound, plate: str | None) -> Plate:
    """Return the plate whose elements are the samples.

    It is the one named, or the only outermost one that holds data.
    """
    return plate_named(plates_of(bound).plates, plate)


def units_in(bound: Bound, plate: str | None, rows: Mapping[str, Any] | None) -> Units:
    """Return the units of a program: the elements of a plate, with their `rows` of other plates."""
    return units_of(plates_of(bound).plates, plate, rows)


def sites_within(bound: Bound, units: Units) -> list[Site]:
    """Return the sites that stand within the plates of units."""
    inside = {units.plate, *units.rows}
    return [term.site for term in bound.compiled.graph.terms if inside & set(term.site.plates)]


def check_no_local_latents(bound: Bound, units: Units, problem: str) -> None:
    """Raise `ValueError` for a continuous latent that each unit has its own value of.

    No other unit says anything of it. `problem`: how the sentence goes on for who asks.
    """
    for site in sites_within(bound, units):
        if site.is_prior:
            raise ValueError(
                f"Continuous latent '{site.name}' has a value for each element of plate "
                f"'{units.plate}'{problem}"
            )


# ── a program with weights ────────────────────────────────────────────────────────────────────────


class Contributions(NamedTuple):
    """What each unit contributes to log p.

    - `log_likelihood`: each unit's own log-likelihood in nats; −∞ for one that is impossible.
    - `outside`: log p of what stands outside of all units, in nats.
    - `nonlinearity`: by how much a weighted sum of the former and `outside` are not log p, relative
      to the sum of their sizes; zero where units are independent given the parameters.
    """

    log_likelihood: Float[Array, "unit"]
    outside: Float[Array, ""]
    nonlinearity: Float[Array, ""]


@dataclass(frozen=True, eq=False)
class Reweighted:
    """A program on one data set whose units have weights: how often each counts.

    - `compiled`: the program of (weights, the data).
    - `units`: what has weights.
    - `data`: the data, without the weights.
    - `bound`: the program bound to the data, and to weights of one.
    """

    compiled: CompiledProgram
    units: Units
    data: list
    bound: Bound

    def at(self, weights: Any) -> Bound:
        """Return the program bound to the data and to other weights."""
        return Bound(self.bound.compiler, (weights, *self.bound.args[1:]), self.bound.kwargs)

    def function(self, key: Hashable, asked: Callable, is_called_once: bool = True) -> Callable:
        """Return `asked`, a pure function of (self, …), compiled: a function of the others.

        `is_called_once`: see `CompiledFunction`.
        """
        # data are traced: closed over, they would be constants of what is compiled
        without_data = replace(self, data=[])

        def on_data(data, *others: Any):
            return asked(replace(without_data, data=data), *others)

        return partial(self.compiled.function(key, lambda: on_data, is_called_once), self.data)

    def log_likelihood(
        self, params: Mapping, weights: Any, temperature: float = 1.0
    ) -> Float[Array, ""]:
        """Return log p(x | params) in nats, each unit counted as often as its weight says; pure.

        At temperature 0 it is max_z log p(x, z | params).
        """
        constants = self.compiled.graph.prepare([weights, *self.data])
        return self.compiled.pure.log_likelihood(params, constants, temperature)

    def contributions_at(self, params: Mapping, which: Any = None) -> Contributions:
        """Return what each unit contributes, compiled once for all of `which` (None: all units)."""
        if which is None:
            which = np.ones(self.units.size, bool)
        found = self.function("contributions", Reweighted.contributions)(params, which)
        return jax.device_get(found)

    def contributions(self, params: Mapping, which: Any = True) -> Contributions:
        """Return what each unit contributes, ∂ log p / ∂ weight; pure.

        `which`: the units at which it is seen whether log p is linear in their weights.
        """
        size, dtype = self.units.size, jnp.result_type(float)
        at_weights = jax.value_and_grad(self.log_likelihood, argnums=1)
        outside, each = at_weights(params, jnp.full(size, LEAST_MULTIPLICITY, dtype))
        weights = jnp.where(which, 1 + jnp.arange(size, dtype=dtype) * GOLDEN_RATIO % 1, 0)
        parts = jnp.where(which, weights * each, 0)
        difference = self.log_likelihood(params, weights) - outside - parts.sum()
        nonlinearity = jnp.abs(difference) / (1 + jnp.abs(parts).sum())
        # beside an impossible unit the others are lost in rounding
        nonlinearity = jnp.where((parts < IMPOSSIBLE).any(), 0, nonlinearity)
        return Contributions(jnp.where(each < IMPOSSIBLE, -jnp.inf, each), outside, nonlinearity)

    def check_independent(self, nonlinearity: Any) -> None:
        """Raise `ValueError` if units are not independent given the parameters.

        log p is then not linear in their weights, up to rounding. `nonlinearity`: the largest of
        those seen, as in `Contributions`.
        """
        if is_traced(nonlinearity):
            raise ValueError(
                "Whether elements are independent is seen in numbers, and within jit, vmap or grad "
                "there are none: ask for the log-likelihood of each element outside of them."
            )
        if _is_rounding(nonlinearity):
            return
        rows = self.units.rows
        others = f" beside {', '.join(map(repr, rows))}" if rows else ""
        raise ValueError(
            f"The elements of plate '{self.units.plate}'{others} are not independent given the "
            "parameters: they share latents, so that none has a log-likelihood of its own. "
            "Name the plate of those latents, and for each plate of their rows, "
            "which element a row belongs to: plate='items', rows={'labels': item}."
        )

    def check_sum(self, params: Mapping) -> None:
        """Raise `ValueError` where log p is not the sum over units.

        They are not independent then, or not all that is observed.
        """
        at = self.contributions_at(params)
        total = at.log_likelihood.sum()
        # what is outside has no weight, so that no draw and no score would know of it
        share_outside = np.abs(at.outside) / (1 + np.abs(total))
        if _is_rounding(at.nonlinearity) and _is_rounding(share_outside):
            return
        ones = np.ones(self.units.size, jnp.result_type(float))
        at_weights = self.function("log_likelihood", Reweighted.log_likelihood)
        log_likelihood = float(at_weights(params, ones))
        raise ValueError(
            f"The log-likelihood ({log_likelihood:.6g} nats) is not the sum over the elements of "
            f"{self.units} ({total:.6g}): data outside it are observed, "
            "or latents are shared among its elements. Pass the plate that holds all data; "
            "for each plate of rows that look up its elements, say which one each row belongs to: "
            f"plate='{self.units.plate}', rows={{'labels': item}}; "
            "or use method='information' or 'parametric bootstrap'."
        )


def _is_rounding(error: Any) -> bool:
    """Whether a relative error is below half the digits; a NaN says nothing, and passes."""
    return not error > np.sqrt(np.finfo(np.asarray(error).dtype).eps)


def reweighted(bound: Bound, units: Units, **changes: Any) -> Reweighted:
    """Return a program whose units have weights, on its data.

    `changes`: the settings that differ.
    """
    ones = np.ones(units.size, jnp.result_type(float))
    key = (units.key, *sorted(changes))
    weighted = bound.extended(key, units.weighted(bound.compiler.model), ones, **changes)
    # the first of its data are the weights
    return Reweighted(weighted.compiled, units, weighted.data[1:], weighted)


def checked_reweighted(
    bound: Bound, plate: str | None, rows: Mapping[str, Any] | None, **changes: Any
) -> Reweighted:
    """Return a program whose plate's elements have weights, on its data, which are checked.

    `rows`: {another plate: which element of `plate` each of its elements belongs to}; those count
    as often as that element. `changes`: the settings that differ.
    """
    weighted = reweighted(bound, units_in(bound, plate, rows), **changes)
    # with weights of one, the data are the same
    bound.check_data()
    return weighted


def from_one_start(settings: Settings) -> dict[str, Any]:
    """Return the settings that differ where a program is fitted again, from where it was before.

    It starts once, at parameters that it is given.
    """
    init = None if isinstance(settings.init, str) else settings.init
    return {"init": init, "num_restarts": 1, "annealing": ()}


def pointwise(
    bound: Bound, params: Params, plate: str | None, rows: Mapping[str, Any] | None
) -> Float[Array, "element"]:
    """Return log p(x_n | params) in nats of each unit: see `emjax.pointwise_log_likelihood`."""
    weighted = checked_reweighted(bound, plate, rows)
    contributions = weighted.contributions_at(weighted.bound.checked(params))
    weighted.check_independent(contributions.nonlinearity)
    return jnp.asarray(contributions.log_likelihood)
