"""Gaussian mixtures by hand: logits = features(x) @ η, with points measured from their mean."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Float

from experiments.benchmarks.by_hand import (
    CACHE,
    blocks,
    gradient_over_blocks,
    log,
    normalized,
    runner,
)
from experiments.benchmarks.contestant import Fit, Run

# features: above, the products x_i x_j cost more to form than they save in the matrix product
PACKED = 32
OWN_CACHE = 300_000  # bytes: what a core has for itself, with room for others


def centered(data: dict, start: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the points less their mean, the mean, and the start moved with them."""
    points = data.pop("points")
    mean = points.mean(axis=0, dtype=np.float64).astype(points.dtype)
    return points - mean, mean, start | {"loc": start["loc"] - mean}


def moved_back(run: Run, mean: np.ndarray) -> Run:
    """Return the run whose means are in the coordinates of the data."""

    def original(num_steps: int) -> Fit:
        params, num_steps = run(num_steps)
        return Fit(params | {"loc": params["loc"] + mean}, num_steps)

    return original


def packed(points: Float[Array, "row feature"]) -> Float[Array, "row statistic"]:
    """Return x_i x_j for i ≥ j, then x, then 1."""
    products = [points[:, i:] * points[:, i : i + 1] for i in range(points.shape[1])]
    return jnp.concatenate([*products, points, jnp.ones_like(points[:, :1])], axis=1)


def num_statistics(num_features: int) -> int:
    """Return how many columns `packed` has."""
    return num_features * (num_features + 1) // 2 + num_features + 1


def packed_table(params: dict) -> Float[Array, "component statistic"]:
    """Return the natural parameters of a full mixture, which go with `packed`."""
    j, i = np.triu_indices(params["loc"].shape[1])  # the order of `packed`
    precision = jnp.linalg.inv(params["covariance"])
    linear = jnp.einsum("kij,kj->ki", precision, params["loc"])
    constant = gaussian_constant(params, linear, precision)
    quadratic = -precision[:, i, j] * jnp.where(i == j, 0.5, 1.0)
    return jnp.concatenate([quadratic, linear, constant[:, None]], axis=1)


def from_packed(expected: Float[Array, "component statistic"], num_features: int) -> dict:
    """Return the parameters of a full mixture that expected statistics lead to."""
    j, i = np.triu_indices(num_features)
    products, count = expected[:, : len(i)], expected[:, -1]
    loc = expected[:, len(i) : -1] / count[:, None]
    zero = jnp.zeros((len(loc), num_features, num_features), loc.dtype)
    # both halves of a symmetric matrix
    second = zero.at[:, i, j].set(products).at[:, j, i].set(products)
    covariance = second / count[:, None, None] - loc[:, :, None] * loc[:, None, :]
    return {"weights": normalized(count), "loc": loc, "covariance": covariance}


def packed_step(params: dict, data: Float[Array, "block row feature"]) -> dict:
    """Return the parameters of a full mixture after one EM step, on packed products.

    It takes two matrix products a block.
    """

    def log_z(table, x):
        return logsumexp(packed(x) @ table, axis=1).sum()

    expected = gradient_over_blocks(log_z, packed_table(params).T, data).T
    return from_packed(expected, data.shape[-1])


def gaussian_constant(params: dict, linear: Array, precision: Array) -> Float[Array, "component"]:
    """Return log w_k less the log-normalizer of each component."""
    num_features = linear.shape[1]
    distance = jnp.einsum("ki,ki->k", linear, params["loc"])
    log_det = jnp.linalg.slogdet(precision)[1]
    return log(params["weights"]) + 0.5 * (log_det - distance - num_features * jnp.log(2 * jnp.pi))


def product_step(params: dict, data: Float[Array, "block row feature"]) -> dict:
    """Return the parameters of a full mixture after one EM step.

    x P_k for all k is one matrix product.
    """
    num_components, num_features = params["loc"].shape
    precision = jnp.linalg.inv(params["covariance"])
    linear = jnp.einsum("kij,kj->ki", precision, params["loc"])
    tables = (
        precision.transpose(1, 0, 2).reshape(num_features, -1),
        linear.T,
        gaussian_constant(params, linear, precision),
    )

    def log_z(tables, x):
        precision, linear, constant = tables
        mapped = (x @ precision).reshape(len(x), num_components, num_features)
        quadratic = (mapped * x[:, None, :]).sum(-1)
        return logsumexp(x @ linear + constant - 0.5 * quadratic, axis=1).sum()

    second, first, count = gradient_over_blocks(log_z, tables, data)
    second = -2 * second.reshape(num_features, num_components, num_features).transpose(1, 0, 2)
    loc = first.T / count[:, None]
    covariance = second / count[:, None, None] - loc[:, :, None] * loc[:, None, :]
    return {"weights": normalized(count), "loc": loc, "covariance": covariance}


def gaussian_full(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture with full covariances."""
    points, mean, start = centered(data, start)
    num_features, num_components = points.shape[1], sizes["num_components"]
    if num_features <= PACKED:
        return moved_back(
            runner(packed_step, start, blocks(points, num_statistics(num_features))), mean
        )
    return moved_back(
        runner(product_step, start, blocks(points, num_features * num_components)), mean
    )


def diagonal_table(params: dict) -> Float[Array, "statistic component"]:
    """Return the natural parameters of a mixture with diagonal covariances: of x², x and 1."""
    precision = 1 / params["scale"] ** 2
    linear, num_features = params["loc"] * precision, precision.shape[1]
    distance = (linear * params["loc"] - jnp.log(precision)).sum(1)
    constant = log(params["weights"]) - 0.5 * (distance + num_features * jnp.log(2 * jnp.pi))
    return jnp.concatenate([-0.5 * precision, linear, constant[:, None]], axis=1).T


def diagonal_log_z(table: Array, x: Float[Array, "row feature"]) -> Float[Array, ""]:
    """Return the log-likelihood of some rows."""
    statistics = jnp.concatenate([x * x, x, jnp.ones_like(x[:, :1])], axis=1)
    return logsumexp(statistics @ table, axis=1).sum()


def from_diagonal(expected: Float[Array, "statistic component"]) -> dict:
    """Return the parameters that expected statistics lead to."""
    sums, count = expected.T[:, :-1], expected[-1]
    second, loc = jnp.split(sums / count[:, None], 2, axis=1)
    return {"weights": normalized(count), "loc": loc, "scale": jnp.sqrt(second - loc**2)}


def diagonal_step(params: dict, data: Float[Array, "block row feature"]) -> dict:
    """Return the parameters after one EM step of a mixture with diagonal covariances."""
    return from_diagonal(gradient_over_blocks(diagonal_log_z, diagonal_table(params), data))


def gaussian_diagonal(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture with diagonal covariances."""
    points, mean, start = centered(data, start)
    width = 2 * points.shape[1] + sizes["num_components"]
    return moved_back(runner(diagonal_step, start, blocks(points, width)), mean)


def line_step(params: dict, data: Float[Array, "block row"]) -> dict:
    """Return the parameters after one EM step of a mixture on the line.

    Components come first and points last, so that each operation runs along points.
    """
    precision = 1 / params["scale"] ** 2
    linear = params["loc"] * precision
    constant = jnp.log(precision) - linear * params["loc"] - jnp.log(2 * jnp.pi)
    constant = log(params["weights"]) + 0.5 * constant
    columns = [term[:, None] for term in (-0.5 * precision, linear, constant)]

    def add(total, x):
        logits = (columns[0] * x + columns[1]) * x + columns[2]
        density = jnp.exp(logits - logits.max(axis=0))
        posterior = density / density.sum(axis=0)
        sums = [(posterior * power).sum(axis=1) for power in (x * x, x, jnp.ones_like(x))]
        return total + jnp.stack(sums), None

    second, first, count = lax.scan(add, jnp.zeros((3, len(linear)), data.dtype), data)[0]
    loc = first / count
    return {"weights": normalized(count), "loc": loc, "scale": jnp.sqrt(second / count - loc**2)}


def gaussian_1d(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture on the line."""
    points, mean, start = centered(data, start)
    # of a core's own cache, since each of the operations on a block goes over it
    width = (CACHE // OWN_CACHE) * (2 + sizes["num_components"])
    return moved_back(runner(line_step, start, blocks(points, width)), mean)


def matrix_products(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the two products alone, the physical limit.

    They are features (row, statistic) by a table, and their transpose by the result.
    """
    points = data.pop("points")
    features = jax.jit(jax.vmap(packed))(blocks(points, num_statistics(points.shape[1])))
    table = jnp.full((features.shape[-1], sizes["num_components"]), 1e-3, features.dtype)

    @jax.jit
    def loop(table, features, num_steps):
        def block(table):
            return lambda total, rows: (total + rows.T @ (rows @ table), None)

        def step(_, table):  # scaled, so that it stays finite
            total = lax.scan(block(table), jnp.zeros_like(table), features)[0]
            return total / jnp.abs(total).max()

        return lax.fori_loop(0, num_steps, step, table)

    def run(num_steps: int) -> Fit:
        return Fit({"table": np.asarray(loop(table, features, num_steps))}, num_steps)

    return run


SETUPS = {
    "hand-written JAX": {
        "gaussian_full": gaussian_full,
        "gaussian_diagonal": gaussian_diagonal,
        "gaussian_1d": gaussian_1d,
    },
    "matrix products alone": {"gaussian_full": matrix_products},
}
