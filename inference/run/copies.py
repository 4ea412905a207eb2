"""Values of a latent that are copies of each other: at a start, and where a run has converged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.e_step.occupancy import copies
from emjax.graph.factor_graph import FactorGraph
from emjax.run import endings, findings
from emjax.run.findings import Finding


def equal_at_start(
    graph: FactorGraph, params: Mapping[str, Any], tables: Mapping, inspected: Callable
) -> list[Finding]:
    """Return the latents of which the start gives some values the same distribution."""
    equal = _equal_values(graph, tables)
    if not equal:
        return []
    # values that are equal elsewhere, too, are equal for the program and not for the start
    always = _equal_values(graph, inspected(_elsewhere(params)))
    return [
        findings.equal_values(name, equal[name], graph.latents[name].support.shape[0])
        for name in sorted(set(equal) - set(always))
    ]


def copies_at_end(
    graph: FactorGraph,
    params: Mapping[str, Any],
    tables: Sequence,
    statistics: Sequence,
    inspected: Callable,
) -> list[Finding]:
    """Return which values of latents are copies of each other at the end of a run.

    `tables`, `statistics`: of each term, None where they are not at hand; `inspected(params)`: the
    compiled `validation.inspection`.
    """
    pairs = {name: found for name, found in copies(graph, tables, statistics).items() if found}
    if not pairs:
        return []
    # values that are equal elsewhere, too, are equal for the program and not for the estimate
    elsewhere, found = inspected(_elsewhere(params)), []
    for name, of_latent in pairs.items():
        rows = np.concatenate(_rows_by_value(graph, elsewhere, name), axis=1)
        support = graph.latents[name].support
        parted = [(k, j) for k, j in of_latent if not np.array_equal(rows[k], rows[j])]
        if parted:
            found.append(endings.copies_of(name, [(support[k], support[j]) for k, j in parted]))
    return found


def _elsewhere(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return other parameters, at which nothing is equal by chance."""
    noise = np.random.default_rng(0)
    elsewhere = {}
    for name, value in params.items():
        moved = value * (1 + 0.1 * noise.random(value.shape)) + noise.random(value.shape)
        elsewhere[name] = jnp.asarray(moved, value.dtype)
    return elsewhere


def _equal_values(graph: FactorGraph, tables: Mapping) -> dict[str, int]:
    """Return {latent: how many distributions its values have}, of latents with equal ones."""
    equal = {}
    for name in graph.latents:
        rows = _rows_by_value(graph, tables, name)
        if rows:
            # with zero added, −0 is 0
            stacked = np.concatenate(rows, axis=1) + 0.0
            num_distinct = len({row.tobytes() for row in stacked})
            if num_distinct < len(stacked):
                equal[name] = num_distinct
    return equal


def _rows_by_value(graph: FactorGraph, tables: Mapping, name: str) -> list[np.ndarray]:
    """Return the natural-parameter tables that a latent chooses from, each (value, …)."""
    rows = []
    for term, arrays in zip(graph.terms, tables["naturals"], strict=True):
        # unequal probabilities alone do not part values that say the same of the data
        if term.site.is_latent and term.site.name == name:
            continue
        for axes, array in zip(term.natural_axes, arrays, strict=True):
            for number, axis in enumerate(axes):
                if axis.source == name:
                    moved = np.moveaxis(np.asarray(array), number, 0)
                    rows.append(moved.reshape(axis.size, -1))
    return rows
