"""Maximizers of what the program computes with: Newton's method, or L-BFGS in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial

from emjax.families.conjugate import Conjugate
from emjax.families.family import prior_of
from emjax.families.limits import limits_of
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.terms import Term
from emjax.m_step.ascent import lbfgs
from emjax.m_step.gap import LARGEST_SEARCH, gap_of
from emjax.m_step.maximizer import Maximizer, Request, Turn
from emjax.m_step.newton import REACH, newton
from emjax.m_step.objective import along_unconstrained
from emjax.m_step.search import search
from emjax.m_step.wiring_view import WiringView
from emjax.numerics.jaxprs import dependencies, primitive_names
from emjax.tables.named import Named

# Newton's method solves with a dense Hessian: more unknowns than that go to L-BFGS
LARGEST_NEWTON = 200
# an M-step need not reach the maximum, since the next one goes on from there
LBFGS_STEPS = 30


def by_newton(request: Request, left: dict[str, str]) -> tuple[list[Maximizer], dict[str, str]]:
    """Return Newton's method for all parameters that are smooth in tables, and what is left."""
    # what cannot have two derivatives goes to L-BFGS, which takes one
    graph, once = request.graph, _differentiable_once(request.graph)
    smooth, rest = {}, {}
    for name, reason in left.items():
        if not request.view.is_tabular(name):
            rest[name] = reason
        elif name in once:
            rest[name] = (
                f"{reason}; of its custom_vjp, Newton's method would need a second derivative"
            )
        else:
            smooth[name] = reason
    size = sum(math.prod(graph.parameters[name].shape) for name in smooth)
    if size > LARGEST_NEWTON:
        too_many = f"{size} unknowns are too many for Newton's method"
        return [], rest | {name: f"{reason}; {too_many}" for name, reason in smooth.items()}
    is_quadratic = all(
        _is_regression(request.view, graph.terms[number], set(smooth))
        for number in _terms_of_any(request.view, smooth)
    )
    if is_quadratic:
        return _together(request.view, smooth, "least squares", newton, is_exact=True), rest
    climb = partial(newton, reach=REACH, by_differences=True)
    return _together(request.view, smooth, "Newton", climb), rest


def by_lbfgs(request: Request, left: dict[str, str]) -> tuple[list[Maximizer], dict[str, str]]:
    """Return L-BFGS for all parameters that are left."""

    climb = partial(lbfgs, num_steps=LBFGS_STEPS)
    return _together(request.view, left, "L-BFGS", climb), {}


def _together(
    view: WiringView,
    reasons: Mapping[str, str],
    method: str,
    climb: Callable,
    is_exact: bool = False,
) -> list[Maximizer]:
    """Return one maximizer of all these parameters, or none if there are none.

    `climb(objective, start)`: where it leads, and whether it got stuck; `is_exact`: it leads to the
    maximum of Q, whatever the program.
    """
    if not reasons:
        return []
    graph, names, terms = view.graph, tuple(reasons), _terms_of_any(view, reasons)

    def update(params, state, constants, statistics):
        start, rebuild, objective = along_unconstrained(
            graph, names, params, constants, statistics, terms
        )
        end, is_stuck = climb(objective, start)
        if not is_exact and start.size <= LARGEST_SEARCH:
            end, _ = search(objective, end, is_stuck)
        return rebuild(end), state

    gap = None if is_exact else partial(gap_of, graph, names, terms)
    why = tuple(reasons.values())
    return [Maximizer(names, method, why, update, turn=Turn.COMPUTED, is_iterated=True, gap=gap)]


def _terms_of_any(view: WiringView, names: Collection[str]) -> list[int]:
    numbers: set[int] = set()
    for name in names:
        numbers.update(view.terms_of(name))
    return sorted(numbers)


def _differentiable_once(graph: FactorGraph) -> set[str]:
    """Return the parameters of which the program defines no second derivative.

    They enter calls of which it defines the first one, by `custom_vjp`.
    """
    jaxpr = graph.full_jaxpr.jaxpr
    parameters_of = dependencies(jaxpr, dict(zip(jaxpr.invars, graph.names, strict=False)))
    names: set[str] = set()
    for eqn in jaxpr.eqns:
        if "custom_vjp_call" in primitive_names([eqn]):
            for var in eqn.outvars:
                names.update(parameters_of.get(var, ()))
    return names


def _is_regression(view: WiringView, term: Term, names: Collection[str]) -> bool:
    """Whether Q of a term is quadratic in some parameters.

    It is where they are unbounded and enter locations of normals alone, or coefficients of Gaussian
    latents there, and affinely.
    """
    for name in names:
        limits = limits_of(view.graph.parameters[name].constraint)
        if limits is None or not limits.is_unbounded:
            return False
    for table, conjugacy in _arguments(term):
        wire = view.wire(table)
        is_quadratic = conjugacy is not None and conjugacy.is_quadratic
        if wire.parameters & set(names) and not (wire.affine and is_quadratic):
            return False
    return True


def _arguments(term: Term) -> list[tuple[Named, Conjugate | None]]:
    """Return the tables of a term's arguments, and their shapes."""
    if term.family is not None:
        return [(table, term.family.arguments[name]) for name, table in term.arguments.items()]
    prior = prior_of(term.site.distribution) if term.site.is_prior else None
    if prior is None or prior.form is None or not prior.form.is_location:
        # a density that is its own table: no argument of it is a location
        return [(table, None) for table in term.arguments.values()]
    shapes = {prior.centered: prior.form}
    return [(table, shapes.get(name)) for name, table in term.prior_arguments.items()]
