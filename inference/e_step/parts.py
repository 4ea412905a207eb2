"""The E-step on a part of the data: what adds up over parts, and what counts once.

A part is the program on some elements of its outermost plates. What is within these belongs to it;
all else (priors, what is observed of no element) is shared by all parts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from emjax.e_step.e_step import expected_of
from emjax.e_step.expected import Expected
from emjax.e_step.instance import Instance, instance_of
from emjax.elimination.factors import Variable
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.numerics.jaxprs import dependencies, inlined


@dataclass(frozen=True, eq=False)
class Division:
    """What of a factor graph belongs to a part of the data.

    - `is_own`: by term, whether it does; the others are shared by all parts.
    - `is_in_rows`: by term and table, whether the part has a table of its own. Its statistics do
      not add up with those of other parts.
    - `latents`: the names of those that do, Gaussian ones included.
    """

    is_own: tuple[bool, ...]
    is_in_rows: tuple[tuple[bool, ...], ...]
    latents: frozenset[str]

    def expected(
        self,
        graph: FactorGraph,
        arrays: Sequence,
        temperature: Any = 1.0,
        tables: Sequence | None = None,
        is_own: bool = True,
        with_priors: bool = True,
    ) -> Expected:
        """Return what the E-step yields of the part, or of what is shared, priors included or not.

        Zeros stand in place of the statistics of all other terms. `tables`: as in `e_step`.
        """
        which = []
        for term, own in zip(graph.terms, self.is_own, strict=True):
            which.append(own == is_own and (with_priors or not term.site.is_prior))
        instance = self._instance(graph, arrays, temperature, tables, which, is_own)
        found = expected_of(instance, temperature)
        remaining = iter(found.statistics)
        statistics = []
        for term, is_asked in zip(graph.terms, which, strict=True):
            zeros = [jnp.zeros(table.array.shape, table.array.dtype) for table in term.naturals]
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
            return {n: v for n, v in variables.items() if (n in self.latents) == is_own}

        return replace(
            instance,
            latents=asked(instance.latents),
            gaussian_variables=asked(instance.gaussian_variables),
        )


def division_of(
    graph: FactorGraph, plates: Collection[str], is_of_part: Sequence[bool]
) -> Division:
    """Return what of a graph belongs to a part of the data.

    - `plates`: the names of those that a part has some elements of.
    - `is_of_part`: which arrays of the data are the part's own.

    Errors: `ValueError` for a latent outside of these plates that a site within them reads.
    """
    within = set(plates)
    is_own = tuple(bool(within & set(term.site.plates)) for term in graph.terms)
    everyone = {**graph.latents, **graph.gaussians}
    latents = frozenset(name for name, each in everyone.items() if within & set(each.plates))
    for term, own in zip(graph.terms, is_own, strict=True):
        _check_latents(term, own, latents, sorted(within))
    return Division(is_own, _in_rows(graph, is_own, is_of_part), latents)


def _check_latents(
    term: Term, is_own: bool, latents: Collection[str], plates: Sequence[str]
) -> None:
    for axis in term.all_axes:
        name = str(axis.source)
        if (name in latents) == is_own:
            continue
        where = " and ".join(map(repr, plates))
        raise ValueError(
            f"Site '{term.site.name}' is {'within' if is_own else 'outside of'} {where}, latent "
            f"'{name}' is {'not' if is_own else 'within'}: so it depends on all of the data at "
            "once, which come in parts here. Run it on data in memory, "
            + (f"or put '{name}' into the plate." if is_own else f"or put it into {where}.")
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
