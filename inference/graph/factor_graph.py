"""The factor graph of a program: its terms, and the functions that compute their arrays.

A graph is built by one abstract trace. Its named values hold *slots* in place of arrays; `prepare`
computes, once, the slots that depend on data alone, `arrays` those that depend on parameters as
well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Var

from emjax.graph.condensed import Condensed
from emjax.graph.meeting_axes import SharedAxes
from emjax.graph.shared_axes import shared_axes
from emjax.graph.slots import term_naturals
from emjax.graph.summary import Summarized, summarized
from emjax.graph.terms import Term
from emjax.graph.wiring import Wire, wires
from emjax.numerics.jaxprs import inlined
from emjax.program.latents import GaussianLatent, Latent
from emjax.program.records import Parameter
from emjax.program.trace import Program
from emjax.tables.named import Named


@dataclass(frozen=True)
class Check:
    """What must not be.

    - `kind`: "nan", "support" or "index".
    - `what`: the distribution's name, or what an index exceeds.
    - `bad`: true where it is so.
    """

    kind: str
    site: str
    what: str
    bad: Named


@dataclass(frozen=True, eq=False)
class FactorGraph:
    """Terms whose arrays are slots, and the functions that fill them.

    - `predicted`: the terms of discrete latents that no observation depends on: they sum to one,
      and only their posterior reads them.
    - `latents`, `gaussians`: those to sum out, and those to integrate out.
    - `condensed`: few rows in place of many, which serve log Z and its derivatives.
    - `multiplicities`: how often the elements of each latent count.
    - `checks`: what must not be true of the data.
    - `unused`: the names of the continuous latents that no observation depends on.
    - `means`: of those, over (elements, event); of a site of a scan, one for each stretch of it.
      Each is a sum, of which all but the first are linear in a Gaussian latent.
    - `full_jaxpr`: (parameters, floor, data) → slots. Its halves are `once_jaxpr`, (floor, data) →
      constants, and `step_jaxpr`, (parameters, constants) → slots.
    - `program`: what it is the graph of.
    - `chains`: how latents that are coupled in time are summed out.
    - `is_unconstrained`: whether densities of priors are those of unconstrained coordinates.
    """

    terms: tuple[Term, ...]
    predicted: tuple[Term, ...]
    condensed: Condensed
    latents: Mapping[str, Latent]
    gaussians: Mapping[str, GaussianLatent]
    multiplicities: Mapping[str, Named]
    parameters: Mapping[str, Parameter]
    checks: tuple[Check, ...]
    unused: tuple[str, ...]
    means: Mapping[str, Sequence[Sequence[Named]]]
    full_jaxpr: ClosedJaxpr
    once_jaxpr: ClosedJaxpr
    step_jaxpr: ClosedJaxpr
    program: Program
    chains: str = "sequential"
    is_unconstrained: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order in which the graph takes them."""
        # sorted, as the traced program takes them
        return tuple(sorted(self.parameters))

    @property
    def has_priors(self) -> bool:
        """Whether the objective is more than the log-likelihood."""
        return any(term.site.is_prior for term in self.terms)

    def prepare(self, data: Sequence, floor: Any = 0.0, sums: Sequence | None = None) -> list:
        """Return everything that depends on data alone.

        `floor`: the least multiplicity that a row is given; `sums`: of parts of the data, the
        `summarized` of all of them, added up.
        """
        jaxpr, more = self.once_jaxpr, []
        if sums is not None:
            jaxpr = self.summary.constants
            # they may be of a program in single precision, and this one in double
            own = jaxpr.jaxpr.invars[len(jaxpr.jaxpr.invars) - len(sums) :]
            pairs = zip(sums, own, strict=True)
            more = [jnp.asarray(each, var.aval.dtype) for each, var in pairs]
        floor = jnp.asarray(floor, jnp.result_type(float))
        return jax.core.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, floor, *data, *more)

    @cached_property
    def _data_kept(self) -> dict[int, int]:
        """Which constants are data as they are: {number of the constant: that of the data}."""
        jaxpr = self.once_jaxpr.jaxpr
        _, *data = jaxpr.invars  # the floor is first
        numbers = {var: number for number, var in enumerate(data)}
        kept = {}
        for i, var in enumerate(jaxpr.outvars):
            # what is known is no variable
            if isinstance(var, Var) and var in numbers:
                kept[i] = numbers[var]
        return kept

    def without_data(self, constants: Sequence) -> list:
        """Return constants without those that are data as they are.

        A compiled function would copy them.
        """
        return [each for i, each in enumerate(constants) if i not in self._data_kept]

    def with_data(self, computed: Sequence, data: Sequence) -> list:
        """Return the constants of which `computed` are those `without_data`."""
        kept, remaining = self._data_kept, iter(computed)
        constants = []
        for i, var in enumerate(self.once_jaxpr.jaxpr.outvars):
            if i in kept:
                constants.append(jnp.asarray(data[kept[i]], var.aval.dtype))
            else:
                constants.append(next(remaining))
        return constants

    @cached_property
    def summary(self) -> Summarized:
        """What parts of the data have to know of all of them."""
        return summarized(self.once_jaxpr)

    def summarized(self, data: Sequence) -> list[Array]:
        """Return what parts of the data have to know of all of them: it adds up."""
        jaxpr, floor = self.summary.sums, jnp.zeros((), jnp.result_type(float))
        return jax.core.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, floor, *data)

    def arrays(self, params: Mapping[str, Any], constants: Sequence) -> list:
        """Return the array of every slot."""
        inputs = [*(params[name] for name in self.names), *constants]
        return jax.core.eval_jaxpr(self.step_jaxpr.jaxpr, self.step_jaxpr.consts, *inputs)

    @cached_property
    def tables(self) -> Callable[[Mapping[str, Any], Sequence], list[list[Array]]]:
        """Return the function of parameters and constants that is each term's natural parameters.

        They are plain arrays. Called at several places of a run, it is traced once.
        """

        def tables(params, constants):
            arrays = self.arrays(params, constants)
            by_term = []
            for term in self.terms:
                naturals = term_naturals(term, arrays)
                by_term.append([jnp.asarray(table.array) for table in naturals])
            return by_term

        return jax.jit(tables)

    @cached_property
    def shared_axes(self) -> SharedAxes:
        """Which axes of the program's arrays run along the same thing."""
        return shared_axes(self.program)

    @cached_property
    def wires(self) -> list[Wire]:
        """What each slot depends on.

        Entries of all parameters are numbered in the order of `names`.
        """
        shapes = {name: self.parameters[name].shape for name in self.names}
        return wires(inlined(self.full_jaxpr), self.offsets(), self.names, shapes)

    @cached_property
    def unread(self) -> frozenset[str]:
        """The names of the parameters that no array depends on: their values do not matter."""
        read: set[str] = set()
        for wire in self.wires:
            read.update(wire.parameters)
        return frozenset(self.parameters) - read

    def offsets(self) -> dict[str, int]:
        """Return the number of each parameter's first entry."""
        sizes = [math.prod(self.parameters[name].shape) for name in self.names]
        return {name: sum(sizes[:i]) for i, name in enumerate(self.names)}
