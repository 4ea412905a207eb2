"""From tables back to parameters: which entry of which parameter is each cell of a table?

If only data-moving primitives lie between a parameter and a distribution's argument, running them
on the numbers of the parameters' entries gives that map; adding expected statistics up over it is
all that tied and shared parameters need. Otherwise the first primitive that computes something is
what the plan names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from emjax.numerics.guards import is_key
from emjax.tables.moves import MOVES
from emjax.tables.propagate import bind

MOVING = {
    *MOVES,
    "concatenate",
    "gather",
    "select_n",
    "copy",
    "copy_p",
    "convert_element_type",
    "dynamic_slice",
    "stack",
}
LINEAR = MOVING | {
    "add",
    "add_any",
    "sub",
    "neg",
    "reduce_sum",
    "mul",
    "div",
    "dot_general",
    "cumsum",
}
LARGEST_KNOWN = 2**22


@dataclass(frozen=True, eq=False)
class Wire:
    """What a table depends on: `parameters`; `entries`, the number of the parameter entry in each
    cell (−1: none), or None if the table is computed, by `primitive`; whether it is `affine` in the
    parameters; its `value`, if it is known.
    """

    parameters: frozenset[str] = frozenset()
    entries: np.ndarray | None = None
    primitive: str = ""
    affine: bool = True
    value: np.ndarray | None = field(default=None, repr=False)


def wires(jaxpr: ClosedJaxpr, offsets: Mapping[str, int], names, shapes) -> list[Wire]:
    """Return the wire of every output of f(params by name, *data).

    `offsets`: the number of each parameter's first entry; entries are numbered consecutively in C
    order.
    """
    inputs = []
    for name in names:
        size = int(np.prod(shapes[name], dtype=int))
        inputs.append(
            Wire(
                frozenset({name}), np.asarray(offsets[name] + np.arange(size).reshape(shapes[name]))
            )
        )
    inputs += [Wire()] * (len(jaxpr.jaxpr.invars) - len(inputs))
    consts = [
        Wire(value=np.asarray(c)) if np.size(c) <= LARGEST_KNOWN and not is_key(c) else Wire()
        for c in jaxpr.consts
    ]
    return _run(jaxpr.jaxpr, consts, inputs)


def _run(jaxpr: Jaxpr, consts, inputs) -> list[Wire]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

    def read(atom) -> Wire:
        return (
            Wire(value=np.asarray(atom.val, atom.aval.dtype))
            if isinstance(atom, Literal)
            else known[atom]
        )

    for eqn in jaxpr.eqns:
        known.update(
            zip(eqn.outvars, _equation(eqn, [read(atom) for atom in eqn.invars]), strict=True)
        )
    return [read(atom) for atom in jaxpr.outvars]


def _equation(eqn, values: list[Wire]) -> list[Wire]:
    name = eqn.primitive.name
    parameters = frozenset().union(*(value.parameters for value in values))
    if not parameters:
        return _free_of_parameters(eqn, values)
    first = next((value.primitive for value in values if value.primitive), "")
    affine = _is_affine(eqn, values)
    wire = Wire(parameters, None, first or name, affine)
    if name in MOVING and not first and not _is_rounding(eqn):
        entries = _moved(eqn, values)
        wire = Wire(parameters, entries, "" if entries is not None else name, affine)
    return [wire] * len(eqn.outvars)


def _free_of_parameters(eqn, values) -> list[Wire]:
    size = max((int(np.prod(var.aval.shape, dtype=int)) for var in eqn.outvars), default=0)
    if any(value.value is None for value in values) or size > LARGEST_KNOWN:
        return [Wire()] * len(eqn.outvars)
    if (
        any(jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in eqn.outvars)
        and eqn.primitive.name not in MOVING
    ):
        return [Wire()] * len(eqn.outvars)  # nothing is looked up at a computed real number
    results = bind(eqn, *(value.value for value in values))
    results = results if eqn.primitive.multiple_results else [results]
    return [Wire() if is_key(r) else Wire(value=np.asarray(r)) for r in results]


def _moved(eqn, values: list[Wire]) -> np.ndarray | None:
    """Run a data-moving primitive on entry numbers; None if where it moves them to depends
    on data.
    """
    name = eqn.primitive.name
    moving = {"gather": values[1:], "select_n": values[:1], "dynamic_slice": values[1:]}.get(
        name, []
    )
    if any(value.value is None for value in moving):
        return None
    arrays = []
    for value, atom in zip(values, eqn.invars, strict=True):
        if any(value is m for m in moving):
            arrays.append(value.value)
        elif value.parameters:
            arrays.append(value.entries)
        else:
            if int(np.prod(atom.aval.shape, dtype=int)) > LARGEST_KNOWN:
                return None
            arrays.append(np.full(atom.aval.shape, -1))
    with jax.ensure_compile_time_eval():
        return arrays[0] if name == "convert_element_type" else np.asarray(bind(eqn, *arrays))


def _is_rounding(eqn) -> bool:
    """Whether an equation takes the whole part of its input."""
    return eqn.primitive.name == "convert_element_type" and not jnp.issubdtype(
        eqn.params["new_dtype"], jnp.inexact
    )


def _is_affine(eqn, values: list[Wire]) -> bool:
    name = eqn.primitive.name
    dependent = [value for value in values if value.parameters]
    if name not in LINEAR or _is_rounding(eqn) or not all(value.affine for value in dependent):
        return False
    if name in ("mul", "dot_general"):
        return len(dependent) == 1
    if name in ("div", "gather", "dynamic_slice"):
        return not any(value.parameters for value in values[1:])
    return not (name == "select_n" and values[0].parameters)
