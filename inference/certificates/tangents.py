"""How a parameter moves with its free coordinates: first and second derivatives, in closed form.

They are in NumPy: compiled beside an E-step, they are as large as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Tangents(NamedTuple):
    """Derivatives of a parameter by its coordinates, at a value.

    - `rows`: ∂ value / ∂ coordinate, (coordinate, *its shape).
    - `bend`: slope, of its shape → Σ slope · ∂² value / ∂ coordinates², (coordinate, coordinate).
    """

    rows: np.ndarray
    bend: Callable


def of_entries(
    value: np.ndarray, entries: np.ndarray, first: np.ndarray, second: np.ndarray
) -> Tangents:
    """Return those of coordinates each of which moves one entry.

    `first`, `second`: the derivatives of `entries`, which are numbers in the flattened value.
    """
    rows = np.zeros((len(entries), value.size))
    rows[np.arange(len(entries)), entries] = first

    def bend(slope):
        return np.diag(slope.reshape(-1)[entries] * second)

    return Tangents(rows.reshape(len(entries), *value.shape), bend)


def of_interval(
    value: np.ndarray, entries: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Tangents:
    """Return those of entries between bounds: their logarithm or log-odds within, or themselves."""
    x, low, high = (array.reshape(-1)[entries] for array in (value, low, high))
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    # what is infinite or no number is of entries that another scale is for
    with np.errstate(invalid="ignore"):
        part = (x - low) / (high - low)
        odds = (high - low) * part * (1 - part)
        kinds = [has_low & has_high, has_low, has_high]
        first = np.select(kinds, [odds, x - low, x - high], 1.0)
        second = np.select(kinds, [odds * (1 - 2 * part), x - low, x - high], 0.0)
    return of_entries(value, entries, first, second)


def of_simplex(value: np.ndarray, entries: np.ndarray, free: np.ndarray) -> Tangents:
    """Return those of logarithms of ratios to one of the free entries of each simplex.

    With q the free entries over their sum m, ∂ q_k / ∂ u_i = q_k (δ_ki − q_i).
    """
    width, size = value.shape[-1], len(entries)
    inner = np.where(free, value, 0).reshape(-1, width)
    mass = inner.sum(-1)
    simplex, entry, number = entries // width, entries % width, np.arange(size)
    q = inner[simplex, entry] / mass[simplex]
    rows = np.zeros((size, len(inner), width))
    rows[number, simplex] = -q[:, None] * inner[simplex]
    rows[number, simplex, entry] += inner[simplex, entry]

    def bend(slope):
        slopes = slope.reshape(-1, width)
        mean = (inner * slopes).sum(-1) / np.where(mass > 0, mass, 1)
        above = slopes[simplex, entry] - mean[simplex]
        product = q[:, None] * q * (above[:, None] + above)
        same = simplex[:, None] == simplex
        return mass[simplex] * (np.diag(q * above) - np.where(same, product, 0))

    return Tangents(rows.reshape(size, *value.shape), bend)


class Triangle(NamedTuple):
    """Where the coordinates of triangular matrices are: below the diagonal, then along it.

    `matrix`, `row`, `column`: of each coordinate that is free.
    """

    matrix: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def of(cls, size: int, coordinates: np.ndarray) -> Triangle:
        """Return it for coordinates by number: all of a matrix, then those of the next."""
        below, diagonal = np.tril_indices(size, -1), np.arange(size)
        rows = np.concatenate([below[0], diagonal])
        columns = np.concatenate([below[1], diagonal])
        matrix, within = np.divmod(coordinates, max(len(rows), 1))
        return cls(matrix, rows[within], columns[within])

    def derivatives(self, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and second derivative of the entry that each coordinate moves."""
        is_diagonal = self.row == self.column
        entry = factors[self.matrix, self.row, self.column]
        return np.where(is_diagonal, entry, 1.0), np.where(is_diagonal, entry, 0.0)


def of_triangular(value: np.ndarray, coordinates: np.ndarray) -> Tangents:
    """Return those of triangular matrices: the logarithm of the diagonal, themselves below it."""
    size = value.shape[-1]
    triangle = Triangle.of(size, coordinates)
    first, second = triangle.derivatives(value.reshape(-1, size, size))
    entries = (triangle.matrix * size + triangle.row) * size + triangle.column
    return of_entries(value, entries, first, second)


def of_positive_definite(value: np.ndarray, coordinates: np.ndarray) -> Tangents:
    """Return those of S = L Lᵀ, by the coordinates of L: ∂S = ∂L Lᵀ + L ∂Lᵀ."""
    size, number = value.shape[-1], np.arange(len(coordinates))
    triangle = Triangle.of(size, coordinates)
    matrix, row, column = triangle
    matrices = value.reshape(-1, size, size)
    factors = np.zeros(matrices.shape)
    # a matrix on the boundary has no factor, and no coordinates
    inside = np.unique(matrix)
    factors[inside] = np.linalg.cholesky(matrices[inside])
    first, second = triangle.derivatives(factors)
    columns_of_factor = factors[matrix, :, column]
    half = np.zeros((len(coordinates), size, size))
    half[number, row] = first[:, None] * columns_of_factor
    rows = np.zeros((len(coordinates), *matrices.shape))
    rows[number, matrix] = half + np.swapaxes(half, -2, -1)

    def bend(slope):
        slopes = slope.reshape(-1, size, size)
        both = slopes + np.swapaxes(slopes, -2, -1)
        meets = (matrix[:, None] == matrix) & (column[:, None] == column)
        mixed = both[matrix[:, None], row[:, None], row] * first[:, None] * first
        along = np.einsum("ci,ci->c", both[matrix, row], columns_of_factor) * second
        return np.where(meets, mixed, 0) + np.diag(along)

    return Tangents(rows.reshape(len(coordinates), *value.shape), bend)
