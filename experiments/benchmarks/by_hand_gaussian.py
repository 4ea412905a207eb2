"""Gaussian mixtures by hand: logits = features(x) @ η, with points measured from their mean."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Float

from experiments.benchmarks.by_hand import blocks, gradient_over_blocks, log, normalized, runner
from experiments.benchmarks.contestant import Fit, Run

# features: above, the products x_i x_j cost more to form than they save in the matrix product
PACKED = 32


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


def packed_step(params: dict, data: Float[Array, "block row feature"]) -> dict:
    """Return the parameters of a full mixture after one EM step, on packed products.

    It takes two matrix products a block.
    """
    num_features = data.shape[-1]
    j, i = np.triu_indices(num_features)  # the order of `packed`
    precision = jnp.linalg.inv(params["covariance"])
    linear = jnp.einsum("kij,kj->ki", precision, params["loc"])
    constant = gaussian_constant(params, linear, precision)
    quadratic = -precision[:, i, j] * jnp.where(i == j, 0.5, 1.0)
    table = jnp.concatenate([quadratic, linear, constant[:, None]], axis=1).T

    def log_z(table, x):
        return logsumexp(packed(x) @ table, axis=1).sum()

    expected = gradient_over_blocks(log_z, table, data).T
    products, count = expected[:, : len(i)], expected[:, -1]
    loc = expected[:, len(i) : -1] / count[:, None]
    half = jnp.zeros_like(precision).at[:, i, j].set(products)
    second = half.at[:, j, i].set(products)  # the other half of a symmetric matrix
    covariance = second / count[:, None, None] - loc[:, :, None] * loc[:, None, :]
    return {"weights": normalized(count), "loc": loc, "covariance": covariance}


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


def diagonal_step(params: dict, data: Float[Array, "block row feature"]) -> dict:
    """Return the parameters after one EM step of a mixture with diagonal covariances."""
    precision = 1 / params["scale"] ** 2
    distance = (params["loc"] ** 2 * precision).sum(1)
    num_features = data.shape[-1]
    constant = log(params["weights"]) + 0.5 * (
        jnp.log(precision).sum(1) - distance - num_features * jnp.log(2 * jnp.pi)
    )
    table = jnp.concatenate(
        [-0.5 * precision, params["loc"] * precision, constant[:, None]], axis=1
    ).T

    def log_z(table, x):
        return logsumexp(
            jnp.concatenate([x * x, x, jnp.ones_like(x[:, :1])], axis=1) @ table, axis=1
        ).sum()

    expected = gradient_over_blocks(log_z, table, data).T
    count = expected[:, -1:]
    second, loc = expected[:, :num_features] / count, expected[:, num_features:-1] / count
    return {"weights": normalized(count[:, 0]), "loc": loc, "scale": jnp.sqrt(second - loc**2)}


def gaussian_diagonal(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture with diagonal covariances."""
    points, mean, start = centered(data, start)
    width = 2 * points.shape[1] + sizes["num_components"]
    return moved_back(runner(diagonal_step, start, blocks(points, width)), mean)


def gaussian_1d(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture on the line: the diagonal one, with one feature."""
    points, mean, start = centered(data, start)
    start = start | {name: start[name][:, None] for name in ("loc", "scale")}
    run = moved_back(
        runner(diagonal_step, start, blocks(points[:, None], 2 + sizes["num_components"])), mean
    )

    def squeezed(num_steps: int) -> Fit:
        params, num_steps = run(num_steps)
        return Fit({name: value.reshape(-1) for name, value in params.items()}, num_steps)

    return squeezed


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
