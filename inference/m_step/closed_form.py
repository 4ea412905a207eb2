"""Closed forms: where a parameter's entries are looked up by arguments that have one, and what
maximizes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from emjax.families.conjugate import (
    COVARIANCE,
    LOCATION,
    LOCATION_VECTOR,
    PRECISION,
    SCALE_TRIL,
    SIMPLEX,
    SIMPLEX_LOGITS,
    Conjugate,
)
from emjax.families.families import PRIORS
from emjax.graph.factor_graph import FactorGraph, Features, Slot, Term, filled, term_naturals
from emjax.graph.wiring import Wire
from emjax.tables.named import Named, without_rows

LOCATIONS = (LOCATION, LOCATION_VECTOR)


@dataclass(frozen=True, eq=False)
class Maximizer:
    """How some parameters are maximized together.

    `method` is "closed form", "Newton", "L-BFGS", "optax", "user" or "held"; `reason` says why, in
    words; `init(params)` and `update(params, state, constants, statistics)` are pure, the latter
    returns new values of `names` and the new state. `uses`: where a parameter with a closed form
    enters.
    """

    names: tuple[str, ...]
    method: str
    reason: str
    init: Callable
    update: Callable
    uses: Sequence[Use] = ()


@dataclass(frozen=True, eq=False)
class Use:
    """Where a parameter enters: an argument of a term, by lookup (`rows`: which entry each cell
    reads, −1: none).
    """

    term: int
    argument: str
    form: Conjugate
    rows: np.ndarray


class Reader:
    """Reads the wiring of a factor graph."""

    def __init__(self, graph: FactorGraph):
        self.graph = graph
        self.wires = graph.wires()
        self.offsets = graph.offsets()

    def wire(self, table) -> Wire:
        return (
            self.wires[table.array.number]
            if isinstance(table.array, Slot)
            else Wire(value=np.asarray(table.array))
        )

    def terms_of(self, name: str) -> list[int]:
        return [
            i
            for i, term in enumerate(self.graph.terms)
            if any(name in self.wire(a).parameters for a in term.arguments.values())
        ]

    def is_tabular(self, name: str) -> bool:
        """Whether every term that depends on the parameter is an exponential family (or its own
        prior).
        """
        return all(
            self.graph.terms[i].family is not None or self.graph.terms[i].site.is_prior
            for i in self.terms_of(name)
        )

    def closed_form(self, name: str) -> tuple[list[Use] | None, str]:
        """Return every use of a parameter with a closed form, or None and the reason why there is
        none.
        """
        uses: list[Use] = []
        for i in self.terms_of(name):
            term = self.graph.terms[i]
            if term.site.is_prior and term.site.name == name:
                continue
            use, reason = self.use(name, i, term)
            if use is None:
                return None, reason
            uses.append(use)
        if not uses:
            return None, "only its prior depends on it"
        forms = {use.form for use in uses}
        if len(forms) > 1:
            return None, f"it is a {' and a '.join(sorted(form.name for form in forms))} at once"
        problem = self.prior_problem(name, uses[0].form) or _constraint_problem(
            self.graph.parameters[name].constraint, uses[0].form
        )
        return (None, problem) if problem else (uses, "")

    def use(self, name: str, i: int, term: Term) -> tuple[Use | None, str]:
        site = term.site.name
        if term.family is None:
            return (
                None,
                f"{term.site.family.__name__} at '{site}' is not an exponential family that emjax "
                "knows with these arguments",
            )
        reading = [a for a, table in term.arguments.items() if name in self.wire(table).parameters]
        if len(reading) > 1:
            return None, f"'{site}' reads it in {' and '.join(reading)} at once"
        (argument,) = reading
        form, wire = term.family.arguments[argument], self.wire(term.arguments[argument])
        for other, table in term.arguments.items():
            if term.family.arguments[other] is None and self.wire(table).parameters:
                return (
                    None,
                    f"the {other} of {term.site.family.__name__} at '{site}' has no closed form"
                    + ("" if other == argument else f", and the {argument} goes with it"),
                )
        if wire.entries is None:
            how = "affinely, through" if wire.affine else "through"
            return None, f"it enters the {argument} of '{site}' {how} '{wire.primitive}'"
        rows = self.rows(name, wire.entries, form)
        if rows is None:
            return None, f"the {argument} of '{site}' reads parts of its {form.name}"
        return Use(i, argument, form, rows), ""

    def rows(self, name: str, entries: np.ndarray, form: Conjugate) -> np.ndarray | None:
        """Return which whole entry of a parameter each cell of a table reads, −1 where none."""
        shape, event = self.graph.parameters[name].shape, form.event_dim
        if event and shape[len(shape) - event :] != entries.shape[entries.ndim - event :]:
            return None
        block = math.prod(shape[len(shape) - event :]) if event else 1
        local = entries - self.offsets[name]
        local = np.where((local >= 0) & (local < math.prod(shape)), local, -1)
        flat = local.reshape(local.shape[: local.ndim - event] + (block,))
        first = flat[..., :1]
        whole = np.where(first >= 0, first + np.arange(block), -1)
        if not ((flat == whole).all() and (first[first >= 0] % block == 0).all()):
            return None
        return np.asarray(np.where(first >= 0, first // block, -1)[..., 0])

    def prior_problem(self, name: str, form: Conjugate) -> str:
        term = self.prior_term(name)
        if term is None:
            return ""
        prior, kind = PRIORS.get(term.site.family), term.site.family.__name__
        if (
            prior is None
            or prior.form not in (None, form)
            or set(prior.arguments) - set(term.prior_arguments)
        ):
            return f"its {kind} prior is not conjugate to a {form.name}"
        if term.latent_axes or term.site.outputs.masks:
            return f"its {kind} prior depends on a latent or a mask"
        return ""

    def prior_term(self, name: str) -> Term | None:
        return next(
            (term for term in self.graph.terms if term.site.is_prior and term.site.name == name),
            None,
        )


# ── constraints ───────────────────────────────────────────────────────────────────────────────────


def unwrapped(constraint):
    """Return the constraint on one entry."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


@dataclass(frozen=True)
class Bounds:
    """The lowest and the highest value that a constraint on scalars allows: a number each, or an
    array along the last axes of the value.
    """

    low: np.ndarray
    high: np.ndarray

    def are(self, low: float | int, high: float | int) -> bool:
        return bool((self.low == low).all() and (self.high == high).all())

    @property
    def are_none(self) -> bool:
        return self.are(-math.inf, math.inf)

    def __str__(self) -> str:
        return (
            "["
            + ", ".join(
                f"{b:g}" if b.ndim == 0 else np.array2string(b, precision=4, threshold=8)
                for b in (self.low, self.high)
            )
            + "]"
        )


def bounds(constraint) -> Bounds | None:
    """Return the bounds of a constraint on scalars, or None if it is of another kind."""
    constraint = unwrapped(constraint)
    if (
        type(constraint) is type(constraints.real)
        or hasattr(constraint, "lower_bound")
        or hasattr(constraint, "upper_bound")
    ):
        low, high = (
            getattr(constraint, "lower_bound", -math.inf),
            getattr(constraint, "upper_bound", math.inf),
        )
        return Bounds(np.asarray(low, float), np.asarray(high, float))
    return None


_MATCHING = {
    SIMPLEX: (constraints.simplex,),
    SIMPLEX_LOGITS: (constraints.real_vector,),
    LOCATION_VECTOR: (constraints.real_vector,),
    COVARIANCE: (constraints.positive_definite, constraints.positive_semidefinite),
    PRECISION: (constraints.positive_definite, constraints.positive_semidefinite),
    SCALE_TRIL: (constraints.lower_cholesky,),
}


def _constraint_problem(constraint, form: Conjugate) -> str:
    """Return why a closed form might leave the constraint; empty if it cannot."""
    inner = unwrapped(constraint)
    found = bounds(inner)
    if form.event_dim == 0:
        return (
            ""
            if found is not None
            else f"its constraint {constraint} ties its entries to one another"
        )
    free = found is not None and (
        found.are_none or (form is SIMPLEX and (found.are(0, 1) or found.are(0, math.inf)))
    )
    return (
        ""
        if free or any(type(inner) is type(match) for match in _MATCHING[form])
        else f"its constraint {constraint} may exclude the maximizer"
    )


# ── the maximizer ─────────────────────────────────────────────────────────────────────────────────


def closed_form(graph: FactorGraph, name: str, uses: list[Use], reader: Reader) -> Maximizer:
    form, parameter = uses[0].form, graph.parameters[name]
    prior_term = reader.prior_term(name)
    prior_number = None if prior_term is None else graph.terms.index(prior_term)
    limits = bounds(parameter.constraint) if form.event_dim == 0 else None

    def update(params, state, constants, statistics):
        arrays = graph.arrays(params, constants)
        value = params[name]
        event = value.shape[len(value.shape) - form.event_dim :]
        rows = value.reshape((-1,) + event)
        zeros = [jnp.zeros(f.shape, value.dtype) for f in form.features(rows, rows)]

        def along_features(features):
            total = sum(
                _inner_linear(graph.terms[use.term], arrays, statistics[use.term], use, features)
                for use in uses
            )
            if prior_number is not None:
                total = total + _prior_along(
                    graph.terms[prior_number],
                    arrays,
                    statistics[prior_number],
                    form,
                    rows,
                    features,
                    value.shape,
                )
            return total

        new = (
            form.maximize(tuple(jax.grad(along_features)(zeros)), rows)
            .reshape(value.shape)
            .astype(value.dtype)
        )
        if limits is not None and not limits.are_none:
            new = jnp.clip(
                new, jnp.asarray(limits.low, new.dtype), jnp.asarray(limits.high, new.dtype)
            )
        return {name: new}, state

    return Maximizer(
        (name,),
        "closed form",
        _closed_reason(graph, uses, reader, prior_term, limits),
        lambda params: (),
        update,
        uses,
    )


def _inner_linear(term: Term, arrays, statistics, use: Use, features):
    """Return ⟨T, η⟩ with the features of one parameter's entries in place of its values; linear in
    them.
    """

    def replaced(own, rows, rank=len(term.elements)):
        is_whole = (rows.size, rows.shape[rows.ndim - rank :]) == (
            use.rows.size,
            use.rows.shape[use.rows.ndim - rank :],
        )  # rows are not read out
        in_order = is_whole and np.array_equal(
            np.ravel(use.rows), np.arange(features[0].shape[0])
        )  # no lookup, and no scatter to transpose it
        picked = [
            feature.reshape(rows.shape + feature.shape[1:])
            if in_order
            else feature[jnp.maximum(rows, 0)]
            for feature in features
        ]
        if use.form in LOCATIONS:
            picked = _moved_location(own, picked, use.form)
        return tuple(
            jnp.where(jnp.reshape(rows >= 0, rows.shape + (1,) * (o.ndim - rows.ndim)), p, o)
            for o, p in zip(own, picked, strict=True)
        )

    tables = term_naturals(term, arrays, Features(use.argument, use.rows, replaced))
    return sum((t * table.array).sum() for t, table in zip(statistics, tables, strict=True))


def _moved_location(own, steps, form: Conjugate):
    """Return the features of a location after a step, from those before it: linear in the step's
    features.
    """
    (first, second), (step, square) = own, steps
    cross = (
        2 * first * step
        if form is LOCATION
        else first[..., :, None] * step[..., None, :] + step[..., :, None] * first[..., None, :]
    )
    return [first + step, second + cross + square]


def _prior_along(term: Term, arrays, statistics, form, rows, features, shape):
    """Return T · log prior with the features of the parameter's entries in place of its values."""
    prior = PRIORS[term.site.family]
    arguments = {}
    for argument in prior.arguments:
        arguments[argument] = without_rows(filled(term.prior_arguments[argument], arrays)).array
    lead = shape[: len(shape) - form.event_dim]
    shaped = [f.reshape(lead + f.shape[1:]) for f in features]
    if prior.centered is not None:
        value = rows.reshape(shape)
        own = form.features(value, jnp.broadcast_to(arguments[prior.centered], value.shape))
        shaped = _moved_location(own, shaped, form)
    density = prior.log_density(shaped, **arguments)
    (weights,) = statistics
    return (weights * jnp.broadcast_to(density, weights.shape)).sum()


def _closed_reason(graph, uses, reader, prior_term, limits: Bounds | None) -> str:
    where = ", ".join(
        dict.fromkeys(f"{use.argument} of '{graph.terms[use.term].site.name}'" for use in uses)
    )
    text = f"{uses[0].form.solution} ({where})"
    if prior_term is not None:
        text += f", with its {prior_term.site.family.__name__} prior"
    if limits is not None and not (limits.are_none or limits.are(0, math.inf) or limits.are(0, 1)):
        text += f", within {limits}"
    if _in_turn(graph, uses, reader):
        text += "; in turn with the scale it is weighted by"
    return text


def _in_turn(graph: FactorGraph, uses: list[Use], reader: Reader) -> bool:
    """Whether a location's entries are shared by cells of unequal scale, so that its maximizer
    depends on the scale.
    """
    if uses[0].form not in LOCATIONS:
        return False
    scales = [
        (use, graph.terms[use.term], table)
        for use in uses
        for argument, table in graph.terms[use.term].arguments.items()
        if argument != use.argument and reader.wire(table).parameters
    ]
    several = bool(scales) and len({use.term for use in uses}) > 1
    return several or any(_unequally_scaled(use, term, table) for use, term, table in scales)


def _unequally_scaled(use: Use, term: Term, scale: Named) -> bool:
    """Whether cells that read the same entry of a location may have different scales."""
    location = term.arguments[use.argument]
    named = {(axis.source, axis.size) for axis in location.axes}
    wider = any(axis.size > 1 and (axis.source, axis.size) not in named for axis in scale.axes)
    wider |= any(s > 1 and m == 1 for s, m in zip(scale.compact, location.compact, strict=False))
    tied = len(np.unique(use.rows)) < use.rows.size and math.prod(scale.array.shape) > 1
    return wider or tied
