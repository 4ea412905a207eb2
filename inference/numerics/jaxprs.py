"""Small operations on jaxprs: give their equations another meaning, inline calls, prune, split."""

from __future__ import annotations

import linecache
import math
import os
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpyro
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxprs_in_params
from jax.interpreters import partial_eval as pe

from emjax.numerics.primitives import Equation, Kind, traits


def bind(eqn: Equation, *arrays: Any) -> Any:
    """Return what an equation's primitive makes of arrays."""
    params = eqn.primitive.get_bind_params(eqn.params)
    return eqn.primitive.bind(*map(jnp.asarray, arrays), **params)


def interpreted(jaxpr: Jaxpr, inputs: Sequence, literal: Callable, equation: Callable) -> list:
    """Return the outputs of a jaxpr of which every variable holds something else than an array.

    - `inputs`: what its constants and its inputs hold.
    - `literal(atom)`: what a literal holds.
    - `equation(eqn, values)`: the list of what an equation's outputs hold, by what its inputs hold.
    """
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))

    def read(atom):
        return literal(atom) if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        outputs = equation(eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def inlined(closed: ClosedJaxpr, keep_derivatives: bool = False) -> ClosedJaxpr:
    """Return a jaxpr with the equations of what its calls call in their place.

    `keep_derivatives`: whether calls that have derivatives of their own stay.
    """
    kinds = (Kind.CALLS,) if keep_derivatives else (Kind.CALLS, Kind.DERIVES)
    constants = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    equations: list[Equation] = []

    def run(jaxpr: Jaxpr, inputs: Sequence, source: Any = None) -> list:
        """Add the equations of a jaxpr under new names, and return the new names of its outputs.

        `source`: where it is called.
        """
        return interpreted(
            jaxpr,
            inputs,
            lambda literal: literal,
            lambda eqn, values: equation(eqn, values, source),
        )

    def equation(eqn, arguments: list, source: Any) -> list:
        # what is called was traced where it was called first
        source = eqn.source_info if source is None else source
        if traits(eqn).kind not in kinds:
            outputs = [Var(var.aval) for var in eqn.outvars]
            equations.append(eqn.replace(invars=arguments, outvars=outputs, source_info=source))
            return outputs
        # JAX's calls name what they call differently
        callee = next(
            eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params
        )
        if not isinstance(callee, ClosedJaxpr):
            return run(callee, arguments, source)
        # one jaxpr may be called several times: every call gets names of its own
        constvars = [Var(var.aval) for var in callee.jaxpr.constvars]
        constants.update(zip(constvars, callee.consts, strict=True))
        return run(callee.jaxpr, [*constvars, *arguments], source)

    outer = closed.jaxpr
    outputs = run(outer, [*outer.constvars, *outer.invars])
    return ClosedJaxpr(
        rearranged(outer, constvars=list(constants), eqns=equations, outvars=outputs),
        list(constants.values()),
    )


def dependencies(jaxpr: Jaxpr, sources: Mapping[Var, Any]) -> dict[Var, frozenset]:
    """Return the labels of the sources that each variable depends on.

    A variable is a key where it depends on some source, and only there. `sources`: {variable: its
    label}.
    """
    labels = {var: frozenset({label}) for var, label in sources.items()}
    # equations are in an order in which each reads only what those before it define
    for eqn in jaxpr.eqns:
        inputs = _variables(eqn.invars)
        read = frozenset().union(*(labels.get(var, frozenset()) for var in inputs))
        # callers ask whether a variable is a key: what depends on nothing must be none
        if not read:
            continue
        # a source may be the output of an equation itself
        labels.update({var: read | labels.get(var, frozenset()) for var in eqn.outvars})
    return labels


def output_dependencies(jaxpr: Jaxpr, sources: Mapping[Var, Any]) -> list[frozenset]:
    """Return the labels of the sources that each output depends on."""
    labels = dependencies(jaxpr, sources)
    return [
        frozenset() if isinstance(var, Literal) else labels.get(var, frozenset())
        for var in jaxpr.outvars
    ]


def primitive_names(equations: Sequence[Equation]) -> set[str]:
    """Return the names of the primitives of equations, and of what they call."""
    names = set()
    for eqn in equations:
        names.add(eqn.primitive.name)
        for callee in jaxprs_in_params(eqn.params):
            names |= primitive_names(callee.eqns)
    return names


def rearranged(jaxpr: Jaxpr, **changes: Any) -> Jaxpr:
    """Return a jaxpr with other inputs, outputs or equations."""
    # names of arguments do not survive that: JAX checks that there are as many as inputs
    return jaxpr.replace(**changes, debug_info=jaxpr.debug_info.with_unknown_names())


def pruned(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Return a jaxpr without the equations that its outputs do not need."""
    # `instantiate`: the inputs stay, whether they are needed or not
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


def opened(jaxpr: Jaxpr, primitive: Any) -> tuple[Jaxpr, list[Equation]]:
    """Return a jaxpr that takes the outputs of a primitive as more inputs, and its equations.

    The outputs come after all other inputs, in the order of the equations.
    """
    symbols = [eqn for eqn in jaxpr.eqns if eqn.primitive is primitive]
    return (
        rearranged(
            jaxpr,
            invars=[*jaxpr.invars, *(eqn.outvars[0] for eqn in symbols)],
            eqns=[eqn for eqn in jaxpr.eqns if eqn.primitive is not primitive],
        ),
        symbols,
    )


def split_jaxpr(
    closed: ClosedJaxpr, num_params: int, is_cheap: Callable[[Equation], bool] = lambda eqn: False
) -> tuple[ClosedJaxpr, ClosedJaxpr]:
    """Return the two halves of f(params, *data): known(*data) and unknown(params, *constants).

    The first returns the constants that the second, which returns what f does, needs of it.
    `is_cheap`: equations that the second does again, rather than read what they make, and with
    them those that only spread it.
    """
    jaxpr = pruned(closed).jaxpr
    params, data = jaxpr.invars[:num_params], jaxpr.invars[num_params:]
    dependent = set(params)
    known_eqns, unknown_eqns = [], []
    for eqn in jaxpr.eqns:
        if any(var in dependent for var in _variables(eqn.invars)):
            dependent.update(eqn.outvars)
            unknown_eqns.append(eqn)
        else:
            known_eqns.append(eqn)
    read = {var for eqn in unknown_eqns for var in _variables(eqn.invars)}
    read.update(_variables(jaxpr.outvars))
    unknown_eqns = _made_again(known_eqns, read, is_cheap) + unknown_eqns
    made = {var for eqn in unknown_eqns for var in eqn.outvars}
    computed = [var for eqn in unknown_eqns for var in _variables(eqn.invars)]
    computed += _variables(jaxpr.outvars)
    # both halves keep the constants of the whole
    left_out = {*params, *made, *jaxpr.constvars}
    constants = [var for var in dict.fromkeys(computed) if var not in left_out]
    known = rearranged(jaxpr, invars=data, outvars=constants, eqns=known_eqns)
    unknown = rearranged(
        jaxpr, invars=[*params, *constants], outvars=jaxpr.outvars, eqns=unknown_eqns
    )
    return pruned(ClosedJaxpr(known, closed.consts)), ClosedJaxpr(unknown, closed.consts)


def _variables(atoms: Sequence) -> list[Var]:
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _size(var: Var) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _made_again(
    equations: Sequence[Equation], read: set[Var], is_cheap: Callable[[Equation], bool]
) -> list[Equation]:
    """Return the equations that are cheap, or only spread what those make.

    These make what is longer than all else that they read. Returned are those that the variables
    `read` are computed from.
    """
    cheap: set[Var] = set()
    chosen = []
    for eqn in equations:
        others = [_size(var) for var in _variables(eqn.invars) if var not in cheap]
        is_longer = max(map(_size, eqn.outvars)) > max(others, default=0)
        if is_cheap(eqn) or (is_longer and cheap.intersection(_variables(eqn.invars))):
            cheap.update(eqn.outvars)
            chosen.append(eqn)
    needed, again = set(read), []
    for eqn in reversed(chosen):
        if needed.intersection(eqn.outvars):
            needed.update(_variables(eqn.invars))
            again.append(eqn)
    return again[::-1]


def line_of(eqn: Equation) -> str:
    """Return the line of the user's program that an equation stands for, "" if that is unknown."""
    traceback = eqn.source_info.traceback
    if traceback is None:
        return ""
    lines = [line for line in _lines(traceback.as_python_traceback()) if not _is_ours(line[0])]
    if not lines:
        return ""
    file, number = lines[-1]
    text = linecache.getline(file, number).strip()
    where = f"line {number} of {os.path.basename(file)}"
    return f"`{text}` ({where})" if text else where


def _lines(traceback: Any) -> Iterator[tuple[str, int]]:
    """Yield file and line of each call of a traceback, the innermost last."""
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_ours(file: str) -> bool:
    """Whether a file is no user's: JAX's, NumPyro's, ours, or of Python itself."""
    if "site-packages" not in file and file.startswith(sysconfig.get_path("stdlib")):
        return True
    return any(Path(file).is_relative_to(root) for root in _libraries())


@cache
def _libraries() -> tuple[Path, ...]:
    files = (jax.__file__, jaxlib.__file__, numpyro.__file__, os.path.dirname(__file__))
    return tuple(Path(file).parent for file in files)
