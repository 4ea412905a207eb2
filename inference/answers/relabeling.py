"""Exchanges of a latent's values that leave a program as it is; draws brought to the same labels.

Exchanging the values of a latent exchanges rows of its parameters: the components' locations, the
states of a transition matrix along both axes. Which axes of which parameters these are is found out
from the program: every natural-parameter table of the program must be the old one with its rows
exchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.m_step.wiring_view import WiringView


@dataclass(frozen=True)
class Symmetry:
    """Latents whose values can be exchanged, all in the same way.

    - `latents`: their names.
    - `size`: how many values each has.
    - `axes`: {parameter: its axes that are exchanged with the values}.
    """

    latents: tuple[str, ...]
    size: int
    axes: Mapping[str, tuple[int, ...]]

    def relabeled(
        self, params: Mapping[str, Any], order: Sequence[int] | np.ndarray, num_leading: int = 0
    ) -> dict:
        """Return the parameters at which value k is what value order[k] was.

        `num_leading`: how many axes each has in front of its own.
        """
        values = dict(params)
        for name, axes in self.axes.items():
            for axis in axes:
                value = np.asarray(values[name])
                values[name] = np.take(value, np.asarray(order), num_leading + axis)
        return values


def symmetries(estimate: Estimate) -> list[Symmetry]:
    """Return how the values of latents can be exchanged.

    They are exchanged of each latent alone, or of several with equally many values together. The
    natural-parameter tables of all terms are compared at parameters drawn at random, where nothing
    is equal by chance. Two exchanges, of the first two values and of all in a circle, generate all
    others. Source: ours.
    """
    search, latents = _Search(estimate), estimate.graph.latents
    exchanges, by_size = [], {}
    for name, latent in latents.items():
        # alone, if that is possible: together would only be one exchange of many
        symmetry = search.of((name,))
        if symmetry is not None:
            exchanges.append(symmetry)
        else:
            by_size.setdefault(latent.support.shape[0], []).append(name)
    for _, names in sorted(by_size.items()):
        symmetry = search.of(tuple(names)) if len(names) > 1 else None
        if symmetry is not None:
            exchanges.append(symmetry)
    return exchanges


def _tables_at(estimate: Estimate) -> Callable:
    """Return the function of parameters that gives the natural-parameter tables of all terms."""

    def tables(around: Neighborhood, params):
        return around.tables(params)

    compiled = estimate.function("tables", tables)
    return lambda params: jax.device_get(compiled(params))


class _Search:
    """Tries axes of parameters, term by term.

    - `params`: parameters drawn at random, those that are held and what is on the boundary aside.
    - `tables`: the natural-parameter tables there.
    - `reads`: the names of the parameters that each term reads.
    """

    def __init__(self, estimate: Estimate):
        self.graph, self.chart = estimate.graph, estimate.chart
        noise = np.random.default_rng(0).normal(0, 0.5, self.chart.size)

        def moved(around: Neighborhood, noise):
            return self.chart.unflatten(noise, around.params)

        self.params = jax.device_get(estimate.function("moved", moved)(noise))
        self.tables_at = _tables_at(estimate)
        self.tables = self.tables_at(self.params)
        self.reads = _parameters_of_terms(self.graph)

    def of(self, latents: tuple[str, ...]) -> Symmetry | None:
        """Return the symmetry of latents whose values are exchanged together, if there is one."""
        size = self.graph.latents[latents[0]].support.shape[0]
        if size < 2 or any(_counts_by_value(term, latents) for term in self.graph.terms):
            return None
        # each choice of axes that the terms so far allow; the first has the fewest axes
        choices: list[dict] = [{}]
        for number, names in enumerate(self.reads):
            wider = []
            for choice in choices:
                for axes in self._extended(choice, names, size):
                    if self._holds(number, _symmetry(latents, size, axes)):
                        wider.append(axes)
            choices = wider
            if not choices:
                return None
        symmetry = _symmetry(latents, size, choices[0])
        # without axes nothing is exchanged: no label shows in a parameter
        return symmetry if symmetry.axes else None

    def _extended(self, choice: dict, names: Sequence[str], size: int) -> Iterator[dict]:
        """Yield the ways to choose axes of the parameters of a term, fewest axes first.

        Those that are chosen stay.
        """
        new = [name for name in names if name not in choice]
        subsets = []
        for name in new:
            # what is not estimated has no labels to exchange
            is_free = name in self.chart.charts
            subsets.append(_subsets(self.graph.parameters[name].shape, size) if is_free else [()])
        for axes in sorted(itertools.product(*subsets), key=_number_of_axes):
            yield choice | dict(zip(new, axes, strict=True))

    def _holds(self, number: int, symmetry: Symmetry) -> bool:
        """Whether the tables of a term are the old ones with their rows exchanged."""
        size, term = symmetry.size, self.graph.terms[number]
        circle, swap = np.roll(np.arange(size), 1), np.array([1, 0, *range(2, size)])
        # of two values, these are the same
        for order in [swap] if size == 2 else [swap, circle]:
            after = self.tables_at(symmetry.relabeled(self.params, order))[number]
            for axes, old, new in zip(term.natural_axes, self.tables[number], after, strict=True):
                old, new = np.asarray(old), np.asarray(new)
                for d, axis in enumerate(axes):
                    if axis.source in symmetry.latents:
                        old = np.take(old, order, d)
                # a prior's table has an entry for each entry of its parameter, in any order
                if term.site.is_prior:
                    old, new = old.sum(), new.sum()
                # half the digits: by chance, tables that differ do not agree in so many
                tolerance = np.sqrt(np.finfo(new.dtype).eps)
                if not np.allclose(new, old, rtol=tolerance, atol=tolerance, equal_nan=True):
                    return False
        return True


def _symmetry(latents: tuple[str, ...], size: int, axes: Mapping) -> Symmetry:
    """Return a symmetry, without the parameters none of whose axes are exchanged."""
    return Symmetry(
        latents, size, {name: exchanged for name, exchanged in axes.items() if exchanged}
    )


def _parameters_of_terms(graph: FactorGraph) -> list[list[str]]:
    """Return the names of the parameters that each term reads, sorted."""
    view, names_of_terms = WiringView(graph), []
    for term in graph.terms:
        names: set[str] = set()
        for table in term.arguments.values():
            names |= view.wire(table).parameters
        names_of_terms.append(sorted(names))
    return names_of_terms


def _number_of_axes(choice: Sequence[tuple[int, ...]]) -> int:
    return sum(map(len, choice))


def _counts_by_value(term: Term, latents: tuple[str, ...]) -> bool:
    """Whether the statistics of a term, not only its tables, vary with the value of a latent.

    They stay as they are when values are exchanged.
    """
    for value in [*term.statistics.inputs.values(), term.base]:
        if any(axis.source in latents for axis in value.axes):
            return True
    return False


def _subsets(shape: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return the ways to choose axes of a given length, fewest axes first."""
    axes = [axis for axis, length in enumerate(shape) if length == size]
    subsets: list[tuple[int, ...]] = []
    for count in range(len(axes) + 1):
        subsets += itertools.combinations(axes, count)
    return subsets


def best_order(agreement: np.ndarray) -> np.ndarray:
    """Return the order, a value for each k, that maximizes Σ_k agreement[k, order[k]]."""
    order = np.argmax(agreement, axis=1)
    # where two values have the same favorite: linear assignment
    if len(set(order.tolist())) < len(order):
        # whoever does not relabel does not wait for the import
        from optax import assignment

        rows, columns = assignment.hungarian_algorithm(-jnp.asarray(agreement))
        order = np.asarray(columns)[np.argsort(np.asarray(rows))]
    return order


def with_labels_of_estimate(
    exchanges: Sequence[Symmetry],
    draws: Mapping[str, np.ndarray],
    agreement: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return draws of the parameters, (draw, …), with the labels of the estimate.

    `agreement`: {latent: (draw, value of the estimate, value of the draw)}, over how many elements
    the posteriors of the two agree: Σ p(z_i = k | x, θ̂) p(z_i = l | x, θ). The labels are those
    that agree over most. Source: Stephens (2000), section 4, with this agreement in place of a
    divergence.
    """
    values = {name: np.array(value) for name, value in draws.items()}
    for symmetry in exchanges:
        in_all = np.sum([agreement[name] for name in symmetry.latents], axis=0)
        for draw, in_draw in enumerate(in_all):
            # a refit that failed agrees with nothing
            if not np.isfinite(in_draw).all():
                continue
            order = best_order(in_draw)
            for name, axes in symmetry.axes.items():
                for axis in axes:
                    values[name][draw] = np.take(values[name][draw], order, axis)
    return values
