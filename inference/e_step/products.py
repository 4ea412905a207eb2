"""Inner products ⟨η, t⟩ of natural-parameter tables and sufficient statistics, as matrix products.

All statistics of a term that a matrix product can hold are the columns of one matrix: one product
forward, its transpose in the reverse pass. No array of size elements × values × features is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.elimination.factors import Cells
from emjax.graph.statistics import Statistic
from emjax.numerics import guards
from emjax.numerics.arrays import in_order
from emjax.numerics.guards import FastForms
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Named, spread, without_rows

# ⟨P, x xᵀ⟩ costs D²/2 products and a matrix product with as many columns, or D² multiply-adds for
# each value of the latents as x (P x).
# Measured (CPU, both precisions): equal near D = 32.
LARGEST_PACKED = 32


def inner_product(
    pairs: Sequence[tuple[Named, Statistic, int]],
    axes: Sequence[Axis],
    kept: Sequence[int],
    rank: int,
    fast: FastForms | None = None,
):
    """Return Σ ⟨η, t⟩ over everything but the kept elements and the latents.

    `pairs`: a table, its statistic and the number of its event axes. The result has the kept
    element axes first, then one axis for each of `axes`, of length 1 where nothing varies.
    `fast`: see `log_partition`.
    """
    names = [*kept, *(axis.key for axis in axes)]
    pairs = pairs if fast is None else canonical(pairs, fast)
    columns, total = [], jnp.zeros((1,) * len(names))
    for table, statistic, event in pairs:
        operands = _Operands(without_rows(table), statistic, event, names, rank)
        if (
            operands.rows
            and operands.are_matrices
            and not (statistic.square and table.shape[-1] > LARGEST_PACKED)
        ):
            columns.append(operands)
        elif operands.rows and operands.are_matrices:
            total = total + operands.quadratic_forms()
        else:
            total = total + operands.contracted()
    return total + _product(columns, names) if columns else total


def cells(
    table: Named,
    statistic: Statistic,
    axes: Sequence[Axis],
    kept: Sequence[int],
    shape: Sequence[int],
) -> Cells | None:
    """Return ⟨η, t⟩ as cells, where it is nothing but the rows of a table that data pick, or a
    table that counts where it counts; else None.
    """
    rows, rank, value = table.row_axes, len(shape), statistic.value
    varying = {
        d for axis in table.axes for d in range(rank) if d < len(axis.varies) and axis.varies[d]
    }
    is_one = value.is_static and not value.axes and bool((value.array == 1).all())
    if (
        (not rows and is_one)
        or not (is_one or statistic.indicator)
        or value.axes
        or not varying <= set(kept)
        or any(n != 1 for n in table.compact)
    ):
        return None
    if any(n > 1 for d, n in enumerate(value.shape[:rank]) if d not in kept):
        return None
    table = without_rows(table, [axis for axis in rows if isinstance(axis.index, Affine)])
    if any(n != 1 for n in table.compact):
        return None
    index: Any = None
    for axis in table.row_axes:
        own = jnp.asarray(axis.fitted(rank).placed(kept).index.dense([shape[d] for d in kept]))
        index = own if index is None else index * axis.size + own
    present = [axis.key for axis in table.latent_axes]
    entries = spread(
        table, [*table.row_axes, *(axis for axis in axes if axis.fitted(rank).key in present)]
    )
    lead = (1,) * len(kept) if index is None else (math.prod(axis.size for axis in table.row_axes),)
    sizes = [axis.size if axis.fitted(rank).key in present else 1 for axis in axes]
    gate = None if is_one else in_order(jnp.asarray(value.array), kept) > 0
    return Cells(jnp.asarray(entries).reshape(*lead, *sizes), index, gate)


def canonical(
    pairs: Sequence[tuple[Named, Statistic, int]], fast: FastForms
) -> list[tuple[Named, Statistic, int]]:
    """Return a ⟨x⟩ + b ⟨n − x⟩ as (a − b) ⟨x⟩ + b n, half the columns, where n is the same for all
    elements.

    It loses all digits where b is the logarithm of zero: the margin is then zero.
    """
    found = list(pairs)
    for i, (table, statistic, event) in enumerate(pairs):
        if statistic.total is not None and statistic.size >= guards.FEWEST_FAST:
            first, counted, _ = pairs[i - 1]
            found[i - 1] = (replace(first, array=first.array - table.array), counted, event)
            found[i] = (table, Statistic(statistic.total), event)
            fast.margins.append(
                jnp.where(jax.lax.stop_gradient(table.array).min() > guards.IMPOSSIBLE, 1.0, 0.0)
            )
    return found


def features(statistic: Statistic):
    """Return the array that a statistic enters a matrix product as."""
    array = jnp.asarray(statistic.value.array)
    return (
        _packed_squares(array) if statistic.square and array.shape[-1] <= LARGEST_PACKED else array
    )


def _packed_squares(x):
    """Return the products x_i x_j, i ≤ j, along the last axis."""
    first, second = np.triu_indices(x.shape[-1])
    return x[..., first] * x[..., second]


class _Operands:
    """A table and a statistic without their axes of length 1, and the labels of the others.

    A label is an axis of the elements or of the event (a number), or the key of a latent's axis.
    """

    def __init__(self, table: Named, statistic: Statistic, event: int, names: Sequence, rank: int):
        value = without_rows(statistic.value)
        self.names, self.rank, self.event, self.square = names, rank, event, statistic.square
        self.table, self.table_labels = _labeled(table, rank)
        self.value, self.value_labels = _labeled(value, rank)
        gone = [
            d
            for d in range(rank)
            if d not in names and d not in self.table_labels and d not in self.value_labels
        ]
        self.times = math.prod(value.shape[d] for d in gone)

    @property
    def rows(self) -> list:
        return [label for label in self.value_labels if label in self.names]

    @property
    def summed(self) -> list:
        """What both vary along and the result does not."""
        return [
            label
            for label in self.table_labels
            if label in self.value_labels and label not in self.names
        ]

    @property
    def are_matrices(self) -> bool:
        """Whether the statistic varies along elements alone, and the table along latents alone."""
        kept = {label for label in self.names if isinstance(label, int)}
        whole = not self.square or {self.rank, self.rank + 1} <= set(self.table_labels)
        return (
            whole
            and not kept & set(self.table_labels)
            and all(isinstance(label, int) for label in self.value_labels)
        )

    def contracted(self):
        """Return ⟨η, t⟩ as one contraction."""
        letters = {
            label: chr(97 + i)
            for i, label in enumerate(dict.fromkeys([*self.names, *range(self.rank + self.event)]))
        }
        operands, labels = [self.table, self.value], [self.table_labels, self.value_labels]
        if self.square:
            operands.append(self.value)
            labels.append(
                [self.rank + 1 if label == self.rank else label for label in self.value_labels]
            )
        sizes = {
            label: n
            for array, own in zip(operands, labels, strict=True)
            for label, n in zip(own, array.shape, strict=True)
        }
        present = [label for label in self.names if label in sizes]
        spec = (
            ",".join("".join(letters[label] for label in own) for own in labels)
            + "->"
            + "".join(letters[label] for label in present)
        )
        return self.times * _einsum(spec, *operands).reshape(
            [sizes.get(label, 1) for label in self.names]
        )

    def features(self, rows: Sequence):
        """Return the statistic as a matrix (…rows, features), of length 1 along rows that it does
        not vary along.
        """
        value = _in_order(self.value, self.value_labels, rows, self.summed)
        return (_packed_squares(value) if self.square else value).reshape(
            value.shape[: len(rows)] + (-1,)
        )

    def weights(self, columns: Sequence):
        """Return the table as a matrix (features, …columns), of length 1 along columns that it does
        not vary along.
        """
        event = [self.rank + 1] if self.square else []
        table = _in_order(self.table, self.table_labels, columns, [*self.summed, *event])
        if self.square:
            first, second = np.triu_indices(table.shape[-1])
            table = jnp.where(first == second, 0.5, 1.0) * (
                table[..., first, second] + table[..., second, first]
            )
        return self.times * jnp.moveaxis(table.reshape(table.shape[: len(columns)] + (-1,)), -1, 0)

    def quadratic_forms(self):
        """Return xᵀ P x for one value of the latents after another: one matrix product for each."""
        rows, columns = self.rows, [label for label in self.names if label in self.table_labels]
        vectors = _in_order(
            self.value, self.value_labels, [], [*self.summed[:-1], *rows, self.rank]
        )
        matrices = _in_order(self.table, self.table_labels, columns, [*self.summed, self.rank + 1])
        lead, height, size = (
            matrices.shape[: len(columns)],
            [self.value.shape[self.value_labels.index(label)] for label in rows],
            vectors.shape[-1],
        )
        matrices = matrices.reshape(math.prod(lead), -1, size, size)
        vectors = vectors.reshape(matrices.shape[1], -1, size)

        def form(matrix):
            return (_einsum("gnd,gde->gne", vectors, matrix) * vectors).sum((0, 2))

        forms = (
            jnp.stack([form(matrix) for matrix in matrices], axis=-1)
            if len(matrices) <= 32
            else jnp.moveaxis(jax.lax.map(form, matrices), 0, -1)
        )
        shape = dict(zip([*rows, *columns], [*height, *lead], strict=True))
        return self.times * forms.reshape([shape.get(label, 1) for label in self.names])


def _product(columns: Sequence[_Operands], names: Sequence):
    """Return the sum of all inner products as one matrix product of the statistics and the tables,
    side by side.
    """
    rows = [label for label in names if any(label in operands.rows for operands in columns)]
    values = [
        label for label in names if any(label in operands.table_labels for operands in columns)
    ]
    features = [operands.features(rows) for operands in columns]
    weights = [operands.weights(values) for operands in columns]
    height = np.broadcast_shapes(*(f.shape[:-1] for f in features))
    width = np.broadcast_shapes(*(w.shape[1:] for w in weights))
    matrix = jnp.concatenate(
        [jnp.broadcast_to(f, height + f.shape[-1:]).reshape(-1, f.shape[-1]) for f in features],
        axis=-1,
    )
    table = jnp.concatenate(
        [jnp.broadcast_to(w, w.shape[:1] + width).reshape(w.shape[0], -1) for w in weights], axis=0
    )
    sizes = dict(zip([*rows, *values], [*height, *width], strict=True))
    return _einsum("nm,mk->nk", matrix, table).reshape([sizes.get(label, 1) for label in names])


def _in_order(array, labels: Sequence, lead: Sequence, rest: Sequence):
    """Return an array with the axes `lead` (of length 1 where absent), then `rest`, summed along
    all others.
    """
    over = tuple(i for i, label in enumerate(labels) if label not in lead and label not in rest)
    labels, array = (
        [label for label in labels if label in lead or label in rest],
        array.sum(over) if over else array,
    )
    order = [label for label in [*lead, *rest] if label in labels]
    array = jnp.transpose(array, [labels.index(label) for label in order])
    sizes = dict(zip(order, array.shape, strict=True))
    return array.reshape([sizes.get(label, 1) for label in lead] + [sizes[label] for label in rest])


def _einsum(spec: str, *operands):
    return jnp.einsum(spec, *operands, precision="highest")


def _labeled(value: Named, rank: int):
    """Return a table without its axes of length 1, and the labels of the others."""
    labels = [axis.fitted(rank).key for axis in value.axes] + list(range(len(value.shape)))
    kept = [i for i, size in enumerate(value.array.shape) if size != 1]
    return jnp.asarray(value.array).reshape([value.array.shape[i] for i in kept]), [
        labels[i] for i in kept
    ]
