"""Discrete latents: the symbol that stands for one in a program, and its support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import Primitive

latent_p = Primitive("latent")
latent_p.def_abstract_eval(lambda *, name, shape, dtype: jax.core.ShapedArray(shape, dtype))


@dataclass(frozen=True, eq=False)
class Latent:
    """A discrete latent: `support` is (values, *event), `shape` its elements' (plates and batch
    axes; time first, if it `is_series`, within a scan).
    """

    name: str
    support: np.ndarray
    shape: tuple[int, ...]
    plates: tuple[str, ...]
    is_series: bool = False


@dataclass(frozen=True, eq=False)
class UnboundedLatent(Latent):
    """A discrete latent whose support has no end: harmless where nothing depends on it, else the
    error `message`.
    """

    message: str = ""


def latent_of(name: str, fn, plates) -> Latent:
    """Return the latent that a discrete distribution draws; an `UnboundedLatent` where its support
    has no end.
    """
    inner = layers_of(fn).core
    if not inner.has_enumerate_support:
        kind = type(inner).__name__
        remedy = (
            f"numpyro.sample('{name}', "
            "dist.Categorical(logits=dist.Poisson(rate).log_prob(jnp.arange(50))))"
            if "Poisson" in kind
            else f"numpyro.sample('{name}', "
            f"dist.Categorical(logits=dist.{kind}(...).log_prob(jnp.arange(50))))"
        )
        return _unbounded(name, kind, remedy, fn, plates)
    try:
        support = _support(inner)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        NotImplementedError,
        ValueError,
    ) as error:
        kind = type(inner).__name__.removesuffix("Probs").removesuffix("Logits")
        raise ValueError(
            f"The support of latent site '{name}' must be the same for all its elements and known "
            "beforehand, not computed from data or "
            f"parameters. Pass its bounds as Python numbers: numpyro.sample('{name}', "
            f"dist.{kind}(10, ...))."
        ) from error
    support = support.reshape(support.shape[:1] + tuple(inner.event_shape))
    elements = fn.batch_shape + fn.event_shape[: len(fn.event_shape) - len(inner.event_shape)]
    return Latent(name, support, tuple(elements), plates)


def _support(inner) -> np.ndarray:
    """Return the support as (values, *axes of length 1, *event)."""
    low, high = (getattr(inner.support, bound, None) for bound in ("lower_bound", "upper_bound"))
    if (
        isinstance(low, int) and isinstance(high, int) and not inner.event_shape
    ):  # nothing is compiled to count to ten
        return np.arange(low, high + 1, dtype=jnp.result_type(int)).reshape(
            (-1,) + (1,) * len(inner.batch_shape)
        )
    with jax.ensure_compile_time_eval():
        return np.asarray(inner.enumerate_support(expand=False))


def _unbounded(name, kind, remedy, fn, plates) -> Latent:
    """A latent of infinite support has no table; it is an error as soon as something
    depends on it.
    """
    message = (
        f"Site '{name}' is latent and {kind}: its support has no end, and EM sums over every "
        "value. Either\n"
        f"  - observe it:            numpyro.sample('{name}', ..., obs=value), or\n"
        f"  - bound its support:     {remedy}."
    )
    return UnboundedLatent(
        name,
        np.zeros((0,), np.int32),
        tuple(fn.batch_shape + fn.event_shape),
        plates,
        message=message,
    )


class Layers(NamedTuple):
    """What a distribution is made of.

    - `core`: the innermost distribution.
    - `masks`: the masks around it, each with the number of axes that `to_event` declared outside
      of it.
    - `reinterpreted`: how many axes `to_event` declared in all.
    """

    core: Any
    masks: list[tuple[Any, int]]
    reinterpreted: int


def layers_of(fn) -> Layers:
    """Return a distribution without masks, `to_event` and `expand`, and what these were."""
    masks, reinterpreted = [], 0
    while isinstance(fn, dist.Independent | dist.MaskedDistribution | dist.ExpandedDistribution):
        if isinstance(fn, dist.Independent):
            reinterpreted += fn.reinterpreted_batch_ndims
        elif isinstance(fn, dist.MaskedDistribution):
            masks.append((fn._mask, reinterpreted))
        fn = fn.base_dist
    return Layers(fn, masks, reinterpreted)
