"""The log-likelihood and its gradient: `emjax.marginalized`, NumPyro's enumeration, by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import gammaln
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.contrib.funsor import log_density as enumerated_log_density
from numpyro.infer.util import log_density

from emjax import marginalized
from experiments.benchmarks.by_hand import blocks
from experiments.benchmarks.by_hand_chains import log_z
from experiments.benchmarks.by_hand_gaussian import diagonal_log_z, diagonal_table
from experiments.benchmarks.by_hand_states import repeated
from experiments.benchmarks.contestant import Run
from experiments.benchmarks.programs_gradients import PROGRAMS


def evaluated(log_likelihood: Callable, data: dict, start: dict) -> Run:
    """Return the run that evaluates log_likelihood(params, data) and its gradient, repeatedly."""
    params = {name: jnp.asarray(value) for name, value in start.items()}
    arrays = {name: jnp.asarray(value) for name, value in data.items()}
    return repeated(jax.value_and_grad(log_likelihood), params, arrays)


def of_program(model: str, density: Callable) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of a program's density: density(program, args, params)."""
    program, size = PROGRAMS[model]

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        def log_likelihood(params, arrays):
            return density(program, (*arrays.values(), sizes[size]), params)

        return evaluated(log_likelihood, data, start)

    return setup


def summed_out(program: Callable, args: tuple, params: dict) -> jax.Array:
    """Return log p(data | params) by emjax."""
    return log_density(marginalized(program), args, {}, params)[0]


def enumerated(program: Callable, args: tuple, params: dict) -> jax.Array:
    """Return the same by NumPyro's enumeration."""
    # one plate, of the last dimension
    model = enum(config_enumerate(program), first_available_dim=-2)
    return enumerated_log_density(model, args, {}, params)[0]


def chain_by_hand(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the forward algorithm on scaled probabilities."""

    def log_likelihood(params, arrays):
        counts, rate = arrays["counts"][..., None], params["rate"]
        log_density = counts * jnp.log(rate) - rate - gammaln(counts + 1.0)
        largest = lax.stop_gradient(log_density.max(axis=-1, keepdims=True))
        densities = jnp.exp(log_density - largest)
        value = log_z(params["initial"], params["transition"], densities, lambda now: now)
        return value + largest.sum()

    return evaluated(log_likelihood, data, start)


def mixture_by_hand(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture: sums over blocks of points that stay in the cache."""
    points = data.pop("points")
    width = 2 * points.shape[1] + sizes["num_components"]

    def value_and_gradient(params, arrays):
        table, back = jax.vjp(diagonal_table, params)

        def add(total, block):
            here = jax.value_and_grad(diagonal_log_z)(table, block)
            return jax.tree.map(jnp.add, total, here), None

        zero = jnp.zeros((), table.dtype), jnp.zeros_like(table)
        (value, gradient), _ = lax.scan(add, zero, arrays)
        return value, back(gradient)

    params = {name: jnp.asarray(value) for name, value in start.items()}
    return repeated(value_and_gradient, params, blocks(points, width))


SETUPS: dict[str, dict[str, Callable[..., Run]]] = {
    "emjax": {model: of_program(model, summed_out) for model in PROGRAMS},
    "NumPyro, enumerated": {model: of_program(model, enumerated) for model in PROGRAMS},
    "hand-written JAX": {
        "chain_gradient": chain_by_hand,
        "mixture_gradient": mixture_by_hand,
    },
}
