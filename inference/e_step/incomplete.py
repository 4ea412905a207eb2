"""Terms whose data lack coordinates, as tables of log-densities: one entry for each element.

What all elements of a pattern have in common is computed once, ahead of the blocks, which read the
entries of their own elements; what the reverse pass finds there is pulled back to the natural
parameters afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

from emjax.e_step.instance import Instance
from emjax.families.family import lacks_coordinates
from emjax.graph.recipes import Statistic, precomputed
from emjax.graph.terms import Term
from emjax.tables.lifting import lift_events
from emjax.tables.named import Axis, Named, full, spread, union


def marginal_density(term: Term, tables: Sequence[Named]) -> tuple[Named, Statistic]:
    """Return log ∫ exp(Σ ⟨η_i, t_i(x)⟩) dx_missing of each element, and how often it counts."""
    rank = len(term.elements)
    x, observed, weight = term.statistics.formed(term.elements)
    inputs = [*zip(tables, term.family.event_dims, strict=True), (x.value, 1), (observed.value, 1)]
    (density,) = lift_events(lambda *arrays: (term.family.marginal(*arrays),), inputs, rank)
    return density, weight


def by_pattern(instance: Instance) -> tuple[Instance, Callable[[Sequence], list]]:
    """Return the instance whose terms that have patterns are tables of log-densities.

    And the function of expected statistics of its terms that is those of the instance's own.
    """
    terms, naturals, pulls = list(instance.terms), list(instance.naturals), {}
    for number, (term, tables) in enumerate(zip(terms, naturals, strict=True)):
        if not term.patterns or not lacks_coordinates(term.family) or not term.family.patterns:
            continue
        axes = union([table.fitted(len(term.elements)) for table in tables])
        density = _density(term, tables, axes)
        array, pulls[number] = jax.vjp(density, [jnp.asarray(table.array) for table in tables])
        weight = term.statistics.formed(term.elements)[-1]
        recipe = precomputed([weight])
        terms[number] = replace(term, family=None, statistics=recipe, patterns={})
        naturals[number] = [Named(array, term.elements, axes)]
    if not pulls:
        return instance, list

    def pulled(statistics: Sequence) -> list:
        after = list(statistics)
        for number, pull in pulls.items():
            (after[number],) = pull(*statistics[number])
        return after

    return replace(instance, terms=tuple(terms), naturals=tuple(naturals)), pulled


def _density(term: Term, tables: Sequence[Named], axes: Sequence[Axis]) -> Callable:
    """Return the function of tables, plain arrays, that is the log-density of each element."""
    sizes, num_rows = [axis.size for axis in axes], math.prod(term.elements)
    patterns, groups = term.family.patterns, {k: v.array for k, v in term.patterns.items()}

    def density(arrays):
        named = [replace(t, array=array) for t, array in zip(tables, arrays, strict=True)]

        def together():
            x = full(term.statistics.formed(term.elements)[0].value)
            values = []
            for table in named:
                event = table.compact[len(term.elements) :]
                array = spread(table.fitted(len(term.elements)), axes)
                array = array.reshape(*array.shape[: len(axes)], *event)
                values.append(jnp.broadcast_to(array, (*sizes, *event)).reshape(-1, *event))
            found = patterns.marginal(*values, jnp.reshape(x, (num_rows, -1)), groups)
            return found.reshape(*sizes, *term.elements)

        def apart():
            found = marginal_density(term, named)[0]
            return jnp.broadcast_to(spread(found, axes), (*sizes, *term.elements))

        is_right = patterns.fit(groups)
        if is_right is None:
            return together()
        return jax.lax.cond(is_right, together, apart)

    return density
