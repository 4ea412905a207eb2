"""Hidden Markov models by hand: log Z by a scan over scaled messages.

The expected count of a probability p is p ∂ log Z / ∂p.

All sequences have one length, so there is no mask.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from experiments.benchmarks.by_hand import gradient_over_blocks, normalized, runner
from experiments.benchmarks.by_hand_gaussian import centered, moved_back
from experiments.benchmarks.contestant import Run

MANY = 1_000  # sequences: where there are so many, operations run along them, a block of so many


def log_z(
    initial: Float[Array, "state"],
    transition: Float[Array, "state next"],
    seen: Shaped[Array, "time sequence ..."],
    density: Callable[[Shaped[Array, "sequence ..."]], Float[Array, "sequence state"]],
) -> Float[Array, ""]:
    """Return log p(x), summed over sequences, with density(x_t) = p(x_t | z_t)."""

    def scaled(product):
        scale = product.sum(axis=-1, keepdims=True)
        return product / scale, scale

    first, scale = scaled(initial * density(seen[0]))
    _, scales = lax.scan(
        lambda message, x: scaled((message @ transition) * density(x)), first, seen[1:]
    )
    return jnp.log(scale).sum() + jnp.log(scales).sum()


def categorical_step(params: dict, symbols: Array) -> dict:
    """Return the parameters after one EM step.

    Probabilities of symbols are looked up within the scan, which is faster than before it.
    """

    def evidence(params):
        table = params["emission"].T
        return log_z(params["initial"], params["transition"], symbols, lambda now: table[now])

    gradients = jax.grad(evidence)(params)
    return {name: normalized(params[name] * gradients[name]) for name in params}


def categorical(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a chain that emits symbols."""
    symbols = data.pop("symbols")
    if symbols.shape[1] < MANY:
        return runner(categorical_step, start, jnp.asarray(symbols))
    return runner(many_symbols_step, start, in_blocks(symbols))


def in_blocks(seen: Shaped[np.ndarray, "time *feature sequence"]) -> Shaped[Array, "block ..."]:
    """Return the sequences in blocks, which stay in the cache from their first step to their last.

    Sequences come last, so that each operation runs along them: it is (block, time, …, sequence).
    """
    num_sequences = seen.shape[-1]
    size = next(size for size in range(MANY, 0, -1) if num_sequences % size == 0)
    return jnp.asarray(np.moveaxis(seen.reshape(*seen.shape[:-1], -1, size), -2, 0).copy())


def log_z_of_many(
    initial: Float[Array, "state"],
    transition: Float[Array, "state next"],
    seen: Shaped[Array, "time ... sequence"],
    density: Callable[[Shaped[Array, "... sequence"]], Float[Array, "state sequence"]],
) -> Float[Array, ""]:
    """Return `log_z`, where states come first and sequences last."""

    def scaled(product):
        scale = product.sum(axis=0)
        return product / scale, scale

    first, scale = scaled(initial[:, None] * density(seen[0]))
    _, scales = lax.scan(
        lambda message, x: scaled((transition.T @ message) * density(x)), first, seen[1:]
    )
    return jnp.log(scale).sum() + jnp.log(scales).sum()


def many_symbols_step(params: dict, symbols: Shaped[Array, "block time sequence"]) -> dict:
    """Return the parameters after one EM step, of many short sequences."""

    def evidence(params, symbols):
        emission = params["emission"]
        chain = params["initial"], params["transition"]
        return log_z_of_many(*chain, symbols, lambda now: emission[:, now])

    gradients = gradient_over_blocks(evidence, params, symbols)
    return {name: normalized(params[name] * gradients[name]) for name in params}


def natural(params: dict) -> Float[Array, "state statistic"]:
    """Return natural parameters of independent normals, which go with (x², x, 1)."""
    precision = 1 / params["scale"] ** 2
    linear, num_features = params["loc"] * precision, precision.shape[1]
    distance = (linear * params["loc"] - jnp.log(precision)).sum(1)
    constant = -0.5 * (distance + num_features * jnp.log(2 * jnp.pi))
    return jnp.concatenate([-0.5 * precision, linear, constant[:, None]], axis=1)


def many_points_step(params: dict, points: Float[Array, "block time feature sequence"]) -> dict:
    """Return the parameters after one EM step, of many short sequences."""

    def evidence(tables, x):
        initial, transition, table = tables
        statistics = jnp.concatenate([x * x, x, jnp.ones_like(x[:, :1])], axis=1)
        log_density = jnp.einsum("ki,tis->tks", table, statistics)
        largest = lax.stop_gradient(log_density.max(axis=1, keepdims=True))
        densities = jnp.exp(log_density - largest)
        return log_z_of_many(initial, transition, densities, lambda now: now) + largest.sum()

    tables = params["initial"], params["transition"], natural(params)
    first, moves, expected = gradient_over_blocks(evidence, tables, points)
    initial, transition = normalized(tables[0] * first), normalized(tables[1] * moves)
    second, loc = jnp.split(expected[:, :-1] / expected[:, -1:], 2, axis=1)
    spread = {"loc": loc, "scale": jnp.sqrt(second - loc**2)}
    return {"initial": initial, "transition": transition} | spread


def gaussian_step(params: dict, features: Float[Array, "time sequence statistic"]) -> dict:
    """Return the parameters after one EM step.

    The densities of all points are one matrix product, features (x², x, 1) by natural parameters.
    """
    initial, transition, table = params["initial"], params["transition"], natural(params).T
    num_features = params["loc"].shape[1]

    def evidence(initial, transition, table):
        log_density = features @ table
        largest = lax.stop_gradient(log_density.max(axis=-1, keepdims=True))
        densities = jnp.exp(log_density - largest)
        return log_z(initial, transition, densities, lambda now: now) + largest.sum()

    first, moves, expected = jax.grad(evidence, argnums=(0, 1, 2))(initial, transition, table)
    count = expected[-1][:, None]
    second, loc = expected[:num_features].T / count, expected[num_features:-1].T / count
    initial, transition = normalized(initial * first), normalized(transition * moves)
    spread = {"loc": loc, "scale": jnp.sqrt(second - loc**2)}
    return {"initial": initial, "transition": transition} | spread


def gaussian(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a chain that emits points with independent features."""
    shape = data["points"].shape
    points, mean, start = centered({"points": data.pop("points").reshape(-1, shape[-1])}, start)
    if shape[1] >= MANY:
        points = in_blocks(points.reshape(shape).swapaxes(1, 2))
        return moved_back(runner(many_points_step, start, points), mean)
    points = jnp.asarray(points.reshape(shape))
    features = jnp.concatenate([points * points, points, jnp.ones_like(points[..., :1])], axis=-1)
    return moved_back(runner(gaussian_step, start, features), mean)


SETUPS = {"hand-written JAX": {"hmm_categorical": categorical, "hmm_gaussian": gaussian}}
