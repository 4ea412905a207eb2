"""Inner products ⟨η, t⟩ that are no products: rows of a table that data pick, gated or weighed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from emjax.elimination.factors import Cells, WeightedRows
from emjax.graph.recipes import Statistic
from emjax.numerics.arrays import in_order
from emjax.numerics.row_sums import is_worth_blocks
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Named, spread, without_rows


def cells(
    table: Named,
    statistic: Statistic,
    axes: Sequence[Axis],
    kept: Sequence[int],
    shape: Sequence[int],
) -> Cells | None:
    """Return ⟨η, t⟩ as cells, where t is one or zero; else None.

    That is, where it is nothing but the rows of a table that data pick, or a table that counts
    where it counts. The cells have an axis for each of `axes`.
    """
    is_one = _is_one(statistic)
    if not (is_one or statistic.indicator):
        return None
    read = _table_read(table, statistic, axes, kept, shape)
    if read is None:
        return None
    entries, index = read
    gate = None if is_one else in_order(jnp.asarray(statistic.value.array), kept) > 0
    return Cells(entries, index, gate)


def weighted_rows(
    table: Named,
    statistic: Statistic,
    axes: Sequence[Axis],
    kept: Sequence[int],
    shape: Sequence[int],
) -> WeightedRows | None:
    """Return ⟨η, t⟩ as rows of a table that are weighed by t; None where it is something else.

    Or where there are too few of them to take them in blocks.
    """
    if statistic.square or statistic.total is not None or len(kept) != 1:
        return None
    read = _table_read(table, statistic, axes, kept, shape)
    if read is None or read[1] is None:
        return None
    entries, index = read
    num_values = entries.size // len(entries)
    if not is_worth_blocks(shape[kept[0]], num_values, entries.dtype.itemsize):
        return None
    size = shape[kept[0]]
    weight = in_order(jnp.asarray(statistic.value.array, entries.dtype), kept)
    return WeightedRows(
        entries, jnp.broadcast_to(index, (size,)), jnp.broadcast_to(weight, (size,))
    )


def _is_one(statistic: Statistic) -> bool:
    value = statistic.value
    return value.is_static and not value.axes and bool((value.array == 1).all())


def _table_read(
    table: Named,
    statistic: Statistic,
    axes: Sequence[Axis],
    kept: Sequence[int],
    shape: Sequence[int],
) -> tuple[Array, Array | None] | None:
    """Return a table, (row, *values), and the row that each kept element reads, if that is all.

    It is all where a statistic weighs whole elements. Without an index, the table has an axis for
    each kept element in place of the first.
    """
    rank, value = len(shape), statistic.value
    if value.axes or len(value.shape) > rank:
        return None
    # nothing that is read or gated: the product is the table itself, summed as any other
    if _is_one(statistic) and not table.row_axes:
        return None
    if _varies_beyond(table, value, kept, rank) or any(n != 1 for n in table.compact):
        return None
    # rows in order are no lookup: read out, they are an axis of the elements
    table = without_rows(table, [axis for axis in table.row_axes if isinstance(axis.index, Affine)])
    if any(n != 1 for n in table.compact):
        return None
    index = _row_numbers(table, kept, shape)
    present = [axis.key for axis in table.latent_axes]
    latents = [axis for axis in axes if axis.fitted(rank).key in present]
    entries = jnp.asarray(spread(table, [*table.row_axes, *latents]))
    rows = math.prod(axis.size for axis in table.row_axes)
    lead = [1] * len(kept) if index is None else [rows]
    sizes = [axis.size if axis.fitted(rank).key in present else 1 for axis in axes]
    return entries.reshape(*lead, *sizes), index


def _varies_beyond(table: Named, value: Named, kept: Sequence[int], rank: int) -> bool:
    """Whether a table or a statistic varies along elements that are not kept."""
    dims = [d for d in range(rank) if d not in kept]
    for axis in table.axes:
        if any(d < len(axis.varies) and axis.varies[d] for d in dims):
            return True
    return any(value.shape[d] > 1 for d in dims if d < len(value.shape))


def _row_numbers(table: Named, kept: Sequence[int], shape: Sequence[int]) -> Array | None:
    """Return which row of a table, all its row axes in one, each kept element reads."""
    numbers = None
    sizes = [shape[d] for d in kept]
    for axis in table.row_axes:
        rows = jnp.asarray(axis.fitted(len(shape)).placed(kept).index.dense(sizes))
        numbers = rows if numbers is None else numbers * axis.size + rows
    return numbers
