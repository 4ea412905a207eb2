"""The M-step: maximize Q(θ) = ⟨expected statistics, η(θ)⟩, parameter by parameter.

`maximizers` decides, from the wiring alone, how each parameter is maximized: in closed form where
its entries are looked up by arguments that have one, by least squares where locations are affine in
it, by Newton's method where the program computes with it, by L-BFGS or an optax optimizer
elsewhere. Maximizers run in turn, each at the latest values of the others (ECM), and none decreases
Q. Source: Dempster, Laird & Rubin (1977); Meng & Rubin (1993).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.asked_for import asked_for, held
from emjax.m_step.closed_form import in_closed_form
from emjax.m_step.computed import by_lbfgs, by_newton
from emjax.m_step.gap import Gap
from emjax.m_step.least_squares import by_least_squares
from emjax.m_step.maximizer import Maximizer, MaximizerKind, Request
from emjax.m_step.wiring_view import WiringView

# Each takes the parameters that it serves, of those that the kinds before it left; a new kind of
# maximizer is a function like these, in a file of its own.
KINDS: tuple[MaximizerKind, ...] = (
    held,
    asked_for,
    in_closed_form,
    by_least_squares,
    by_newton,
    by_lbfgs,
)


def maximizers(
    graph: FactorGraph, overrides: Mapping[str, Any], fixed: Collection[str] = ()
) -> list[Maximizer]:
    """Return the maximizers of all parameters, in the order in which they run.

    `overrides`: the user's own, by parameter; `fixed`: parameters that stay at their start. Errors:
    `ValueError` for a name that is no parameter, or is both.
    """
    _check_names(graph, overrides, fixed)
    request = Request(WiringView(graph, fixed), overrides, fixed)
    served: list[Maximizer] = []
    left = dict.fromkeys(graph.names, "")
    for kind in KINDS:
        taken, left = kind(request, left)
        served += taken
    # sorting is stable: of one turn, they run in the order in which they were taken
    return sorted(served, key=lambda maximizer: maximizer.turn)


def _check_names(graph: FactorGraph, overrides: Mapping[str, Any], fixed: Collection[str]) -> None:
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


def estimated(maximizers: Sequence[Maximizer]) -> list[str]:
    """Return the names of the parameters that do not stay at their start."""
    names: list[str] = []
    for maximizer in maximizers:
        names += () if maximizer.is_fixed else maximizer.names
    return names


def gaps(
    maximizers: Sequence[Maximizer],
    params: Mapping[str, Any],
    constants,
    statistics,
    is_wanted: Any = True,
) -> tuple[Gap, ...]:
    """Return the optimality gap of each maximizer that may leave one, at expected statistics.

    `is_wanted`: see `gap_of`.
    """
    of_each = [m.gap for m in maximizers if m.gap is not None]
    return tuple(gap(params, constants, statistics, is_wanted) for gap in of_each)


def m_step(
    maximizers: Sequence[Maximizer],
    params: Mapping[str, Any],
    states: Sequence,
    constants,
    statistics,
) -> tuple[dict, tuple]:
    """Return the parameters after an M-step, and the maximizers' states."""
    latest, after = dict(params), []
    for maximizer, state in zip(maximizers, states, strict=True):
        values, state = maximizer.update(latest, state, constants, statistics)
        latest |= values
        after.append(state)
    return latest, tuple(after)
