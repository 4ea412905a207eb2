"""Maximizers of what the program computes with: Newton's method, or L-BFGS in its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.ascent import lbfgs
from emjax.m_step.gap import LARGEST_SEARCH, gap_of
from emjax.m_step.maximizer import Maximizer, Request, Turn
from emjax.m_step.newton import REACH, newton
from emjax.m_step.objective import along_unconstrained
from emjax.m_step.search import search
from emjax.m_step.wiring_view import WiringView
from emjax.numerics.jaxprs import dependencies, primitive_names

# Newton's method solves with a dense Hessian: more unknowns than that go to L-BFGS
LARGEST_NEWTON = 200
# an M-step need not reach the maximum, since the next one goes on from there
LBFGS_STEPS = 30


def by_newton(request: Request, left: dict[str, str]) -> tuple[list[Maximizer], dict[str, str]]:
    """Return Newton's method for all parameters that are smooth in tables, and what is left."""
    smooth, rest = smooth_in_tables(request, left)
    size = sum(math.prod(request.graph.parameters[name].shape) for name in smooth)
    if size > LARGEST_NEWTON:
        too_many = f"{size} unknowns are too many for Newton's method"
        return [], rest | {name: f"{reason}; {too_many}" for name, reason in smooth.items()}
    climb = partial(newton, reach=REACH, by_differences=True)
    return _together(request.view, smooth, "Newton", climb), rest


def smooth_in_tables(
    request: Request, left: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return those parameters that are smooth in tables, and the others, each with why it is left.

    Of the former, Q has two derivatives.
    """
    once = _differentiable_once(request.graph)
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
    return smooth, rest


def by_lbfgs(request: Request, left: dict[str, str]) -> tuple[list[Maximizer], dict[str, str]]:
    """Return L-BFGS for all parameters that are left."""

    climb = partial(lbfgs, num_steps=LBFGS_STEPS)
    return _together(request.view, left, "L-BFGS", climb), {}


def _together(
    view: WiringView,
    reasons: Mapping[str, str],
    method: str,
    climb: Callable,
) -> list[Maximizer]:
    """Return one maximizer of all these parameters, or none if there are none.

    `climb(objective, start)`: where it leads, and whether it got stuck.
    """
    if not reasons:
        return []
    graph, names, terms = view.graph, tuple(reasons), terms_of_any(view, reasons)

    def update(params, state, constants, statistics):
        start, rebuild, objective = along_unconstrained(
            graph, names, params, constants, statistics, terms
        )
        end, is_stuck = climb(objective, start)
        if start.size <= LARGEST_SEARCH:
            end, _ = search(objective, end, is_stuck)
        return rebuild(end), state

    gap = partial(gap_of, graph, names, terms)
    why = tuple(reasons.values())
    return [Maximizer(names, method, why, update, turn=Turn.COMPUTED, is_iterated=True, gap=gap)]


def terms_of_any(view: WiringView, names: Collection[str]) -> list[int]:
    """Return the numbers of the terms that depend on any of some parameters."""
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
