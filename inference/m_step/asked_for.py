"""Parameters of which the user says what is to become of them: held, or maximized by her own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import biject_to

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.ascent import ascend
from emjax.m_step.gap import Gap, gap_of
from emjax.m_step.maximizer import Maximizer, Request, Turn
from emjax.m_step.objective import along_unconstrained, expected_log_likelihood
from emjax.m_step.promise import negligible_gain
from emjax.program.explanations import function_explained


def held(request: Request, left: dict[str, str]) -> tuple[list[Maximizer], dict[str, str]]:
    """Return what stays at its start: parameters that the user fixes, or nothing depends on."""
    maximizers, rest = [], {}
    for name, reason in left.items():
        if name in request.fixed:
            maximizers.append(_held(name, "fixed: it stays at its start"))
        elif name in request.graph.unused or not request.view.terms_of(name):
            why = "nothing observed depends on it: it stays where it is"
            maximizers.append(_held(name, why))
        else:
            rest[name] = reason
    return maximizers, rest


def _held(name: str, reason: str) -> Maximizer:
    def update(params, state, constants, statistics):
        return {name: params[name]}, state

    return Maximizer((name,), "held", (reason,), update, turn=Turn.FIXED, is_fixed=True)


def asked_for(request: Request, left: dict[str, str]) -> tuple[list[Maximizer], dict[str, str]]:
    """Return the user's own maximizers, and what is left.

    Each is an optax optimizer, or a function (value, objective) → value that must not decrease
    objective(value).
    """
    maximizers, rest = [], {}
    for name, reason in left.items():
        if name not in request.overrides:
            rest[name] = reason
            continue
        override, terms = request.overrides[name], request.view.terms_of(name)
        if _is_optimizer(override):
            maximizers.append(_by_optax(request.graph, name, terms, override))
        elif callable(override):
            maximizers.append(_by_function(request.graph, name, terms, override))
        else:
            raise ValueError(
                f"m_step['{name}'] must be an optax optimizer or a function (value, objective) -> "
                f"new value, not {override!r}."
            )
    return maximizers, rest


def _is_optimizer(override: Any) -> bool:
    """Whether the user's maximizer is an optax optimizer."""
    # to import optax takes a while, which only a user who has done so needs
    import optax

    return isinstance(override, optax.GradientTransformation)


def _by_optax(graph: FactorGraph, name: str, terms: Sequence[int], optimizer) -> Maximizer:
    def init(params):
        # the optimizer's state is of the coordinates in which it steps
        bijection = biject_to(graph.parameters[name].constraint)
        return optimizer.init(jnp.ravel(bijection.inv(params[name])))

    def update(params, state, constants, statistics):
        start, rebuild, objective = along_unconstrained(
            graph, (name,), params, constants, statistics, terms
        )
        # one step for each EM step, as the optimizer's learning rate is meant
        end, _, state = ascend(optimizer, state, objective, start, 1)
        return rebuild(end), state

    return Maximizer(
        (name,),
        "optax",
        ("asked for: one step of the given optimizer, shortened if it would decrease Q",),
        update,
        init,
        turn=Turn.ASKED_FOR,
        is_iterated=True,
        is_partial=True,
        gap=partial(gap_of, graph, (name,), terms),
    )


def _by_function(graph: FactorGraph, name: str, terms: Sequence[int], function: Callable):
    def proposed(params, constants, statistics):
        """Return the function's proposal, and Q where the parameter is and there."""

        def objective(value):
            there = {**params, name: value}
            return expected_log_likelihood(graph, there, constants, statistics, terms)

        value = params[name]
        with function_explained(f"m_step['{name}']"):
            proposal = jnp.asarray(function(value, objective), value.dtype)
        if proposal.shape != value.shape:
            raise ValueError(
                f"m_step['{name}'] returns an array of shape {proposal.shape}, and '{name}' has "
                f"shape {value.shape}: (value, objective) -> new value."
            )
        return proposal, objective(value), objective(proposal)

    def update(params, state, constants, statistics):
        # the loop promises that the objective does not decrease, whatever the user's function does
        proposal, before, after = proposed(params, constants, statistics)
        return {name: jnp.where(after >= before, proposal, params[name])}, state

    def gap(params, constants, statistics, is_wanted):
        left = gap_of(graph, (name,), terms, params, constants, statistics, is_wanted)
        # a function may keep to a part of the space on purpose; one whose proposal is worse fails
        _, before, after = proposed(params, constants, statistics)
        has_failed = ~(before - after <= negligible_gain(before))
        return Gap(left.slope, jnp.where(has_failed, left.gain, 0))

    return Maximizer(
        (name,),
        "user",
        ("asked for: the given function; a proposal that would decrease Q is not taken",),
        update,
        turn=Turn.ASKED_FOR,
        gap=gap,
    )
