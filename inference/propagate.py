"""Walk a program's jaxpr with compact named values: which latents and rows does each value depend on?

Data-moving primitives act on a table and on the indices of its axes alike; a gather turns each piece of its
index into a named axis, so that `confusion[annotator, truth[item]]` stays the table `confusion` however many
rows there are. Elementwise primitives act on tables. Other primitives are evaluated under `vmap` over the
named axes. What comes out is exact: the value at every position, for every value of the latents that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from emjax.arrays import broadcast, evaluate, transposed
from emjax.jaxprs import inlined, rearranged
from emjax.lifting import lift
from emjax.lookup import MixedElements, Reach, as_lookup, index_columns, look_up, reach
from emjax.moves import MOVES, Joined, carried_out, move
from emjax.named import Axis, Named, constant, full, spread, union, without_rows

REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor", "argmax",
              "argmin"}
ALONG_ONE_AXIS = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
LOOKUPS = {"gather", "dynamic_slice"}
MATRIX = {"cholesky", "triangular_solve", "lu", "eigh", "eig", "svd", "qr", "householder_product", "geqrf"}
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e", "cbrt",
    "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "eq_to", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "integer_pow", "is_finite", "le",
    "le_to", "lgamma", "log", "log1p", "logistic", "lt", "lt_to", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or",
    "optimization_barrier", "polygamma", "population_count", "pow", "real", "imag", "reduce_precision", "regularized_incomplete_beta",
    "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
}  # fmt: skip


def propagate(jaxpr: Jaxpr, inputs: Sequence[Named]) -> tuple[list[Named], dict[Var, list[Reach]]]:
    """Return the named value of every output of a jaxpr (without constants) for named inputs; and, by the variables that
    lookups define, where their indices are out of range.

    Equal expressions are computed once. Raises `MixedElements` where a table over single latent elements
    cannot hold a value.
    """
    interpreter = _Interpreter()
    return interpreter.run(jaxpr, list(inputs)), interpreter.reached


class _Interpreter:
    def __init__(self):
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
        key = (name, str(sorted(eqn.params.items(), key=lambda item: item[0])), tuple(id(value) for value in values))
        if key not in self.seen:
            outputs = apply(eqn, values)
            if name in ELEMENTWISE:
                outputs = self.identified(eqn, values, outputs)
            found = reach(eqn, values[0], values[1:]) if name in LOOKUPS else []
            self.seen[key] = list(outputs) if eqn.primitive.multiple_results else [outputs], found
            self.alive.append(values)
        outputs, found = self.seen[key]
        if found:
            self.reached[eqn.outvars[0]] = found
        return outputs

    def identified(self, eqn, values: list, output: Named) -> Named:
        """Give equal functions of equal content equal content, so that indices that a program computes twice are known to be equal."""
        if any(isinstance(value, Joined) for value in values):
            return output
        large = [value for value in values if value.array.size > 1]
        if any(value.array.size != output.array.size or [axis.key for axis in value.axes] != [axis.key for axis in output.axes] for value in large):
            return output
        key = (eqn.primitive.name, str(eqn.params), str(output.array.dtype), tuple(value.content for value in values))
        return replace(output, root=self.contents.setdefault(key, output.content))

    def linear_solve(self, eqn, values: list) -> list:
        """Return x for which A x = b.

        JAX solves with the factors of a constant copy of A, which has no derivative. Each correction x + A⁻¹(b − A x) by such a
        solver makes one more derivative of x right; Newton's method takes two.
        """
        matvec, vecmat, solve, _ = eqn.params["const_lengths"]
        right = [carried_out(value) for value in values[-len(eqn.outvars):]]

        def call(closed: ClosedJaxpr, constants: list, arguments: list) -> list:
            closed = inlined(closed)
            jaxpr = rearranged(closed.jaxpr, invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars], constvars=[])
            return self.run(jaxpr, [*map(constant, closed.consts), *constants, *arguments])

        def elementwise(function, first: list, second: list) -> list:
            return [lift(function, pair, pair[0].shape) for pair in zip(first, second, strict=True)]

        def solved(side: list) -> list:
            return call(eqn.params["jaxprs"].solve, values[matvec + vecmat:][:solve], side)

        found = solved(right)
        for _ in range(2):
            residual = elementwise(jnp.subtract, right, call(eqn.params["jaxprs"].matvec, values[:matvec], found))
            found = elementwise(jnp.add, found, solved(residual))
        return found


def apply(eqn, values: list):
    """Apply one equation to named values."""
    name = eqn.primitive.name
    if name == "concatenate":
        return Joined(tuple(carried_out(v) for v in values), int(eqn.params["dimension"]), tuple(eqn.outvars[0].aval.shape))
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
NUMPY = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal, "add": np.add,
         "sub": np.subtract, "mul": np.multiply, "and": np.bitwise_and, "or": np.bitwise_or, "not": np.bitwise_not, "neg": np.negative,
         "max": np.maximum, "min": np.minimum, "copy": np.asarray, "copy_p": np.asarray}


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
            return np.broadcast_to(np.arange(shape[eqn.params["dimension"]], dtype=eqn.params["dtype"]).reshape(own), shape)
        if name == "concatenate":
            return np.concatenate(arrays, axis=eqn.params["dimension"])
        if name in MOVES:
            return np.broadcast_to(MOVES[name][0](arrays[0], 0, arrays[0].shape, shape, eqn.params), shape)
    def function(*arrays):
        return eqn.primitive.bind(*map(jnp.asarray, arrays), **eqn.params)

    # what is known is looked at where it is an index or a choice; a logarithm of a constant can wait
    return function(*arrays) if jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact) else evaluate(function, *arrays)


def elementwise(eqn, values: Sequence[Named]) -> Named:
    shape = tuple(eqn.outvars[0].aval.shape)
    return lift(lambda *arrays: bind(eqn, *arrays), values, shape)


def gather(eqn, operand: Named, indices) -> Named:
    """Look a table up; gathers of longer slices, and of known arrays, are evaluated."""
    found = as_lookup(eqn, operand.shape)
    if found is None or (operand.is_static and not operand.axes and isinstance(indices, Named) and indices.is_static and not indices.axes):
        return mapped(eqn, [operand, carried_out(indices)], core=None)
    lookup, looked_up = found
    pieces = dict(zip(looked_up, index_columns(indices, len(looked_up)), strict=True))
    if eqn.params["mode"] == jax.lax.GatherScatterMode.CLIP:
        pieces = {d: lift(lambda i, top=operand.shape[d] - 1: i.clip(0, top), [piece], piece.shape) for d, piece in pieces.items()}
    return look_up(operand, pieces, lookup, tuple(eqn.outvars[0].aval.shape))


def reduction(eqn, value: Named) -> Named:
    dims = eqn.params["axes"]
    if eqn.primitive.name == "reduce_sum" and all(value.compact[d] == 1 for d in dims) \
            and not any(axis.varies[d] for axis in value.axes for d in dims):
        count = math.prod(value.shape[d] for d in dims)
        scaled = evaluate(lambda a: (a.sum(tuple(len(value.axes) + d for d in dims)) * count).astype(a.dtype), value.array)
        return Named(scaled, tuple(eqn.outvars[0].aval.shape), _without(value.axes, dims))
    return mapped(eqn, [value], core=list(dims), dropped=list(dims))


def _without(axes: Sequence[Axis], dims: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(axis.placed([d for d in range(len(axis.varies)) if d not in dims]) for axis in axes)


def mapped(eqn, values: Sequence[Named], core: list[int] | None, dropped: Sequence[int] = ()):
    """Evaluate any primitive exactly: under `vmap` over the named axes.

    `core` are the axes that the primitive mixes (None: all of them), `dropped` those that its result lacks. A
    latent whose elements lie along a core axis cannot be kept as a table over one element.
    """
    def mixes(axis: Axis, value: Named) -> bool:
        return any(axis.varies[d] for d in range(len(value.shape)) if core is None or d in core)

    values = [without_rows(value, [a for a in value.row_axes if mixes(a, value)]) for value in values]
    for value in values:
        for axis in value.latent_axes:
            if mixes(axis, value):
                raise MixedElements(axis.source, eqn.primitive.name)
    if core is None:
        values = [without_rows(value) for value in values]
    axes = union(values)
    if core is None or any(value.shape[:-2] != values[0].shape[:-2] for value in values):
        arrays = [full(value) for value in values]
    else:
        compact = np.broadcast_shapes(*(tuple(1 if d in core else s for d, s in enumerate(value.compact)) for value in values))
        arrays = []
        for value in values:
            shape = tuple(value.shape[d] if d in core else compact[d] for d in range(len(value.shape)))
            arrays.append(broadcast(value.array, value.array.shape[: len(value.axes)] + shape))

    function = lambda *a: eqn.primitive.bind(*map(jnp.asarray, a), **eqn.params)  # noqa: E731
    for axis in reversed(axes):
        in_axes = [0 if any(a.key == axis.key for a in value.axes) else None for value in values]
        function = jax.vmap(function, in_axes=in_axes)
    arrays = [_lead_in_order(value, array, axes) for value, array in zip(values, arrays, strict=True)]
    results = evaluate(function, *arrays)
    out_axes = _without(axes, dropped) if dropped else axes
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    if eqn.primitive.multiple_results:
        return [Named(result, shape, tuple(axis.fitted(len(shape)) for axis in out_axes)) for result, shape in zip(results, shapes, strict=True)]
    return Named(results, shapes[0], tuple(axis.fitted(len(shapes[0])) for axis in out_axes))


def _lead_in_order(value: Named, array, axes: Sequence[Axis]):
    """Return the table with its named axes in the order of `axes`; absent ones are left out."""
    keys = [axis.key for axis in value.axes]
    order = [keys.index(axis.key) for axis in axes if axis.key in keys]
    return transposed(array, order + list(range(len(keys), array.ndim)))


def dot_general(eqn, values: Sequence[Named]) -> Named:
    """Contract two named values; their latents may vary along batch and free axes, not along contracted ones."""
    contracting, batching = eqn.params["dimension_numbers"]
    shape = tuple(eqn.outvars[0].aval.shape)
    placed, first_free = [], len(batching[0])
    for value, contracted, batch in zip(map(without_rows, values), contracting, batching, strict=True):
        for axis in value.latent_axes:
            if any(axis.varies[d] for d in contracted):
                raise MixedElements(axis.source, "dot_general")
        free = [d for d in range(len(value.shape)) if d not in contracted and d not in batch]
        source = dict(enumerate(batch)) | {first_free + i: d for i, d in enumerate(free)}
        first_free += len(free)
        value = replace(value, array=full(value, contracted))
        placed.append(value.placed([source.get(d) for d in range(len(shape))] + list(contracted)))
    axes, rank, number = union(placed), len(shape), len(contracting[0])
    arrays = [spread(value, axes) for value in placed]
    total = _contracted(*arrays, number) if number else arrays[0] * arrays[1]
    return Named(total, shape, tuple(axis.fitted(rank) for axis in axes))


def _contracted(first, second, number: int):
    """Sum the product of two broadcastable arrays over their last `number` axes, as a matrix product where one is."""
    rank = first.ndim
    out = np.broadcast_shapes(first.shape[: rank - number], second.shape[: rank - number])

    def operand(array):
        labels = [d for d in range(rank) if d >= rank - number or array.shape[d] > 1]
        return array.reshape([array.shape[d] for d in labels]), labels

    return jnp.einsum(*operand(first), *operand(second), [d for d, size in enumerate(out) if size > 1]).reshape(out)
