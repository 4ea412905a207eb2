"""EM on the same data with other weights: one program, compiled once, for folds, bootstraps and the log-likelihood of single samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from emjax import validation
from emjax.arguments import signature
from emjax.driver import Compiled
from emjax.em import EM
from emjax.numerics import IMPOSSIBLE
from emjax.weighting import Plate, Plates, chosen_plate, multiplicity, plates, weighted

# elements are weighted so little that an impossible one cannot swallow the others
SMALL = 1e-30


class Reweighted(NamedTuple):
    """EM on one data set whose plate has weights.

    - `compiled`: the program of (weights, the data).
    - `data`: the data, without the weights.
    - `plate`: the plate that has weights.
    """

    compiled: Compiled
    data: list
    plate: Plate

    def prepare(self, weights) -> list:
        """Return everything that depends on the data and the weights alone; pure."""
        return self.compiled.graph.prepare([weights, *self.data])

    def log_likelihood(self, params, weights):
        """Return log p(x | params) in nats, each element counted as often as its weight says; pure."""
        return self.compiled._log_likelihood(params, self.prepare(weights))

    def contributions(self, params, some):
        """Return each element's own log-likelihood in nats, ∂ log p / ∂ weight, and by how much log p of `some` elements (weights of 0 and 1) is not their sum,
        relative to the sum of their sizes; pure."""
        small = jnp.full(self.plate.size, SMALL, jnp.result_type(float))
        outside, found = jax.value_and_grad(self.log_likelihood, argnums=1)(params, small)
        own = jnp.where(some > 0, found, 0)
        error = jnp.abs(self.log_likelihood(params, some) - outside - own.sum()) / (1 + jnp.abs(own).sum())
        return jnp.where(found < IMPOSSIBLE, -jnp.inf, found), jnp.where((own < IMPOSSIBLE).any(), 0, error)

    def check_independent(self, error, rows) -> None:
        """Raise `ValueError` if elements are not independent given the parameters: log p is then not linear in their weights, up to rounding."""
        if not error > np.sqrt(np.finfo(np.asarray(error).dtype).eps):
            return
        others = f" beside {', '.join(map(repr, rows))}" if rows else ""
        raise ValueError(f"The elements of plate '{self.plate.name}'{others} are not independent given the parameters: they share latents, so that none has a "
                         "log-likelihood of its own. Name the plate of those latents, and for each plate of their rows, which element a row belongs to: "
                         "plate='items', rows={'labels': item}.")


def looks_at_values(em: EM, args, kwargs) -> bool:
    """Return whether the program looks at its data in Python, so that they are constants of its trace."""
    em._compiled(args, kwargs)
    return signature(args, kwargs) in em._looks_at_values


def plates_of(em: EM, args, kwargs) -> Plates:
    """Return the plates of a program on the given data."""
    return plates(em.model, em.init_strategy, args, kwargs, looks_at_values(em, args, kwargs))


def plate_of(em: EM, plate: str | None, args, kwargs) -> Plate:
    """Return the plate whose elements are the samples: the one named, or the only outermost one that holds data."""
    return chosen_plate(plates_of(em, args, kwargs).plates, plate)


def num_samples_of(em: EM, plate: Plate, args, kwargs) -> float:
    """Return how many samples a plate's elements count as, multiplicities (`handlers.scale`) included."""
    compiled, data = em._compiled(args, kwargs)
    return multiplicity(em.model, compiled.graph.parameters, data, plate, args, kwargs, looks_at_values(em, args, kwargs))


def reweighted(em: EM, plate: str | None, rows: Mapping[str, Int[ArrayLike, "row"]] | None, args, kwargs) -> Reweighted:
    """Return the EM whose plate has weights, on the given data, which are checked.

    `rows`: {another plate: which element of `plate` each of its elements belongs to}; those count as often as that element.
    """
    found, rows = plates_of(em, args, kwargs).plates, dict(rows or {})
    chosen = chosen_plate(found, plate)
    model = weighted(em.model, chosen.name)
    for other, index in rows.items():
        model = weighted_alike(model, other, _checked_rows(index, chosen, chosen_plate(found, other)))
    if looks_at_values(em, args, kwargs):
        inner, own, named = model, args, kwargs
        model, args, kwargs = (lambda weights: inner(weights, *own, **named)), (), {}
    other_em = copy.copy(em)
    other_em.model, other_em._cache, other_em._looks_at_values = model, {}, set()
    compiled, (weights, *data) = other_em._compiled((jnp.ones(chosen.size, jnp.result_type(float)), *args), kwargs)
    if not validation.is_traced(data):
        validation.check_data(compiled.graph, compiled.violations(compiled.prepare([weights, *data])))
    return Reweighted(compiled, data, chosen)


def weighted_alike(model, plate: str, index):
    """Return the program (weights, …) in which the elements of another plate, too, count as often as the elements that `index` names."""
    both = weighted(model, plate)
    return lambda weights, *args, **kwargs: both(weights[index], weights, *args, **kwargs)


def _checked_rows(index, plate: Plate, other: Plate):
    index = np.asarray(index)
    if index.shape != (other.size,) or not np.issubdtype(index.dtype, np.integer) or (index < 0).any() or (index >= plate.size).any():
        raise ValueError(f"rows['{other.name}'] must say, for each of the {other.size} elements of that plate, which of the {plate.size} elements of "
                         f"'{plate.name}' it belongs to: whole numbers from 0. It has shape {index.shape} and type {index.dtype}.")
    return jnp.asarray(index)


def pointwise_log_likelihood(em: EM, params, *args, plate: str | None = None, rows: Mapping[str, ArrayLike] | None = None, **kwargs) -> Float[Array, "element"]:
    """Return log p(x_n | params) in nats of each element n of a plate, its latents summed out.

    They add up to `em.log_likelihood(params, …)` (plus what stands outside the plate), and an element of multiplicity s has s times its own. It is
    ∂ log p / ∂ weight, so one reverse pass finds all of them.

    `plate`: default the only outermost one. `rows`: {another plate: which element of `plate` each of its elements belongs to}, for long-form data:
    `plate="items", rows={"labels": item}`. Errors: `ValueError` for a plate that the program does not have, and where elements are not independent given
    the parameters.
    """
    whole = reweighted(em, plate, rows, args, kwargs)
    params = validation.checked_params(whole.compiled.graph, params, complete=True)
    every_other = (jnp.arange(whole.plate.size) % 2).astype(jnp.result_type(float))
    found, error = jax.jit(whole.contributions)(params, every_other)
    whole.check_independent(error, rows)
    return found
