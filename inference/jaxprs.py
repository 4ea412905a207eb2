"""Small operations on jaxprs: prune, rearrange, split by what depends on parameters."""

from __future__ import annotations

from collections.abc import Callable

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters import partial_eval as pe


def rearranged(jaxpr: Jaxpr, **changes) -> Jaxpr:
    """Return a jaxpr with other inputs, outputs or equations; names of arguments do not survive that."""
    return jaxpr.replace(**changes, debug_info=jaxpr.debug_info.with_unknown_names())


def pruned(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Return a jaxpr without the equations that its outputs do not need."""
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


def split_jaxpr(closed: ClosedJaxpr, num_params: int, stays: Callable = lambda eqn: False) -> tuple[ClosedJaxpr, ClosedJaxpr]:
    """Split f(params, *data) into known(*data) → constants and unknown(params, *constants) → outputs.

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
    needed = list(dict.fromkeys(v for v in [v for eqn in unknown_eqns for v in eqn.invars] + list(jaxpr.outvars)
                                if not isinstance(v, Literal) and v not in dependent and v not in constvars))
    known = rearranged(jaxpr, invars=data, outvars=needed, eqns=known_eqns)
    unknown = rearranged(jaxpr, invars=[*params, *needed], outvars=jaxpr.outvars, eqns=unknown_eqns)
    return ClosedJaxpr(known, closed.consts), ClosedJaxpr(unknown, closed.consts)
