"""Choices that data make between tables: rows of one table, which the predicate picks."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import broadcast, concatenated, evaluate
from emjax.tables.indices import Dense
from emjax.tables.named import Axis, Named, spread, union, without_rows


def select_rows(predicate: Named, cases: Sequence[Named], shape: tuple[int, ...]) -> Named | None:
    """Return where(predicate, …) as rows of a table, one for each case, which the predicate picks.

    None where a case is no smaller than the result.
    """
    varying = [d for d, size in enumerate(predicate.compact) if size != 1]
    # rows are picked by data: a predicate that latents decide, or that is the same everywhere,
    # picks none
    if predicate.latent_axes or not varying:
        return None
    if not any(case.latent_axes for case in cases):
        return None
    # rows would then be as many as positions, and every case a copy of its own
    if any(case.compact[d] != 1 for case in cases for d in varying):
        return None
    predicate = without_rows(predicate)
    index = evaluate(lambda p: jnp.asarray(p, jnp.int32), predicate.array)
    rows = Axis(None, len(cases), Dense(index, (predicate.content,)))
    # a case may be a choice by the same predicate: where it is read, that is known
    cases = [_at_row(case, rows, number) for number, case in enumerate(cases)]
    axes = union(cases)
    tables = [spread(case, axes) for case in cases]
    common = np.broadcast_shapes(*(table.shape for table in tables))
    table = concatenated([broadcast(table, common)[None] for table in tables], 0)
    return Named(table, shape, (rows, *axes))


def _at_row(value: Named, rows: Axis, number: int) -> Named:
    """Return a value at one of the rows of an axis, if it has that axis."""
    keys = [axis.key for axis in value.axes]
    if rows.key not in keys:
        return value
    place = keys.index(rows.key)
    array = value.array[(slice(None),) * place + (number,)]
    return Named(array, value.shape, value.axes[:place] + value.axes[place + 1 :])
