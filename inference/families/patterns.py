"""Normals with missing coordinates, by patterns of what is missing.

With x̃ = (x, 1) and P̃ = [[P, −b], [−bᵀ, −2c]], exp(⟨b, x⟩ − ½ xᵀP x + c) is exp(−½ x̃ᵀP̃ x̃).
Integrated over what is missing it is of the same form in what is observed: with A = P among the
missing coordinates and P̃′ the Schur complement of A,

    log ∫ … dx_missing  =  −½ ỹᵀP̃′ỹ  −  ½ log |A|  +  ½ n_missing log 2π.

P̃′ is the same for all rows of one pattern. So there is one matrix for each pattern and value of the
latents, and rows, in tiles of one pattern each, are matrix products of these matrices and of the
products ỹ_i ỹ_j, i ≤ j (measured on a CPU: a third of the time of P̃′ỹ times ỹ). Source: Little &
Rubin (2019), sections 7.4.3 and 11.2.1; that dP̃′ = Nᵀ dP̃ N: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax.families.family import Patterns
from emjax.families.missing import swept
from emjax.numerics.arrays import rows_of

EXACT = "highest"
# Entries of the matrices of all patterns, of one value of the latents, and how many rows a pattern
# has in the mean at least: with more patterns, rows are taken one by one.
MOST_ENTRIES = 2**20
FEWEST_IN_PATTERN = 8
# Fewer rows than this are taken one by one: they cost nothing, and less to compile.
FEWEST_ROWS = 1000
# Entries of the matrices, and products of the rows, that are worked on at once: they stay in the
# cache of a core.
ENTRIES = 2**13
PRODUCTS = 2**15
# Rows of a tile: enough for a matrix product, fewer where many patterns would leave most of them
# empty.
MOST_IN_TILE = 64
FEWEST_IN_TILE = 8


# ── grouped, once ─────────────────────────────────────────────────────────────────────────────────


def most_patterns(num_rows: int, size: int) -> int:
    """Return the number of patterns for which there is place."""
    possible = 2**size if size < 32 else num_rows
    return max(1, min(possible, num_rows // FEWEST_IN_PATTERN, MOST_ENTRIES // (size + 1) ** 2))


def rows_of_a_tile(num_rows: int, place: int) -> int:
    """Return how many rows a tile has, if there is place for so many patterns."""
    height = MOST_IN_TILE
    while height > FEWEST_IN_TILE and height * place > num_rows:
        height //= 2
    return height


def are_worth_it(num_rows: int, size: int) -> bool:
    """Whether rows of `size` coordinates are grouped at all."""
    return num_rows >= FEWEST_ROWS and most_patterns(num_rows, size) > 1


def grouped(observed: Array, x: Array) -> dict[str, Array]:
    """Return rows `x` grouped by which of their coordinates are `observed` (row, coordinate).

    - `observed`: of each pattern.
    - `pattern`: of each tile; all its rows have it.
    - `x`: ỹ of the slots of each tile, (tile, coordinate, slot); zeros where it has no row.
    - `row`: of each slot of each tile; the number of rows where it has none.
    - `slot`: of each row.
    - `count`: the numbers of patterns and of tiles, which may be more than there is place for.
    """
    num_rows, size = observed.shape
    place = most_patterns(num_rows, size)
    height = rows_of_a_tile(num_rows, place)
    tiles = -(-num_rows // height) + place
    tiles += -tiles % _tiles_at_once(size + 1, height)
    numbers = jnp.arange(num_rows, dtype=jnp.int32)
    words = []
    for first in range(0, size, 32):
        bits = observed[:, first : first + 32].astype(jnp.uint32)
        words.append((bits << jnp.arange(bits.shape[1], dtype=jnp.uint32)).sum(1, dtype=jnp.uint32))
    *words, order = lax.sort([*words, numbers], num_keys=len(words))
    differs = jnp.zeros(num_rows - 1, bool)
    for word in words:
        differs |= word[1:] != word[:-1]
    is_first = jnp.concatenate([jnp.ones(1, bool), differs])
    number = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    count = number[-1] + 1
    # what there is no place for is not read
    number = jnp.minimum(number, place - 1)
    within = numbers - jnp.full(place, num_rows, jnp.int32).at[number].min(numbers)[number]
    tile = jnp.minimum(jnp.cumsum(within % height == 0, dtype=jnp.int32), tiles) - 1
    slot = tile * height + within % height
    row = jnp.full(tiles * height, num_rows, jnp.int32).at[slot].set(order).reshape(tiles, height)
    known = jnp.concatenate([jnp.where(observed, x, 0), jnp.ones_like(x[:, :1])], 1)
    return {
        "observed": jnp.ones((place, size), bool).at[number].set(observed[order]),
        "pattern": jnp.zeros(tiles, jnp.int32).at[tile].set(number),
        "x": known.at[row].get(mode="fill", fill_value=0).swapaxes(1, 2),
        "row": row,
        "slot": jnp.zeros_like(numbers).at[order].set(slot),
        "count": jnp.stack([count, tile[-1] + 1]),
    }


def fit(groups: Mapping[str, Array]) -> Array | None:
    """Return whether there was place for all patterns; None: there always is."""
    place, size = groups["observed"].shape
    if place == 2**size:
        return None
    return groups["count"][0] <= place


# ── the marginal, in every step ───────────────────────────────────────────────────────────────────


def log_marginal_by_pattern(
    linear: Array, quadratic: Array, constant: Array, groups: Mapping[str, Array]
) -> Array:
    """Return log ∫ exp(⟨b, x⟩ + ⟨Q, x xᵀ⟩ + c) dx_missing − ½ n_missing log 2π, (value, row).

    - `linear`: b (value, D), `quadratic`: Q = −P/2 (value, D, D), `constant`: c (value).
    - `groups`: of the rows, no more patterns than there is place for (see `grouped`).

    It has a reverse pass, and no forward derivatives.
    """
    precision = -(quadratic + quadratic.mT)
    last = jnp.concatenate([-linear, -2 * constant[:, None]], 1)
    matrix = jnp.concatenate([precision, -linear[:, None]], 1)
    return _of_rows(jnp.concatenate([matrix, last[:, :, None]], 2), dict(groups))


@jax.custom_vjp
def _of_rows(matrix, groups):
    """Return −½ ỹᵀP̃′ỹ − ½ log |A| (value, row), of matrices P̃ (value, D + 1, D + 1)."""
    return _of_rows_forward(matrix, groups)[0]


def _of_rows_forward(matrix, groups):
    after, log_determinant = _of_patterns(matrix, groups)
    # log |A| is a constant, and so of the product 1 · 1
    whole = after.at[..., -1, -1].add(log_determinant)
    first, second = np.triu_indices(matrix.shape[-1])
    # an entry beside the diagonal stands for two
    times = np.where(first == second, -0.5, -1.0).astype(matrix.dtype)
    forms = _forms(times * whole[..., first, second], groups)
    of_slots = forms.swapaxes(1, 2).reshape(-1, len(matrix))
    return rows_of(of_slots, groups["slot"]).T, (after, groups)


def _of_rows_reverse(kept, cotangent):
    after, groups = kept
    # a slot that has no row reads one of zeros
    padded = jnp.pad(cotangent.T, ((0, 1), (0, 0)))
    moments = _moments(rows_of(padded, groups["row"]).swapaxes(1, 2), after, groups)
    return _pulled(after, -0.5 * moments, groups), None


_of_rows.defvjp(_of_rows_forward, _of_rows_reverse)


def _for_each(count, together: int, function: Callable, start: Any) -> Any:
    """Return what `function(first, so far)` makes of `count` things, some `together`, in turn."""
    turns = -(-count // together)
    return lax.fori_loop(0, turns, lambda i, so_far: function(i * together, so_far), start)


# ── by pattern ────────────────────────────────────────────────────────────────────────────────────


def _of_patterns(matrix, groups):
    """Return P̃ swept on what a pattern lacks (pattern, value, D + 1, D + 1), and log |A|.

    P̃′ is among what is observed.
    """
    num_values, size, _ = matrix.shape
    missing, together = _missing(groups, num_values)
    # elements last: each operation runs along them
    shape = size, size, num_values, together
    entries = jnp.broadcast_to(jnp.moveaxis(matrix, 0, 2)[..., None], shape)

    def with_next(first, found):
        where = lax.dynamic_slice_in_dim(missing, first, together).T[:, None]
        after, log_determinant = swept(entries, jnp.broadcast_to(where, shape[1:]))
        matrices = lax.dynamic_update_slice_in_dim(found[0], after.transpose(3, 2, 0, 1), first, 0)
        return matrices, lax.dynamic_update_slice_in_dim(found[1], log_determinant.T, first, 0)

    zeros = jnp.zeros((len(missing), *matrix.shape), matrix.dtype)
    return _for_each(groups["count"][0], together, with_next, (zeros, zeros[..., 0, 0]))


def _pulled(after, cotangent, groups):
    """Return what a cotangent of P̃′, and in its last entry of log |A|, is of P̃.

    With N the identity, and minus what was swept in the rows that were: dP̃′ = Nᵀ dP̃ N.
    """
    missing, together = _missing(groups, after.shape[1])
    identity = jnp.eye(after.shape[-1], dtype=after.dtype)

    def with_next(first, total):
        where, matrix, moved = (
            lax.dynamic_slice_in_dim(array, first, together)
            for array in (missing, after, cotangent)
        )
        in_row, in_column = where[:, None, :, None], where[:, None, None]
        turned = jnp.where(in_row, -matrix, identity)
        half = jnp.matmul(turned, moved, precision=EXACT)
        total += jnp.einsum("pkil,pkjl->kij", half, turned, precision=EXACT)
        among = jnp.where(in_row & in_column, matrix, 0)
        return total - (moved[..., -1:, -1:] * among).sum(0)

    return _for_each(groups["count"][0], together, with_next, jnp.zeros_like(after[0]))


def _missing(groups, num_values: int):
    """Return what each pattern lacks of (x, 1), and of how many matrices are made at once."""
    observed = groups["observed"]
    num_patterns, size = observed.shape
    together = min(num_patterns, max(1, ENTRIES // ((size + 1) ** 2 * num_values)))
    return jnp.pad(~observed, ((0, -num_patterns % together), (0, 1))), together


# ── by tile ───────────────────────────────────────────────────────────────────────────────────────


def _forms(table, groups):
    """Return Σ w_ij ỹ_i ỹ_j (tile, value, slot), of a table w (pattern, value, product)."""

    def with_next(first, forms):
        x, numbers = _tiles(first, groups["x"], groups["pattern"])
        # by number: where slots are last that is a copy of rows, quicker than slices side by side
        left, right = (rows_of(x.swapaxes(0, 1), i) for i in np.triu_indices(x.shape[1]))
        products = (left * right).swapaxes(0, 1)
        new = jnp.einsum("tkp,tps->tks", rows_of(table, numbers), products, precision=EXACT)
        return lax.dynamic_update_slice_in_dim(forms, new, first, 0)

    tiles, size, height = groups["x"].shape
    zeros = jnp.zeros((tiles, table.shape[1], height), table.dtype)
    return _for_each(groups["count"][1], _tiles_at_once(size, height), with_next, zeros)


def _moments(cotangent, like, groups):
    """Return Σ c ỹỹᵀ, of the shape of `like` (pattern, value, D + 1, D + 1).

    The weights c are (tile, value, slot).
    """

    def with_next(first, total):
        x, numbers, weights = _tiles(first, groups["x"], groups["pattern"], cotangent)
        # no products here: as quick where coordinates are few, slower where they are many
        weighted = weights[:, :, None] * x[:, None]
        new = jnp.einsum("tkis,tjs->tkij", weighted, x, precision=EXACT)
        at = total.at[numbers]
        return at.add(new, mode="promise_in_bounds", wrap_negative_indices=False)

    together = _tiles_at_once(*groups["x"].shape[1:])
    return _for_each(groups["count"][1], together, with_next, jnp.zeros_like(like))


def _tiles_at_once(size: int, height: int) -> int:
    return max(1, PRODUCTS // (size * (size + 1) // 2 * height))


def _tiles(first, x, *more):
    """Return x, and more arrays, of some tiles from the first."""
    together = _tiles_at_once(*x.shape[1:])
    return [lax.dynamic_slice_in_dim(array, first, together) for array in (x, *more)]


PATTERNS = Patterns(are_worth_it, grouped, fit, log_marginal_by_pattern)
