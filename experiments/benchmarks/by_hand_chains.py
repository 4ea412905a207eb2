"""Hidden Markov models by hand: log Z by a scan over scaled messages.

The expected count of a probability p is p ∂ log Z / ∂p.

All sequences have one length, so there is no mask.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from experiments.benchmarks.by_hand import normalized, runner
from experiments.benchmarks.by_hand_gaussian import centered, moved_back
from experiments.benchmarks.contestant import Run


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
    return runner(categorical_step, start, jnp.asarray(data.pop("symbols")))


def gaussian_step(params: dict, features: Float[Array, "time sequence statistic"]) -> dict:
    """Return the parameters after one EM step.

    The densities of all points are one matrix product, features (x², x, 1) by natural parameters.
    """
    initial, transition, loc = params["initial"], params["transition"], params["loc"]
    num_features, precision = loc.shape[1], 1 / params["scale"] ** 2
    distance = (loc**2 * precision).sum(1)
    constant = 0.5 * (jnp.log(precision).sum(1) - distance - num_features * jnp.log(2 * jnp.pi))
    table = jnp.concatenate([-0.5 * precision, loc * precision, constant[:, None]], axis=1).T

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
    points = jnp.asarray(points.reshape(shape))
    features = jnp.concatenate([points * points, points, jnp.ones_like(points[..., :1])], axis=-1)
    return moved_back(runner(gaussian_step, start, features), mean)


SETUPS = {"hand-written JAX": {"hmm_categorical": categorical, "hmm_gaussian": gaussian}}
