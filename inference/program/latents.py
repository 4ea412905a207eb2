"""Latents: the symbol that stands for one in a program, and what it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import Primitive

latent_p = Primitive("latent")
# no rule to evaluate it: a trace holds the symbol, which is opened before anything runs
latent_p.def_abstract_eval(lambda *, name, shape, dtype: jax.core.ShapedArray(shape, dtype))


@dataclass(frozen=True, eq=False)
class Latent:
    """A discrete latent.

    - `support`: its values, (values, *event).
    - `shape`: of its elements: plates and batch axes.
    - `plates`: the names of its plates, the innermost first.
    - `is_series`: whether it is drawn in every step of a scan: time is then the first axis of its
      shape.
    - `start`: the strategy that its statement asks for, `infer={"start": …}`.
    """

    name: str
    support: np.ndarray
    shape: tuple[int, ...]
    plates: tuple[str, ...]
    is_series: bool = False
    start: str | None = None

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of its value: elements, then an event."""
        return self.shape + self.support.shape[1:]

    @property
    def dtype(self) -> Any:
        return self.support.dtype

    def over_time(self, length: int) -> Latent:
        """Return the latent that a step of a scan draws, for all of its steps."""
        return replace(self, shape=(length, *self.shape), is_series=True)


@dataclass(frozen=True, eq=False)
class GaussianLatent:
    """A Normal or MultivariateNormal latent, which is integrated out.

    Its axes are those of the statement: batch axes, then those of an event, `to_event` included.
    Some of them number its elements, each a Gaussian vector; the others number the coordinates of
    an element.

    - `shape`: of its value: batch axes, then event axes.
    - `batch_ndim`: how many of them are batch axes.
    - `joint`: which batch axes number coordinates, as event axes always do, and not elements: those
      along which the program mixes elements (`f @ loadings` with a plate of factors).
    - `plates`: the names of its plates, the innermost first.
    - `is_series`: whether it is drawn in every step of a scan: time is then the first axis.
    - `dtype`: of its value.
    """

    name: str
    shape: tuple[int, ...]
    batch_ndim: int
    plates: tuple[str, ...]
    is_series: bool = False
    joint: tuple[int, ...] = ()
    dtype: Any = float

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of its value."""
        return self.shape

    def over_time(self, length: int) -> GaussianLatent:
        """Return the latent that a step of a scan draws, for all of its steps."""
        shape, batch_ndim = (length, *self.shape), self.batch_ndim + 1
        return replace(self, shape=shape, batch_ndim=batch_ndim, is_series=True)

    @property
    def element_axes(self) -> tuple[int, ...]:
        """The axes of its value that number its elements."""
        return tuple(d for d in range(self.batch_ndim) if d not in self.joint)

    @property
    def coordinate_axes(self) -> tuple[int, ...]:
        """The axes of its value that number the coordinates of an element."""
        return tuple(d for d in range(len(self.shape)) if d not in self.element_axes)

    @property
    def elements(self) -> tuple[int, ...]:
        """The shape of its elements."""
        return tuple(self.shape[d] for d in self.element_axes)

    @property
    def size(self) -> int:
        """The number of coordinates of an element, in the order of `coordinate_axes`."""
        return math.prod(self.shape[d] for d in self.coordinate_axes)


@dataclass(frozen=True, eq=False)
class UnboundedLatent(Latent):
    """A discrete latent whose support has no end, and so no table.

    It is harmless where nothing depends on it, and the error `message` where something does.
    """

    message: str = ""


def gaussian_latent_of(name: str, fn: Any, plates: tuple[str, ...]) -> GaussianLatent:
    """Return the latent that a Normal or MultivariateNormal draws."""
    core = layers_of(fn).core
    # as NumPyro draws it
    dtype = jnp.promote_types(jnp.result_type(float), jnp.result_type(core.loc))
    shape = tuple(fn.batch_shape) + tuple(fn.event_shape)
    return GaussianLatent(name, shape, len(fn.batch_shape), plates, dtype=dtype)


def latent_of(name: str, fn: Any, plates: tuple[str, ...]) -> Latent:
    """Return the latent that a discrete distribution draws.

    It is an `UnboundedLatent` where its support has no end. Errors: `ValueError` for a support that
    is computed from data or parameters.
    """
    core = layers_of(fn).core
    if not core.has_enumerate_support:
        return _unbounded(name, core, fn, plates)
    try:
        support = _support(core)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        NotImplementedError,
        ValueError,
    ) as error:
        # as users write it: NumPyro's dist.Binomial makes a BinomialProbs or a BinomialLogits
        kind = type(core).__name__.removesuffix("Probs").removesuffix("Logits")
        raise ValueError(
            f"The support of latent site '{name}' must be the same for all its elements "
            "and known beforehand, not computed from data or parameters. "
            f"Pass its bounds as Python numbers: numpyro.sample('{name}', dist.{kind}(10, ...))."
        ) from error
    # all elements have the same support: the batch axes are units
    support = support.reshape(support.shape[:1] + tuple(core.event_shape))
    declared = fn.event_shape[: len(fn.event_shape) - len(core.event_shape)]
    return Latent(name, support, tuple(fn.batch_shape + declared), plates)


def _support(core: Any) -> np.ndarray:
    """Return the support as (values, *axes of length 1, *event)."""
    low = getattr(core.support, "lower_bound", None)
    high = getattr(core.support, "upper_bound", None)
    if isinstance(low, int) and isinstance(high, int) and not core.event_shape:
        # nothing is compiled to count to ten
        values = np.arange(low, high + 1, dtype=jnp.result_type(int))
        return values.reshape((-1,) + (1,) * len(core.batch_shape))
    # programs run while they are traced, where NumPyro's `arange` would give a tracer
    with jax.ensure_compile_time_eval():
        return np.asarray(core.enumerate_support(expand=False))


def _unbounded(name: str, core: Any, fn: Any, plates: tuple[str, ...]) -> UnboundedLatent:
    kind = type(core).__name__
    example = "dist.Poisson(rate)" if "Poisson" in kind else f"dist.{kind}(...)"
    message = (
        f"Site '{name}' is latent and {kind}: its support has no end, "
        "and EM sums over every value. Either\n"
        f"  - observe it:            numpyro.sample('{name}', ..., obs=value), or\n"
        f"  - bound its support:     numpyro.sample('{name}', "
        f"dist.Categorical(logits={example}.log_prob(jnp.arange(50))))."
    )
    elements = tuple(fn.batch_shape + fn.event_shape)
    return UnboundedLatent(name, np.zeros((0,), np.int32), elements, plates, message=message)


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


def layers_of(fn: Any) -> Layers:
    """Return a distribution without masks, `to_event` and `expand`, and what these were."""
    masks, reinterpreted = [], 0
    while isinstance(fn, dist.Independent | dist.MaskedDistribution | dist.ExpandedDistribution):
        if isinstance(fn, dist.Independent):
            reinterpreted += fn.reinterpreted_batch_ndims
        elif isinstance(fn, dist.MaskedDistribution):
            masks.append((fn._mask, reinterpreted))
        fn = fn.base_dist
    return Layers(fn, masks, reinterpreted)
