"""From tables back to parameters: which entry of which parameter is each cell of a table?

If only data-moving primitives lie between a parameter and a distribution's argument, running them
on the numbers of the parameters' entries gives that map; adding expected statistics up over it is
all that tied and shared parameters need. Otherwise the first primitive that computes something is
what the plan names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from emjax.numerics.arrays import LARGEST_KNOWN
from emjax.numerics.guards import is_key
from emjax.numerics.jaxprs import interpreted
from emjax.numerics.primitives import Equation, Linear, traits
from emjax.tables.evaluation import evaluated

# the entry that a cell reads which reads no parameter
NONE = -1
# the operands that say where the others, which a primitive is linear in, are
PLACES = {
    Linear.FIRST: slice(1, None),
    Linear.FIRST_TWO: slice(2, None),
    Linear.BUT_FIRST: slice(0, 1),
    Linear.BUT_SECOND: slice(1, 2),
}


@dataclass(frozen=True, eq=False)
class Wire:
    """What a table depends on.

    - `parameters`: the parameters that its cells are functions of.
    - `entries`: the number of the parameter entry that each cell is (−1: none); None if the table
      is computed.
    - `primitive`: the first primitive that computes something, "" if there is none.
    - `affine`: whether the cells are affine functions of the parameters.
    - `value`: the table itself, if it is known.
    """

    parameters: frozenset[str] = frozenset()
    entries: np.ndarray | None = None
    primitive: str = ""
    affine: bool = True
    value: np.ndarray | None = field(default=None, repr=False)


def wires(
    closed: ClosedJaxpr,
    offsets: Mapping[str, int],
    names: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[Wire]:
    """Return the wire of every output of f(params by name, *data).

    `offsets`: the number of each parameter's first entry; entries are numbered consecutively in C
    order.
    """
    params = []
    for name in names:
        numbers = offsets[name] + np.arange(math.prod(shapes[name])).reshape(shapes[name])
        params.append(Wire(frozenset({name}), np.asarray(numbers)))
    data = [Wire()] * (len(closed.jaxpr.invars) - len(params))
    consts = [constant_wire(value) for value in closed.consts]
    return interpreted(closed.jaxpr, [*consts, *params, *data], literal_wire, _equation)


def literal_wire(atom: Literal) -> Wire:
    aval: Any = atom.aval
    return Wire(value=np.asarray(atom.val, aval.dtype))


def constant_wire(value) -> Wire:
    is_known = np.size(value) <= LARGEST_KNOWN and not is_key(value)
    return Wire(value=np.asarray(value)) if is_known else Wire()


def _equation(eqn: Equation, inputs: list[Wire]) -> list[Wire]:
    parameters = frozenset().union(*(wire.parameters for wire in inputs))
    if not parameters:
        return free_of_parameters(eqn, inputs)
    affine = _is_affine(eqn, inputs)
    # the plan names the first primitive that computes, not the last
    computed_by = next((wire.primitive for wire in inputs if wire.primitive), "")
    entries: Any = None
    if not computed_by:
        entries = moved_entries(eqn, inputs)
        computed_by = eqn.primitive.name if entries is None else ""
    if entries is None:
        return [Wire(parameters, None, computed_by, affine)] * len(eqn.outvars)
    return [Wire(parameters, moved, computed_by, affine) for moved in entries]


def free_of_parameters(eqn: Equation, inputs: list[Wire]) -> list[Wire]:
    """Return the wires of what is computed without parameters: known ones, where that is cheap."""
    unknown = [Wire()] * len(eqn.outvars)
    if any(wire.value is None for wire in inputs):
        return unknown
    if max((_size(var) for var in eqn.outvars), default=0) > LARGEST_KNOWN:
        return unknown
    is_real = any(jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in eqn.outvars)
    if is_real and not traits(eqn).copies:
        return unknown  # nothing is looked up at a computed real number
    results = evaluated(eqn, *(wire.value for wire in inputs))
    results = results if eqn.primitive.multiple_results else [results]
    return [Wire() if is_key(result) else Wire(value=np.asarray(result)) for result in results]


def moved_entries(eqn: Equation, inputs: list[Wire]) -> list[np.ndarray] | None:
    """Return the entries that a data-moving primitive moves, for each of its results.

    None if it is no such primitive, or where it moves them to depends on data.
    """
    if not traits(eqn).copies or _is_rounding(eqn):
        return None
    places = _places(eqn, inputs)
    if any(wire.value is None for wire in places):
        return None
    arrays = []
    for wire, atom in zip(inputs, eqn.invars, strict=True):
        if any(wire is place for place in places):
            arrays.append(wire.value)
        elif wire.parameters:
            arrays.append(wire.entries)
        elif _size(atom) <= LARGEST_KNOWN:
            # cells that are data or constants read no parameter
            arrays.append(np.full(atom.aval.shape, NONE))
        else:
            return None
    if eqn.primitive.name == "convert_element_type":
        return arrays[:1]  # the numbers of entries stay integers
    with jax.ensure_compile_time_eval():
        results = evaluated(eqn, *arrays)
    return list(map(np.asarray, results if eqn.primitive.multiple_results else [results]))


def _places(eqn: Equation, inputs: list[Wire]) -> list[Wire]:
    """Return those operands that say which entries of the others a primitive copies."""
    which = PLACES.get(traits(eqn).linear)
    return [] if which is None else inputs[which]


def _is_rounding(eqn: Equation) -> bool:
    """Whether an equation takes the whole part of its input."""
    is_conversion = eqn.primitive.name == "convert_element_type"
    return is_conversion and not jnp.issubdtype(eqn.params["new_dtype"], jnp.inexact)


def _is_affine(eqn: Equation, inputs: list[Wire]) -> bool:
    """Whether an equation's outputs are affine functions of the parameters."""
    linear = traits(eqn).linear
    dependent = [wire for wire in inputs if wire.parameters]
    if linear is Linear.NONE or _is_rounding(eqn) or not all(w.affine for w in dependent):
        return False
    # a product of two that both depend on parameters is quadratic
    if linear is Linear.ANY_ONE:
        return len(dependent) == 1
    return not any(wire.parameters for wire in _places(eqn, inputs))


def _size(atom) -> int:
    return math.prod(atom.aval.shape)
