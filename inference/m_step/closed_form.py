"""Closed forms: the maximizer of a parameter whose entries are looked up by arguments of one shape.

Q is linear in the features of the parameter's entries. Its coefficients are one reverse pass of
⟨T, η⟩, written as a function of the features; the shape then says where the maximum is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from emjax.families.conjugate import Conjugate
from emjax.families.family import prior_of
from emjax.families.jacobians import is_unconstrained
from emjax.families.limits import Limits, limits_of
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled, term_naturals
from emjax.graph.terms import Features, Term
from emjax.graph.wiring import NONE
from emjax.m_step.maximizer import Maximizer, Request, Turn
from emjax.m_step.objective import inner_products
from emjax.m_step.wiring_view import Use, WiringView
from emjax.tables.named import Named, without_rows


def in_closed_form(
    request: Request, left: dict[str, str]
) -> tuple[list[Maximizer], dict[str, str]]:
    """Return the closed forms of the parameters that have one, and what is left, with why."""
    maximizers, rest = [], {}
    for name in left:
        uses, reason = request.view.uses(name)
        if uses is None:
            rest[name] = reason
        else:
            maximizers.append(_closed_form(request.view, name, uses))
    return maximizers, rest


def _closed_form(view: WiringView, name: str, uses: list[Use]) -> Maximizer:
    graph, conjugacy, parameter = view.graph, uses[0].conjugacy, view.graph.parameters[name]
    assert conjugacy.maximize is not None  # what has no maximizer has no uses
    prior_number = view.prior_number(name)
    prior_term = None if prior_number is None else graph.terms[prior_number]
    # an entry of several numbers has its maximizer within its constraint (`constraint_problem`)
    limits = limits_of(parameter.constraint) if conjugacy.event_dim == 0 else None

    def update(params, state, constants, statistics):
        arrays = graph.arrays(params, constants)
        value = params[name]
        entries = value.reshape((-1,) + value.shape[value.ndim - conjugacy.event_dim :])
        # Q is linear in the features, so that its derivative is the same wherever it is taken
        features = jax.eval_shape(conjugacy.features, entries, entries)
        zeros = [jnp.zeros(f.shape, value.dtype) for f in features]

        def along_features(features):
            total = sum(
                _along(graph.terms[use.term], arrays, statistics[use.term], use, features)
                for use in uses
            )
            if prior_term is None:
                return total
            weights = statistics[prior_number]
            along_prior = _prior_along(
                graph, prior_term, arrays, weights, conjugacy, value, features
            )
            return total + along_prior

        coefficients = tuple(jax.grad(along_features)(zeros))
        new = conjugacy.maximize(coefficients, entries).reshape(value.shape).astype(value.dtype)
        return {name: new if limits is None else limits.clipped(new)}, state

    return Maximizer(
        (name,),
        "closed form",
        (_reason(view, uses, prior_term, limits),),
        update,
        turn=Turn.LOCATION if conjugacy.is_location else Turn.CLOSED_FORM,
        uses=uses,
    )


def _along(term: Term, arrays, statistics, use: Use, features):
    """Return ⟨T, η⟩, linear in the features of one parameter's entries, in place of its values."""

    rank = len(term.elements)
    reads_everywhere = bool((use.rows != NONE).all())

    def replaced(features_of_table, rows):
        table_rows = use.rows.shape[use.rows.ndim - rank :]
        is_all = rows.size == use.rows.size and rows.shape[rows.ndim - rank :] == table_rows
        # where each cell reads the entry of its own number, there is no lookup, and no scatter to
        # transpose it
        in_order = is_all and np.array_equal(np.ravel(use.rows), np.arange(len(features[0])))
        picked = []
        for feature in features:
            if in_order:
                picked.append(feature.reshape(rows.shape + feature.shape[1:]))
            else:
                # a cell that reads none is given any entry, and what is given is not taken
                picked.append(feature[rows if reads_everywhere else jnp.maximum(rows, 0)])
        # cells differ in their origin: what is linear is a step from where each of them is
        if use.conjugacy.is_location:
            picked = use.conjugacy.moved(features_of_table, picked)
        if reads_everywhere:
            return tuple(picked)
        cells = []
        for before, feature in zip(features_of_table, picked, strict=True):
            is_read = jnp.reshape(rows != NONE, rows.shape + (1,) * (before.ndim - rows.ndim))
            cells.append(jnp.where(is_read, feature, before))
        return tuple(cells)

    tables = term_naturals(term, arrays, Features(use.argument, use.rows, replaced))
    return inner_products(statistics, [table.array for table in tables])


def _prior_along(
    graph: FactorGraph, term: Term, arrays, statistics, conjugacy: Conjugate, value, features
):
    """Return T · log prior, linear in the features of the parameter's entries."""
    prior = prior_of(term.site.distribution)
    arguments = {
        name: without_rows(filled(term.prior_arguments[name], arrays)).array
        for name in prior.arguments
    }
    lead = value.shape[: value.ndim - conjugacy.event_dim]
    shaped = [feature.reshape(lead + feature.shape[1:]) for feature in features]
    if prior.centered is not None:
        center = jnp.broadcast_to(arguments[prior.centered], value.shape)
        shaped = conjugacy.moved(conjugacy.features(value, center), shaped)
    density = prior.log_density(shaped, **arguments)
    constraint = graph.parameters[term.site.name].constraint
    if graph.is_unconstrained and not is_unconstrained(constraint):
        # there is one, of whatever has a closed form (`jacobian_problem`)
        density = density + conjugacy.jacobian.along(shaped)
    (weights,) = statistics
    return (weights * jnp.broadcast_to(density, weights.shape)).sum()


# ── in words ──────────────────────────────────────────────────────────────────────────────────────


def _reason(
    view: WiringView, uses: Sequence[Use], prior_term: Term | None, limits: Limits | None
) -> str:
    """Return what the maximizer is, and of what."""
    terms = view.graph.terms
    where = dict.fromkeys(f"{use.argument} of '{terms[use.term].site.name}'" for use in uses)
    text = f"{uses[0].conjugacy.solution} ({', '.join(where)})"
    if prior_term is not None:
        text += f", with its {prior_term.site.distribution.__name__} prior"
        if view.graph.is_unconstrained:
            text += " in unconstrained coordinates"
    if limits is not None and not _is_usual(limits):
        text += f", within {limits}"
    if _is_in_turn(view, uses):
        text += "; in turn with the scale it is weighted by"
    return text


def _is_usual(limits: Limits) -> bool:
    """Whether bounds go without saying: those of a location, a scale, a probability."""
    return limits.is_unbounded or limits.equal(0, math.inf) or limits.equal(0, 1)


def _is_in_turn(view: WiringView, uses: Sequence[Use]) -> bool:
    """Whether the maximizer of a location depends on a scale.

    It does where cells of unequal scale share the location's entries.
    """
    if not uses[0].conjugacy.is_location:
        return False
    scales = []
    for use in uses:
        term = view.graph.terms[use.term]
        for argument, table in term.arguments.items():
            if argument != use.argument and view.wire(table).parameters:
                scales.append((use, term, table))
    if scales and len({view.graph.terms[use.term].site.name for use in uses}) > 1:
        return True
    return any(_is_unequally_scaled(use, term, table) for use, term, table in scales)


def _is_unequally_scaled(use: Use, term: Term, scale: Named) -> bool:
    """Whether cells that read the same entry of a location may have different scales."""
    location = term.arguments[use.argument]
    shared = {(axis.source, axis.size) for axis in location.axes}
    if any(axis.size > 1 and (axis.source, axis.size) not in shared for axis in scale.axes):
        return True
    pairs = zip(scale.compact, location.compact, strict=False)
    if any(size > 1 and of_location == 1 for size, of_location in pairs):
        return True
    # several cells of one entry, and scales that may differ between them
    is_tied = len(np.unique(use.rows)) < use.rows.size
    return is_tied and math.prod(scale.array.shape) > 1
