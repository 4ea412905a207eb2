"""Inner products ⟨η, t⟩ of natural-parameter tables and sufficient statistics, as matrix products.

All statistics of a term that a matrix product can hold are the columns of one matrix: one product
forward, its transpose in the reverse pass. No array of size elements × values × features is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.graph.recipes import Statistic
from emjax.numerics.arrays import transposed
from emjax.numerics.axes import arranged, contracted
from emjax.numerics.fast_forms import FastForms
from emjax.numerics.guards import IMPOSSIBLE
from emjax.tables.named import Axis, Named, without_rows

# ⟨P, x xᵀ⟩ costs D²/2 products and a matrix product with as many columns, or D² multiply-adds for
# each value of the latents as x (P x).
# Measured (CPU, both precisions): equal near D = 32.
LARGEST_PACKED = 32
# More products than this are done by a loop: each of them is compiled by itself.
MOST_UNROLLED = 32


def inner_product(
    pairs: Sequence[tuple[Named, Statistic]],
    axes: Sequence[Axis],
    kept: Sequence[int],
    rank: int,
    fast: FastForms | None = None,
) -> Array:
    """Return Σ ⟨η, t⟩ over everything but the kept elements and the latents.

    The result has the kept element axes first, then one axis for each of `axes`, of length 1 where
    nothing varies. `pairs`: the tables and their statistics; `fast`: leave to take fast forms.
    """
    names = [*kept, *(axis.key for axis in axes)]
    pairs = pairs if fast is None else canonical(pairs, fast)
    columns, parts = [], []
    for table, statistic in pairs:
        product = _Product(without_rows(table), statistic, names, rank)
        if not (product.rows and product.is_of_matrices):
            parts.append(product.contracted())
        elif statistic.square and table.shape[-1] > LARGEST_PACKED:
            parts.append(product.quadratic_forms())
        else:
            columns.append(product)
    if columns:
        parts.append(_side_by_side(columns, names))
    return sum(parts[1:], parts[0]) if parts else jnp.zeros((1,) * len(names))


# ── in place of a product: half the columns ───────────────────────────────────────────────────────


def canonical(
    pairs: Sequence[tuple[Named, Statistic]], fast: FastForms
) -> list[tuple[Named, Statistic]]:
    """Return a ⟨x⟩ + b ⟨n − x⟩ as (a − b) ⟨x⟩ + b n, half the columns.

    Where n is the same for all elements. It loses all digits where b is the logarithm of zero: the
    margin is then zero.
    """
    shorter = list(pairs)
    for i, (table, statistic) in enumerate(pairs):
        if statistic.total is None or not fast.are_worth(statistic.size):
            continue
        first, counted = pairs[i - 1]
        shorter[i - 1] = (replace(first, array=first.array - table.array), counted)
        shorter[i] = (table, Statistic(statistic.total))
        least = jax.lax.stop_gradient(table.array).min()
        fast.margins.append(jnp.where(least > IMPOSSIBLE, 1.0, 0.0))
    return shorter


# ── matrix products ───────────────────────────────────────────────────────────────────────────────


def features(statistic: Statistic) -> Array:
    """Return the array that a statistic enters a matrix product as."""
    array = jnp.asarray(statistic.value.array)
    is_packed = statistic.square and array.shape[-1] <= LARGEST_PACKED
    return _packed_squares(array) if is_packed else array


def _packed_squares(x):
    """Return the products x_i x_j, i ≤ j, along the last axis."""
    # slices, and no lookup by number: XLA reads a vector at a time
    products = [x[..., i:] * x[..., i : i + 1] for i in range(x.shape[-1])]
    return jnp.concatenate(products, axis=-1)


class _Product:
    """⟨η, t⟩ of a table and a statistic, in which axes of length 1 are left out.

    The others have labels: an axis of the elements or of the event is a number, a latent's is its
    key. `names` are the labels of the result.
    """

    def __init__(self, table: Named, statistic: Statistic, names: Sequence, rank: int):
        value = without_rows(statistic.value)
        self.names, self.rank, self.square = names, rank, statistic.square
        self.table, self.table_labels = _varying(table, rank)
        self.value, self.value_labels = _varying(value, rank)
        # along elements where nothing varies, the product counts as often as there are
        varying = {*names, *self.table_labels, *self.value_labels}
        self.times = math.prod(value.shape[d] for d in range(rank) if d not in varying)

    @property
    def rows(self) -> list:
        """The labels of the result that the statistic varies along."""
        return [label for label in self.value_labels if label in self.names]

    @property
    def columns(self) -> list:
        """The labels of the result that the table varies along."""
        return [label for label in self.names if label in self.table_labels]

    @property
    def summed(self) -> list:
        """What both vary along and the result does not."""
        both = [label for label in self.table_labels if label in self.value_labels]
        return [label for label in both if label not in self.names]

    @property
    def is_of_matrices(self) -> bool:
        """Whether the statistic varies along elements alone, and the table along latents alone."""
        if self.square and not {self.rank, self.rank + 1} <= set(self.table_labels):
            return False
        if any(isinstance(label, int) for label in self.columns):
            return False
        return all(isinstance(label, int) for label in self.value_labels)

    def contracted(self):
        """Return ⟨η, t⟩ as one contraction: (*names), of length 1 where it does not vary."""
        operands, labels = [self.table, self.value], [self.table_labels, self.value_labels]
        if self.square:
            operands.append(self.value)
            second = [label if label != self.rank else self.rank + 1 for label in self.value_labels]
            labels.append(second)
        return self._repeated(contracted(operands, labels, self.names))

    def features(self, rows: Sequence):
        """Return the statistic as a matrix (…rows, features), of length 1 where it is constant."""
        value = arranged(self.value, self.value_labels, [*rows, *self.summed])
        if self.square:
            value = _packed_squares(value)
        return value.reshape(value.shape[: len(rows)] + (-1,))

    def weights(self, columns: Sequence):
        """Return the table as a matrix (features, …columns), of length 1 where it is constant."""
        event = [self.rank + 1] if self.square else []
        table = arranged(self.table, self.table_labels, [*columns, *self.summed, *event])
        if self.square:
            # an entry beside the diagonal stands for two
            first, second = np.triu_indices(table.shape[-1])
            both = (table + table.mT).reshape(*table.shape[:-2], -1)
            both = both.at[..., first * table.shape[-1] + second].get(mode="promise_in_bounds")
            table = np.where(first == second, 0.5, 1.0).astype(both.dtype) * both
        table = table.reshape(table.shape[: len(columns)] + (-1,))
        last = table.ndim - 1
        return self._repeated(transposed(table, [last, *range(last)]))

    def _repeated(self, array):
        """Return an array as often as the product counts."""
        return array if self.times == 1 else self.times * array

    def quadratic_forms(self):
        """Return xᵀ P x: for one value of the latents after another, a matrix product."""
        rows, columns = self.rows, self.columns
        vectors = arranged(self.value, self.value_labels, [*self.summed[:-1], *rows, self.rank])
        matrices = arranged(self.table, self.table_labels, [*columns, *self.summed, self.rank + 1])
        lead, size = matrices.shape[: len(columns)], vectors.shape[-1]
        height = [self.value.shape[self.value_labels.index(label)] for label in rows]
        matrices = matrices.reshape(math.prod(lead), -1, size, size)
        vectors = vectors.reshape(matrices.shape[1], -1, size)

        def form(matrix):
            products = jnp.einsum("gnd,gde->gne", vectors, matrix, precision="highest")
            return (products * vectors).sum((0, 2))

        if len(matrices) <= MOST_UNROLLED:
            forms = jnp.stack([form(matrix) for matrix in matrices], axis=-1)
        else:
            forms = jnp.moveaxis(jax.lax.map(form, matrices), 0, -1)
        shape = dict(zip([*rows, *columns], [*height, *lead], strict=True))
        return self._repeated(forms.reshape([shape.get(label, 1) for label in self.names]))


def _side_by_side(products: Sequence[_Product], names: Sequence):
    """Return the sum of products as one matrix product of all statistics and all tables."""
    varying_rows = set().union(*(product.rows for product in products))
    varying_columns = set().union(*(product.columns for product in products))
    rows = [label for label in names if label in varying_rows]
    columns = [label for label in names if label in varying_columns]
    features = [product.features(rows) for product in products]
    weights = [product.weights(columns) for product in products]
    # a statistic or a table that does not vary along all of these is repeated in the matrix
    height = np.broadcast_shapes(*(columns_of.shape[:-1] for columns_of in features))
    width = np.broadcast_shapes(*(rows_of.shape[1:] for rows_of in weights))
    left, right = [], []
    for columns_of, rows_of in zip(features, weights, strict=True):
        size = columns_of.shape[-1]
        left.append(jnp.broadcast_to(columns_of, (*height, size)).reshape(-1, size))
        right.append(jnp.broadcast_to(rows_of, (size, *width)).reshape(size, -1))
    axis = 1
    if _are_single(left):
        left, axis = [column.T for column in left], 0
    matrix, table = jnp.concatenate(left, axis), jnp.concatenate(right, axis=0)
    # logarithms of densities are large, and their differences count: no ten-bit products
    summed = (((axis,), (0,)), ((), ()))
    product = jax.lax.dot_general(matrix, table, summed, precision="highest")
    sizes = dict(zip([*rows, *columns], [*height, *width], strict=True))
    return product.reshape([sizes.get(label, 1) for label in names])


def _are_single(matrices: Sequence[Array]) -> bool:
    """Whether each matrix is one column: these are laid one after another, and not side by side.

    So a transpose costs nothing, and what forms them is done a vector at a time.
    """
    return all(matrix.shape[1] == 1 for matrix in matrices)


def _varying(value: Named, rank: int) -> tuple[Array, list]:
    """Return a table without its axes of length 1, and the labels of the others."""
    labels = [*(axis.fitted(rank).key for axis in value.axes), *range(len(value.shape))]
    array = jnp.asarray(value.array)
    kept = [i for i, size in enumerate(array.shape) if size != 1]
    return array.reshape([array.shape[i] for i in kept]), [labels[i] for i in kept]
