"""EM on the same data with other weights: one program, compiled once, for folds, bootstraps and the
log-likelihood of single samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emjax.em import EM
from emjax.numerics.guards import IMPOSSIBLE
from emjax.program.handlers.plates import (
    Plate,
    Plates,
    plate_named,
    plates,
    total_multiplicity,
    units_of,
)
from emjax.run import validation
from emjax.run.annotations import Params
from emjax.run.bound import Bound
from emjax.run.compiled import CompiledProgram
from emjax.run.result import params_of

# elements are weighted so little that an impossible one cannot swallow the others
SMALL = 1e-30
# its multiples modulo one are all different: weights by which to see whether log p is linear in
# them
GOLDEN_RATIO = 1.618033988749895


class Reweighted(NamedTuple):
    """A program on one data set whose plate has weights.

    - `compiled`: the program of (weights, the data).
    - `data`: the data, without the weights.
    - `plate`: the plate that has weights.
    """

    compiled: CompiledProgram
    data: list
    plate: Plate

    def function(self, name: str, make: Callable) -> Callable:
        """Return the compiled function of (data, …) that `make(self without its data)` is."""
        pure = self._replace(data=[])

        def with_data(data, *others):
            return make(pure._replace(data=data), *others)

        return self.compiled.function(name, lambda: with_data)

    def prepare(self, weights) -> list:
        """Return everything that depends on the data and the weights alone; pure."""
        return self.compiled.graph.prepare([weights, *self.data])

    def log_likelihood(self, params, weights):
        """Return log p(x | params) in nats, each element counted as often as its weight
        says; pure.
        """
        return self.compiled.pure.log_likelihood(params, self.prepare(weights))

    def contributions(self, params, which=True):
        """Return each element's own log-likelihood in nats, ∂ log p / ∂ weight, and by how much a
        weighted sum of those in `which` is not log p, relative to the sum of their sizes; pure.
        """
        size, dtype = self.plate.size, jnp.result_type(float)
        outside, found = jax.value_and_grad(self.log_likelihood, argnums=1)(
            params, jnp.full(size, SMALL, dtype)
        )
        weights = jnp.where(which, 1 + jnp.arange(size, dtype=dtype) * GOLDEN_RATIO % 1, 0)
        own = jnp.where(which, weights * found, 0)
        error = jnp.abs(self.log_likelihood(params, weights) - outside - own.sum()) / (
            1 + jnp.abs(own).sum()
        )
        return jnp.where(found < IMPOSSIBLE, -jnp.inf, found), jnp.where(
            (own < IMPOSSIBLE).any(), 0, error
        )

    def check_independent(self, error, rows) -> None:
        """Raise `ValueError` if elements are not independent given the parameters: log p is then
        not linear in their weights, up to rounding.
        """
        if not error > np.sqrt(np.finfo(np.asarray(error).dtype).eps):
            return
        others = f" beside {', '.join(map(repr, rows))}" if rows else ""
        raise ValueError(
            f"The elements of plate '{self.plate.name}'{others} are not independent given the "
            "parameters: they share latents, so that none has a "
            "log-likelihood of its own. Name the plate of those latents, and for each plate of "
            "their rows, which element a row belongs to: "
            "plate='items', rows={'labels': item}."
        )


def plates_of(bound: Bound) -> Plates:
    """Return the plates of a program on its data."""
    compiler = bound.compiler
    return plates(
        compiler.model,
        compiler.settings.strategy,
        bound.args,
        bound.kwargs,
        bound.looks_at_values,
    )


def plate_of(bound: Bound, plate: str | None) -> Plate:
    """Return the plate whose elements are the samples: the one named, or the only outermost one
    that holds data.
    """
    return plate_named(plates_of(bound).plates, plate)


def num_samples_of(bound: Bound, plate: Plate) -> float:
    """Return how many samples a plate's elements count as, multiplicities included."""
    return total_multiplicity(
        bound.compiler.model,
        bound.compiled.graph.parameters,
        bound.data,
        plate,
        bound.args,
        bound.kwargs,
        bound.looks_at_values,
    )


def reweighted(bound: Bound, plate: str | None, rows: Mapping | None) -> Reweighted:
    """Return the program whose plate has weights, on the given data, which are checked.

    `rows`: {another plate: which element of `plate` each of its elements belongs to}; those count
    as often as that element.
    """
    known = plates_of(bound).plates
    units = units_of(known, plate, rows)
    ones = jnp.ones(units.size, jnp.result_type(float))
    weighted = bound.extended(units.key, units.weighted(bound.compiler.model), ones)
    weighted.constants()
    return Reweighted(weighted.compiled, weighted.data[1:], known[units.plate])


def pointwise_log_likelihood(
    em: EM,
    params: Params,
    *args: Any,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Float[Array, "element"]:
    """Return log p(x_n | params) in nats of each element n of a plate, its latents summed out.

    They add up to `em.log_likelihood(params, …)` (plus what stands outside the plate), and an
    element of multiplicity s has s times its own. It is ∂ log p / ∂ weight, so one reverse pass
    finds all of them.

    `plate`: default the only outermost one. `rows`: {another plate: which element of `plate` each
    of its elements belongs to}, for long-form data: `plate="items", rows={"labels": item}`. Errors:
    `ValueError` for a plate that the program does not have, and where elements are not independent
    given the parameters.
    """
    data = reweighted(em.on(*args, **kwargs), plate, rows)
    checked = validation.checked_params(data.compiled.graph, params_of(params), complete=True)
    contributions, error = data.function("pointwise", Reweighted.contributions)(data.data, checked)
    data.check_independent(error, rows)
    return contributions
