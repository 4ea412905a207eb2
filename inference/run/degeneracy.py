"""What goes wrong with components: one that collapses onto data, one that dies, a parameter that
reaches its bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.e_step.occupancy import counts_at_hand
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.wiring import NONE
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.wiring_view import Use, WiringView
from emjax.run import endings
from emjax.run.boundary import boundary_findings
from emjax.run.collapse import Watched, owners_of, sharpest, sharpness, watched
from emjax.run.findings import Finding
from emjax.run.resolution import Fall
from emjax.tables.named import Axis


class DegeneracyWatch:
    """Knows which densities and scales of a program may collapse, and which parameters are the
    proportions of its components.

    A component is dead when no more than √ε elements are expected to belong to it.
    """

    def __init__(self, graph: FactorGraph, maximizers: Sequence[Maximizer]):
        self.graph, self.maximizers = graph, maximizers
        self.uses: list[tuple[str, Use]] = []
        for maximizer in maximizers:
            self.uses += [(maximizer.names[0], use) for use in maximizer.uses]
        held = [name for m in maximizers if m.is_fixed for name in m.names]
        self.watched = watched(graph, held)
        # the latents whose probabilities depend on what is estimated
        view = WiringView(graph)
        self.computed = {
            term.site.name
            for term in graph.terms
            if term.site.is_latent
            and any(view.wire(t).parameters - set(held) for t in term.arguments.values())
        }

    # ── what collapses ────────────────────────────────────────────────────────────────────────────

    def sharpness(
        self, params: Mapping[str, Any], start: Mapping[str, Any], constants: Sequence
    ) -> list[tuple[Array, Array]]:
        """Return how sharp each density is, and which of its data are constant; traced.

        What `collapsed` goes by. `start`: where the run started.
        """
        return [sharpness(self.graph, watch, params, start, constants) for watch in self.watched]

    def collapsed(self, sharpness: Sequence, falls: Callable[[], Sequence]) -> list[Finding]:
        """Return what has collapsed, at parameters of some `sharpness`.

        `falls()`: how far the densities fall where the data are moved by less than they resolve
        (`resolution.Fall`, None for a scale). It is called where that has to tell.
        """
        found: list[Finding] = []
        for number, watch in enumerate(self.watched):
            sharp, is_constant = map(np.asarray, sharpness[number])
            if not _is_too_sharp(sharp).any():
                continue
            if is_constant.any():
                found.append(endings.constant(self._site(watch), is_constant))
            elif watch.is_integrated and not falls()[number].is_collapse:
                continue  # an estimate on the boundary (`vanishing`)
            elif watch.argument:
                found += self._of_scale(watch, sharp)
            else:
                found += self._of_density(watch, sharp, falls()[number])
        # a scale that several terms read is named once
        return list({(finding.site, finding.where): finding for finding in found}.values())

    def _of_scale(self, watch: Watched, sharp: np.ndarray) -> list[Finding]:
        site, table = self._site(watch), self.graph.terms[watch.term].arguments[watch.argument]
        found = []
        for index in np.argwhere(_is_too_sharp(sharp)):
            ratio = float(np.exp(-sharp[tuple(index)]))
            if watch.entries is None:
                owner = self._owner(table.latent_axes, index[None]) or f"site '{site}'"
                found.append(
                    endings.collapsed_argument(watch.argument, site, watch.parameters, owner, ratio)
                )
                continue
            entry = owners_of(watch.entries)[index[0]]
            name, where = self._entry(entry, watch)
            cells = np.argwhere(watch.entries == entry)
            owner = self._owner(table.axes, cells) or f"parameter '{name}'"
            found.append(endings.collapsed(name, where, owner, ratio, site))
        return found

    def _of_density(self, watch: Watched, sharp: np.ndarray, fall: Fall) -> list[Finding]:
        """Return that a density resolves more than its data do, if it does."""
        if not fall.is_collapse:
            return []
        site, axes = self._site(watch), self.graph.terms[watch.term].latent_axes
        values = fall.values
        if fall.nats is None:
            values = np.unravel_index(np.argmax(sharp), sharp.shape)
        owner = self._owner(axes, np.asarray([values], int)) or f"site '{site}'"
        return [endings.collapsed_density(owner, site, fall.element, watch.parameters, fall.nats)]

    def _site(self, watch: Watched) -> str:
        return self.graph.terms[watch.term].site.name

    def _entry(self, number: int, watch: Watched) -> tuple[str, str]:
        """Return which parameter a number of an entry is of, and where in it."""
        first = self.graph.offsets()
        name = max((n for n in watch.parameters if first[n] <= number), key=lambda n: first[n])
        shape = self.graph.parameters[name].shape
        index = np.unravel_index(number - first[name], shape) if shape else ()
        term = self.graph.terms[watch.term]
        event = term.family.arguments[watch.argument].event_dim
        index = index[: len(shape) - event]
        return name, f"[{', '.join(map(str, index))}]" if index else ""

    def _owner(self, axes: Sequence[Axis], cells: np.ndarray) -> str:
        """Return which values of which latents cells belong to, in words.

        `cells`: (cell, axis …), the named axes of a table first.
        """
        parts = []
        for number, axis in enumerate(axes):
            values = np.unique(cells[:, number])
            if axis.source in self.graph.latents and len(values) == 1:
                value = self.graph.latents[axis.source].support[values[0]]
                parts.append(f"component {value} of '{axis.source}'")
        return " and ".join(parts)

    # ── probabilities ─────────────────────────────────────────────────────────────────────────────

    def dead(self, params: Mapping[str, Any]) -> list[Finding]:
        """Return the values of latents of which every stated probability has gone to zero."""
        dead = []
        for latent in self.graph.latents.values():
            uses = [(name, use) for name, use in self.uses if self._is_of(use, latent.name)]
            if not uses or not self._says_all(latent.name, [use for _, use in uses]):
                continue
            names = tuple(dict.fromkeys(name for name, _ in uses))
            largest = _largest_probabilities([np.asarray(params[name]) for name in names])
            count = float(np.prod(latent.shape, dtype=float))
            # fewer expected elements than that are none
            none = np.sqrt(np.finfo(largest.dtype).eps)
            for k in np.flatnonzero(largest * count <= none):
                value, probability = latent.support[k], float(largest[k])
                dead.append(endings.dead(latent.name, value, names, probability))
        return dead

    def without_elements(self, statistics: Sequence, said: Sequence[Finding]) -> list[Finding]:
        """Return the values of latents to which no element belongs where a run has converged.

        Those are meant whose probabilities the program computes. `statistics`: the expected ones of
        each term, None where they are not at hand; `said`: what is found already.
        """
        known = {(finding.site, finding.where) for finding in said if finding.kind == "dead"}
        dead = []
        for name, counts in counts_at_hand(self.graph, statistics).items():
            # of fewer elements than that there are none
            none = np.sqrt(np.finfo(jnp.result_type(float)).eps)
            for k in np.flatnonzero(counts <= none) if name in self.computed else ():
                value = self.graph.latents[name].support[k]
                if (name, str(value)) not in known:
                    dead.append(endings.without_elements(name, value, float(counts[k])))
        return dead

    def _is_of(self, use: Use, name: str) -> bool:
        """Whether an argument is the probabilities of a latent's values."""
        term = self.graph.terms[use.term]
        # of a lookup, whose entries are probabilities or their logarithms, the former reach zero
        is_probability = term.family.lookup and use.conjugacy.may_reach_zero
        return term.site.is_latent and term.site.name == name and is_probability

    def _says_all(self, name: str, uses: Sequence[Use]) -> bool:
        """Whether every probability of a latent is an entry of these parameters."""
        stated: dict[int, np.ndarray] = {}
        for use in uses:
            stated[use.term] = stated.get(use.term, False) | (use.rows != NONE)
        terms = set()
        for number, term in enumerate(self.graph.terms):
            if term.site.is_latent and term.site.name == name:
                terms.add(number)
        return set(stated) == terms and all(is_stated.all() for is_stated in stated.values())

    def findings(
        self,
        before: Mapping[str, Any],
        reported: Mapping[str, Any],
        last: Mapping[str, Any],
        collapsed: Sequence[Finding],
    ) -> tuple[Finding, ...]:
        """Return what is wrong with the end of a run.

        `before`, `reported`: the parameters at its start and end; `last`: those at which the
        objective was evaluated last, though not reported; `collapsed`: what has, there.
        """
        # a scale that has collapsed explains what is no number
        numbers = {} if collapsed else last
        not_numbers = []
        for name, value in numbers.items():
            # an infinite logarithm of a probability is an estimate: the objective is finite there
            is_estimate = np.array_equal(value, reported[name])
            if np.isnan(value).any() or (np.isinf(value).any() and not is_estimate):
                not_numbers.append(endings.not_a_number(name))
        explained = {name for finding in collapsed for name in finding.site.split(", ")}
        for watch in self.watched:
            if self._site(watch) in explained:
                explained.update(watch.parameters)
        boundary = boundary_findings(
            self.graph.parameters, self.maximizers, before, reported, explained
        )
        return (*collapsed, *not_numbers, *self.dead(reported), *boundary)


def _largest_probabilities(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Return the largest probability that tables (…, value) give each value: (value)."""
    largest = [table.reshape(-1, table.shape[-1]).max(0) for table in tables]
    return np.max(largest, axis=0)


def _is_too_sharp(sharp: np.ndarray) -> np.ndarray:
    """Return which densities are as sharp as one that has collapsed, or no number."""
    return np.asarray(~(sharp <= sharpest(sharp.dtype)))
