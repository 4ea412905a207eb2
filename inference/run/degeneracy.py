"""What goes wrong with components: a scale that collapses, a component that dies, a probability
that reaches zero and stays there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.families.conjugate import COVARIANCE, PRECISION, SCALE, SCALE_TRIL, SIMPLEX
from emjax.graph.factor_graph import FactorGraph, Term, filled_term
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.wiring_view import Use
from emjax.tables.named import full, without_rows

REMEDIES = "state a floor (constraints.greater_than(...)), or a prior, or use fewer components"
SHOWN = 3


def _limit(dtype) -> float:
    """Return the part of the data's variance below which a variance has collapsed."""
    return float(np.sqrt(np.finfo(dtype).eps) / 100)


def _covariances(form, value: np.ndarray) -> np.ndarray:
    """Return covariance matrices, zero for those of a singular precision."""
    if form is PRECISION:
        return np.asarray(
            [np.linalg.inv(p) if np.isfinite(np.linalg.cond(p)) else 0 * p for p in value]
        )
    return value @ np.swapaxes(value, -1, -2) if form is SCALE_TRIL else value


def _moments(term: Term):
    """Return Σ x, Σ x² and Σ 1 of a term's data, weighted, over (elements or 1 …, event …):
    coordinate by coordinate, from an origin in the midst of them.
    """

    def dense(value):
        value = without_rows(value)
        return full(value).sum(tuple(range(len(value.axes))))

    formed, event = term.statistics.formed(term.elements), len(term.site.event)
    if term.family.marginal is not None:
        x, observed, weight = (dense(statistic.value) for statistic in formed)
        weight = weight[..., None] * observed
        return weight * x, weight * x**2, weight
    count = dense(formed[-1].value)
    count = count.reshape(count.shape + (1,) * event)
    if term.family.centered is None:
        return jnp.zeros(()), dense(formed[0].value), count
    second = dense(formed[1].value)
    if term.family.squares:
        second = second**2 if formed[1].square else jnp.diagonal(second, axis1=-2, axis2=-1)
    return dense(formed[0].value), second, count


class Watch:
    """Knows which parameters of a program are scales, and which are the proportions of its
    components.

    A scale has collapsed when its variance is below √ε / 100 of that of the data (1e-10 in double
    precision, 3e-6 in single): so near to its singularity the likelihood has lost its digits. A
    component is dead when no more than √ε elements are expected to belong to it.
    """

    def __init__(self, graph: FactorGraph, maximizers: Sequence[Maximizer]):
        self.graph = graph
        self.uses: dict[str, Sequence[Use]] = {m.names[0]: m.uses for m in maximizers if m.uses}

    def _of(self, *forms):
        return [
            (name, use) for name, uses in self.uses.items() for use in uses if use.form in forms
        ]

    def spreads(self, constants) -> dict:
        """Return the standard deviation of the data that each scale is of: {parameter: (*elements
        or 1, *event)}; traced.
        """
        arrays = self.graph.arrays(
            {name: jnp.ones(p.shape, p.dtype) for name, p in self.graph.parameters.items()},
            constants,
        )
        return {
            name: self._spread(self.graph.terms[use.term], arrays)
            for name, use in self._of(SCALE, COVARIANCE, PRECISION, SCALE_TRIL)
        }

    def _spread(self, term: Term, arrays):
        term = filled_term(term, arrays)
        first, second, count = _moments(term)
        rank = len(term.elements)
        centered = term.family.centered
        over = [
            d for d in range(rank) if centered is None or term.arguments[centered].compact[d] == 1
        ]
        if (
            not over
        ):  # each datum has a location of its own (a regression), and its own value as the origin
            data = term.family.transform(
                jnp.where(count > 0, jnp.asarray(without_rows(term.value).array, count.dtype), 1)
            )
            over, first, second = range(rank), count * data, count * data**2
        first, second, count = (
            moment.sum(tuple(over), keepdims=True)
            for moment in jnp.broadcast_arrays(first, second, count)
        )
        count = jnp.where(count > 0, count, 1)
        return jnp.sqrt(jnp.maximum(second / count - (first / count) ** 2, 0))

    def collapsed(self, params: Mapping[str, Any], spreads: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each scale that has collapsed at params."""
        found = {}
        for name, use in self._of(SCALE, COVARIANCE, PRECISION, SCALE_TRIL):
            for entry, ratio in self._ratios(
                name, use, np.asarray(params[name]), np.asarray(spreads[name])
            ):
                how = (
                    "is no number"
                    if np.isnan(ratio)
                    else f"has shrunk to {ratio:.1e} of the spread of "
                    f"'{self.graph.terms[use.term].site.name}'"
                )
                found[name, entry] = (
                    f"{self._where(name, use, entry)} collapses: "
                    f"'{name}'{self._index(name, entry, use)} {how}. The likelihood has no maximum "
                    f"there: {REMEDIES}."
                )
        return list(found.values())

    def is_collapsed(self, params: Mapping[str, Any], spreads: Mapping[str, Any]):
        """Return whether a scale has collapsed at params; traced."""
        found = jnp.zeros((), bool)
        for name, use in self._of(SCALE, COVARIANCE, PRECISION, SCALE_TRIL):
            value, spread = jnp.asarray(params[name]), spreads[name]
            rows = value.reshape((-1,) + value.shape[value.ndim - use.form.event_dim :])
            if use.form.event_dim:
                unit = jnp.where(spread > 0, spread, 1).reshape(-1, spread.shape[-1]).max(0)
                matrix = rows @ rows.mT if use.form is SCALE_TRIL else rows
                scaled = (
                    matrix * jnp.outer(unit, unit)
                    if use.form is PRECISION
                    else matrix / jnp.outer(unit, unit)
                )
                values = jnp.linalg.eigvalsh(scaled)
                variance = 1 / values[..., -1] if use.form is PRECISION else values[..., 0]
            else:
                ratio = rows[jnp.maximum(use.rows, 0)] / jnp.where(spread > 0, spread, 1)
                variance = (
                    jnp.full(len(rows), -jnp.inf)
                    .at[jnp.broadcast_to(use.rows, ratio.shape)]
                    .max(ratio)
                    ** 2
                )
            used = np.unique(use.rows[use.rows >= 0])
            found |= ~(variance[used] > _limit(value.dtype)).all()
        return found

    def _ratios(self, name: str, use: Use, value: np.ndarray, spread: np.ndarray):
        """Yield the entries of a scale that have collapsed, and the ratios of their standard
        deviations to the data's.
        """
        event = use.form.event_dim
        rows = value.reshape((-1,) + value.shape[value.ndim - event :])
        limit = _limit(value.dtype)
        for entry in np.unique(use.rows[use.rows >= 0]):
            if event:
                unit = np.where(spread > 0, spread, 1).reshape(-1, spread.shape[-1]).max(0)
                covariance = _covariances(use.form, rows[entry][None])[0] / np.outer(unit, unit)
                variance = (
                    np.linalg.eigvalsh(covariance).min()
                    if np.isfinite(covariance).all()
                    else np.nan
                )
            else:
                cells = np.broadcast_to(spread, np.broadcast_shapes(use.rows.shape, spread.shape))[
                    np.broadcast_to(
                        use.rows == entry, np.broadcast_shapes(use.rows.shape, spread.shape)
                    )
                ]
                variance = (rows[entry] / np.where(cells > 0, cells, 1).min()) ** 2
            if not variance > limit:
                yield int(entry), float(np.sqrt(np.maximum(variance, 0)))

    def _where(self, name: str, use: Use, entry: int) -> str:
        """Return which values of which latents an entry belongs to, in words."""
        axes = self.graph.terms[use.term].arguments[use.argument].axes
        cells = np.argwhere(use.rows == entry)
        parts = []
        for i, axis in enumerate(axes):
            values = np.unique(cells[:, i])
            if axis.source in self.graph.latents and len(values) == 1:
                parts.append(
                    f"component {self.graph.latents[axis.source].support[values[0]]} of "
                    f"'{axis.source}'"
                )
        return " and ".join(parts) or f"parameter '{name}'"

    def _index(self, name: str, entry: int, use: Use) -> str:
        shape = self.graph.parameters[name].shape
        lead = shape[: len(shape) - use.form.event_dim]
        return "".join(f"[{', '.join(map(str, np.unravel_index(entry, lead)))}]") if lead else ""

    def dead(self, params: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each value of a latent of which every probability that the program
        states has gone to zero.
        """
        found = []
        for latent in self.graph.latents.values():
            uses = [(name, use) for name, use in self._of(SIMPLEX) if self._is_of(use, latent.name)]
            if not uses or not self._says_all(latent.name, [use for _, use in uses]):
                continue
            values = [np.asarray(params[name]) for name, _ in uses]
            largest = np.max(
                [value.reshape(-1, value.shape[-1]).max(0) for value in values], axis=0
            )
            names = ", ".join(f"'{name}'" for name in dict.fromkeys(name for name, _ in uses))
            number = float(np.prod(latent.shape, dtype=float))
            for k in np.flatnonzero(largest * number <= np.sqrt(np.finfo(values[0].dtype).eps)):
                found.append(
                    f"component {latent.support[k]} of '{latent.name}' has died: {names} "
                    f"{'gives' if ',' not in names else 'give'} it probability {largest[k]:.1e}, "
                    "and no element belongs to it. "
                    "Use fewer components, or start elsewhere."
                )
        return found

    def _is_of(self, use: Use, name: str) -> bool:
        site = self.graph.terms[use.term].site
        return site.is_latent and site.name == name

    def _says_all(self, name: str, uses: Sequence[Use]) -> bool:
        """Whether every probability of a latent is an entry of these parameters."""
        terms = {
            i
            for i, term in enumerate(self.graph.terms)
            if term.site.is_latent and term.site.name == name
        }
        read = {
            i: np.any([use.rows >= 0 for use in uses if use.term == i], axis=0)
            for i in {use.term for use in uses}
        }
        return set(read) == terms and all(where.all() for where in read.values())

    def reached_zero(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each parameter of which probabilities or rates have become zero,
        which EM never leaves again.
        """
        found = {}
        uses = [(name, use) for name, uses in self.uses.items() for use in uses]
        for name, use in uses:
            old, new = np.asarray(before[name]), np.asarray(after[name])
            gone = np.zeros(new.shape, bool)
            for bound in use.form.boundary:
                gone |= (new == bound) & (old != bound)
            if gone.any():
                indices = (
                    ", ".join(str(tuple(map(int, index))) for index in np.argwhere(gone)[:SHOWN])
                    if gone.ndim
                    else "its value"
                )
                more = f", … ({int(gone.sum())} in all)" if gone.sum() > SHOWN else ""
                found[name] = (
                    f"'{name}' has reached the boundary at {indices}{more}, and EM stays there: "
                    "its data are without a single such case. If the program "
                    "should think it possible, state a prior."
                )
        return list(found.values())

    def sentences(self, before, reported, last, spreads) -> tuple[str, ...]:
        """Return what to warn of after a run.

        `before`, `reported`: the parameters at its start and end; `last`: those at which the
        objective was evaluated last, though it was not finite.
        """
        collapsed = self.collapsed(last, spreads)
        not_numbers = (
            [
                f"'{name}' is not a number"
                for name, value in last.items()
                if not np.isfinite(value).all()
            ]
            if not collapsed
            else []
        )
        return *collapsed, *not_numbers, *self.dead(reported), *self.reached_zero(before, reported)
