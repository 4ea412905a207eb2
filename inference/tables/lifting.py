"""Apply elementwise functions to named values."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import LARGEST_KNOWN, broadcast
from emjax.tables.named import Axis, Named, full, spread, union, varying_dims, without_rows

# a table, its exponentials and its derivative are alive at once
ALIVE_AT_ONCE = 4


def lift(function: Callable, values: Sequence[Named], shape: tuple[int, ...]) -> Named:
    """Return an elementwise function of named values that broadcast to `shape`.

    `function`: of arrays of equal shape.
    """
    values = [value.padded(len(shape)) for value in settle_rows(values, shape)]
    axes = union(values)
    arrays = [spread(value, axes) for value in values]
    common = np.broadcast_shapes(*(array.shape for array in arrays))
    check_memory(axes, common)
    # NumPy would evaluate it here and now
    if math.prod(common) > LARGEST_KNOWN:
        arrays = [jnp.asarray(array) for array in arrays]
    arrays = [broadcast(array, common) for array in arrays]
    return Named(function(*arrays), shape, axes)


def check_memory(axes: Sequence[Axis], shape: Sequence[int]) -> None:
    """Raise `MemoryError` for a table of this shape that this machine cannot hold."""
    needed, available = 8 * math.prod(shape), available_memory()
    # better an error that names the latents than a process that is killed
    if needed <= available / ALIVE_AT_ONCE:
        return
    sources = [axis.source for axis in axes if axis.is_latent]
    too_large = (
        f"needs {needed / 2**30:.3g} GiB several times over, "
        f"and this machine has {available / 2**30:.3g} GiB."
    )
    # rows that data pick are many, but no latent is to blame
    if not sources:
        raise MemoryError(f"A table of shape {tuple(shape)} {too_large} Pass fewer data at once.")
    names = [source if isinstance(source, str) else source[0] for source in sources]
    listed = ", ".join(f"'{name}'" for name in dict.fromkeys(names))
    raise MemoryError(
        f"The joint table of latents {listed} {too_large} "
        "One observation depends on all of them at once: "
        "use fewer values, or fewer latents that one observation reads."
    )


def available_memory() -> float:
    """Return the bytes of memory of this machine, infinitely many where it does not say."""
    # Windows has no `sysconf`
    if not hasattr(os, "sysconf"):
        return math.inf
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def settle_rows(values: Sequence[Named], shape: tuple[int, ...]) -> list[Named]:
    """Return values with their row axes kept or read out, whatever makes the joint table smaller.

    Read out, it has one entry for each position along the axes that rows vary along.
    """
    rows = [axis for axis in union(values) if not axis.is_latent]
    if not rows or len(values) == 1:
        return list(values)
    padded = [value.padded(len(shape)) for value in values]
    compact = np.broadcast_shapes(*(value.compact for value in padded))
    size_of_rows = math.prod(axis.size for axis in rows) * math.prod(compact)
    varying: set[int] = set()
    for value in padded:
        varying.update(varying_dims(value.row_axes, len(shape)))
    size_read_out = math.prod(shape[d] if d in varying else compact[d] for d in range(len(shape)))
    if size_of_rows <= size_read_out:
        return list(values)
    return [without_rows(value) for value in values]


def lift_events(
    function: Callable,
    pairs: Sequence[tuple[Named, int]],
    rank: int,
    out_events: Sequence[int] = (0,),
    num_deciding: int | None = None,
) -> list[Named]:
    """Return functions of elements, each an array over its event axes.

    - `function`: of arrays whose last axes are those of events, and whose others broadcast; it
      returns one array for each of `out_events`.
    - `pairs`: (value, number of its event axes); its other axes broadcast to `rank`.
    - `out_events`: the numbers of event axes of the results.
    - `num_deciding`: how many of the values decide whether rows are read out (None: all).
    """
    values = []
    for value, event in pairs:
        padded = value.padded(rank + event)
        values.append(replace(padded, array=full(padded, range(rank, rank + event))))
    elements = np.broadcast_shapes(*(value.shape[:rank] for value in values))
    # without rows there is nothing to read out
    if any(value.row_axes for value in values):
        heads = [_head(value, rank) for value in values[:num_deciding]]
        settled = settle_rows(heads, elements)
        # heads stand for the values: what holds for their rows holds for those
        if any(a is not b for a, b in zip(heads, settled, strict=True)):
            values = [without_rows(value) for value in values]
    values = [replace(value, axes=_fitted(value.axes, rank), root=None) for value in values]
    axes = union(values)
    results = function(*(jnp.asarray(spread(value, axes)) for value in values))
    return [
        _trimmed(result, axes, elements, event)
        for result, event in zip(results, out_events, strict=True)
    ]


def _fitted(axes: Sequence[Axis], rank: int) -> tuple[Axis, ...]:
    return tuple(axis.fitted(rank) for axis in axes)


def _head(value: Named, rank: int) -> Named:
    """Return the first entry of each event, which has the value's named axes and its elements."""
    lead, entries = len(value.axes) + rank, value.array
    if entries.ndim > lead:
        entries = entries.reshape(*entries.shape[:lead], -1)[..., 0]
    return Named(entries, value.shape[:rank], _fitted(value.axes, rank))


def _trimmed(array: Any, axes: Sequence[Axis], elements: Sequence[int], event: int) -> Named:
    """Name an array's leading axes, leaving out those along which it does not vary."""
    rank = len(axes) + len(elements) + event
    array = array.reshape((1,) * (rank - array.ndim) + tuple(array.shape))
    # a function may ignore an argument, and with it the latents that only it reads
    kept = [i for i, axis in enumerate(axes) if array.shape[i] == axis.size]
    sizes = [array.shape[i] for i in kept]
    array = array.reshape((*sizes, *array.shape[len(axes) :]))
    kept_axes = _fitted([axes[i] for i in kept], len(elements) + event)
    return Named(array, (*elements, *array.shape[array.ndim - event :]), kept_axes)
