"""Linear Gaussian state spaces by hand: Kalman's filter and the Rauch–Tung–Striebel smoother.

Both are scans over one series. Matrices are inverted by Cholesky's factors.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from experiments.benchmarks.by_hand import runner
from experiments.benchmarks.contestant import Fit, Run


def filtered(params: dict, points: Float[Array, "time feature"]) -> tuple:
    """Return log p(x), and mean and covariance of each state, given the past and the present."""
    transition, emission = params["transition"], params["emission"]

    def step(ahead, x):
        mean, spread = ahead
        crossed = emission @ spread
        factor = jnp.linalg.cholesky(crossed @ emission.T + params["emission_covariance"])
        surprise = x - emission @ mean
        gain = cho_solve((factor, True), crossed)
        white = jax.scipy.linalg.solve_triangular(factor, surprise, lower=True)
        value = -0.5 * white @ white - jnp.log(jnp.diag(factor)).sum()
        now, uncertain = mean + surprise @ gain, spread - gain.T @ crossed
        moved = transition @ uncertain @ transition.T + params["transition_covariance"]
        return (transition @ now, moved), (value, now, uncertain)

    start = params["initial_loc"], params["initial_covariance"]
    _, (values, means, covariances) = lax.scan(step, start, points)
    return values.sum() - 0.5 * points.size * jnp.log(2 * jnp.pi), means, covariances


def smoothed(params: dict, points: Float[Array, "time feature"]) -> tuple:
    """Return log p(x), mean and covariance of each state, and Cov[f_{t+1}, f_t], given all."""
    value, means, covariances = filtered(params, points)
    transition, noise = params["transition"], params["transition_covariance"]

    def step(later, now):
        (later_mean, later_spread), (mean, spread) = later, now
        moved = transition @ spread
        ahead = moved @ transition.T + noise
        back = cho_solve((jnp.linalg.cholesky(ahead), True), moved).T
        mean = mean + back @ (later_mean - transition @ mean)
        spread = spread + back @ (later_spread - ahead) @ back.T
        return (mean, spread), (mean, spread, later_spread @ back.T)

    last = means[-1], covariances[-1]
    earlier = means[:-1], covariances[:-1]
    _, (before, spreads, lags) = lax.scan(step, last, earlier, reverse=True)
    means = jnp.concatenate([before, means[-1:]])
    return value, means, jnp.concatenate([spreads, covariances[-1:]]), lags


def step(params: dict, points: Float[Array, "time feature"]) -> dict:
    """Return the parameters after one EM step."""
    _, f, spread, lag = smoothed(params, points)
    first = f[0][:, None] * f[0] + spread[0]
    last = f[-1][:, None] * f[-1] + spread[-1]
    second = f.T @ f + spread.sum(0)
    moves, before, behind = f[1:].T @ f[:-1] + lag.sum(0), second - last, second - first
    transition = jnp.linalg.solve(before, moves.T).T
    crossed = points.T @ f
    emission = jnp.linalg.solve(second, crossed.T).T
    return {
        "initial_loc": f[0],
        "initial_covariance": spread[0],
        "transition": transition,
        "transition_covariance": symmetric(behind - transition @ moves.T) / (len(f) - 1),
        "emission": emission,
        "emission_covariance": symmetric(points.T @ points - emission @ crossed.T) / len(f),
    }


def symmetric(matrix: Float[Array, "row row"]) -> Float[Array, "row row"]:
    """Return the symmetric part."""
    return (matrix + matrix.T) / 2


def state_space(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of EM."""
    return runner(step, start, jnp.asarray(data.pop("points")))


def repeated(e_step, params, data) -> Run:
    """Return the run of the E-step alone, again and again at the same parameters.

    `e_step(params, data)` gives log p and moments. Each E-step waits for all of the one before.
    """

    @jax.jit
    def loop(params, data, num_steps):
        def again(_, state):
            waited = jax.tree.map(lambda leaf: leaf + 0 * state[1], params)
            value, moments = e_step(waited, data)
            leaves = jax.tree.leaves(moments)
            return value, sum(leaf.sum() for leaf in leaves)

        zero = jnp.zeros((), jax.tree.leaves(params)[0].dtype)
        return lax.fori_loop(0, num_steps, again, (zero, zero))

    def run(num_steps: int) -> Fit:
        value, _ = loop(params, data, num_steps)
        return Fit({"log_likelihood": np.asarray(value)}, num_steps)

    return run


def e_step(params: dict, points: Float[Array, "time feature"]) -> tuple:
    """Return log p(x) and the sums of moments that the M-step takes."""
    value, f, spread, lag = smoothed(params, points)
    second, moves = f.T @ f + spread.sum(0), f[1:].T @ f[:-1] + lag.sum(0)
    ends = f[0], f[-1], spread[0], spread[-1]
    return value, (second, moves, points.T @ f, ends)


def state_space_e_step(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of filter and smoother alone."""
    params = {name: jnp.asarray(value) for name, value in start.items()}
    return repeated(e_step, params, jnp.asarray(data.pop("points")))


SETUPS = {
    "hand-written JAX": {
        "linear_state_space": state_space,
        "linear_state_space_e_step": state_space_e_step,
    }
}
