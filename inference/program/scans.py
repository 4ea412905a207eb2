"""NumPyro's `scan`, written out over time: the sites of its step become ordinary ones with a time
axis in front.

A step is traced once. What its carry holds is of four kinds: constant; *recursive* without latents
(the time, a moving average), which an ordinary loop computes once; *finite* without latents (the
previous observation), which is a shift in time; and *random*, a function of the latents of the last
steps. All steps then run side by side, under `vmap`: `transition[previous]` reads the latent
`state` at steps 0 … T − 2, and its distribution draws it at steps 1 … T − 1. Only the first steps,
whose random carry is the program's `init`, stand alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jax.interpreters import partial_eval as pe

from emjax.numerics.jaxprs import inlined, opened, output_dependencies
from emjax.program.latents import Latent, latent_p
from emjax.program.records import Site


@dataclass(frozen=True, eq=False)
class Step:
    """A traced step: `jaxpr` maps (time, xs, carry, latents) to (carry, ys, arrays of its sites),
    all flat; `latents` in the order of its inputs.
    """

    jaxpr: ClosedJaxpr
    num_xs: int
    num_carry: int
    num_ys: int
    latents: tuple[Latent, ...]
    sites: tuple[Site, ...]

    @staticmethod
    def traced(function: Callable, xs: Sequence, carry: Sequence) -> Step:
        """Trace `function(time, xs, carry) -> (carry, ys, arrays, latents, sites)` at arrays of the
        first step.
        """
        state: dict = {}

        def flat(time, xs, carry):
            carry, ys, arrays, latents, sites = function(time, xs, carry)
            state.update(latents=latents, sites=tuple(sites), num_ys=len(ys))
            return [*carry, *ys, *arrays]

        def abstract(values):
            return [
                jax.ShapeDtypeStruct(jnp.shape(value), jnp.result_type(value)) for value in values
            ]

        closed = inlined(
            jax.make_jaxpr(flat)(
                jax.ShapeDtypeStruct((), jnp.result_type(int)), abstract(xs), abstract(carry)
            ),
            keep_derivatives=True,
        )
        jaxpr, symbols = opened(closed.jaxpr, latent_p)
        latents = tuple(state["latents"][eqn.params["name"]] for eqn in symbols)
        return Step(
            ClosedJaxpr(jaxpr, closed.consts),
            len(xs),
            len(carry),
            state["num_ys"],
            latents,
            state["sites"],
        )

    def carried(self, number: int):
        """Return an input of the jaxpr that is a leaf of the carry."""
        return self.jaxpr.jaxpr.invars[1 + self.num_xs + number]

    @property
    def carry_out(self) -> list:
        return self.jaxpr.jaxpr.outvars[: self.num_carry]

    @functools.cached_property
    def reads(self) -> list[frozenset]:
        """Return, for each output, the leaves of the carry (numbers) and the latents (names) that
        it depends on.
        """
        drawn = self.jaxpr.jaxpr.invars[1 + self.num_xs + self.num_carry :]
        sources = {self.carried(i): i for i in range(self.num_carry)} | {
            var: latent.name for var, latent in zip(drawn, self.latents, strict=True)
        }
        return output_dependencies(self.jaxpr.jaxpr, sources)


@dataclass(frozen=True, eq=False)
class CarryKinds:
    """The kinds of a carry's leaves. `order`: of the random ones, how many steps back the latents
    are that a leaf depends on.
    """

    constant: frozenset[int]
    recursive: frozenset[int]
    finite: tuple[int, ...]
    order: Mapping[int, int]

    @staticmethod
    def of(step: Step) -> CarryKinds:
        """Return the kinds of a step's carry. Errors: `ValueError` for a leaf that accumulates
        latents over all steps.
        """
        constant = frozenset(i for i, var in enumerate(step.carry_out) if var is step.carried(i))
        reads = [{x for x in read if x not in constant} for read in step.reads[: step.num_carry]]
        reads = [set() if i in constant else read for i, read in enumerate(reads)]
        closure = [set(read) for read in reads]
        for _ in reads:
            closure = [
                own.union(*(closure[i] for i in own if isinstance(i, int))) for own in closure
            ]
        for i, own in enumerate(closure):
            names = [x for x in own if isinstance(x, str)]
            if i in own and names:
                raise ValueError(
                    f"The carry of the scan accumulates latent '{names[0]}': its value depends on "
                    "that of every step before, so that exact sums would grow "
                    "without bound. Carry the latents of the last steps alone, or make what "
                    "accumulates a latent of its own: "
                    "numpyro.sample('total', dist.Delta(...)) has no finite support, "
                    "dist.Categorical(...) has."
                )
        recursive = frozenset(i for i, own in enumerate(closure) if i in own)
        order: dict[int, int] = {}
        finite: list[int] = []
        waiting = [i for i in range(step.num_carry) if i not in constant and i not in recursive]
        while waiting:
            for i in [i for i in waiting if not reads[i] & set(waiting)]:
                waiting.remove(i)
                if any(isinstance(x, str) for x in closure[i]):
                    order[i] = 1 + max((order[j] for j in reads[i] if j in order), default=0)
                else:
                    finite.append(i)
        return CarryKinds(constant, recursive, tuple(finite), order)


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan to write out: its step, the carry's kinds, and arrays in the order in which the steps
    run.

    `init`: the leaves of the carry before the first step; `xs`: (step, …); `symbols`: (step, …),
    the latents; `known`: the incoming leaves of all steps, and that after the last, (step + 1, …),
    of those that are recursive or finite.
    """

    step: Step
    kinds: CarryKinds
    length: int
    init: Sequence
    xs: Sequence
    symbols: Sequence
    known: dict[int, Any] = field(default_factory=dict)

    @staticmethod
    def of(step: Step, init: Sequence, xs: Sequence, length: int, symbols: Sequence) -> Scan:
        scan = Scan(step, CarryKinds.of(step), length, init, xs, symbols)
        scan.known.update(scan.recursive())
        for leaf in scan.kinds.finite:
            (out,) = scan.run([leaf], 0, length, {})
            scan.known[leaf] = jnp.concatenate([init[leaf][None], out])
        return scan

    def part(self, outputs: Sequence[int]):
        """Return what a step does to compute some of its outputs, as a function of a mapping from
        inputs' numbers; and which inputs it needs.
        """
        jaxpr, used = pe.dce_jaxpr(
            self.step.jaxpr.jaxpr, [i in outputs for i in range(len(self.step.jaxpr.jaxpr.outvars))]
        )
        needed = [i for i, is_used in enumerate(used) if is_used]
        place = {i: n for n, i in enumerate(sorted(outputs))}

        def function(inputs: Mapping[int, Any]) -> list:
            found = jax.core.eval_jaxpr(jaxpr, self.step.jaxpr.consts, *(inputs[i] for i in needed))
            return [found[place[i]] for i in outputs]

        return function, needed

    def recursive(self) -> dict[int, Any]:
        """Return the incoming recursive leaves, computed step by step."""
        if not self.kinds.recursive:
            return {}
        first = 1 + self.step.num_xs
        leaves = [
            i
            for i in range(self.step.num_carry)
            if i in self.kinds.recursive or i in self.kinds.finite
        ]
        function, needed = self.part(leaves)

        def body(own, inputs):
            time, xs = inputs
            given = {
                0: time,
                **dict(enumerate(xs, 1)),
                **{first + i: self.init[i] for i in self.kinds.constant},
            }
            return function(
                given | {first + i: value for i, value in zip(leaves, own, strict=True)}
            ), own

        start = [self.init[i] for i in leaves]
        last, incoming = jax.lax.scan(body, start, (jnp.arange(self.length), list(self.xs)))
        joined = {
            i: jnp.concatenate([values, end[None]])
            for i, values, end in zip(leaves, incoming, last, strict=True)
        }
        return {i: joined[i] for i in self.kinds.recursive}

    def run(self, outputs: Sequence[int], start: int, stop: int, random: Mapping[int, Any]) -> list:
        """Run steps start … stop − 1 side by side, and return some outputs, (step, …). `random`:
        the incoming random leaves, (step, …).
        """
        function, needed = self.part(outputs)
        first_carry, first_latent = 1 + self.step.num_xs, 1 + self.step.num_xs + self.step.num_carry
        fixed, moving = {}, {0: jnp.arange(start, stop)}
        for i in needed[1:] if needed[:1] == [0] else needed:
            if i < first_carry:
                moving[i] = _between(self.xs[i - 1], start, stop)
            elif i >= first_latent:
                moving[i] = _between(self.symbols[i - first_latent], start, stop)
            elif (leaf := i - first_carry) in self.kinds.constant:
                fixed[i] = self.init[leaf]
            else:
                moving[i] = (
                    _between(self.known[leaf], start, stop) if leaf in self.known else random[leaf]
                )
        return jax.vmap(lambda own: function(own | fixed))(moving)

    def incoming(self, depth: int, start: int, stop: int) -> dict[int, Any]:
        """Return the random leaves of order up to `depth` that steps start … stop − 1 receive,
        (step, …); start ≥ depth, or it is 0 and stop is 1.
        """
        leaves = [i for i, order in self.kinds.order.items() if order <= depth]
        if not leaves:
            return {}
        if start == 0:
            return {i: self.init[i][None] for i in leaves}
        before = (
            self.incoming(depth - 1, start - 1, stop - 1)
            if start >= depth
            else self.incoming(depth, start - 1, stop - 1)
        )
        return dict(zip(leaves, self.run(leaves, start - 1, stop - 1, before), strict=True))

    def depth(self, outputs: Sequence[int]) -> int:
        """Return how many steps back the latents are that some outputs depend on through
        the carry.
        """
        return max(
            (self.kinds.order.get(x, 0) for i in outputs for x in self.step.reads[i]), default=0
        )

    def pieces(self, outputs: Sequence[int]) -> list[tuple[int, list]]:
        """Return some outputs at all steps as (first step, arrays): the first steps one by one, all
        others side by side.
        """
        depth = self.depth(outputs)
        starts = range(min(depth, self.length))
        spans = [(t, t + 1) for t in starts] + (
            [(depth, self.length)] if depth < self.length else []
        )
        return [
            (start, self.run(outputs, start, stop, self.incoming(depth, start, stop)))
            for start, stop in spans
        ]

    def stacked(self, output: int):
        """Return one output at all steps, (step, …)."""
        arrays = [arrays[0] for _, arrays in self.pieces([output])]
        return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)

    def last(self, leaf: int):
        """Return a leaf of the carry after the last step."""
        if leaf in self.kinds.constant:
            return self.init[leaf]
        if leaf in self.known:
            return _between(self.known[leaf], self.length, self.length + 1)[0]
        return self.incoming(self.kinds.order[leaf], self.length, self.length + 1)[leaf][0]

    def sites(self) -> list[tuple[int, Site, list]]:
        """Return the sites with a time axis in front: (first step, site, its arrays), a site's
        outputs numbering its own arrays.
        """
        found = []
        offset = self.step.num_carry + self.step.num_ys
        shapes = [var.aval.shape for var in self.step.jaxpr.jaxpr.outvars[offset:]]
        for site in self.step.sites:
            rank = max(len(site.elements), len(shapes[site.outputs.value]) - len(site.event))
            elements, ranks = (1,) * (rank - len(site.elements)) + site.elements, site.ranks(rank)
            numbers = sorted(ranks)
            for start, arrays in self.pieces([offset + i for i in numbers]):
                steps = arrays[0].shape[0]
                padded = [
                    array.reshape((steps, *(1,) * (ranks[i] + 1 - array.ndim), *array.shape[1:]))
                    for i, array in zip(numbers, arrays, strict=True)
                ]
                own = replace(site, elements=(steps, *elements)).renumbered(numbers.index)
                found.append((start, own, padded))
        return found


def _between(array, start: int, stop: int):
    return (
        array if (start, stop) == (0, array.shape[0]) else jax.lax.slice_in_dim(array, start, stop)
    )
