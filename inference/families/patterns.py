"""Normals with missing coordinates, by patterns of what is missing.

With x̃ = (x, 1) and P̃ = [[P, −b], [−bᵀ, −2c]], exp(⟨b, x⟩ − ½ xᵀP x + c) is exp(−½ x̃ᵀP̃ x̃).
Integrated over what is missing it is of the same form in what is observed: with A = P among the
missing coordinates and P̃′ the Schur complement of A,

    log ∫ … dx_missing  =  −½ ỹᵀP̃′ỹ  −  ½ log |A|  +  ½ n_missing log 2π.

P̃′ is the same for all rows of one pattern. So there is one matrix for each pattern and value of the
latents, and rows, in tiles of one pattern each, are matrix products. Source: Little & Rubin (2019),
sections 7.4.3 and 11.2.1; that dP̃′ = Nᵀ dP̃ N: ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax.families.missing import swept

EXACT = "highest"
# Entries of the matrices of all patterns, of one value of the latents, and how many rows a pattern
# has in the mean at least: with more patterns, rows are taken one by one.
MOST_ENTRIES = 2**20
FEWEST_IN_PATTERN = 8
# Fewer rows than this are taken one by one: they cost nothing, and less to compile.
FEWEST_ROWS = 1000
# Entries of the matrices, and numbers of the rows, that are worked on at once.
ENTRIES = 2**15
NUMBERS = 2**17
# Above this, products x_i x_j cost more than they save (see `e_step.products`).
LARGEST_PACKED = 32


def rows_of_a_tile(size: int) -> int:
    """Return how many rows of `size` coordinates a tile has: its matrices should be worth it."""
    return min(128, max(16, 2 * size))


def most_patterns(num_rows: int, size: int) -> int:
    """Return the number of patterns for which there is place."""
    possible = 2**size if size < 32 else num_rows
    return max(1, min(possible, num_rows // FEWEST_IN_PATTERN, MOST_ENTRIES // (size + 1) ** 2))


def grouped(observed: Array) -> dict[str, Array]:
    """Return rows grouped by which of their coordinates are `observed` (row, coordinate).

    - `observed`: of each pattern.
    - `pattern`: of each tile; all its rows have it.
    - `row`: of each slot of each tile; the number of rows where a tile is not full.
    - `slot`: of each row.
    - `count`: the numbers of patterns and of tiles, which may be more than there is place for.
    """
    num_rows, size = observed.shape
    place, height = most_patterns(num_rows, size), rows_of_a_tile(size)
    tiles = -(-num_rows // height) + place
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
    within = numbers - lax.cummax(jnp.where(is_first, numbers, 0))
    number = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    tile = jnp.cumsum(within % height == 0, dtype=jnp.int32) - 1
    slot = tile * height + within % height
    empty = jnp.full(tiles * height, num_rows, jnp.int32)
    return {
        "observed": jnp.ones((place, size), bool).at[number].set(observed[order], mode="drop"),
        "pattern": jnp.zeros(tiles, jnp.int32).at[tile].set(number, mode="drop"),
        "row": empty.at[slot].set(order, mode="drop").reshape(tiles, height),
        "slot": jnp.zeros_like(numbers).at[order].set(slot),
        "count": jnp.stack([number[-1] + 1, tile[-1] + 1]),
    }


def are_worth_it(num_rows: int, size: int) -> bool:
    """Whether rows of `size` coordinates are grouped at all."""
    return num_rows >= FEWEST_ROWS and most_patterns(num_rows, size) > 1


def fit(groups: Mapping[str, Array]) -> Array | None:
    """Return whether there was place for all patterns; None: there always is."""
    place, size = groups["observed"].shape
    if place == 2**size:
        return None
    return groups["count"][0] <= place


def log_marginal_by_pattern(
    linear: Array, quadratic: Array, constant: Array, x: Array, groups: Mapping[str, Array]
) -> Array:
    """Return log ∫ exp(⟨b, x⟩ + ⟨Q, x xᵀ⟩ + c) dx_missing − ½ n_missing log 2π, (value, row).

    - `linear`: b (value, D), `quadratic`: Q = −P/2 (value, D, D), `constant`: c (value).
    - `x` (row, D): anything finite where it is missing.
    - `groups`: of the rows, no more patterns than there is place for (see `grouped`).
    """
    precision = -(quadratic + quadratic.mT)
    last = jnp.concatenate([-linear, -2 * constant[:, None]], 1)
    matrix = jnp.concatenate([precision, -linear[:, None]], 1)
    matrix = jnp.concatenate([matrix, last[:, :, None]], 2)
    table = _of_patterns(matrix, groups["observed"], groups["count"][0])
    observed = jnp.concatenate([groups["observed"], jnp.ones_like(groups["observed"][:, :1])], 1)
    rows = jnp.concatenate([x, jnp.ones_like(x[:, :1])], 1)
    # the row of a slot that has none
    rows = jnp.concatenate([rows, jnp.zeros_like(rows[:1])])
    pattern = groups["pattern"]
    of_tiles = table[pattern], observed[pattern], groups["row"]
    width = table.shape[1] * table.shape[2] + groups["row"].shape[1] * table.shape[1]

    def tile(table, observed, row):
        return _forms(jnp.where(observed[:, None], rows[row], 0), table)

    # the reverse pass forms products again, rather than keep those of all rows
    forms = _live(tile, of_tiles, groups["count"][1], NUMBERS // width, again=True)
    forms = forms.reshape(-1, forms.shape[-1])
    return _in_rows(forms, groups["slot"], groups["row"].reshape(-1)).T


def _of_patterns(matrix, observed, count):
    """Return −½ P̃′ of every pattern as weights of products ỹ_i ỹ_j, with −½ log |A|."""
    size = matrix.shape[-1]

    def of_some(observed):
        missing = jnp.concatenate([~observed, jnp.zeros_like(observed[:, :1])], 1)
        # elements last: each operation runs along them
        missing = missing.T[:, None]
        shape = size, size, len(matrix), len(observed)
        entries = jnp.broadcast_to(jnp.moveaxis(matrix, 0, 2)[..., None], shape)
        after, log_determinant = swept(entries, jnp.broadcast_to(missing, shape[1:]))
        # −½ log |A| is a constant, and so of the product 1 · 1
        is_one = np.zeros((size, size, 1, 1), bool)
        is_one[-1, -1] = True
        weights = -0.5 * (after + jnp.where(is_one, log_determinant, 0))
        if size <= LARGEST_PACKED:
            i, j = np.triu_indices(size)
            weights = np.where(i == j, 1, 2).astype(weights.dtype)[:, None, None] * weights[i, j]
            return jnp.moveaxis(weights, 2, 0)
        weights = jnp.transpose(weights, (3, 0, 2, 1))
        return weights.reshape(len(observed), size, -1)

    return _live(of_some, (observed,), count, ENTRIES // (size**2 * len(matrix)))


def _forms(rows, weights):
    """Return −½ ỹᵀP̃′ỹ (tile, row, value) of rows (tile, row, D + 1), by weights of each tile."""
    size = rows.shape[-1]
    if size <= LARGEST_PACKED:
        i, j = np.triu_indices(size)
        return jnp.matmul(rows[..., i] * rows[..., j], weights, precision=EXACT)
    products = jnp.matmul(rows, weights, precision=EXACT)
    products = products.reshape(*rows.shape[:2], -1, size)
    return (products * rows[:, :, None]).sum(-1)


def _live(function, arrays, count, together, again=False):
    """Return a function of arrays, for the first `count` of their rows, some `together`; then 0.

    `again`: whether the reverse pass computes it again, rather than keep what it takes.
    """
    length = len(arrays[0])
    together = max(1, together)
    if length <= together:
        return function(*arrays)
    turns = -(-length // together)
    padded = []
    for array in arrays:
        widths = [(0, turns * together - length)] + [(0, 0)] * (array.ndim - 1)
        padded.append(
            jnp.pad(array, widths, mode="edge").reshape(turns, together, *array.shape[1:])
        )
    like = jax.eval_shape(function, *(array[0] for array in padded))

    def turn(number, arrays):
        zeros = jnp.zeros(like.shape, like.dtype)
        return lax.cond(number * together < count, lambda: function(*arrays), lambda: zeros)

    kept = jax.checkpoint(turn) if again else turn
    results = lax.map(lambda each: kept(*each), (jnp.arange(turns), padded))
    return results.reshape(-1, *like.shape[1:])[:length]


@jax.custom_vjp
def _in_rows(forms, slot, row):
    """Return what is in the slot of each row. The reverse pass reads, too: it adds nothing up."""
    return forms[slot]


def _in_rows_forward(forms, slot, row):
    return forms[slot], row


def _in_rows_reverse(row, cotangent):
    padded = jnp.concatenate([cotangent, jnp.zeros_like(cotangent[:1])])
    return padded[row], None, None


_in_rows.defvjp(_in_rows_forward, _in_rows_reverse)
