"""A program run forward at an estimate: new data, and data with what they lack drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from emjax.answers.draws import (
    check_is_number,
    in_batches_of_draws,
    numbered_keys,
    side_by_side,
)
from emjax.program.arguments import split_arguments
from emjax.program.handlers.beside import OBSERVED, UNOBSERVED
from emjax.program.handlers.forward import run_forward
from emjax.program.latents import layers_of
from emjax.run.annotations import Params
from emjax.run.bound import Bound, checked_key
from emjax.run.compilation import is_traced

# what is folded into a key for all that is drawn beside the latents
FORWARD = 2**32 - 1
KEY_OF_DATA = "The first argument is a random key: fit.sample(jax.random.key(0))."


def sample(
    bound: Bound, params: Params, rng_key: Any, num_samples: int | None = None
) -> dict[str, Array]:
    """Return new data from the program at an estimate: {site: value}, latents and observations.

    The shapes are those of the bound data; what the program reads of these beside its observations
    stays as it is. `num_samples`: one more axis in front; None: one draw, without it. Errors:
    `ValueError` for a `numpyro.factor`, which is no distribution to draw from.
    """
    key = checked_key(rng_key, KEY_OF_DATA)
    found = forward_draws(bound, params, key, num_samples, drawn, is_new=True)
    given = _given(bound, params, is_new=True)
    new = {}
    for name, value in found.items():
        if name not in given and half_of(name, found) is None:
            new[name] = jax.device_put(value)
    return new


def drawn(msg: Mapping[str, Any]) -> Any:
    """Return the value of a site."""
    if msg["type"] == "sample" and isinstance(layers_of(msg["fn"]).core, dist.Unit):
        raise ValueError(
            f"'{msg['name']}' is a numpyro.factor, which is no distribution to draw data from. "
            "State one: numpyro.sample(..., obs=data)."
        )
    return msg["value"]


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────


def forward_draws(
    bound: Bound,
    params: Params,
    key: Array,
    num_samples: int | None,
    kept: Callable,
    is_new: bool,
    latents: Mapping[str, Any] | None = None,
) -> Any:
    """Return what is kept of so many runs of a program at an estimate, one more axis in front.

    `kept`, `is_new`: see `run_forward`; `kept` has a name of its own. `latents`: {latent: (draw,
    *its shape)}, the values of each run; without, these are drawn. `num_samples`: None for one run,
    without the axis.
    """
    number = 1 if num_samples is None else num_samples
    check_is_number(number)
    latents = {} if latents is None else latents
    args, kwargs = bound.arguments
    data, rebuild = split_arguments(args, kwargs, bound.looks_at_values)
    size = side_by_side(number, sum(jnp.size(array) for array in data))
    model, given = bound.compiler.model, _given(bound, params, is_new)

    def runs(params, data, key, first, latents):
        args, kwargs = rebuild(data)
        # draws of latents are from the key itself
        key = jax.random.fold_in(key, FORWARD)

        def run(key, latents):
            return run_forward(model, params, latents, kept, is_new, key, args, kwargs)

        return jax.vmap(run)(numbered_keys(key, first, size), latents)

    question = (kept, size, *sorted(latents))
    function = bound.compiled.function(question, lambda: runs, is_called_once=True)

    def of_batch(first):
        # the last batch is filled up with the last draw
        numbers = np.minimum(first + np.arange(size), number - 1)
        of_runs = {name: values[numbers] for name, values in on_host(latents).items()}
        return function(given, data, key, first, of_runs)

    found = in_batches_of_draws(of_batch, number, size)
    return found if num_samples is not None else jax.tree.map(lambda leaf: leaf[0], found)


def _given(bound: Bound, params: Params, is_new: bool) -> dict[str, Array]:
    """Return the values of parameters; what no observation depends on is drawn.

    `is_new`: what an observation lacks is drawn, too, where it is estimated as a parameter.
    """
    graph, given = bound.compiled.graph, {}
    for name, value in bound.checked(params).items():
        is_lacking = graph.parameters[name].is_prior and name.endswith(UNOBSERVED)
        if name not in graph.unused and not (is_new and is_lacking):
            given[name] = value
    return given


def on_host(values: Any) -> Any:
    """Return arrays as NumPy's, of which nothing is compiled, unless they are traced."""
    return values if is_traced(values) else jax.tree.map(np.asarray, values)


def half_of(name: str, found: Mapping[str, Any]) -> str | None:
    """Return the site with an `obs_mask` that NumPyro made this one for; None if it is another's.

    NumPyro makes one of what is observed, one of what is not, and then the one of that name.
    """
    for suffix in (OBSERVED, UNOBSERVED):
        whole = name.removesuffix(suffix)
        if whole != name and whole in found:
            return whole
    return None
