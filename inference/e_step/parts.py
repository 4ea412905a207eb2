"""The E-step on a part of the data: what adds up over parts, and what counts once.

A part is the program on some elements of its outermost plates. What is within these belongs to it;
all else (priors, what is observed of no element) is shared by all parts.

A latent outside of the plates that a site within them reads *bridges* parts: log Z of one part is a
function of its value, and these functions add up. Their sum is one more factor of what is shared,
and the expected statistics of all parts are those at each of its values, weighed by its posterior.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Literal

from emjax.e_step.e_step import expected_of, with_infinities
from emjax.e_step.expected import Expected
from emjax.e_step.fallback import value_and_gradient
from emjax.e_step.instance import Instance, instance_of
from emjax.e_step.term_factors import log_z
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.numerics.guards import LOG_ZERO
from emjax.numerics.jaxprs import dependencies, inlined
from emjax.tables.indices import Affine
from emjax.tables.named import Axis

# joint values of latents that bridge parts: at each of them, the E-step of each part is taken
MOST_VALUES = 64


@dataclass(frozen=True, eq=False)
class Division:
    """What of a factor graph belongs to a part of the data.

    - `is_own`: by term, whether it does; the others are shared by all parts.
    - `is_in_rows`: by term and table, whether the part has a table of its own. Its statistics do
      not add up with those of other parts.
    - `latents`: the names of those that do, Gaussian ones included.
    - `bridges`: {latent that bridges parts: how many values it has}.
    """

    is_own: tuple[bool, ...]
    is_in_rows: tuple[tuple[bool, ...], ...]
    latents: frozenset[str]
    bridges: Mapping[str, int]

    def expected(
        self,
        graph: FactorGraph,
        arrays: Sequence,
        temperature: Any = 1.0,
        tables: Sequence | None = None,
    ) -> Expected:
        """Return what the E-step yields of the part, which adds up over parts.

        Where latents bridge parts, one more axis in front of each array is over their joint values.
        Zeros stand in place of the statistics of what is shared. `tables`: as in `e_step`.
        """
        instance = self._instance(graph, arrays, temperature, tables, self.is_own, True)
        if not self.bridges:
            return self._of_all_terms(graph, expected_of(instance, temperature), self.is_own)

        def at_value(log_indicator):
            factor = self._factor(log_indicator)
            return _with_factor(instance, factor, temperature)[0]

        size = math.prod(self.bridges.values())
        indicators = jnp.where(jnp.eye(size, dtype=bool), 0.0, LOG_ZERO)
        found = jax.lax.map(at_value, indicators)
        return self._of_all_terms(graph, found, self.is_own, (size,))

    def completed(
        self,
        graph: FactorGraph,
        arrays: Sequence,
        own: Expected,
        temperature: Any = 1.0,
        with_priors: bool = True,
    ) -> Expected:
        """Return what the E-step yields of all data, `own` being the sum over parts.

        `with_priors`: whether they take part.
        """
        which = []
        for term, is_own in zip(graph.terms, self.is_own, strict=True):
            which.append(not is_own and (with_priors or not term.site.is_prior))
        instance = self._instance(graph, arrays, temperature, None, which, False)
        if not self.bridges:
            shared = expected_of(instance, temperature)
            return own + self._of_all_terms(graph, shared, which)
        factor = self._factor(own.log_partition)
        shared, weights = _with_factor(instance, factor, temperature)
        statistics = jax.tree.map(
            lambda at_values: jnp.tensordot(weights.ravel(), at_values, 1), own.statistics
        )
        of_terms = self._of_all_terms(graph, shared, which)
        # log Z of the parts is in that of what is shared, as its factor
        return Expected(jnp.zeros(()), statistics) + of_terms

    def nothing(self, graph: FactorGraph) -> Expected:
        """Return what no part yields."""
        none = Expected(jnp.zeros(()), [])
        return self._of_all_terms(graph, none, [False] * len(graph.terms))

    def _factor(self, log_densities: Array) -> Factor:
        """Return the factor of the latents that bridge parts, by their joint values."""
        axes = tuple(Axis(name, size, Affine(0, ())) for name, size in self.bridges.items())
        return Factor(axes, (), Cells(log_densities.reshape(tuple(self.bridges.values()))))

    def _of_all_terms(
        self,
        graph: FactorGraph,
        found: Expected,
        which: Sequence[bool],
        lead: tuple[int, ...] = (),
    ) -> Expected:
        """Return what some terms yield, with zeros in place of the statistics of all others."""
        remaining = iter(found.statistics)
        statistics = []
        for term, is_asked in zip(graph.terms, which, strict=True):
            zeros = [jnp.zeros((*lead, *t.array.shape), t.array.dtype) for t in term.naturals]
            statistics.append(next(remaining) if is_asked else zeros)
        return Expected(found.log_partition, statistics)

    def _instance(
        self,
        graph: FactorGraph,
        arrays: Sequence,
        temperature: Any,
        tables: Sequence | None,
        which: Sequence[bool],
        is_own: bool,
    ) -> Instance:
        """Return the instance of some terms and of the latents that belong to them."""
        if tables is not None:
            tables = [of_term for of_term, asked in zip(tables, which, strict=True) if asked]
        pairs = zip(graph.terms, which, strict=True)
        names = {term.site.name for term, is_asked in pairs if is_asked}
        instance = instance_of(
            graph, arrays, lambda term: term.site.name in names, temperature, tables=tables
        )

        def asked(variables) -> dict[str, Variable]:
            bridges = self.bridges if is_own else ()
            return {
                name: variable
                for name, variable in variables.items()
                if (name in self.latents) == is_own or name in bridges
            }

        return replace(
            instance,
            latents=asked(instance.latents),
            gaussian_variables=asked(instance.gaussian_variables),
        )


def _with_factor(instance: Instance, factor: Factor, temperature: Any) -> tuple[Expected, Array]:
    """Return what an instance yields beside one more factor, and the posterior of its latents."""

    def function(argument, fast):
        tables, array = argument
        more = [replace(factor, cells=Cells(array))]
        return log_z(instance, tables, temperature, more, fast)

    argument = instance.tables, factor.array
    # under `map` both branches of a fast form would be computed
    value, (statistics, posterior) = value_and_gradient(function, argument, plain=True)
    return Expected(with_infinities(value), statistics), posterior


def division_of(
    graph: FactorGraph, plates: Collection[str], is_of_part: Sequence[bool]
) -> Division:
    """Return what of a graph belongs to a part of the data.

    - `plates`: the names of those that a part has some elements of.
    - `is_of_part`: which arrays of the data are the part's own.

    Errors: `ValueError` for a latent within these plates that a site outside of them reads, and
    for several elements of latents outside that one within reads.
    """
    within = set(plates)
    is_own = tuple(bool(within & set(term.site.plates)) for term in graph.terms)
    everyone = {**graph.latents, **graph.gaussians}
    latents = frozenset(name for name, each in everyone.items() if within & set(each.plates))
    bridges: dict[str, int] = {}
    for term, own in zip(graph.terms, is_own, strict=True):
        for axis in term.all_axes:
            name = str(axis.source)
            if (name in latents) == own:
                continue
            if not own or name in graph.gaussians or math.prod(everyone[name].shape) > 1:
                raise ValueError(_coupled(term, name, own, sorted(within)))
            bridges[name] = axis.size
    if math.prod(bridges.values()) > MOST_VALUES:
        listed = ", ".join(f"'{name}' ({size})" for name, size in bridges.items())
        raise ValueError(
            f"All data depend on {listed}: their {math.prod(bridges.values())} joint values are "
            f"too many to go through for each part of the data ({MOST_VALUES} at most). Run it on "
            "data in memory."
        )
    return Division(is_own, _in_rows(graph, is_own, is_of_part), latents, bridges)


def _coupled(term: Term, latent: str, is_own: bool, plates: Sequence[str]) -> str:
    """Return what is wrong with a latent that depends on all data at once."""
    where = " and ".join(map(repr, plates))
    remedy = f"put it into {where}"
    if is_own:
        remedy = f"put '{latent}' into the plate, rows beside their elements (emjax.Stream.by_key)"
    return (
        f"Site '{term.site.name}' is {'within' if is_own else 'outside of'} {where}, latent "
        f"'{latent}' is {'not' if is_own else 'within'}: so it depends on all of the data at once, "
        f"which come in parts here. Run it on data in memory, or {remedy}."
    )


def _in_rows(
    graph: FactorGraph, is_own: Sequence[bool], is_of_part: Sequence[bool]
) -> tuple[tuple[bool, ...], ...]:
    """Return of each table of each term whether it depends on the part's data by more than sums."""
    parameters = [graph.parameters[name] for name in graph.names]
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in parameters]
    constants = [var.aval for var in graph.step_jaxpr.jaxpr.invars[len(shapes) :]]
    abstract = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in constants]

    def tables(params, constants):
        return graph.tables(dict(zip(graph.names, params, strict=True)), constants)

    # what is called would depend on all that it is given
    jaxpr = inlined(jax.make_jaxpr(tables)(shapes, abstract)).jaxpr
    reads = graph.summary.reads(tuple(is_of_part))
    pairs = zip(jaxpr.invars[len(shapes) :], reads, strict=True)
    labels = dependencies(jaxpr, {var: "part" for var, of_part in pairs if of_part})
    outputs = iter(jaxpr.outvars)
    found = []
    for term, own in zip(graph.terms, is_own, strict=True):
        of_term = []
        for _ in term.naturals:
            var = next(outputs)
            of_term.append(own and not isinstance(var, Literal) and var in labels)
        found.append(tuple(of_term))
    return tuple(found)
