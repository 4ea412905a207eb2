"""What primitives that mix entries (sums, sorts, factorizations, products) do to named values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import broadcast, evaluate, transposed
from emjax.numerics.jaxprs import bind
from emjax.numerics.primitives import Equation
from emjax.tables.lifting import lift
from emjax.tables.lookup import Lookup, look_up
from emjax.tables.named import (
    Axis,
    Coordinates,
    Named,
    constant,
    full,
    mixed,
    spread,
    union,
    varying_dims,
    without_rows,
)

# Elements of a latent that one entry of a product with a known matrix may meet: its table has an
# axis for each.
MOST_MET = 3


def reduction(eqn: Equation, value: Named) -> Named:
    """Return a value reduced along axes."""
    dims = [int(d) for d in eqn.params["axes"]]  # NumPy integers, after `vmap`
    varying = varying_dims(value.axes, len(value.shape))
    varies = any(value.compact[d] != 1 or d in varying for d in dims)
    if eqn.primitive.name != "reduce_sum" or varies:
        return mapped(eqn, [value], core=dims, dropped=dims)
    # a sum of equal entries is a product
    count = math.prod(value.shape[d] for d in dims)
    over = tuple(len(value.axes) + d for d in dims)
    total = evaluate(lambda a: (a.sum(over) * count).astype(a.dtype), value.array)
    return Named(total, tuple(eqn.outvars[0].aval.shape), _without(value.axes, dims))


def _without(axes: Sequence[Axis], dims: Sequence[int]) -> tuple[Axis, ...]:
    """Return axes for a value that lacks some of its own."""
    without = []
    for axis in axes:
        without.append(axis.placed([d for d in range(len(axis.varies)) if d not in dims]))
    return tuple(without)


def mapped(
    eqn: Equation,
    values: Sequence[Named],
    core: Sequence[int] | None,
    dropped: Sequence[int] = (),
) -> Any:
    """Return what any primitive makes of named values, exactly: under `vmap` over named axes.

    - `core`: the axes that the primitive mixes (None: all of them).
    - `dropped`: those that its result lacks.

    A latent whose elements lie along a core axis cannot be kept as a table over one element.
    """
    values = [_readable(value, core, eqn.primitive.name) for value in values]
    # a number and an array may read one element of a latent, which then is one axis
    rank = max((len(value.shape) for value in values), default=0)
    values = [value.fitted(rank) for value in values]
    axes = union(values)
    function = partial(bind, eqn)
    # the first axis is mapped last, so that it comes out first
    for axis in reversed(axes):
        in_axes = [0 if axis.key in value.labels else None for value in values]
        function = jax.vmap(function, in_axes=in_axes)
    arrays = [
        _in_order(value, array, axes)
        for value, array in zip(values, _operands(values, core), strict=True)
    ]
    results = evaluate(function, *arrays)
    out_axes = _without(axes, dropped) if dropped else axes

    def named(result, var) -> Named:
        shape = tuple(var.aval.shape)
        return Named(result, shape, tuple(axis.fitted(len(shape)) for axis in out_axes))

    if eqn.primitive.multiple_results:
        return [named(result, var) for result, var in zip(results, eqn.outvars, strict=True)]
    return named(results, eqn.outvars[0])


def _readable(value: Named, core: Sequence[int] | None, primitive: str) -> Named:
    """Return a value whose rows do not move along core axes; its latents must not."""

    def mixes(axis: Axis) -> bool:
        # an operand may have fewer axes than the first, of which the core is told
        along = enumerate(axis.varies)
        return any(varies for d, varies in along if core is None or d in core)

    for axis in value.latent_axes:
        if mixes(axis):
            raise mixed(axis, value, primitive, core)
    # rows of different values would have to be aligned: one entry for each position is simpler
    if core is None:
        return without_rows(value)
    return without_rows(value, [axis for axis in value.row_axes if mixes(axis)])


def _operands(values: Sequence[Named], core: Sequence[int] | None) -> list:
    """Return tables that a primitive takes: of full length along core axes, equal along others."""
    # primitives of matrices do not broadcast their batches
    batches = {value.shape[:-2] for value in values}
    if core is None or len(batches) > 1:
        return [full(value) for value in values]
    outside_core = []
    for value in values:
        outside_core.append([1 if d in core else size for d, size in enumerate(value.compact)])
    compact = np.broadcast_shapes(*map(tuple, outside_core))
    operands = []
    for value in values:
        lead = value.array.shape[: len(value.axes)]
        own = [value.shape[d] if d in core else compact[d] for d in range(len(value.shape))]
        operands.append(broadcast(value.array, (*lead, *own)))
    return operands


def _in_order(value: Named, array: Any, axes: Sequence[Axis]) -> Any:
    """Return the table with its named axes in the order of `axes`; absent ones are left out."""
    keys = [axis.key for axis in value.axes]
    order = [keys.index(axis.key) for axis in axes if axis.key in keys]
    return transposed(array, order + list(range(len(keys), array.ndim)))


def dot_general(eqn: Equation, values: Sequence[Named]) -> Named:
    """Return the contraction of two named values.

    Their latents may vary along batch and free axes, not along contracted ones.
    """
    contracting, batching = eqn.params["dimension_numbers"]
    sparse = sparse_product(eqn, values)
    if sparse is not None:
        return sparse
    shape = tuple(eqn.outvars[0].aval.shape)
    placed, first_free = [], len(batching[0])
    for value, contracted, batch in zip(values, contracting, batching, strict=True):
        value = without_rows(value)
        for axis in value.latent_axes:
            if any(axis.varies[d] for d in contracted):
                raise mixed(axis, value, "dot_general", contracted)
        free = [d for d in range(len(value.shape)) if d not in contracted and d not in batch]
        # the result has the batch axes, the free ones of the first, and those of the second
        source = dict(enumerate(batch)) | {first_free + i: d for i, d in enumerate(free)}
        first_free += len(free)
        value = replace(value, array=full(value, contracted))
        placed.append(value.placed([*(source.get(d) for d in range(len(shape))), *contracted]))
    axes, number = union(placed), len(contracting[0])
    first, second = (spread(value, axes) for value in placed)
    total = _contracted(first, second, number) if number else first * second
    return Named(total, shape, tuple(axis.fitted(len(shape)) for axis in axes))


def sparse_product(eqn: Equation, values: Sequence[Named]) -> Named | None:
    """Return the product with a known matrix of few nonzeros a row, by lookups of what these meet.

    None, where there is no such matrix, or none is needed: no latent varies along what it sums.
    """
    contracting, batching = eqn.params["dimension_numbers"]
    known = next((side for side in (0, 1) if _is_known(values[side])), None)
    if known is None or batching[0] or len(contracting[0]) != 1:
        return None
    value, along = without_rows(values[1 - known]), int(contracting[1 - known][0])
    varying = [axis for axis in value.latent_axes if axis.varies[along]]
    # coefficients of several elements of a Gaussian latent are a table each
    if not varying or any(isinstance(axis, Coordinates) for axis in varying):
        return None
    matrix = np.moveaxis(full(values[known]), int(contracting[known][0]), -1)
    num_met = int(np.count_nonzero(matrix, axis=-1).max(initial=0))
    if num_met > MOST_MET:
        return None
    shape, num_free = tuple(map(int, eqn.outvars[0].aval.shape)), matrix.ndim - 1
    first = 0 if known == 0 else len(shape) - num_free
    batch = range(first, first + num_free)
    rest = [d for d in range(len(shape)) if d not in batch]
    target = dict(zip([d for d in range(len(value.shape)) if d != along], rest, strict=True))
    lookup = Lookup(target, batch, len(shape))
    # nonzeros in front
    met = np.argsort(matrix == 0, axis=-1, kind="stable").astype(np.int32)
    order = [d - first if d in batch else None for d in range(len(shape))]
    total = Named(np.zeros((1,) * len(shape), eqn.outvars[0].aval.dtype), shape)
    for i in range(num_met):
        entries = look_up(value, {along: constant(met[..., i])}, lookup, shape)
        weight = constant(np.take_along_axis(matrix, met, -1)[..., i]).placed(order)
        total = lift(lambda t, w, x: t + w * x, [total, weight, entries], shape)
    return total


def _is_known(value: Named) -> bool:
    return value.is_static and not value.axes


def _contracted(first: Any, second: Any, number: int) -> Any:
    """Return the sum of the product of two broadcastable arrays over their last `number` axes.

    It is a matrix product where that is one.
    """
    rank = first.ndim
    out = np.broadcast_shapes(first.shape[: rank - number], second.shape[: rank - number])

    def operand(array):
        # `einsum` does not broadcast: axes of length 1 are left out
        labels = [d for d in range(rank) if d >= rank - number or array.shape[d] > 1]
        return array.reshape([array.shape[d] for d in labels]), labels

    labels = [d for d, size in enumerate(out) if size > 1]
    return jnp.einsum(*operand(first), *operand(second), labels).reshape(out)
