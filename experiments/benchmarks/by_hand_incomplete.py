"""Gaussian mixtures of incomplete points by hand: rows sorted by which coordinates they have.

With y the point, zero where it is missing, and o which coordinates it has, the density of what is
observed is quadratic in y, and E[x | y] is affine in it: one inverse for each pattern and
component, and matrix products of rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.ops import segment_sum
from jaxtyping import Array, Bool, Float

from experiments.benchmarks.by_hand import log, normalized, runner
from experiments.benchmarks.by_hand_gaussian import moved_back, packed
from experiments.benchmarks.contestant import Run

ROWS = 64  # of a block, all of one pattern


def sorted_by_pattern(points: Float[np.ndarray, "row feature"]) -> dict[str, np.ndarray]:
    """Return blocks of rows of one pattern, filled up with rows that count nothing.

    `points` (block, row, feature), `count` (block, row), `pattern` (block,), `observed` (pattern,
    feature).
    """
    observed, pattern = np.unique(~np.isnan(points), axis=0, return_inverse=True)
    blocks, counts, patterns = [], [], []
    for number in range(len(observed)):
        rows = np.nan_to_num(points[pattern.ravel() == number])
        num_blocks = -(-len(rows) // ROWS)
        missing = num_blocks * ROWS - len(rows)
        blocks.append(np.pad(rows, ((0, missing), (0, 0))).reshape(-1, ROWS, points.shape[1]))
        counts.append(np.pad(np.ones(len(rows)), (0, missing)).reshape(-1, ROWS))
        patterns.append(np.full(num_blocks, number, np.int32))
    count = np.concatenate(counts).astype(points.dtype)
    found = {"points": np.concatenate(blocks), "count": count}
    return found | {"pattern": np.concatenate(patterns), "observed": observed}


def inverse(matrix: Float[Array, "row row ..."]) -> tuple[Array, Array]:
    """Return A⁻¹ and log |A| of positive definite matrices, swept coordinate by coordinate."""
    log_determinant = 0.0
    for k in range(len(matrix)):
        pivot = matrix[k, k]
        log_determinant += jnp.log(pivot)
        row = matrix[k] / pivot
        matrix = matrix - matrix[:, k][:, None] * row[None]
        matrix = matrix.at[k].set(row).at[:, k].set(row).at[k, k].set(-1 / pivot)
    return -matrix, log_determinant


def by_pattern(params: dict, observed: Bool[Array, "pattern feature"]) -> tuple:
    """Return, of each pattern and component, the table of log densities, and x given y.

    `table` (pattern, statistic, component) goes with `packed`; `mean` (pattern, component, feature,
    feature + 1) takes (y, 1) to E[x | y], whose covariance is `left`.
    """
    loc, covariance = params["loc"], params["covariance"]
    num_features = loc.shape[1]
    seen = observed.T.astype(loc.dtype)[:, :, None]  # (feature, pattern, component)
    both = seen[:, None] * seen[None]
    unit = jnp.eye(num_features)[:, :, None, None]
    matrices = covariance.transpose(1, 2, 0)[:, :, None]  # (feature, feature, 1, component)
    precision, log_determinant = inverse(both * matrices + (1 - seen)[:, None] * unit)
    precision = (both * precision).transpose(2, 3, 0, 1)
    seen = seen.transpose(1, 2, 0)  # (pattern, 1, feature)
    linear = jnp.einsum("pkij,kj->pki", precision, loc)
    size = seen.sum(-1)
    constant = (linear * loc).sum(-1) + log_determinant + size * jnp.log(2 * jnp.pi)
    constant = log(params["weights"]) - 0.5 * constant
    j, i = np.triu_indices(num_features)  # the order of `packed`
    quadratic = -precision[..., i, j] * jnp.where(i == j, 0.5, 1.0)
    table = jnp.concatenate([quadratic, linear, constant[..., None]], axis=-1)
    # x = y + missing ∘ (loc + Σ P (y − loc))
    gain = (1 - seen)[..., None] * jnp.einsum("kij,pkjl->pkil", covariance, precision)
    shift = (1 - seen) * (loc - jnp.einsum("kij,pkj->pki", covariance, linear))
    explained = gain @ covariance
    mean = jnp.concatenate([gain + seen[..., None] * jnp.eye(num_features), shift[..., None]], -1)
    missing = (1 - seen)[..., None] * (1 - seen)[..., None, :]
    return table.swapaxes(1, 2), mean, missing * (covariance - explained)


def step(params: dict, data: dict) -> dict:
    """Return the parameters after one EM step."""
    observed, pattern = data["observed"], data["pattern"]
    num_patterns, num_features = observed.shape
    table, mean, left = by_pattern(params, observed)
    statistics = data["statistics"]  # (block, row, statistic)
    posterior = jax.nn.softmax(statistics @ table[pattern], axis=-1) * data["count"][..., None]
    sums = jnp.einsum("brs,brk->bks", statistics, posterior)
    sums = segment_sum(sums, pattern, num_patterns, indices_are_sorted=True)
    j, i = np.triu_indices(num_features)
    products, of_y = sums[..., : len(i)], sums[..., len(i) :]  # y and 1
    moments = jnp.zeros((*sums.shape[:2], num_features + 1, num_features + 1), sums.dtype)
    moments = moments.at[..., i, j].set(products).at[..., j, i].set(products)
    moments = moments.at[..., -1, :].set(of_y).at[..., :, -1].set(of_y)
    count = of_y[..., -1].sum(0)[:, None]
    first = jnp.einsum("pkij,pkj->ki", mean, of_y) / count
    second = jnp.einsum("pkij,pkjl,pkml->kim", mean, moments, mean)
    second = (second + jnp.einsum("pk,pkij->kij", of_y[..., -1], left)) / count[..., None]
    covariance = second - first[:, :, None] * first[:, None]
    return {"weights": normalized(count[:, 0]), "loc": first, "covariance": covariance}


def incomplete(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the mixture."""
    points = data.pop("points")
    mean = np.nanmean(points, axis=0, dtype=np.float64).astype(points.dtype)
    rows = sorted_by_pattern(points - mean)
    rows["statistics"] = jax.jit(jax.vmap(packed))(rows.pop("points"))
    start = start | {"loc": start["loc"] - mean}
    return moved_back(runner(step, start, jax.tree.map(jnp.asarray, rows)), mean)


SETUPS = {
    "hand-written JAX": {
        "incomplete_at_random": incomplete,
        "incomplete_in_blocks": incomplete,
    }
}
