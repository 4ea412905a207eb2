"""Apply elementwise functions to named values."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import LARGEST_KNOWN, broadcast
from emjax.tables.named import Axis, Named, full, spread, union, without_rows


def lift(function, values: Sequence[Named], shape: tuple[int, ...]) -> Named:
    """Apply an elementwise function of equal-shaped arrays to named values that broadcast to
    `shape`.
    """
    values = [value.padded(len(shape)) for value in settle_rows(values, shape)]
    axes = union(values)
    arrays = [spread(value, axes) for value in values]
    common = np.broadcast_shapes(*(array.shape for array in arrays))
    check_memory(axes, common)
    if math.prod(common) > LARGEST_KNOWN:
        arrays = [jnp.asarray(array) for array in arrays]
    arrays = [broadcast(array, common) for array in arrays]
    return Named(function(*arrays), shape, axes)


# a table, its exponentials and its derivative are alive at once
COPIES = 4


def check_memory(axes: Sequence[Axis], shape: Sequence[int]) -> None:
    """Raise `MemoryError` for a table of this shape that this machine cannot hold."""
    needed = 8 * math.prod(shape)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available / COPIES:
        names = [
            axis.source if isinstance(axis.source, str) else axis.source[0]
            for axis in axes
            if axis.is_latent
        ]
        listed = ", ".join(f"'{name}'" for name in dict.fromkeys(names))
        raise MemoryError(
            f"The joint table of latents {listed} needs {needed / 2**30:.3g} GiB several times "
            f"over, and this machine has {available / 2**30:.3g} GiB. One "
            "observation depends on all of them at once: use fewer values, or fewer latents that "
            "one observation reads."
        )


def settle_rows(values: Sequence[Named], shape: tuple[int, ...]) -> list[Named]:
    """Keep row axes where the joint table is no larger than one entry for each position, else read
    them out.
    """
    axes = union(values)
    rows = [axis for axis in axes if not axis.is_latent]
    if not rows or len(values) == 1:
        return list(values)
    padded = [value.padded(len(shape)) for value in values]
    compact = np.broadcast_shapes(*(value.compact for value in padded))
    kept = math.prod(axis.size for axis in rows) * math.prod(compact)
    varying = [
        any(axis.varies[d] for value in padded for axis in value.row_axes)
        for d in range(len(shape))
    ]
    read_out = math.prod(shape[d] if varying[d] else compact[d] for d in range(len(shape)))
    return list(values) if kept <= read_out else [without_rows(value) for value in values]


def lift_events(function, pairs, rank: int, out_events: Sequence[int] = (0,)) -> list[Named]:
    """Apply a function elementwise over elements, with each value's last event axes visible to it.

    `pairs`: (value, number of event axes), whose other axes broadcast to `rank`; the function
    returns one array for each of `out_events`, of leading axes that broadcast with the rest.
    """
    values = [value.padded(rank + event) for value, event in pairs]
    values = [
        replace(value, array=full(value, range(rank, rank + event)))
        for value, (_, event) in zip(values, pairs, strict=True)
    ]
    elements = np.broadcast_shapes(*(value.shape[:rank] for value in values))
    heads = [
        Named(
            value.array.reshape(value.array.shape[: value.array.ndim - event] + (-1,))[..., 0]
            if event
            else value.array,
            value.shape[:rank],
            tuple(axis.fitted(rank) for axis in value.axes),
        )
        for value, (_, event) in zip(values, pairs, strict=True)
    ]
    settled = settle_rows(heads, elements)
    if any(a is not b for a, b in zip(heads, settled, strict=True)) and any(
        h.row_axes for h in heads
    ):
        values = [without_rows(value) for value in values]
    values = [
        Named(value.array, value.shape, tuple(axis.fitted(rank) for axis in value.axes))
        for value in values
    ]
    axes = union(values)
    arrays = [spread(value, axes) for value in values]
    results = function(*map(jnp.asarray, arrays))
    return [
        _trimmed(result, axes, elements, event)
        for result, event in zip(results, out_events, strict=True)
    ]


def _trimmed(array, axes, elements, event: int) -> Named:
    """Name an array's leading axes, leaving out those along which it does not vary."""
    rank = len(axes) + len(elements) + event
    array = array.reshape((1,) * (rank - array.ndim) + tuple(array.shape))
    kept = [i for i, axis in enumerate(axes) if array.shape[i] == axis.size]
    array = array.reshape([array.shape[i] for i in kept] + list(array.shape[len(axes) :]))
    kept_axes = tuple(axes[i].fitted(len(elements) + event) for i in kept)
    shape = tuple(elements) + tuple(array.shape[array.ndim - event :] if event else ())
    return Named(array, shape, kept_axes)
