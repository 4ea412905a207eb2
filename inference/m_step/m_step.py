"""The M-step: maximize Q(θ) = ⟨expected statistics, η(θ)⟩, parameter by parameter.

`maximizers` decides, from the wiring alone, how each parameter is maximized: in closed form where
its entries are looked up by arguments that have one, by Newton's method where the program computes
with it, by an optax optimizer elsewhere. Maximizers run in turn, each at the latest values of the
others (ECM), and none decreases Q. Source: Dempster, Laird & Rubin (1977); Meng & Rubin (1993).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from numpyro.distributions import biject_to

from emjax.families.families import PRIORS
from emjax.graph.factor_graph import FactorGraph, Term, term_naturals
from emjax.m_step.ascent import ascend
from emjax.m_step.closed_form import LOCATIONS, Maximizer, Reader, bounds, closed_form
from emjax.m_step.newton import newton
from emjax.m_step.unconstrained import Unconstrained
from emjax.numerics.jaxprs import dependencies, primitive_names

LARGEST_NEWTON = 200
LBFGS_STEPS = 30


def expected_log_likelihood(
    graph: FactorGraph, params, constants, statistics, terms: Sequence[int] | None = None
):
    """Return Q(θ) = Σ ⟨T, η(θ)⟩ in nats, up to what does not depend on θ; impossible cells with T =
    0 count 0.
    """
    arrays = graph.arrays(params, constants)
    numbers = range(len(graph.terms)) if terms is None else terms
    return sum(
        (_inner(statistics[i], term_naturals(graph.terms[i], arrays)) for i in numbers),
        jnp.zeros(()),
    )


def _inner(statistics, naturals):
    return sum(
        jnp.where(t == 0, 0, t * table.array).sum()
        for t, table in zip(statistics, naturals, strict=True)
    )


def maximizers(
    graph: FactorGraph, overrides: Mapping[str, Any], fixed: Collection[str] = ()
) -> list[Maximizer]:
    """Return the maximizers of all parameters, in the order in which they run. `fixed`: those that
    stay at their start.
    """
    for setting, names in (("m_step", set(overrides)), ("fixed", set(fixed))):
        if unknown := sorted(names - set(graph.names)):
            raise ValueError(
                f"{setting} names {', '.join(map(repr, unknown))}, but the program's parameters "
                f"are {', '.join(map(repr, graph.names))}."
            )
    if both := sorted(set(overrides) & set(fixed)):
        raise ValueError(
            f"{', '.join(map(repr, both))} cannot be both fixed and maximized: remove it from "
            "fixed, or from m_step."
        )
    reader, once = Reader(graph), _differentiable_once(graph)
    held, closed, computed, opaque, user = [], [], [], [], []
    for name in graph.names:
        if name in fixed:
            held.append(_held(name, "fixed: it stays at its start"))
        elif name in graph.unused or not reader.terms_of(name):
            held.append(_held(name, "nothing observed depends on it: it stays where it is"))
        elif name in overrides:
            user.append(_user(graph, name, reader.terms_of(name), overrides[name]))
        else:
            uses, reason = reader.closed_form(name)
            if uses is not None:
                closed.append((uses, name))
            elif not reader.is_tabular(name):
                opaque.append((name, reason))
            elif name in once:
                opaque.append(
                    (
                        name,
                        f"{reason}; of its custom_vjp, Newton's method would need a "
                        "second derivative",
                    )
                )
            else:
                computed.append((name, reason))
    computed, opaque = _grouped_by_size(graph, computed, opaque)
    # a scale's maximizer depends on the location; the location's seldom on the scale
    locations, others = (
        [
            closed_form(graph, name, uses, reader)
            for uses, name in closed
            if (uses[0].form in LOCATIONS) == first
        ]
        for first in (True, False)
    )
    between = (
        _joint(graph, computed, reader, newton, "Newton")
        + _joint(graph, opaque, reader, _lbfgs_update, "L-BFGS")
        + user
    )
    return held + locations + between + others


def m_step(
    maximizers: Sequence[Maximizer],
    params: Mapping[str, Any],
    states: Sequence,
    constants,
    statistics,
) -> tuple[dict, tuple]:
    """Return the parameters after an M-step, and the maximizers' states."""
    params, after = dict(params), []
    for maximizer, own in zip(maximizers, states, strict=True):
        values, own = maximizer.update(params, own, constants, statistics)
        params |= values
        after.append(own)
    return params, tuple(after)


def _differentiable_once(graph: FactorGraph) -> set[str]:
    """Return the parameters that enter calls of which the program defines a first derivative, where
    Newton's method takes two.
    """
    jaxpr = graph.full_jaxpr.jaxpr
    found = dependencies(jaxpr, dict(zip(jaxpr.invars, graph.names, strict=False)))
    return {
        name
        for eqn in jaxpr.eqns
        if "custom_vjp_call" in primitive_names([eqn])
        for var in eqn.outvars
        for name in found.get(var, ())
    }


def _grouped_by_size(graph, computed, opaque):
    """Newton's method solves with a dense Hessian; more unknowns than that go to L-BFGS."""
    size = sum(math.prod(graph.parameters[name].shape) for name, _ in computed)
    if size <= LARGEST_NEWTON:
        return computed, opaque
    return [], opaque + [
        (name, f"{reason}; {size} unknowns are too many for Newton's method")
        for name, reason in computed
    ]


# ── what the program computes with ────────────────────────────────────────────────────────────────


def _held(name: str, reason: str) -> Maximizer:
    return Maximizer(
        (name,),
        "held",
        reason,
        lambda params: (),
        lambda params, state, constants, statistics: ({name: params[name]}, state),
    )


def _joint(graph, items, reader, update, method) -> list[Maximizer]:
    """Return one maximizer for all parameters that the same method maximizes together."""
    if not items:
        return []
    names = tuple(name for name, _ in items)
    terms = sorted({i for name in names for i in reader.terms_of(name)})
    if method == "Newton" and all(_is_regression(reader, graph.terms[i], names) for i in terms):
        method = "least squares"
    reasons = "; ".join(
        f"'{name}': {reason}" if len(items) > 1 else reason for name, reason in items
    )

    def step(params, state, constants, statistics):
        unconstrained, rebuild, objective = _unconstrained(
            graph, names, params, constants, statistics, terms
        )
        return rebuild(update(objective, unconstrained)), state

    return [Maximizer(names, method, reasons, lambda params: (), step)]


def _is_regression(reader: Reader, term: Term, names) -> bool:
    """Whether Q is quadratic in the parameters: unbounded, they enter the locations of normals
    alone, and affinely.
    """
    limits = [bounds(reader.graph.parameters[name].constraint) for name in names]
    if any(limit is None or not limit.are_none for limit in limits):
        return False
    if term.family is not None:
        forms, tables = term.family.arguments, term.arguments
    elif (
        term.site.is_prior
        and (prior := PRIORS.get(term.site.family)) is not None
        and prior.form in LOCATIONS
    ):
        forms, tables = {prior.centered: prior.form}, term.prior_arguments
    else:
        return False
    wires = {argument: reader.wire(table) for argument, table in tables.items()}
    return all(
        wire.affine and forms.get(argument) in LOCATIONS
        for argument, wire in wires.items()
        if wire.parameters & set(names)
    )


def _unconstrained(graph, names, params, constants, statistics, terms):
    """Return the block's unconstrained vector, its way back, and Q as a function of it."""
    start, back = Unconstrained(graph.parameters, names).around(params)

    def rebuild(vector):
        is_number = jnp.isfinite(vector).all()
        return {
            name: jnp.where(is_number, value, params[name]) for name, value in back(vector).items()
        }

    def objective(vector):
        return expected_log_likelihood(
            graph, {**params, **back(vector)}, constants, statistics, terms
        )

    return start, rebuild, objective


def _lbfgs_update(objective, start):
    solver = optax.lbfgs()
    return ascend(solver, solver.init(start), objective, start, LBFGS_STEPS)[0]


# ── the user's own ────────────────────────────────────────────────────────────────────────────────


def _user(graph: FactorGraph, name: str, terms, override) -> Maximizer:
    """`override`: an optax optimizer, or a function (value, objective) → value that must not
    decrease objective(value).
    """
    if isinstance(override, optax.GradientTransformation):

        def init(params):
            return override.init(
                jnp.ravel(biject_to(graph.parameters[name].constraint).inv(params[name]))
            )

        def optax_update(params, state, constants, statistics):
            start, rebuild, objective = _unconstrained(
                graph, (name,), params, constants, statistics, terms
            )
            end, state = ascend(override, state, objective, start, 1)
            return rebuild(end), state

        return Maximizer(
            (name,),
            "optax",
            "asked for: one step of the given optimizer, shortened if it would decrease Q",
            init,
            optax_update,
        )
    if not callable(override):
        raise ValueError(
            f"m_step['{name}'] must be an optax optimizer or a function (value, objective) -> new "
            f"value, not {override!r}."
        )

    def update(params, state, constants, statistics):
        def objective(value):
            return expected_log_likelihood(
                graph, {**params, name: value}, constants, statistics, terms
            )

        proposal = jnp.asarray(override(params[name], objective), params[name].dtype)
        return {
            name: jnp.where(objective(proposal) >= objective(params[name]), proposal, params[name])
        }, state

    return Maximizer(
        (name,),
        "user",
        "asked for: the given function; a proposal that would decrease Q is not taken",
        lambda params: (),
        update,
    )
