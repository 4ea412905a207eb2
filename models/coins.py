"""Coins: which one was tossed is not recorded, only the heads.

Somebody picks a coin, tosses it `flips` times, writes down the number of heads, and starts again.

      w ──▶ (z_n) ──▶ [h_n] ◀── b_k
              └─────────┴── plate "sets"

    z_n ~ Categorical(w)                 latent `coin`
    h_n ~ Binomial(m, b_{z_n})           `heads` out of m = `flips`

with b = `bias`, the probability of heads of each coin. In `program` there are two coins, equally
often picked: w = (1/2, 1/2) is known. In `weighted_program` there are K, and w = `weights` is
estimated too.

E-step. The binomial coefficient is the same for every coin and cancels:

    r_nk = w_k b_k^h_n (1 − b_k)^(m − h_n) / Σ_j w_j b_j^h_n (1 − b_j)^(m − h_n)                 (1)

The hard E-step gives each set to its most probable coin, the first of several:

    r_nk = 1{k = argmax_j w_j b_j^h_n (1 − b_j)^(m − h_n)}                                      (1')

M-step. Q(θ) = Σ_nk r_nk [log w_k + h_n log b_k + (m − h_n) log(1 − b_k)] + constant, hence

    b_k = Σ_n r_nk h_n / (m Σ_n r_nk)           expected heads over expected flips               (2)
    w_k = mean_n r_nk                                                                            (3)

From b = (0.6, 0.5) the sets (5, 9, 8, 4, 7) of 10 flips lead to b = (0.80, 0.52): the numbers in
print.

Source: Do & Batzoglou (2008), "What is the expectation maximization algorithm?", Nature
Biotechnology 26, figure 1; hard assignment: the classification EM of Celeux & Govaert (1992).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Real
from numpyro.distributions import constraints


def program(heads: Real[ArrayLike, "set"], flips: int = 10) -> None:
    """Two coins, each picked half of the time. `heads` counts from 0 to `flips`.

    Parameters: `bias` (2,), probabilities.
    """
    bias = numpyro.param("bias", jnp.array([0.6, 0.5]), constraint=constraints.unit_interval)
    with numpyro.plate("sets", len(heads)):
        coin = numpyro.sample("coin", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("heads", dist.Binomial(flips, bias[coin]), obs=heads)


def weighted_program(heads: Real[ArrayLike, "set"], flips: int, num_coins: int) -> None:
    """`num_coins` coins, picked with unknown probabilities. `heads` counts from 0 to `flips`.

    Parameters: `weights` (coin,) on the simplex, `bias` (coin,) probabilities, which start at
    random between 1/4 and 3/4.
    """
    weights = numpyro.param(
        "weights", jnp.full(num_coins, 1 / num_coins), constraint=constraints.simplex
    )
    bias = numpyro.param(
        "bias",
        lambda rng_key: jax.random.uniform(rng_key, (num_coins,), minval=0.25, maxval=0.75),
        constraint=constraints.unit_interval,
    )
    with numpyro.plate("sets", len(heads)):
        coin = numpyro.sample("coin", dist.Categorical(weights))
        numpyro.sample("heads", dist.Binomial(flips, bias[coin]), obs=heads)


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    heads: Real[ArrayLike, "set"],
    flips: int = 10,
    *,
    hard: bool = False,
) -> dict[str, np.ndarray]:
    """Return the parameters of `program` after one EM step, by (1), or (1') if `hard`, and (2).

    A coin with no responsibility at all keeps its `bias`.
    """
    h, bias = np.asarray(heads, np.float64), np.asarray(params["bias"], np.float64)
    r = _responsibilities(np.array([0.5, 0.5]), bias, h, flips, hard)
    return {"bias": _maximal_bias(r, bias, h, flips)}


def weighted_hand_derived_step(
    params: Mapping[str, ArrayLike],
    heads: Real[ArrayLike, "set"],
    flips: int,
    num_coins: int,
    *,
    hard: bool = False,
) -> dict[str, np.ndarray]:
    """Return the parameters of `weighted_program` after one EM step, by (1) to (3).

    The E-step is (1') if `hard`.

    A coin with no responsibility at all keeps its `bias`, and its weight is 0.
    """
    h, bias = np.asarray(heads, np.float64), np.asarray(params["bias"], np.float64)
    r = _responsibilities(np.asarray(params["weights"], np.float64), bias, h, flips, hard)
    return {"weights": r.mean(axis=0), "bias": _maximal_bias(r, bias, h, flips)}  # (3), (2)


def _responsibilities(
    weights: Float[np.ndarray, "coin"],
    bias: Float[np.ndarray, "coin"],
    heads: Float[np.ndarray, "set"],
    flips: int,
    hard: bool,
) -> Float[np.ndarray, "set coin"]:
    """Return r_nk by (1), or (1') if `hard`."""
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    log_joint = log_weights + _log_power(bias, heads) + _log_power(1 - bias, flips - heads)
    if hard:
        return np.eye(len(bias))[log_joint.argmax(axis=1)]
    return np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))


def _log_power(
    probability: Float[np.ndarray, "coin"], exponent: Float[np.ndarray, "set"]
) -> Float[np.ndarray, "set coin"]:
    """Return log pₖ^hₙ; a coin that never shows heads has 0⁰ = 1, not NaN, where none was seen."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(exponent[:, None] == 0, 0.0, exponent[:, None] * np.log(probability))


def _maximal_bias(
    responsibilities: Float[np.ndarray, "set coin"],
    bias: Float[np.ndarray, "coin"],
    heads: Float[np.ndarray, "set"],
    flips: int,
) -> Float[np.ndarray, "coin"]:
    """Return b_k by (2)."""
    expected_flips = flips * responsibilities.sum(axis=0)
    return np.divide(
        heads @ responsibilities, expected_flips, out=bias.copy(), where=expected_flips > 0
    )
