"""NumPyro's `scan`, written out over time: its sites become ordinary ones with one more axis.

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
import jax.core
import jax.numpy as jnp
from jax.interpreters import partial_eval as pe

from emjax.program.records import Site
from emjax.program.steps import CarryKinds, Step


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan to write out; arrays are in the order in which its steps run.

    - `kinds`: of the leaves of its carry.
    - `init`: the leaves of the carry before the first step.
    - `xs`, `symbols`: (step, …), what each step takes, and its latents.
    - `known`: (step + 1, …), by number the leaves that are recursive or finite: as each step
      receives them, and after the last.
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
        """Return a scan of `length` steps."""
        scan = Scan(step, CarryKinds.of(step), length, init, xs, symbols)
        scan.known.update(scan._recursive())
        # in their order, since one may be a function of another
        for leaf in scan.kinds.finite:
            (after,) = scan._run([leaf], 0, length, {})
            scan.known[leaf] = jnp.concatenate([init[leaf][None], after])
        return scan

    # ── what comes out ────────────────────────────────────────────────────────────────────────────

    def sites(self) -> list[tuple[int, Site, list]]:
        """Return the sites with a time axis in front, as (first step, site, its arrays).

        A site's outputs number its own arrays.
        """
        offset = self.step.first_array
        values = self.step.jaxpr.jaxpr.outvars[offset:]
        sites = []
        for site in self.step.sites:
            # an observed value may have more rows than its distribution
            rank = len(site.elements)
            rank = max(rank, values[site.outputs.value].aval.ndim - len(site.event))
            elements = (1,) * (rank - len(site.elements)) + site.elements
            ranks = site.ranks(rank)
            numbers = sorted(ranks)
            outputs = [offset + number for number in numbers]
            for start, arrays in self._pieces[self._depth(outputs)]:
                over_time = [
                    _time_first(arrays[offset + number], ranks[number]) for number in numbers
                ]
                steps = over_time[0].shape[0]
                site_over_time = replace(site, elements=(steps, *elements))
                sites.append((start, site_over_time.renumbered(numbers.index), over_time))
        return sites

    def ys(self) -> list:
        """Return the second results of all steps, (step, …)."""
        outputs = range(self.step.num_carry, self.step.first_array)
        return [self._joined(output) for output in outputs]

    def last_carry(self) -> list:
        """Return the carry after the last step."""
        after = self.length, self.length + 1
        # what the last step leaves is what one more step would receive
        random = self._incoming(max(self.kinds.order.values(), default=0), *after)
        leaves = []
        for leaf in range(self.step.num_carry):
            if leaf in self.kinds.constant:
                leaves.append(self.init[leaf])
            elif leaf in self.known:
                leaves.append(_between(self.known[leaf], *after)[0])
            else:
                leaves.append(random[leaf][0])
        return leaves

    # ── how it is computed ────────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def _pieces(self) -> dict[int, list[tuple[int, dict[int, Any]]]]:
        """All outputs at all steps: {depth: [(first step, {output: (step, …)}), …]}.

        The first steps, as many as the depth of the outputs, stand alone; all others run side by
        side. Outputs of one depth are computed in one run.
        """
        offset = self.step.first_array
        together = [[output] for output in range(self.step.num_carry, offset)]
        for site in self.step.sites:
            together.append([offset + number for number in site.arrays])
        by_depth: dict[int, list[int]] = {}
        for outputs in together:
            by_depth.setdefault(self._depth(outputs), []).extend(outputs)
        pieces = {}
        for depth, outputs in by_depth.items():
            pieces[depth] = []
            for start, stop in self._spans(depth):
                arrays = self._run(outputs, start, stop, self._incoming(depth, start, stop))
                pieces[depth].append((start, dict(zip(outputs, arrays, strict=True))))
        return pieces

    def _joined(self, output: int):
        """Return one output at all steps, (step, …)."""
        arrays = [arrays[output] for _, arrays in self._pieces[self._depth([output])]]
        return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)

    def _depth(self, outputs: Sequence[int]) -> int:
        """Return how many steps back the latents are that outputs depend on through the carry."""
        sources = frozenset().union(*(self.step.reads[output] for output in outputs))
        return max((self.kinds.order.get(source, 0) for source in sources), default=0)

    def _spans(self, depth: int) -> list[tuple[int, int]]:
        """Return the stretches (start, stop) of steps that run side by side."""
        alone = [(step, step + 1) for step in range(min(depth, self.length))]
        return alone + ([(depth, self.length)] if depth < self.length else [])

    def _incoming(self, depth: int, start: int, stop: int) -> dict[int, Any]:
        """Return the random leaves of order up to `depth` that some steps receive, (step, …).

        The steps are start … stop − 1; start ≥ depth, or they are one step.
        """
        leaves = [leaf for leaf, order in self.kinds.order.items() if order <= depth]
        if not leaves:
            return {}
        if start == 0:
            return {leaf: self.init[leaf][None] for leaf in leaves}
        # what the steps before receive matters to these leaves only up to one order less
        earlier = depth - 1 if start >= depth else depth
        before = self._incoming(earlier, start - 1, stop - 1)
        return dict(zip(leaves, self._run(leaves, start - 1, stop - 1, before), strict=True))

    def _run(self, outputs: Sequence[int], start: int, stop: int, random: Mapping) -> list:
        """Return outputs of steps start … stop − 1, (step, …), which run side by side.

        `random`: the random leaves that these steps receive, (step, …).
        """
        function, needed = self._part(outputs)
        same: dict[int, Any] = {}
        # `vmap` takes the number of steps from the time, whatever else the outputs need
        each: dict[int, Any] = {0: jnp.arange(start, stop)}
        for number in needed:
            leaf = number - self.step.first_carry
            if number == 0:
                continue
            if number < self.step.first_carry:
                each[number] = _between(self.xs[number - 1], start, stop)
            elif number >= self.step.first_latent:
                symbol = self.symbols[number - self.step.first_latent]
                each[number] = _between(symbol, start, stop)
            elif leaf in self.kinds.constant:
                same[number] = self.init[leaf]
            elif leaf in self.known:
                each[number] = _between(self.known[leaf], start, stop)
            else:
                each[number] = random[leaf]
        # constant leaves are not mapped over: what is computed of them alone is computed once
        return jax.vmap(lambda inputs: function(inputs | same))(each)

    def _part(self, outputs: Sequence[int]) -> tuple[Callable, list[int]]:
        """Return what a step does to compute outputs, and the numbers of the inputs it needs.

        The function takes {number of an input: its value}, and returns a list.
        """
        closed = self.step.jaxpr
        is_output = [number in outputs for number in range(len(closed.jaxpr.outvars))]
        jaxpr, is_needed = pe.dce_jaxpr(closed.jaxpr, is_output)
        needed = [number for number, needs in enumerate(is_needed) if needs]
        # of a pruned jaxpr, outputs are in the order of the step, not in the one asked for
        place = {output: i for i, output in enumerate(sorted(outputs))}

        def function(inputs: Mapping[int, Any]) -> list:
            arguments = [inputs[number] for number in needed]
            results = jax.core.eval_jaxpr(jaxpr, closed.consts, *arguments)
            return [results[place[output]] for output in outputs]

        return function, needed

    def _recursive(self) -> dict[int, Any]:
        """Return the recursive leaves, (step + 1, …), computed step by step."""
        if not self.kinds.recursive:
            return {}
        first = self.step.first_carry
        # recursive leaves may read finite ones
        leaves = sorted({*self.kinds.recursive, *self.kinds.finite})
        function, _ = self._part(leaves)
        constant = {first + leaf: self.init[leaf] for leaf in self.kinds.constant}

        def body(carry, taken):
            time, xs = taken
            moving = {first + leaf: value for leaf, value in zip(leaves, carry, strict=True)}
            # what a step receives is kept, not what it leaves
            return function({0: time, **dict(enumerate(xs, 1)), **constant, **moving}), carry

        start = [self.init[leaf] for leaf in leaves]
        steps = jnp.arange(self.length), list(self.xs)
        last, received = jax.lax.scan(body, start, steps)
        return {
            # finite leaves came along to be read: `Scan.of` computes them side by side
            leaf: jnp.concatenate([values, after[None]])
            for leaf, values, after in zip(leaves, received, last, strict=True)
            if leaf in self.kinds.recursive
        }


def _between(array, start: int, stop: int):
    whole = (start, stop) == (0, array.shape[0])
    return array if whole else jax.lax.slice_in_dim(array, start, stop)


def _time_first(array, rank: int):
    """Return an array (step, …) as one of that many axes beside the first, unit axes next to it."""
    steps, *shape = array.shape
    return array.reshape((steps, *(1,) * (rank - len(shape)), *shape))
