"""Relabelings: exchanges of a latent's values that leave a program as it is, and draws of its
parameters brought to the same labels.

Exchanging the values of a latent exchanges rows of its parameters: the components' locations, the
states of a transition matrix along both axes. Which axes of which parameters these are is found out
from the program: every natural-parameter table of the program must be the old one with its rows
exchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from optax import assignment

from emjax.certificates.coordinates import Coordinates
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.m_step.wiring_view import WiringView


@dataclass(frozen=True)
class Symmetry:
    """Latents whose values can be exchanged, all in the same way: `size` values, and {parameter:
    its axes that are exchanged with them}.
    """

    latents: tuple[str, ...]
    size: int
    axes: Mapping[str, tuple[int, ...]]

    def relabeled(self, params: Mapping[str, Any], order: Sequence[int] | np.ndarray) -> dict:
        """Return the parameters at which value k is what value order[k] was."""
        values = dict(params)
        for name, axes in self.axes.items():
            for axis in axes:
                values[name] = jnp.take(jnp.asarray(values[name]), jnp.asarray(order), axis)
        return values


def symmetries(
    graph: FactorGraph, coordinates: Coordinates, params: Mapping[str, Any], tables_at: Callable
) -> list[Symmetry]:
    """Return how the values of latents can be exchanged: of each alone, or of several with equally
    many values together.

    `tables_at(params)`: the natural-parameter tables of all terms; they are compared at parameters
    drawn at random, where nothing is equal by chance. Two exchanges, of the first two values and of
    all in a circle, generate all others. Source: ours.
    """
    noise = np.random.default_rng(0).normal(0, 0.5, coordinates.size)
    search = _Search(
        graph, coordinates, coordinates.unflatten(jnp.asarray(noise), params), tables_at
    )
    found = [symmetry for name in graph.latents if (symmetry := search.of((name,))) is not None]
    alone = {name for symmetry in found for name in symmetry.latents}
    rest = [name for name in graph.latents if name not in alone]
    for size in sorted({graph.latents[name].support.shape[0] for name in rest}):
        group = tuple(name for name in rest if graph.latents[name].support.shape[0] == size)
        symmetry = search.of(group) if len(group) > 1 else None
        found += [] if symmetry is None else [symmetry]
    return found


class _Search:
    """Tries axes of parameters, term by term."""

    def __init__(
        self,
        graph: FactorGraph,
        coordinates: Coordinates,
        params: Mapping[str, Any],
        tables_at: Callable,
    ):
        self.graph, self.coordinates, self.params, self.tables_at = (
            graph,
            coordinates,
            params,
            tables_at,
        )
        self.tables = tables_at(params)
        view = WiringView(graph)
        self.reads = [
            sorted(set().union(*(view.wire(table).parameters for table in term.arguments.values())))
            for term in graph.terms
        ]

    def of(self, latents: tuple[str, ...]) -> Symmetry | None:
        """Return the symmetry of latents whose values are exchanged together, if there is one."""
        size = self.graph.latents[latents[0]].support.shape[0]
        if size < 2 or any(_counts_by_value(term, latents) for term in self.graph.terms):
            return None
        partial: list[dict] = [{}]
        for number, names in enumerate(self.reads):
            partial = [
                wider
                for known in partial
                for wider in self._extended(known, names, size)
                if self._holds(number, latents, size, wider)
            ]
            if not partial:
                return None
        axes = {name: own for name, own in partial[0].items() if own}
        return Symmetry(latents, size, axes) if axes else None

    def _extended(self, known: dict, names: Sequence[str], size: int):
        """Yield the ways to choose axes of the parameters of a term, those that are known aside:
        fewest axes first.
        """
        new = [name for name in names if name not in known]
        choices = [
            _subsets(self.graph.parameters[name].shape, size)
            if name in self.coordinates.charts
            else [()]
            for name in new
        ]
        for chosen in sorted(itertools.product(*choices), key=lambda own: sum(map(len, own))):
            yield known | dict(zip(new, chosen, strict=True))

    def _holds(self, number: int, latents: tuple[str, ...], size: int, axes: dict) -> bool:
        """Whether the tables of a term are the old ones with their rows exchanged."""
        term, symmetry = (
            self.graph.terms[number],
            Symmetry(latents, size, {name: own for name, own in axes.items() if own}),
        )
        circle, swap = np.roll(np.arange(size), 1), np.array([1, 0, *range(2, size)])
        for order in [swap] if size == 2 else [swap, circle]:
            after = self.tables_at(symmetry.relabeled(self.params, order))[number]
            for named, old, new in zip(term.natural_axes, self.tables[number], after, strict=True):
                old, new = np.asarray(old), np.asarray(new)
                for axis, own in enumerate(named):
                    old = np.take(old, order, axis) if own.source in latents else old
                if term.site.is_prior:
                    old, new = old.sum(), new.sum()
                tolerance = np.sqrt(np.finfo(new.dtype).eps)
                if not np.allclose(new, old, rtol=tolerance, atol=tolerance, equal_nan=True):
                    return False
        return True


def _counts_by_value(term: Term, latents: tuple[str, ...]) -> bool:
    """Whether the statistics of a term, not only its tables, vary with the value of a latent: these
    stay as they are when values are exchanged.
    """
    values = [*term.statistics.inputs.values(), term.base]
    return any(axis.source in latents for value in values for axis in value.axes)


def _subsets(shape: Sequence[int], size: int) -> list[tuple[int, ...]]:
    axes = [axis for axis, length in enumerate(shape) if length == size]
    return [
        chosen for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)
    ]


def best_order(agreement: np.ndarray) -> np.ndarray:
    """Return the order, one for each k, that maximizes Σ_k agreement[k, order[k]]: linear
    assignment.
    """
    order = np.argmax(agreement, axis=1)
    if len(set(order.tolist())) < len(order):
        rows, columns = assignment.hungarian_algorithm(-jnp.asarray(agreement))
        order = np.asarray(columns)[np.argsort(np.asarray(rows))]
    return order


def aligned(
    symmetry_list: Sequence[Symmetry],
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
    for symmetry in symmetry_list:
        total = np.sum([agreement[name] for name in symmetry.latents], axis=0)
        for draw, own in enumerate(total):
            order = best_order(own) if np.isfinite(own).all() else np.arange(symmetry.size)
            for name, axes in symmetry.axes.items():
                for axis in axes:
                    values[name][draw] = np.take(values[name][draw], order, axis)
    return values
