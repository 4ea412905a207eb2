"""EM on the same data with other weights: one program, compiled once, for folds, bootstraps and the
log-likelihood of single samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emjax.em import EM
from emjax.numerics.guards import IMPOSSIBLE
from emjax.program.arguments import signature
from emjax.program.handlers.weights import (
    Plate,
    Plates,
    Units,
    plate_named,
    plates,
    total_multiplicity,
    units_of,
)
from emjax.run import validation
from emjax.run.compiled import Compiled
from emjax.run.result import params_of

# elements are weighted so little that an impossible one cannot swallow the others
SMALL = 1e-30
# its multiples modulo one are all different: weights by which to see whether log p is linear in
# them
GOLDEN_RATIO = 1.618033988749895
# what was made of an EM, as long as it lives
_KNOWN: WeakKeyDictionary = WeakKeyDictionary()


class Reweighted(NamedTuple):
    """EM on one data set whose plate has weights.

    - `compiled`: the program of (weights, the data).
    - `data`: the data, without the weights.
    - `plate`: the plate that has weights.
    - `functions`: what was compiled for data of these shapes.
    """

    compiled: Compiled
    data: list
    plate: Plate
    functions: dict

    def function(self, name: str, make: Callable) -> Callable:
        """Return the compiled function of (data, …) that `make(self without its data)` is, made
        once.
        """
        if name not in self.functions:
            pure = self._replace(data=[])
            self.functions[name] = jax.jit(
                lambda data, *others: make(pure._replace(data=data), *others)
            )
        return self.functions[name]

    def prepare(self, weights) -> list:
        """Return everything that depends on the data and the weights alone; pure."""
        return self.compiled.graph.prepare([weights, *self.data])

    def log_likelihood(self, params, weights):
        """Return log p(x | params) in nats, each element counted as often as its weight
        says; pure.
        """
        return self.compiled._log_likelihood(params, self.prepare(weights))

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


def looks_at_values(em: EM, args, kwargs) -> bool:
    """Return whether the program looks at its data in Python, so that they are constants of its
    trace.
    """
    em._compiled(args, kwargs)
    return signature(args, kwargs) in em._looks_at_values


def plates_of(em: EM, args, kwargs) -> Plates:
    """Return the plates of a program on the given data."""
    return plates(em.model, em.settings.strategy, args, kwargs, looks_at_values(em, args, kwargs))


def plate_of(em: EM, plate: str | None, args, kwargs) -> Plate:
    """Return the plate whose elements are the samples: the one named, or the only outermost one
    that holds data.
    """
    return plate_named(plates_of(em, args, kwargs).plates, plate)


def num_samples_of(em: EM, plate: Plate, args, kwargs) -> float:
    """Return how many samples a plate's elements count as, multiplicities (`handlers.scale`)
    included.
    """
    compiled, data = em._compiled(args, kwargs)
    return total_multiplicity(
        em.model,
        compiled.graph.parameters,
        data,
        plate,
        args,
        kwargs,
        looks_at_values(em, args, kwargs),
    )


def reweighted(em: EM, plate: str | None, rows: Mapping | None, args, kwargs) -> Reweighted:
    """Return the EM whose plate has weights, on the given data, which are checked.

    `rows`: {another plate: which element of `plate` each of its elements belongs to}; those count
    as often as that element.
    """
    found = plates_of(em, args, kwargs).plates
    units, concrete = units_of(found, plate, rows), looks_at_values(em, args, kwargs)
    key, known = (units.key, signature(args, kwargs, concrete)), _KNOWN.setdefault(em, {})
    if key not in known:
        known[key] = _with_weights(em, units, (args, kwargs) if concrete else None), {}
    other_em, functions = known[key]
    ones = jnp.ones(units.size, jnp.result_type(float))
    compiled, (weights, *data) = other_em._compiled(
        *((ones,), {}) if concrete else ((ones, *args), kwargs)
    )
    if not validation.is_traced(data):
        validation.check_data(
            compiled.graph, compiled.violations(compiled.prepare([weights, *data]))
        )
    return Reweighted(compiled, data, found[units.plate], functions)


def _with_weights(em: EM, units: Units, bound) -> EM:
    """Return the EM of the program (weights, …); `bound`: the arguments of a program that looks at
    them, which are then its constants.
    """
    model = units.weighted(em.model)
    return em._for(model if bound is None else bound_to(model, *bound))


def bound_to(model, args, kwargs):
    """Return the program of the weights alone."""
    return lambda weights: model(weights, *args, **kwargs)


def pointwise_log_likelihood(
    em: EM, params, *args, plate: str | None = None, rows: Mapping | None = None, **kwargs
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
    whole = reweighted(em, plate, rows, args, kwargs)
    params = validation.checked_params(whole.compiled.graph, params_of(params), complete=True)
    found, error = whole.function("pointwise", Reweighted.contributions)(whole.data, params)
    whole.check_independent(error, rows)
    return found
