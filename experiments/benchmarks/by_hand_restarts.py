"""Several starts by hand: the step of one start, mapped over starts, and the best at the end."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp
from jaxtyping import Array, Float

from experiments.benchmarks.by_hand import runner
from experiments.benchmarks.by_hand_gaussian import from_packed, packed, packed_table
from experiments.benchmarks.contestant import Fit, Run


def log_z(table: Float[Array, "component statistic"], statistics: Array) -> Float[Array, ""]:
    """Return the log-likelihood, of `statistics` (statistic, row)."""
    return logsumexp(table @ statistics, axis=0).sum()


def restarts(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of all starts side by side; its result is the best of them."""
    points, number = data.pop("points"), sizes["num_starts"]
    mean, num_features = points.mean(axis=0), points.shape[1]
    statistics = jax.jit(packed)(jnp.asarray(points - mean)).T
    starts = {name: np.stack([start[name]] * number) for name in ("weights", "covariance")}
    starts["loc"] = start["loc"] - mean

    @jax.vmap
    def tables(params):
        return packed_table(params)

    def step(params, statistics):
        expected = jax.vmap(jax.grad(log_z), in_axes=(0, None))(tables(params), statistics)
        return jax.vmap(lambda sums: from_packed(sums, num_features))(expected)

    @jax.jit
    def heights(params, statistics):
        return jax.vmap(log_z, in_axes=(0, None))(tables(params), statistics)

    run_all = runner(step, starts, statistics)

    def run(num_steps: int) -> Fit:
        params, num_steps = run_all(num_steps)
        best = int(heights(params, statistics).argmax())
        found = {name: value[best] for name, value in params.items()}
        return Fit(found | {"loc": found["loc"] + mean}, num_steps)

    return run


SETUPS = {"hand-written JAX": {"restarts": restarts}}
