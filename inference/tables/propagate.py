"""Walk a program's jaxpr with compact named values: which latents and rows does each value depend
on?

Data-moving primitives act on a table and on the indices of its axes alike; a gather turns each
piece of its index into a named axis, so that `confusion[annotator, truth[item]]` stays the table
`confusion` however many rows there are. Elementwise primitives act on tables. Other primitives are
evaluated under `vmap` over the named axes. What comes out is exact: the value at every position,
for every value of the latents that it reads.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from emjax.numerics.arrays import evaluate
from emjax.numerics.jaxprs import WITH_DERIVATIVES, inlined, rearranged
from emjax.tables.lifting import lift
from emjax.tables.lookup import Reach, as_lookup, index_columns, look_up, reach, select_rows
from emjax.tables.mixing import dot_general, mapped, reduction
from emjax.tables.moves import MOVES, Joined, carried_out, move
from emjax.tables.named import Named, constant

REDUCTIONS = {
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_and",
    "reduce_or",
    "reduce_xor",
    "argmax",
    "argmin",
}
ALONG_ONE_AXIS = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
LOOKUPS = {"gather", "dynamic_slice"}
MATRIX = {
    "cholesky",
    "triangular_solve",
    "lu",
    "eigh",
    "eig",
    "svd",
    "qr",
    "householder_product",
    "geqrf",
}
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e", "cbrt",
    "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "eq_to", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "integer_pow", "is_finite", "le",
    "le_to", "lgamma", "log", "log1p", "logistic", "lt", "lt_to", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or",
    "optimization_barrier", "polygamma", "population_count", "pow", "real", "imag", "reduce_precision", "regularized_incomplete_beta",
    "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
}  # fmt: skip


def propagate(
    jaxpr: Jaxpr, inputs: Sequence[Named], estimated: Container[Var] = ()
) -> tuple[list[Named], dict[Var, list[Reach]]]:
    """Return the named value of every output of a jaxpr (without constants) for named inputs; and,
    by the variables that lookups define, where their indices are out of range. `estimated`: the
    variables that depend on parameters.

    Equal expressions are computed once. Raises `MixedElements` where a table over single latent
    elements cannot hold a value.
    """
    interpreter = _Interpreter(estimated)
    return interpreter.run(jaxpr, list(inputs)), interpreter.reached


class _Interpreter:
    def __init__(self, estimated: Container[Var]):
        self.estimated = estimated
        self.literals: dict = {}
        self.seen: dict = {}
        self.alive: list = []
        self.contents: dict = {}
        self.reached: dict[Var, list[Reach]] = {}

    def run(self, jaxpr: Jaxpr, inputs: list) -> list[Named]:
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom):
            return self.literal(atom) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            outputs = self.equation(eqn, [read(atom) for atom in eqn.invars])
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [carried_out(read(atom)) for atom in jaxpr.outvars]

    def literal(self, atom: Literal) -> Named:
        key = (str(atom.aval), np.asarray(atom.val).tobytes())
        if key not in self.literals:
            self.literals[key] = constant(np.asarray(atom.val, dtype=atom.aval.dtype))
        return self.literals[key]

    def equation(self, eqn, values: list) -> list:
        name = eqn.primitive.name
        if name == "custom_linear_solve":
            return self.linear_solve(eqn, values)
        if name in WITH_DERIVATIVES:
            return self.with_derivatives(eqn, values)
        key = (
            name,
            str(sorted(eqn.params.items(), key=lambda item: item[0])),
            tuple(id(value) for value in values),
        )
        if key not in self.seen:
            rows = self.selected_rows(eqn, values) if name == "select_n" else None
            outputs = apply(eqn, values) if rows is None else rows
            if name in ELEMENTWISE and rows is None:
                outputs = self.identified(eqn, values, outputs)
            found = reach(eqn, values[0], values[1:]) if name in LOOKUPS else []
            self.seen[key] = list(outputs) if eqn.primitive.multiple_results else [outputs], found
            self.alive.append(values)
        outputs, found = self.seen[key]
        if found:
            self.reached[eqn.outvars[0]] = found
        return outputs

    def selected_rows(self, eqn, values: list) -> Named | None:
        """Return a choice that does not move with the parameters as rows of a table."""
        predicate = eqn.invars[0]
        if not isinstance(predicate, Literal) and predicate in self.estimated:
            return None
        predicate, *cases = map(carried_out, values)
        return (
            None
            if known_case(predicate) is not None
            else select_rows(
                predicate.padded(len(cases[0].shape)), cases, tuple(eqn.outvars[0].aval.shape)
            )
        )

    def identified(self, eqn, values: list, output: Named) -> Named:
        """Give equal functions of equal content equal content, so that indices that a program
        computes twice are known to be equal.
        """
        if any(isinstance(value, Joined) for value in values):
            return output
        large = [value for value in values if value.array.size > 1]
        if any(
            value.array.size != output.array.size
            or [axis.key for axis in value.axes] != [axis.key for axis in output.axes]
            for value in large
        ):
            return output
        key = (
            eqn.primitive.name,
            str(eqn.params),
            str(output.array.dtype),
            tuple(value.content for value in values),
        )
        return replace(output, root=self.contents.setdefault(key, output.content))

    def with_derivatives(self, eqn, values: list) -> list:
        """Return the results of a call that has derivatives of its own: they are kept, unless a
        latent takes part, whose table is then compact.
        """
        whole = [carried_out(value) for value in values]
        if any(value.latent_axes for value in whole):
            return self.call(eqn.params["call_jaxpr"], values)
        return mapped(eqn, whole, core=None)

    def call(self, closed: ClosedJaxpr, arguments: list) -> list:
        closed = inlined(closed)
        jaxpr = rearranged(
            closed.jaxpr, constvars=[], invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars]
        )
        return self.run(jaxpr, [*map(constant, closed.consts), *arguments])

    def linear_solve(self, eqn, values: list) -> list:
        """Return x for which A x = b.

        JAX solves with the factors of a constant copy of A, which has no derivative. Each
        correction x + A⁻¹(b − A x) by such a solver makes one more derivative of x right; Newton's
        method takes two.
        """
        matvec, vecmat, solve, _ = eqn.params["const_lengths"]
        right = [carried_out(value) for value in values[-len(eqn.outvars) :]]

        def elementwise(function, first: list, second: list) -> list:
            return [lift(function, pair, pair[0].shape) for pair in zip(first, second, strict=True)]

        def solved(side: list) -> list:
            return self.call(
                eqn.params["jaxprs"].solve, [*values[matvec + vecmat :][:solve], *side]
            )

        found = solved(right)
        for _ in range(2):
            residual = elementwise(
                jnp.subtract,
                right,
                self.call(eqn.params["jaxprs"].matvec, [*values[:matvec], *found]),
            )
            found = elementwise(jnp.add, found, solved(residual))
        return found


def apply(eqn, values: list):
    """Apply one equation to named values."""
    name = eqn.primitive.name
    if name == "concatenate":
        return Joined(
            tuple(carried_out(v) for v in values),
            int(eqn.params["dimension"]),
            tuple(eqn.outvars[0].aval.shape),
        )
    if name == "gather":
        return gather(eqn, carried_out(values[0]), values[1])
    values = [carried_out(value) for value in values]
    if name in MOVES:
        return move(eqn, values[0])
    if name in ELEMENTWISE:
        return elementwise(eqn, values)
    if name == "dot_general" and any(value.axes for value in values):
        return dot_general(eqn, values)
    if name in REDUCTIONS:
        return reduction(eqn, values[0])
    if name in ALONG_ONE_AXIS:
        return mapped(eqn, values, core=[eqn.params["axis"]])
    if name == "sort":
        return mapped(eqn, values, core=[eqn.params["dimension"]])
    if name == "lu_pivots_to_permutation":
        return mapped(eqn, values, core=[len(values[0].shape) - 1])
    if name in MATRIX:
        rank = len(values[0].shape)
        return mapped(eqn, values, core=[rank - 2, rank - 1])
    return mapped(eqn, values, core=None)


# NumPy's own functions, for known arrays: nothing is compiled to learn that 2 < 0 is false
NUMPY = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": np.bitwise_not,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "copy": np.asarray,
    "copy_p": np.asarray,
}


def bind(eqn, *arrays):
    """Evaluate an equation's primitive on arrays; known ones stay known."""
    name, shape = eqn.primitive.name, tuple(eqn.outvars[0].aval.shape)
    if all(isinstance(array, np.ndarray) for array in arrays):
        if name in NUMPY:
            return np.asarray(NUMPY[name](*arrays))
        if name == "convert_element_type":
            return arrays[0].astype(eqn.params["new_dtype"])
        if name == "select_n" and len(arrays) == 3:
            return np.where(arrays[0], arrays[2], arrays[1])
        if name == "iota":
            own = [-1 if d == eqn.params["dimension"] else 1 for d in range(len(shape))]
            return np.broadcast_to(
                np.arange(shape[eqn.params["dimension"]], dtype=eqn.params["dtype"]).reshape(own),
                shape,
            )
        if name == "concatenate":
            return np.concatenate(arrays, axis=eqn.params["dimension"])
        if name in MOVES:
            return np.broadcast_to(
                MOVES[name][0](arrays[0], 0, arrays[0].shape, shape, eqn.params), shape
            )

    def function(*arrays):
        return eqn.primitive.bind(*map(jnp.asarray, arrays), **eqn.params)

    # what is known is looked at where it is an index or a choice; a logarithm of a constant can
    # wait
    return (
        function(*arrays)
        if jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact)
        else evaluate(function, *arrays)
    )


def elementwise(eqn, values: Sequence[Named]) -> Named:
    shape = tuple(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "select_n" and (case := known_case(values[0])) is not None:
        return replace(values[1 + case], shape=shape)
    return lift(lambda *arrays: bind(eqn, *arrays), values, shape)


def known_case(predicate: Named) -> int | None:
    """Return which case a predicate that is known to be the same everywhere selects: `where(t == 0,
    start, …)` has one after the first step.
    """
    if (
        not predicate.is_static
        or predicate.array.size == 0
        or (predicate.array != predicate.array.flat[0]).any()
    ):
        return None
    return int(predicate.array.flat[0])


def gather(eqn, operand: Named, indices) -> Named:
    """Look a table up; gathers of longer slices, and of known arrays, are evaluated."""
    found = as_lookup(eqn, operand.shape)
    if found is None or (
        operand.is_static
        and not operand.axes
        and isinstance(indices, Named)
        and indices.is_static
        and not indices.axes
    ):
        return mapped(eqn, [operand, carried_out(indices)], core=None)
    lookup, looked_up = found
    pieces = index_columns(indices, looked_up)
    if eqn.params["mode"] == jax.lax.GatherScatterMode.CLIP:
        pieces = {
            d: lift(lambda i, top=operand.shape[d] - 1: i.clip(0, top), [piece], piece.shape)
            for d, piece in pieces.items()
        }
    return look_up(operand, pieces, lookup, tuple(eqn.outvars[0].aval.shape))
