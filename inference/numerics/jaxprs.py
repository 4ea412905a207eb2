"""Small operations on jaxprs: inline their calls, prune, rearrange, split by what depends on
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxprs_in_params
from jax.interpreters import partial_eval as pe

# calls that have derivatives of their own
WITH_DERIVATIVES = {"custom_jvp_call", "custom_vjp_call"}
CALLS = WITH_DERIVATIVES | {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_lin",
}


def inlined(closed: ClosedJaxpr, kept: Set[str] = frozenset()) -> ClosedJaxpr:
    """Return a jaxpr with the equations of what its calls call in their place, those `kept`
    aside.
    """
    constants, equations = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True)), []

    def run(jaxpr: Jaxpr, known: dict) -> list:
        """Add the equations of a jaxpr under new names, and return the new names of its outputs."""

        def read(atom):
            return atom if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            arguments = [read(atom) for atom in eqn.invars]
            if eqn.primitive.name in CALLS - kept:
                callee = next(
                    eqn.params[key]
                    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr")
                    if key in eqn.params
                )
                inner = callee.jaxpr if isinstance(callee, ClosedJaxpr) else callee
                own = [Var(var.aval) for var in inner.constvars]
                constants.update(zip(own, callee.consts if own else (), strict=True))
                outputs = run(
                    inner,
                    dict(zip([*inner.constvars, *inner.invars], [*own, *arguments], strict=True)),
                )
            else:
                outputs = [Var(var.aval) for var in eqn.outvars]
                equations.append(eqn.replace(invars=arguments, outvars=outputs))
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    outer = closed.jaxpr
    outputs = run(outer, {var: var for var in (*outer.constvars, *outer.invars)})
    return ClosedJaxpr(
        rearranged(outer, constvars=list(constants), eqns=equations, outvars=outputs),
        list(constants.values()),
    )


def dependencies(jaxpr: Jaxpr, sources: Mapping[Var, object]) -> dict[Var, frozenset]:
    """Return which of the `sources` {variable: label} each variable depends on; those absent depend
    on none.
    """
    found = {var: frozenset({label}) for var, label in sources.items()}
    for eqn in jaxpr.eqns:
        joint = frozenset().union(
            *(found.get(v, frozenset()) for v in eqn.invars if not isinstance(v, Literal))
        )
        found.update({var: joint | found.get(var, frozenset()) for var in eqn.outvars})
    return found


def primitives(equations: Sequence) -> set[str]:
    """Return the names of the primitives of equations, and of what they call."""
    return {eqn.primitive.name for eqn in equations}.union(
        *(primitives(inner.eqns) for eqn in equations for inner in jaxprs_in_params(eqn.params))
    )


def rearranged(jaxpr: Jaxpr, **changes) -> Jaxpr:
    """Return a jaxpr with other inputs, outputs or equations; names of arguments do not survive
    that.
    """
    return jaxpr.replace(**changes, debug_info=jaxpr.debug_info.with_unknown_names())


def pruned(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Return a jaxpr without the equations that its outputs do not need."""
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


def split_jaxpr(
    closed: ClosedJaxpr, num_params: int, stays: Callable = lambda eqn: False
) -> tuple[ClosedJaxpr, ClosedJaxpr]:
    """Split f(params, *data) into known(*data) → constants and unknown(params, *constants) →
    outputs.

    `stays`: equations that are left in `unknown` though they are free of the params.
    """
    jaxpr = pruned(closed).jaxpr
    params, data = jaxpr.invars[:num_params], jaxpr.invars[num_params:]
    dependent = set(params)
    known_eqns, unknown_eqns = [], []
    for eqn in jaxpr.eqns:
        if stays(eqn) or any(not isinstance(v, Literal) and v in dependent for v in eqn.invars):
            dependent.update(eqn.outvars)
            unknown_eqns.append(eqn)
        else:
            known_eqns.append(eqn)
    constvars = set(jaxpr.constvars)
    needed = list(
        dict.fromkeys(
            v
            for v in [v for eqn in unknown_eqns for v in eqn.invars] + list(jaxpr.outvars)
            if not isinstance(v, Literal) and v not in dependent and v not in constvars
        )
    )
    known = rearranged(jaxpr, invars=data, outvars=needed, eqns=known_eqns)
    unknown = rearranged(jaxpr, invars=[*params, *needed], outvars=jaxpr.outvars, eqns=unknown_eqns)
    return ClosedJaxpr(known, closed.consts), ClosedJaxpr(unknown, closed.consts)
