"""The step of a `scan`, traced once, and of which kind each leaf of its carry is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from emjax.numerics.jaxprs import inlined, opened, output_dependencies
from emjax.program.latents import GaussianLatent, Latent, latent_p
from emjax.program.records import Site


@dataclass(frozen=True, eq=False)
class Step:
    """A traced step of a scan.

    - `jaxpr`: (time, xs, carry, latents) → (carry, ys, arrays of its sites), all flat.
    - `latents`: in the order of its inputs.
    - `sites`: their outputs number the arrays of the sites, from 0.
    """

    jaxpr: ClosedJaxpr
    num_xs: int
    num_carry: int
    num_ys: int
    latents: tuple[Latent | GaussianLatent, ...]
    sites: tuple[Site, ...]

    @staticmethod
    def traced(function: Callable, xs: Sequence, carry: Sequence) -> Step:
        """Return the step `function(time, xs, carry) -> (carry, ys, arrays, latents, sites)`.

        `xs`, `carry`: arrays of the first step, of which only shapes and types are read.
        """
        state: dict = {}

        def flat(time, xs, carry):
            carry, ys, arrays, latents, sites = function(time, xs, carry)
            state.update(latents=latents, sites=tuple(sites), num_ys=len(ys))
            return [*carry, *ys, *arrays]

        time = jax.ShapeDtypeStruct((), jnp.result_type(int))
        traced = jax.make_jaxpr(flat)(time, _abstract(xs), _abstract(carry))
        closed = inlined(traced, keep_derivatives=True)
        jaxpr, symbols = opened(closed.jaxpr, latent_p)
        return Step(
            ClosedJaxpr(jaxpr, closed.consts),
            len(xs),
            len(carry),
            state["num_ys"],
            tuple(state["latents"][eqn.params["name"]] for eqn in symbols),
            state["sites"],
        )

    @property
    def first_carry(self) -> int:
        """The number of the input that is the first leaf of the carry."""
        return 1 + self.num_xs

    @property
    def first_latent(self) -> int:
        """The number of the input that is the first latent."""
        return 1 + self.num_xs + self.num_carry

    @property
    def first_array(self) -> int:
        """The number of the output that is the first array of a site."""
        return self.num_carry + self.num_ys

    @functools.cached_property
    def constant(self) -> frozenset[int]:
        """The leaves of the carry that a step returns as it takes them."""
        jaxpr = self.jaxpr.jaxpr
        taken = jaxpr.invars[self.first_carry : self.first_latent]
        returned = jaxpr.outvars[: self.num_carry]
        pairs = enumerate(zip(taken, returned, strict=True))
        return frozenset(leaf for leaf, (before, after) in pairs if before is after)

    @functools.cached_property
    def reads(self) -> list[frozenset[int | str]]:
        """What each output depends on: leaves of the carry by number, and latents by name."""
        inputs = self.jaxpr.jaxpr.invars[self.first_carry :]
        labels = [*range(self.num_carry), *(latent.name for latent in self.latents)]
        return output_dependencies(self.jaxpr.jaxpr, dict(zip(inputs, labels, strict=True)))


def _abstract(values: Sequence) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(jnp.shape(value), jnp.result_type(value)) for value in values]


@dataclass(frozen=True, eq=False)
class CarryKinds:
    """Of which kind each leaf of a scan's carry is, by its number.

    - `constant`: returned as it is taken.
    - `recursive`: a function of itself, without latents (the time, a moving average).
    - `finite`: of what the last few steps took, without latents (the previous observation); in an
      order in which each depends on those before it alone.
    - `order`: of the random ones, how many steps back the latents are that a leaf depends on.
    """

    constant: frozenset[int]
    recursive: frozenset[int]
    finite: tuple[int, ...]
    order: Mapping[Any, int]

    @staticmethod
    def of(step: Step) -> CarryKinds:
        """Return the kinds of a step's carry.

        Errors: `ValueError` for a leaf that accumulates latents over all steps.
        """
        reads = [
            # constant leaves are known before the first step: no step hands anything on by them
            frozenset() if leaf in step.constant else step.reads[leaf] - step.constant
            for leaf in range(step.num_carry)
        ]
        sources = _transitive(reads)
        for leaf, reached in enumerate(sources):
            latents = sorted(source for source in reached if isinstance(source, str))
            if leaf in reached and latents:
                raise ValueError(_accumulates(step, latents))
        recursive = frozenset(leaf for leaf, reached in enumerate(sources) if leaf in reached)
        order: dict[Any, int] = {}
        finite: list[int] = []
        # in the order of dependence: a leaf is settled once all that it reads are
        waiting = set(range(step.num_carry)) - step.constant - recursive
        # it ends: among leaves that do not depend on themselves there is no cycle
        while waiting:
            for leaf in sorted(leaf for leaf in waiting if not reads[leaf] & waiting):
                waiting.remove(leaf)
                if any(isinstance(source, str) for source in sources[leaf]):
                    order[leaf] = 1 + max(order.get(source, 0) for source in reads[leaf])
                else:
                    finite.append(leaf)
        return CarryKinds(step.constant, recursive, tuple(finite), order)


def _accumulates(step: Step, names: Sequence[str]) -> str:
    """Return that the carry of a scan accumulates latents, and what to write."""
    known = {latent.name: latent for latent in step.latents}
    discrete = [name for name in names if not isinstance(known[name], GaussianLatent)]
    if not discrete:
        return (
            f"The carry of the scan accumulates Gaussian latent '{names[0]}': its value depends "
            "on that of every step before. Make what accumulates the latent: "
            f"numpyro.sample('{names[0]}', dist.Normal(previous, scale)) in place of previous + "
            f"numpyro.sample('{names[0]}', dist.Normal(0, scale))."
        )
    return (
        f"The carry of the scan accumulates latent '{discrete[0]}': its value depends "
        "on that of every step before, so that exact sums would grow "
        "without bound. Carry the latents of the last steps alone, or make what "
        "accumulates a latent of its own: "
        "numpyro.sample('total', dist.Delta(...)) has no finite support, "
        "dist.Categorical(...) has."
    )


def _transitive(reads: Sequence[frozenset]) -> list[frozenset]:
    """Return what each leaf depends on over any number of steps."""
    sources = list(reads)
    for _ in reads:  # a chain of dependencies is no longer than there are leaves
        before = list(sources)
        for leaf, reached in enumerate(before):
            leaves = [source for source in reached if isinstance(source, int)]
            sources[leaf] = reached.union(*(before[source] for source in leaves))
    return sources
