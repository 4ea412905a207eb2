"""Terms whose data lack coordinates, as tables of log-densities: one entry for each element.

What all elements of a pattern have in common is computed once, ahead of the blocks, which read the
entries of their own elements; what the reverse pass finds there is pulled back to the natural
parameters afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from emjax.e_step.instance import Instance
from emjax.families.family import lacks_coordinates
from emjax.graph.recipes import Statistic, precomputed
from emjax.graph.terms import Term
from emjax.tables.lifting import lift_events
from emjax.tables.named import Axis, Named, spread, union


def marginal_density(term: Term, tables: Sequence[Named]) -> tuple[Named, Statistic]:
    """Return log ∫ exp(Σ ⟨η_i, t_i(x)⟩) dx_missing of each element, and how often it counts."""
    rank = len(term.elements)
    x, observed, weight = term.statistics.formed(term.elements)
    inputs = [*zip(tables, term.family.event_dims, strict=True), (x.value, 1), (observed.value, 1)]
    (density,) = lift_events(lambda *arrays: (term.family.marginal(*arrays),), inputs, rank)
    return density, weight


def by_pattern(instance: Instance) -> Instance:
    """Return the instance whose terms that have patterns are tables of log-densities."""
    return _by_pattern(instance, lambda density, arrays: (density(arrays), None))[0]


def by_pattern_and_back(instance: Instance) -> tuple[Instance, Callable[[Sequence], list]]:
    """Return that, and the function of its expected statistics that is those of the instance."""
    after, pulls = _by_pattern(instance, jax.vjp)

    def pulled(statistics: Sequence) -> list:
        of_instance = list(statistics)
        for number, pull in pulls.items():
            (of_instance[number],) = pull(*statistics[number])
        return of_instance

    return after, pulled


def _by_pattern(instance: Instance, evaluated: Callable) -> tuple[Instance, dict[int, Any]]:
    """Return the instance by pattern, and the way back of each of its tables of log-densities.

    `evaluated(density, arrays)`: the density at tables, and that. (A way back that nobody takes
    would cost the derivatives of who differentiates the instance.)
    """
    terms, naturals, ways_back = list(instance.terms), list(instance.naturals), {}
    for number, density in _densities(instance).items():
        arrays = [jnp.asarray(table.array) for table in naturals[number]]
        array, ways_back[number] = evaluated(density, arrays)
        terms[number], naturals[number] = _of_densities(instance, number, array)
    return replace(instance, terms=tuple(terms), naturals=tuple(naturals)), ways_back


def _densities(instance: Instance) -> dict[int, Callable]:
    """Return the functions of tables, plain arrays, of the terms that have patterns."""
    found = {}
    for number, (term, tables) in enumerate(zip(instance.terms, instance.naturals, strict=True)):
        if term.patterns and lacks_coordinates(term.family) and term.family.patterns:
            found[number] = _density(term, tables, _axes(term, tables))
    return found


def _of_densities(instance: Instance, number: int, array) -> tuple[Term, list[Named]]:
    """Return a term that is a table of log-densities, and the table."""
    term, tables = instance.terms[number], instance.naturals[number]
    recipe = precomputed([term.statistics.formed(term.elements)[-1]])
    table = Named(array, term.elements, _axes(term, tables))
    return replace(term, family=None, statistics=recipe, patterns={}), [table]


def _axes(term: Term, tables: Sequence[Named]) -> tuple[Axis, ...]:
    return union([table.fitted(len(term.elements)) for table in tables])


def _density(term: Term, tables: Sequence[Named], axes: Sequence[Axis]) -> Callable:
    """Return the function of tables, plain arrays, that is the log-density of each element."""
    sizes = [axis.size for axis in axes]
    patterns, groups = term.family.patterns, {k: v.array for k, v in term.patterns.items()}

    def density(arrays):
        named = [replace(t, array=array) for t, array in zip(tables, arrays, strict=True)]

        def together():
            values = []
            for table in named:
                event = table.compact[len(term.elements) :]
                array = spread(table.fitted(len(term.elements)), axes)
                array = array.reshape(*array.shape[: len(axes)], *event)
                values.append(jnp.broadcast_to(array, (*sizes, *event)).reshape(-1, *event))
            return patterns.marginal(*values, groups).reshape(*sizes, *term.elements)

        def apart():
            found = marginal_density(term, named)[0]
            return jnp.broadcast_to(spread(found, axes), (*sizes, *term.elements))

        is_right = patterns.fit(groups)
        if is_right is None:
            return together()
        return jax.lax.cond(is_right, together, apart)

    return density
