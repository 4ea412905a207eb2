"""What a program expects of what it computes, and of what data lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array

from emjax.answers.draws import sample_posterior
from emjax.answers.forward import forward_draws, half_of, on_host
from emjax.e_step.marginals import posterior, posterior_means
from emjax.families.distributions import PartiallyObserved
from emjax.program.handlers.beside import (
    BESIDE,
    UNOBSERVED,
    Stated,
    beside,
    completion,
    computed,
    missing,
    unmasked,
)
from emjax.program.latents import layers_of
from emjax.run.annotations import Params
from emjax.run.bound import Bound, checked_key
from emjax.run.compilation import is_traced
from emjax.run.pure import PureProgram

NOTHING_LACKS = (
    "No site of this program may lack data. State what is missing: "
    "numpyro.sample('x', ..., obs=x, obs_mask=is_known), dist.Normal(...).mask(is_known), or "
    "emjax.distributions.PartiallyObserved(normal, observed=~jnp.isnan(x))."
)
KEY_OF_IMPUTATION = "rng_key is a random key: fit.impute(rng_key=jax.random.key(0))."


def deterministic(bound: Bound, params: Params) -> dict[str, Array]:
    """Return each `numpyro.deterministic` site at an estimate; see `Fit.deterministic`."""

    def of_program(bound: Bound) -> dict[str, Array]:
        try:
            expected = _expected(bound, params, computed)
        except (ValueError, MemoryError) as error:
            raise type(error)(
                f"A numpyro.deterministic site has no expectation here: {error} Draw the latents, "
                "and compute it of each draw: fit.sample_posterior(rng_key, 1000)."
            ) from error
        beside = [name for name in expected if name.endswith(BESIDE)]
        return {name.removesuffix(BESIDE): expected[name] for name in beside}

    return bound.in_its_precision(of_program)


def impute(
    bound: Bound, params: Params, rng_key: Any = None, num_samples: int | None = None
) -> dict[str, Array]:
    """Return the observations that may lack entries, with these filled in; see `Fit.impute`."""
    if rng_key is None and num_samples is None:
        data = bound.in_its_precision(lambda bound: _by_expectations(bound, params))
    else:
        data = _by_draws(bound, params, checked_key(rng_key, KEY_OF_IMPUTATION), num_samples)
    if not data:
        raise ValueError(NOTHING_LACKS)
    return data


def _by_expectations(bound: Bound, params: Params) -> dict[str, Array]:
    expected = on_host(_expected(bound, params, completion))
    # whatever is drawn in this run, nothing is read but the data, and where they lack entries
    found = on_host(forward_draws(bound, params, jax.random.key(0), None, _lacking, False))

    def filling(name: str, whole: str | None) -> Any:
        if whole is None:
            return expected[name + BESIDE]
        # what an observation depends on, and is continuous, is estimated: it is a parameter
        return expected.get(whole + UNOBSERVED, found[whole].get("computed"))

    return _filled(found, filling)


def _by_draws(
    bound: Bound, params: Params, key: Array, num_samples: int | None
) -> dict[str, Array]:
    latents = sample_posterior(bound, params, key, num_samples or 1)
    found = forward_draws(bound, params, key, num_samples, _completed, False, latents)

    def filling(name: str, whole: str | None) -> Any:
        return found[name]["drawn"] if whole is None else found[whole]["computed"]

    return _filled(found, filling)


def _filled(found: Mapping[str, Any], filling: Callable) -> dict[str, Array]:
    """Return the data that are found, with `filling(name, whole)` where they lack entries."""
    data = {}
    for name, kept in found.items():
        if "data" in kept:
            whole = half_of(name, found)
            lacks, values = kept["lacks"], filling(name, whole)
            where = jnp.where if is_traced((lacks, values)) else np.where
            data[name if whole is None else whole] = where(lacks, values, kept["data"])
    return jax.device_put(data)


def _lacking(msg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an observation, and where it lacks entries; of what is computed, the value."""
    if msg["type"] == "deterministic":
        return {"computed": msg["value"]}
    lacks = missing(msg)
    if lacks is None:
        return None
    shape = jnp.broadcast_shapes(jnp.shape(msg["value"]), msg["fn"].shape())
    both = {"data": msg["value"], "lacks": lacks}
    return {name: jnp.broadcast_to(array, shape) for name, array in both.items()}


def _completed(msg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what `_lacking` does, and what an observation lacks, drawn given the latents."""
    kept = _lacking(msg)
    if kept is None or "computed" in kept:
        return kept
    core, drawn = layers_of(msg["fn"]).core, unmasked(msg["fn"]).sample(numpyro.prng_key())
    if isinstance(core, PartiallyObserved):
        drawn = core.completed(drawn, msg["value"])
    return {**kept, "drawn": drawn}


# ── expectations ──────────────────────────────────────────────────────────────────────────────────


def _expected(bound: Bound, params: Params, stated: Stated) -> dict[str, Array]:
    """Return what is expected of the sites that are stated beside a program's own."""

    def program(first, *args, **kwargs):
        return beside(bound.compiler.model, stated)(*args, **kwargs)

    # no data of a refit: what comes first is not read
    with_more = bound.extended(("beside", stated), program, np.zeros(1))
    return with_more.of_latents(_of_no_observation, params)


def _of_no_observation(pure: PureProgram, params: Mapping, constants: Sequence) -> dict[str, Array]:
    """Return the mean, or the most probable value, of sites that stand beside a program's own."""
    arrays = pure.graph.arrays(params, constants)
    values = {}
    for name, mean in posterior_means(pure.graph, arrays).items():
        if name.endswith((BESIDE, UNOBSERVED)):
            values[name] = mean
    latents = [name for name in pure.graph.latents if name.endswith((BESIDE, UNOBSERVED))]
    marginals = posterior(pure.graph, arrays) if latents else {}
    for name in latents:
        support = jnp.asarray(pure.graph.latents[name].support)
        values[name] = support[jnp.argmax(marginals[name], -1)]
    lacking = [name for name in pure.graph.unused if name.endswith(BESIDE) and name not in values]
    if lacking and pure.graph.gaussians:
        names = ", ".join(f"'{name.removesuffix(BESIDE)}'" for name in lacking)
        raise ValueError(f"{names} is not affine in the latents that are integrated out.")
    return values
