"""Walk a program's jaxpr with compact named values: what does each value depend on?

Data-moving primitives act on a table and on the indices of its axes alike; a gather turns each
piece of its index into a named axis, so that `confusion[annotator, truth[item]]` stays the table
`confusion` however many rows there are. Elementwise primitives act on tables. Other primitives are
evaluated under `vmap` over the named axes. What comes out is exact: the value at every position,
for every value of the latents that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from emjax.numerics.jaxprs import inlined, interpreted, line_of
from emjax.numerics.primitives import Equation, Kind, traits
from emjax.tables.affine import Misused, NotAffine, affine_outputs, is_affine
from emjax.tables.affine_values import AffineValue, grouped_by_latent, linearly
from emjax.tables.choices import select_rows
from emjax.tables.evaluation import evaluated
from emjax.tables.joined import Joined, carried_out, stack
from emjax.tables.lifting import lift
from emjax.tables.lookup import as_lookup, index_columns, look_up
from emjax.tables.mixing import dot_general, mapped, reduction
from emjax.tables.moves import entry, move, split
from emjax.tables.named import MixedElements, Named, constant, has_elements
from emjax.tables.placing import placed
from emjax.tables.reach import Reach, reach
from emjax.tables.windows import dynamic_slice, slices

Value: TypeAlias = Named | AffineValue | NotAffine
# Steps of the longest loop that is written out: each is equations of its own to trace and compile.
LONGEST_WRITTEN_OUT = 64


def propagate(
    jaxpr: Jaxpr, inputs: Sequence[Value], estimated: Container[Var] = ()
) -> tuple[list[Value], dict[Var, list[Reach]]]:
    """Return the named value of every output of a jaxpr, and where its lookups reach too far.

    - `inputs`: the named values of its constants and its inputs.
    - `estimated`: the variables that depend on parameters.
    - The second result is keyed by the variables that the lookups define.

    Equal expressions are computed once. Raises `MixedElements` where a table over single latent
    elements cannot hold a value. An output is `NotAffine` where it is no affine function of the
    Gaussian latents that it reads.
    """
    interpreter = _Interpreter(estimated)
    return interpreter.run(jaxpr, inputs), interpreter.reached


class _Interpreter:
    """Runs a jaxpr with named values.

    - `literals`: the named value of each literal.
    - `seen`: the outputs and the reaches of each equation, by its primitive, parameters and inputs.
    - `alive`: all inputs seen, since an identity is that of an object only as long as it lives.
    - `contents`: the content of each elementwise function of contents.
    - `reached`: where lookups reach too far, by the variables that they define.
    """

    def __init__(self, estimated: Container[Var]):
        self.estimated = estimated
        self.literals: dict = {}
        self.seen: dict = {}
        self.alive: list = []
        self.contents: dict = {}
        self.reached: dict[Var, list[Reach]] = {}

    def run(self, jaxpr: Jaxpr, inputs: Sequence) -> list:
        outputs = interpreted(jaxpr, inputs, self.literal, self.equation)
        return [carried_out(value) for value in outputs]

    def literal(self, atom: Literal) -> Named:
        aval: Any = atom.aval
        key = (str(aval), np.asarray(atom.val).tobytes())
        if key not in self.literals:
            self.literals[key] = constant(np.asarray(atom.val, dtype=aval.dtype))
        return self.literals[key]

    def equation(self, eqn: Equation, values: list) -> list:
        """Return the named values of the outputs of an equation; equal ones are computed once."""
        misused = [value for value in values if isinstance(value, NotAffine)]
        if misused and traits(eqn).kind is not Kind.DERIVES:
            return [misused[0]] * len(eqn.outvars)
        # of an equation within what is called, JAX knows only where that was called first
        try:
            outputs = self.computed(eqn, values)
        except MixedElements as error:
            error.line = line_of(eqn) or error.line
            raise
        except Misused as error:
            return [NotAffine(error.axes, error.primitive, line_of(eqn))] * len(eqn.outvars)
        return outputs if misused else [_at_line(value, eqn) for value in outputs]

    def computed(self, eqn: Equation, values: list) -> list:
        kind = traits(eqn).kind
        if kind is Kind.SOLVES:
            return self.linear_solve(eqn, values)
        if kind is Kind.DERIVES:
            return self.with_derivatives(eqn, values)
        if kind is Kind.BRANCHES:
            return self.branch(eqn, [carried_out(value) for value in values])
        if kind is Kind.LOOPS:
            return self.loop(eqn, [carried_out(value) for value in values])
        # inputs of equal expressions are one object, since their outputs were found here before
        key = (
            eqn.primitive.name,
            str(sorted(eqn.params.items(), key=lambda item: item[0])),
            tuple(id(value) for value in values),
        )
        if key not in self.seen:
            outputs = self.outputs(eqn, values)
            is_lookup = kind in (Kind.GATHERS, Kind.SLICES)
            reaches = reach(eqn, table_of(values[0]), values[1:]) if is_lookup else []
            self.seen[key] = outputs, reaches
            self.alive.append(values)
        outputs, reaches = self.seen[key]
        if reaches:
            self.reached[eqn.outvars[0]] = reaches
        return outputs

    def outputs(self, eqn: Equation, values: list) -> list:
        """Return the named values of the outputs of an equation."""
        if any(map(is_affine, values)):
            return affine_outputs(eqn, values, self.outputs)
        rows = self.selected_rows(eqn, values) if eqn.primitive.name == "select_n" else None
        if rows is not None:
            return [rows]
        result = apply(eqn, values)
        if eqn.primitive.multiple_results:
            return list(result)
        is_elementwise = traits(eqn).kind is Kind.ELEMENTWISE
        return [self.identified(eqn, values, result) if is_elementwise else result]

    def selected_rows(self, eqn: Equation, values: list) -> Named | None:
        """Return a choice that does not move with the parameters as rows of a table."""
        predicate = eqn.invars[0]
        if not isinstance(predicate, Literal) and predicate in self.estimated:
            return None
        predicate, *cases = map(carried_out, values)
        # one case everywhere is no choice: `elementwise` returns it
        if known_case(predicate) is not None:
            return None
        predicate = predicate.padded(len(cases[0].shape))
        return select_rows(predicate, cases, tuple(eqn.outvars[0].aval.shape))

    def identified(self, eqn: Equation, values: list, output: Named) -> Named:
        """Return the output with the content that equal functions of equal content have.

        Indices that a program computes twice are thus known to be equal.
        """
        if any(isinstance(value, Joined) for value in values):
            return output
        keys = [axis.key for axis in output.axes]
        for value in values:
            # a number is the same for every entry
            if value.array.size <= 1:
                continue
            # only where the function maps entry to entry do contents determine the content
            if value.array.size != output.array.size or [a.key for a in value.axes] != keys:
                return output
        key = (
            eqn.primitive.name,
            str(eqn.params),
            str(output.array.dtype),
            tuple(value.content for value in values),
        )
        return replace(output, root=self.contents.setdefault(key, output.content))

    def with_derivatives(self, eqn: Equation, values: list) -> list:
        """Return the results of a call that has derivatives of its own.

        They are kept, unless a latent takes part, whose table is then compact.
        """
        # a table over a latent's values would go through the call once for each of them
        arguments = [carried_out(value) for value in values]
        if any(value.latent_axes for value in arguments):
            return self.call(eqn.params["call_jaxpr"], values)
        return mixed_all(eqn, arguments)

    def call(self, closed: ClosedJaxpr, arguments: list) -> list:
        closed = inlined(closed)
        return self.run(closed.jaxpr, [*map(constant, closed.consts), *arguments])

    def branch(self, eqn: Equation, values: list) -> list:
        """Return the results of the branch that an index chooses."""
        index, *arguments = values
        if is_affine(index):
            raise Misused([index], eqn.primitive.name)
        branches = eqn.params["branches"]
        if index.is_static and not index.axes:
            chosen = min(max(int(index.array), 0), len(branches) - 1)
            return self.call(branches[chosen], arguments)
        if not any(map(_reads_elements, arguments)):
            return mixed_all(eqn, values)
        results = [self.call(branch, arguments) for branch in branches]
        chosen = lift(lambda i: i.astype(int).clip(0, len(branches) - 1), [index], index.shape)
        return [_chosen(chosen, cases) for cases in zip(*results, strict=True)]

    def loop(self, eqn: Equation, values: list) -> list:
        """Return the results of a loop, written out where it reads elements of a latent."""
        length = int(eqn.params["length"])
        if not any(map(_reads_elements, values)) or length > LONGEST_WRITTEN_OUT:
            if any(map(is_affine, values)):
                raise Misused(values, f"{eqn.primitive.name} of {length} steps")
            return mixed_all(eqn, values)
        num_consts, num_carry = eqn.params["num_consts"], eqn.params["num_carry"]
        consts, rest = values[:num_consts], values[num_consts:]
        carry, xs = rest[:num_carry], rest[num_carry:]
        stacked: list = [[] for _ in eqn.outvars[num_carry:]]
        for t in reversed(range(length)) if eqn.params["reverse"] else range(length):
            entries = [_entry(x, t) for x in xs]
            outputs = self.call(eqn.params["jaxpr"], [*consts, *carry, *entries])
            carry = outputs[:num_carry]
            for steps, y in zip(stacked, outputs[num_carry:], strict=True):
                steps.insert(0 if eqn.params["reverse"] else len(steps), y)
        ys = []
        for steps, var in zip(stacked, eqn.outvars[num_carry:], strict=True):
            ys.append(_stacked(steps) if steps else _empty(var))
        return [*carry, *ys]

    def linear_solve(self, eqn: Equation, values: list) -> list:
        """Return x for which A x = b.

        JAX solves with the factors of a constant copy of A, which has no derivative. Each
        correction x + A⁻¹(b − A x) by such a solver makes one more derivative of x right; Newton's
        method takes two.
        """
        matvec, vecmat, solve, _ = eqn.params["const_lengths"]
        jaxprs = eqn.params["jaxprs"]
        of_matvec, of_solve = values[:matvec], values[matvec + vecmat :][:solve]
        right = [carried_out(value) for value in values[-len(eqn.outvars) :]]
        of_matrix = [*of_matvec, *of_solve]
        if any(map(is_affine, of_matrix)):
            raise Misused(of_matrix, eqn.primitive.name)
        solution = self.call(jaxprs.solve, [*of_solve, *right])
        for _ in range(2):
            product = self.call(jaxprs.matvec, [*of_matvec, *solution])
            residual = _pairwise(jnp.subtract, right, product)
            correction = self.call(jaxprs.solve, [*of_solve, *residual])
            solution = _pairwise(jnp.add, solution, correction)
        return solution


def table_of(value: Any) -> Any:
    """Return a table that a value consists of."""
    return value.coefficients[0] if is_affine(value) else value


def _reads_elements(value: Any) -> bool:
    return is_affine(value) or has_elements(value)


def _at_line(value: Any, eqn: Equation) -> Any:
    """Return a value; if it is no affine one, as what an equation of the program makes."""
    is_misused = isinstance(value, NotAffine)
    return replace(value, line=line_of(eqn) or value.line) if is_misused else value


def _linearly(function: Callable, values: Sequence[Value], groups: Any = None) -> Value:
    """Return the one result of a function that is linear in all values jointly."""
    misused = [value for value in values if isinstance(value, NotAffine)]
    return misused[0] if misused else linearly(function, values, groups)[0]


def _entry(value: Value, i: int) -> Value:
    return _linearly(lambda values: [entry(values[0], 0, i)], [value])


def _stacked(values: Sequence[Value]) -> Value:
    """Return values side by side along a new axis, which is the first."""
    return _linearly(
        lambda values: [carried_out(stack(values, 0))], values, grouped_by_latent(values)
    )


def _pairwise(function: Callable, first: list, second: list) -> list:
    """Return a linear function of two, of each pair of values."""
    results = []
    for pair in zip(first, second, strict=True):
        results.append(_linearly(lambda pair: [lift(function, pair, pair[0].shape)], pair))
    return results


def _chosen(index: Named, cases: Sequence[Value]) -> Value:
    """Return the case that an index, a number, chooses."""

    def select(index, *cases):
        return jax.lax.select_n(jnp.asarray(index, jnp.int32), *map(jnp.asarray, cases))

    def chosen(cases):
        shape = cases[0].shape
        return [lift(select, [index.padded(len(shape)), *cases], shape)]

    return _linearly(chosen, cases)


def _empty(var: Any) -> Named:
    return constant(np.zeros(var.aval.shape, var.aval.dtype))


def apply(eqn: Equation, values: Sequence[Named | Joined]) -> Any:
    """Return the named value of an equation's output, a list of them where it has several."""
    kind = traits(eqn).kind
    if kind not in TAKE_JOINED:
        values = [carried_out(value) for value in values]
    # nothing is compiled to count to ten
    if not values and traits(eqn).by_numpy is not None:
        return constant(evaluated(eqn))
    return RULES.get(kind, mixed_all)(eqn, values)


def elementwise(eqn: Equation, values: Sequence[Named]) -> Named:
    shape = tuple(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "select_n" and (case := known_case(values[0])) is not None:
        return replace(values[1 + case], shape=shape)
    return lift(lambda *arrays: evaluated(eqn, *arrays), values, shape)


def known_case(predicate: Named) -> int | None:
    """Return which case a predicate selects that is known to be the same everywhere.

    `where(t == 0, start, …)` has one after the first step.
    """
    if not predicate.is_static or predicate.array.size == 0:
        return None
    first = predicate.array.flat[0]
    return None if (predicate.array != first).any() else int(first)


def joined(eqn: Equation, values: Sequence[Named | Joined]) -> Joined:
    """Return a concatenation that is not carried out, since a lookup may read its pieces."""
    pieces = [carried_out(value) for value in values]
    shape = tuple(map(int, eqn.outvars[0].aval.shape))
    if eqn.primitive.name == "concatenate":
        return Joined(tuple(pieces), int(eqn.params["dimension"]), shape)
    return stack(pieces, int(eqn.params["axis"]))


def placing(eqn: Equation, values: Sequence[Named]) -> Named:
    """Return entries put at places, as a lookup where elements of a latent would be mixed."""
    # JAX has no derivative of `x.at[i].apply(f)`
    is_applied = eqn.primitive.name == "scatter" and not traits(eqn).copies
    reads_latents = any(value.latent_axes for value in values)
    result = placed(eqn, values) if is_applied or reads_latents else None
    return mixed_all(eqn, values) if result is None else result


def slicing(eqn: Equation, values: Sequence[Named]) -> Named:
    """Return a slice at an index, as a lookup where it reads different elements of a latent."""
    operand, *starts = values
    is_lookup = has_elements(operand)
    return dynamic_slice(eqn, operand, starts) if is_lookup else mixed_all(eqn, values)


def gather(eqn: Equation, values: Sequence[Named | Joined]) -> Named:
    """Look a table up; gathers of longer slices, and of known arrays, are evaluated."""
    operand, indices = carried_out(values[0]), values[1]
    found = as_lookup(eqn, operand.shape)
    is_known = _is_known_array(operand) and _is_known_array(indices)
    if found is None and has_elements(operand):
        result = slices(eqn, operand, indices)
        if result is not None:
            return result
    if found is None or is_known:
        return mixed_all(eqn, [operand, carried_out(indices)])
    lookup, looked_up = found
    pieces = index_columns(indices, looked_up)
    if eqn.params["mode"] == jax.lax.GatherScatterMode.CLIP:
        pieces = {d: _clipped(piece, operand.shape[d] - 1) for d, piece in pieces.items()}
    return look_up(operand, pieces, lookup, tuple(eqn.outvars[0].aval.shape))


def _is_known_array(value: Named | Joined) -> bool:
    return isinstance(value, Named) and value.is_static and not value.axes


def _clipped(index: Named, last: int) -> Named:
    return lift(lambda i: i.clip(0, last), [index], index.shape)


def contraction(eqn: Equation, values: Sequence[Named]) -> Named:
    # without named axes there is nothing to keep compact
    has_axes = any(value.axes for value in values)
    return dot_general(eqn, values) if has_axes else mixed_all(eqn, values)


def mixed_all(eqn: Equation, values: Sequence[Named]) -> Any:
    """Return what a primitive makes of values any of whose entries it may mix."""
    return mapped(eqn, values, core=None)


RULES: dict[Kind, Callable] = {
    Kind.ELEMENTWISE: elementwise,
    Kind.MOVES: lambda eqn, values: move(eqn, values[0]),
    Kind.JOINS: joined,
    Kind.SPLITS: lambda eqn, values: split(eqn, values[0]),
    Kind.PLACES: placing,
    Kind.SLICES: slicing,
    Kind.GATHERS: gather,
    Kind.CONTRACTS: contraction,
    Kind.REDUCES: lambda eqn, values: reduction(eqn, values[0]),
    Kind.MIXES: lambda eqn, values: mapped(eqn, values, core=traits(eqn).mixes(eqn)),
}
# rules that take a concatenation as it is
TAKE_JOINED = {Kind.JOINS, Kind.GATHERS}
