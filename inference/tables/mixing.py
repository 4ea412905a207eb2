"""What primitives that mix entries of a value (sums, sorts, factorizations, products) do to named
values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import broadcast, evaluate, transposed
from emjax.numerics.jaxprs import bind
from emjax.tables.lookup import MixedElements
from emjax.tables.named import Axis, Named, full, spread, union, without_rows


def reduction(eqn, value: Named) -> Named:
    dims = eqn.params["axes"]
    if (
        eqn.primitive.name == "reduce_sum"
        and all(value.compact[d] == 1 for d in dims)
        and not any(axis.varies[d] for axis in value.axes for d in dims)
    ):
        count = math.prod(value.shape[d] for d in dims)
        scaled = evaluate(
            lambda a: (a.sum(tuple(len(value.axes) + d for d in dims)) * count).astype(a.dtype),
            value.array,
        )
        return Named(scaled, tuple(eqn.outvars[0].aval.shape), _without(value.axes, dims))
    core = [int(d) for d in dims]  # NumPy integers, after `vmap`
    return mapped(eqn, [value], core=core, dropped=core)


def _without(axes: Sequence[Axis], dims: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(
        axis.placed([d for d in range(len(axis.varies)) if d not in dims]) for axis in axes
    )


def mapped(eqn, values: Sequence[Named], core: list[int] | None, dropped: Sequence[int] = ()):
    """Evaluate any primitive exactly: under `vmap` over the named axes.

    `core` are the axes that the primitive mixes (None: all of them), `dropped` those that its
    result lacks. A latent whose elements lie along a core axis cannot be kept as a table over one
    element.
    """

    def mixes(axis: Axis, value: Named) -> bool:
        return any(axis.varies[d] for d in range(len(value.shape)) if core is None or d in core)

    values = [
        without_rows(value, [a for a in value.row_axes if mixes(a, value)]) for value in values
    ]
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
        compact = np.broadcast_shapes(
            *(tuple(1 if d in core else s for d, s in enumerate(value.compact)) for value in values)
        )
        arrays = []
        for value in values:
            shape = tuple(
                value.shape[d] if d in core else compact[d] for d in range(len(value.shape))
            )
            arrays.append(broadcast(value.array, value.array.shape[: len(value.axes)] + shape))

    function = partial(bind, eqn)
    for axis in reversed(axes):
        in_axes = [0 if any(a.key == axis.key for a in value.axes) else None for value in values]
        function = jax.vmap(function, in_axes=in_axes)
    arrays = [
        _lead_in_order(value, array, axes) for value, array in zip(values, arrays, strict=True)
    ]
    results = evaluate(function, *arrays)
    out_axes = _without(axes, dropped) if dropped else axes
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    if eqn.primitive.multiple_results:
        return [
            Named(result, shape, tuple(axis.fitted(len(shape)) for axis in out_axes))
            for result, shape in zip(results, shapes, strict=True)
        ]
    return Named(results, shapes[0], tuple(axis.fitted(len(shapes[0])) for axis in out_axes))


def _lead_in_order(value: Named, array, axes: Sequence[Axis]):
    """Return the table with its named axes in the order of `axes`; absent ones are left out."""
    keys = [axis.key for axis in value.axes]
    order = [keys.index(axis.key) for axis in axes if axis.key in keys]
    return transposed(array, order + list(range(len(keys), array.ndim)))


def dot_general(eqn, values: Sequence[Named]) -> Named:
    """Contract two named values; their latents may vary along batch and free axes, not along
    contracted ones.
    """
    contracting, batching = eqn.params["dimension_numbers"]
    shape = tuple(eqn.outvars[0].aval.shape)
    placed, first_free = [], len(batching[0])
    for value, contracted, batch in zip(
        map(without_rows, values), contracting, batching, strict=True
    ):
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
    """Sum the product of two broadcastable arrays over their last `number` axes, as a matrix
    product where one is.
    """
    rank = first.ndim
    out = np.broadcast_shapes(first.shape[: rank - number], second.shape[: rank - number])

    def operand(array):
        labels = [d for d in range(rank) if d >= rank - number or array.shape[d] > 1]
        return array.reshape([array.shape[d] for d in labels]), labels

    return jnp.einsum(
        *operand(first), *operand(second), [d for d, size in enumerate(out) if size > 1]
    ).reshape(out)
