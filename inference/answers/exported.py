"""What a program answers of rows at an estimate, as an artifact that JAX serves without emjax.

Rows that are independent given the parameters are answered in blocks: the program is traced for the
rows of one, and mapped over as many blocks as there are rows for. Whether they are independent is
asked of the program, traced for two numbers of rows (`program.padding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from emjax.answers.reweighted import plates_of, reweighted, units_in
from emjax.numerics.guards import IMPOSSIBLE
from emjax.program.array_like import is_array
from emjax.program.handlers.weights import weighted
from emjax.program.padding import padding
from emjax.program.trace import Program, trace
from emjax.run.annotations import Params
from emjax.run.bound import LEAST_MULTIPLICITY, Bound
from emjax.run.pure import PureProgram

# Rows of a block, and another number of them that is no multiple of it: so few that the last block,
# which is filled up, costs nothing, and enough for a start that draws points of the data.
ROWS, OTHER_ROWS = 16, 24
QUESTIONS = {
    "posterior": PureProgram.posterior,
    "decode": PureProgram.modes,
    "log_likelihood": None,
}
REFUSED = "This program cannot be exported for any number of rows: "


@dataclass(frozen=True)
class Rows:
    """The rows of a program's data.

    - `plates`: whose elements they are.
    - `length`: how many there are.
    """

    plates: tuple[str, ...]
    length: int

    def are_in(self, leaf: Any) -> bool:
        """Whether an argument has them."""
        return is_array(leaf) and leaf.ndim > 0 and leaf.shape[0] == self.length

    def resized(self, tree: Any, length: int) -> Any:
        """Return arguments with another number of rows: the first ones, again and again."""

        def of_length(leaf):
            if not self.are_in(leaf):
                return leaf
            return np.asarray(leaf[:length])[np.arange(length) % self.length]

        return jax.tree.map(of_length, tree)


def exported(
    bound: Bound, params: Params, question: str, platforms: Sequence[str] | None
) -> export.Exported:
    """Return the answer to a question of rows, as many as there are; see `Fit.export`."""
    if question not in QUESTIONS:
        names = ", ".join(map(repr, QUESTIONS))
        raise ValueError(f"What can be exported is {names}, not {question!r}.")
    if isinstance(platforms, str):
        platforms = (platforms,)
    rows = _rows_of(bound)
    specified, named = jax.tree.map(_specification(rows), _arrays_among(bound))

    def artifact(in_its_precision: Bound) -> export.Exported:
        answer = _answer(in_its_precision, params, rows, question)
        if in_its_precision is not bound:
            answer = _of_single(answer)
        return export.export(jax.jit(answer), platforms=platforms)(*specified, **named)

    return bound.in_its_precision(artifact)


# ── what has rows ─────────────────────────────────────────────────────────────────────────────────


def _rows_of(bound: Bound) -> Rows:
    """Return the rows of the data. Errors: `ValueError` where nothing, or too much, has rows."""
    if bound.looks_at_values:
        raise ValueError(
            f"{REFUSED}it looks at the values of its data in Python. Pass sizes as Python numbers, "
            "and columns as arrays."
        )
    plates = plates_of(bound).plates.values()
    outermost = [plate for plate in plates if plate.has_data and not plate.around]
    lengths = {plate.size for plate in outermost}
    if len(lengths) != 1:
        each = ", ".join(f"'{plate.name}' ({plate.size})" for plate in outermost)
        none = "its rows are in no plate: with numpyro.plate('rows', len(x)): ..."
        raise ValueError(f"{REFUSED}{f'it has several kinds of rows, {each}.' if each else none}")
    rows = Rows(tuple(plate.name for plate in outermost), lengths.pop())
    if not any(map(rows.are_in, jax.tree.leaves(bound.arguments))):
        raise ValueError(
            f"{REFUSED}no argument is an array with the {rows.length} elements of plate "
            f"'{rows.plates[0]}' along its first axis. Pass columns as "
            "arrays."
        )
    return rows


def _arrays_among(bound: Bound) -> tuple[tuple, dict[str, Any]]:
    """Return the arguments that hold arrays, with None in place of what else they hold."""
    args, kwargs = jax.tree.map(lambda leaf: leaf if is_array(leaf) else None, bound.arguments)
    positional = tuple(each for each in args if jax.tree.leaves(each))
    return positional, {name: each for name, each in kwargs.items() if jax.tree.leaves(each)}


def _specification(rows: Rows) -> Callable:
    """Return the function of an array that is its shape, of any number of rows, and its type."""
    (number,) = export.symbolic_shape("rows", constraints=["rows >= 1"])

    def specification(array):
        shape = (number, *array.shape[1:]) if rows.are_in(array) else array.shape
        return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(array.dtype))

    return specification


# ── what is exported ──────────────────────────────────────────────────────────────────────────────


def _answer(bound: Bound, params: Params, rows: Rows, question: str) -> Callable:
    """Return the function of arrays, with any number of rows, that is the answer; pure."""
    block = _block(bound, rows)
    axes = _row_axes(bound, rows, question)
    of_block = _of_block(block, bound.checked(params), rows, question)
    leaves = [leaf for leaf in jax.tree.leaves(bound.arguments) if is_array(leaf)]
    in_axes = [0 if rows.are_in(leaf) else None for leaf in leaves]
    types = [jax.dtypes.canonicalize_dtype(leaf.dtype) for leaf in leaves]

    def answer(*args, **kwargs):
        given = zip(jax.tree.leaves((args, kwargs)), types, strict=True)
        arrays = [array.astype(dtype) for array, dtype in given]
        number = next(a.shape[0] for a, axis in zip(arrays, in_axes, strict=True) if axis == 0)
        num_blocks = (number + ROWS - 1) // ROWS

        def blocks(array, axis):
            if axis is None:
                return array
            more = (num_blocks * ROWS - number, *array.shape[1:])
            filled = jnp.concatenate([array, jnp.broadcast_to(array[:1], more)])
            return filled.reshape((num_blocks, ROWS, *array.shape[1:]))

        of_blocks = jax.vmap(lambda *arrays: of_block(list(arrays)), in_axes=tuple(in_axes))
        found = of_blocks(*map(blocks, arrays, in_axes))
        if question == "log_likelihood":
            return _joined(found, 0, number)
        answers = {}
        for name, value in found.items():
            # a Gaussian latent has a mean and a covariance
            join = partial(_joined, axis=axes[name], number=number)
            answers[name] = jax.tree.map(join, value)
        return answers

    answer.__name__ = question
    return answer


def _joined(values: jax.Array, axis: int, number: Any) -> jax.Array:
    """Return (…, rows, …), with rows along an axis, of (blocks, …, rows of a block, …)."""
    side_by_side = jnp.moveaxis(values, axis + 1, 1)
    num_blocks, size, *others = side_by_side.shape
    rows = side_by_side.reshape((num_blocks * size, *others))[:number]
    return jnp.moveaxis(rows, 0, axis)


def _block(bound: Bound, rows: Rows) -> Bound:
    """Return the program on the rows of one block.

    Errors: `ValueError` for rows that are no arguments, and parameters that each row has.
    """
    block = Bound(bound.compiler, *rows.resized(bound.arguments, ROWS))
    try:
        parameters = block.compiled.graph.parameters
    # arrays that are no arguments have as many rows as ever
    except ValueError as error:
        raise ValueError(f"{REFUSED}of {ROWS} rows of its arguments, {error}") from error
    for name, parameter in bound.compiled.graph.parameters.items():
        if name in parameters and parameters[name].shape != parameter.shape:
            raise ValueError(
                f"{REFUSED}'{name}' has a value for each row, and new rows have none. Of "
                "observations that are missing, mask the distribution, "
                "dist.Normal(...).mask(is_known), in place of obs_mask."
            )
    return block


def _of_block(block: Bound, params: Mapping, rows: Rows, question: str) -> Callable:
    """Return the function of the arrays of one block that is the answer; pure."""
    asked = QUESTIONS[question]
    if asked is not None:
        pure = block.compiled.pure
        return lambda data: asked(pure, params, pure.graph.prepare(data, LEAST_MULTIPLICITY))
    plate, *others = rows.plates
    belongs = {other: np.arange(ROWS) for other in others}
    units = reweighted(block, units_in(block, plate, belongs))
    floor = jnp.full(ROWS, LEAST_MULTIPLICITY, jnp.result_type(float))

    def log_likelihoods(data):
        of_data = replace(units, data=data)
        each = jax.grad(of_data.log_likelihood, argnums=1)(params, floor)
        return jnp.where(each < IMPOSSIBLE, -jnp.inf, each)

    return log_likelihoods


def _of_single(answer: Callable) -> Callable:
    """Return a function of arrays in single precision that is computed in double."""
    singles = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}

    def of_single(*args, **kwargs):
        found = answer(*args, **kwargs)
        return jax.tree.map(lambda leaf: leaf.astype(singles.get(leaf.dtype, leaf.dtype)), found)

    of_single.__name__ = answer.__name__
    return of_single


# ── whether rows are independent ──────────────────────────────────────────────────────────────────


def _row_axes(bound: Bound, rows: Rows, question: str) -> dict[str, int]:
    """Return along which axis of each latent's answer the rows lie.

    Errors: `ValueError` where what is computed for a row depends on others, or on their number, and
    for a latent that rows share.
    """
    program, other = _traced(bound, rows, ROWS), _traced(bound, rows, OTHER_ROWS)
    reason = padding(program, other, len(rows.plates)).reason
    if reason is not None:
        raise ValueError(
            f"{REFUSED}what it computes for a row depends on other rows, or on how many there are "
            f"({reason})."
        )
    axes = {}
    gaussians = program.gaussians
    for name in (*bound.compiled.graph.latents, *gaussians):
        one, another = (each.gaussians.get(name) or each.latents[name] for each in (program, other))
        shapes = zip(one.shape, another.shape, strict=True)
        with_rows = [axis for axis, (size, of_other) in enumerate(shapes) if size != of_other]
        if not with_rows:
            raise ValueError(
                f"{REFUSED}latent '{name}' belongs to no row of plate '{rows.plates[0]}': it is "
                "shared, and what is known of it depends on all rows."
            )
        axes[name] = with_rows[0]
        if name in gaussians and question == "posterior":
            # moments have the elements first
            axes[name] = gaussians[name].element_axes.index(with_rows[0])
    return axes


def _traced(bound: Bound, rows: Rows, length: int) -> Program:
    """Return the program with weights for its rows, traced for so many of them."""
    model = bound.compiler.model
    for plate in rows.plates:
        model = weighted(model, plate)
    args, kwargs = rows.resized(bound.arguments, length)
    weights = [np.ones(length, jnp.result_type(float)) for _ in rows.plates]
    parameters, integrate = bound.compiled.graph.parameters, bound.compiler.settings.integrate
    return trace(model, parameters, (*weights, *args), kwargs, integrate=integrate)
