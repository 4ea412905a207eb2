"""Small operations on jaxprs: prune, rearrange, split by what depends on parameters."""

from __future__ import annotations

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters import partial_eval as pe


def rearranged(jaxpr: Jaxpr, **changes) -> Jaxpr:
    """Return a jaxpr with other inputs, outputs or equations; names of arguments do not survive that."""
    return jaxpr.replace(**changes, debug_info=jaxpr.debug_info.with_unknown_names())


def pruned(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Return a jaxpr without the equations that its outputs do not need."""
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


def split_jaxpr(closed: ClosedJaxpr, num_params: int) -> tuple[ClosedJaxpr, ClosedJaxpr]:
    """Split f(params, *data) into known(*data) → constants and unknown(params, *constants) → outputs."""
    jaxpr = pruned(closed).jaxpr
    params, data = jaxpr.invars[:num_params], jaxpr.invars[num_params:]
    dependent = set(params)
    known_eqns, unknown_eqns = [], []
    for eqn in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in dependent for v in eqn.invars):
            dependent.update(eqn.outvars)
            unknown_eqns.append(eqn)
        else:
            known_eqns.append(eqn)
    constvars = set(jaxpr.constvars)
    needed: dict = {}
    for v in [v for eqn in unknown_eqns for v in eqn.invars] + list(jaxpr.outvars):
        if not isinstance(v, Literal) and v not in dependent and v not in constvars:
            needed[v] = None
    needed = list(needed)
    known = rearranged(jaxpr, invars=data, outvars=needed, eqns=known_eqns)
    inner = {v for eqn in unknown_eqns for v in eqn.outvars}
    residual = [v for v in needed if v not in inner]
    unknown = rearranged(jaxpr, invars=[*params, *residual], outvars=jaxpr.outvars, eqns=unknown_eqns)
    return ClosedJaxpr(known, closed.consts), ClosedJaxpr(unknown, closed.consts)
