"""A program at two lengths, walked side by side: the same but for the length of its row axes?

A row axis is one that is as long as the data in either. Equations, numbers and parameters of
primitives are compared one by one; where rows go is left to the rules of `row_axes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from emjax.numerics.guards import is_key
from emjax.numerics.primitives import Equation, Kind, traits
from emjax.program.row_axes import Axis, RowsMeet, row_axes

# parameters of primitives that say how long axes are, as the shapes of operands and results do
SIZES = {
    "broadcast_in_dim": "shape",
    "reshape": "new_sizes",
    "iota": "shape",
    "latent": "shape",
    "slice": "limit_indices",
    "dynamic_slice": "slice_sizes",
    "gather": "slice_sizes",
}
# what has rows where none of its operands does: a number for all rows, their numbers, latents
SOURCES = ("broadcast_in_dim", "iota", "latent")
# derivatives of a function, which follow from it: they are other objects in each trace
DERIVATIVES = ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees")
CONTROL_FLOW = ("scan", "while", "cond")


def require(condition: bool, reason: str) -> None:
    """Raise `RowsMeet` for a reason unless a condition holds."""
    if not condition:
        raise RowsMeet(reason)


class Value(NamedTuple):
    """What is known of a variable.

    - `padded`: its counterpart in the padded program.
    - `axis`: along which its rows lie; None: it has none.
    - `vanishes`: whether it is zero, of each row of weight zero.
    """

    padded: Any
    axis: Axis
    vanishes: bool


@dataclass(frozen=True, eq=False)
class Comparison:
    """A program at two lengths, walked side by side.

    - `rows`: how many rows there are of the group that is looked at, here and in the padded
      program.
    - `lengths`: those of all groups.
    """

    rows: tuple[int, int] | None
    lengths: frozenset[tuple[int, int]]

    def axis(self, shape: Sequence[int], padded: Sequence[int]) -> Axis:
        """Return the row axis of arrays of two shapes.

        Errors: `RowsMeet` where another axis differs, or two have rows.
        """
        if shape == padded:
            return None
        require(len(shape) == len(padded), "the numbers of axes differ")
        sizes = list(zip(shape, padded, strict=True))
        is_known = all(a == b or (a, b) in self.lengths for a, b in sizes)
        require(is_known, f"{shape} and {padded} differ by more than rows")
        axes = [axis for axis, pair in enumerate(sizes) if pair == self.rows]
        require(len(axes) <= 1, "rows meet rows")
        return axes[0] if axes else None

    # ── what is computed ──────────────────────────────────────────────────────────────────────────

    def outputs(
        self, closed: ClosedJaxpr, padded: ClosedJaxpr, vanishes: Sequence[bool]
    ) -> list[Value]:
        """Return what is known of the outputs. `vanishes`: of the inputs. Errors: `RowsMeet`."""
        jaxpr, other = closed.jaxpr, padded.jaxpr
        values: dict[Any, Value] = {}
        require(len(jaxpr.eqns) == len(other.eqns), "the numbers of equations differ")
        require(len(closed.consts) == len(padded.consts), "the numbers of constants differ")
        for constants in zip(closed.consts, padded.consts, strict=True):
            self._check_constant(*constants)
        for var, padded_var in zip(jaxpr.constvars, other.constvars, strict=True):
            values[var] = self._value(var, padded_var, False)
        for var, padded_var, flag in zip(jaxpr.invars, other.invars, vanishes, strict=True):
            values[var] = self._value(var, padded_var, flag)
        for eqn, padded_eqn in zip(jaxpr.eqns, other.eqns, strict=True):
            inputs = self._read(values, eqn.invars, padded_eqn.invars)
            results = self._results(eqn, padded_eqn, inputs)
            values.update(zip(eqn.outvars, results, strict=True))
        return self._read(values, jaxpr.outvars, other.outvars)

    def _value(self, var: Any, padded: Any, vanishes: bool) -> Value:
        is_same = (
            var.aval.dtype == padded.aval.dtype and var.aval.weak_type == padded.aval.weak_type
        )
        require(is_same, "types differ")
        return Value(padded, self.axis(var.aval.shape, padded.aval.shape), vanishes)

    def _read(self, values: Mapping, atoms: Sequence, padded: Sequence) -> list[Value]:
        require(len(atoms) == len(padded), "the numbers of operands differ")
        read = []
        for atom, other in zip(atoms, padded, strict=True):
            if isinstance(atom, Literal):
                require(isinstance(other, Literal), "a number is computed at another length")
                self._check_constant(atom.val, other.val)
                read.append(self._value(atom, other, False))
            else:
                value = values[atom]
                require(value.padded is other, "equations read other variables")
                read.append(value)
        return read

    def _check_constant(self, array: Any, padded: Any) -> None:
        """Raise `RowsMeet` for numbers that differ where both have them."""
        if array is padded:
            return
        if is_key(array) and is_key(padded):
            array, padded = jax.random.key_data(array), jax.random.key_data(padded)
        array, padded = np.asarray(array), np.asarray(padded)
        require(array.ndim == padded.ndim, "the numbers of axes differ")
        # where else they may differ in length, the shapes of the variables say
        common = padded[tuple(slice(size) for size in array.shape)]
        is_number = array.dtype.kind in "fc"
        require(np.array_equal(array, common, equal_nan=is_number), "a number differs")
        # a row that is added is a copy of the first in all that is said of it
        for axis, size in enumerate(array.shape):
            added = np.take(padded, range(size, padded.shape[axis]), axis)
            first = np.broadcast_to(np.take(padded, [0], axis), added.shape) if size else added
            require(np.array_equal(added, first, equal_nan=is_number), "rows are told apart")

    def _results(self, eqn: Equation, padded: Equation, inputs: list[Value]) -> list[Value]:
        """Return what is known of an equation's results."""
        require(eqn.primitive is padded.primitive, "primitives differ")
        require(len(eqn.outvars) == len(padded.outvars), "the numbers of results differ")
        name, kind = eqn.primitive.name, traits(padded).kind
        called = self._compare_params(eqn, padded, inputs)
        vanishes = [self._vanishes(padded, inputs)] * len(eqn.outvars)
        if called and kind in (Kind.CALLS, Kind.DERIVES):
            vanishes = [output.vanishes for output in called]
        outvars = zip(eqn.outvars, padded.outvars, vanishes, strict=True)
        results = [self._value(*pair) for pair in outvars]
        # a row that is added would have a number that no row of the data has
        is_numbered = name == "iota" and results[0].axis == eqn.params["dimension"]
        require(not is_numbered, "rows are numbered")
        # rows go in and out as they do in what is called, whose equations have been looked at
        if called and (name in CONTROL_FLOW or kind in (Kind.CALLS, Kind.DERIVES)):
            return results
        axes = [value.axis for value in inputs]
        has_rows = any(axis is not None for axis in axes)
        expected = row_axes(padded, axes) if has_rows else [None] * len(results)
        for result, axis in zip(results, expected, strict=True):
            is_source = axis is None and name in SOURCES
            require(is_source or result.axis == axis, f"{name} moves rows")
        return results

    def _vanishes(self, eqn: Equation, inputs: list[Value]) -> bool:
        """Return whether a result is zero where the weights are."""
        if eqn.primitive.name == "mul":
            return any(value.vanishes for value in inputs)
        # copies of the one operand, somewhere else
        return len(inputs) == 1 and traits(eqn).copies and inputs[0].vanishes

    def _compare_params(self, eqn: Equation, padded: Equation, inputs: list[Value]) -> list[Value]:
        """Return the outputs of the last jaxpr among an equation's parameters, if it has any.

        Errors: `RowsMeet` for parameters that differ by more than the number of rows.
        """
        name, called = eqn.primitive.name, []
        require(eqn.params.keys() == padded.params.keys(), "parameters of primitives differ")
        for key, param in eqn.params.items():
            other = padded.params[key]
            jaxprs = list(_jaxprs(param))
            if jaxprs:
                others = list(_jaxprs(other))
                require(len(jaxprs) == len(others), "the numbers of branches differ")
                for closed, padded_closed in zip(jaxprs, others, strict=True):
                    called = self._called(eqn, closed, padded_closed, inputs)
            elif SIZES.get(name) != key and key not in DERIVATIVES:
                require(_equal(param, other), f"{key} of {name} differs")
        return called

    def _called(self, eqn: Equation, closed, padded, inputs: list[Value]) -> list[Value]:
        num_inputs = len(closed.jaxpr.invars)
        require(num_inputs == len(padded.jaxpr.invars), "the numbers of inputs differ")
        flags = [False] * num_inputs
        if traits(eqn).kind in (Kind.CALLS, Kind.DERIVES) and num_inputs == len(inputs):
            flags = [value.vanishes for value in inputs]
        return self.outputs(closed, padded, flags)


def _jaxprs(param: Any) -> Iterator[ClosedJaxpr]:
    """Yield the jaxprs that a parameter of a primitive is, or holds."""
    for part in param if isinstance(param, tuple) else (param,):
        if isinstance(part, Jaxpr):
            yield ClosedJaxpr(part, ())
        elif isinstance(part, ClosedJaxpr):
            yield part


def _equal(one: Any, other: Any) -> bool:
    """Return whether parameters of primitives are equal; what cannot be compared is not."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and one != one:
        return other != other
    try:
        return bool(one == other)
    except (TypeError, ValueError):
        return False
