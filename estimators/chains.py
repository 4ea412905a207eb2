"""Hidden Markov models of rows in order, as hmmlearn takes them: sequences lie end to end.

      π, A ──▶ (z_1) ──▶ (z_2) ──▶ (z_3) ──▶ …        z_t ~ Categorical(π) where a sequence begins,
                 │         │         │                z_t ~ Categorical(A_{z_{t−1}}) elsewhere
               [x_1]     [x_2]     [x_3]              x_t ~ p(x | θ_{z_t})

with π = `initial`, A = `transition`, latent `state`, and p one of

    categorical            B_kd, independent          `emission` (state, feature, symbol)
    Poisson                λ_kd, independent          `rate` (state, feature)
    Gaussian, spherical    m_k, σ_k² I                `loc` (state, feature), `scale` (state,)
    Gaussian, diag         m_k, diag σ_k²             `loc`, `scale` (state, feature)
    Gaussian, full         m_k, Σ_k                   `loc`, `covariance` (state, feature, feature)
    Gaussian, tied         m_k, Σ                     `loc`, `covariance` (feature, feature)

The programs of `emjax.models.hidden_markov` are such models of sequences side by side, where those
that are shorter than others are padded; here nothing is. All programs take the same arguments:

- `X`: (row, feature); a value that is NaN is missing, if `has_missing`.
- `begins`: (row,), whether a sequence begins at a row.
- `is_row`: (row,), False of rows that only fill X up, so that few lengths are compiled; None: there
  are none. They are masked, state and all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Bool, Float, Int
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax.distributions import PartiallyObserved

AnyArray = jax.Array | np.ndarray
# p(x_t | θ_k) of the state k, given which values of a row are observed, or None: all of them
Emission = Callable[[Int[AnyArray, ""], Bool[AnyArray, "feature"] | None], dist.Distribution]


def categorical_program(
    X: Float[AnyArray, "row feature"],
    begins: Bool[AnyArray, "row"],
    is_row: Bool[AnyArray, "row"] | None,
    has_missing: bool,
    num_states: int,
    num_symbols: int,
) -> None:
    """Symbols 0 … num_symbols − 1.

    `initial` starts uniform, states last two steps or more, and rows of `emission` start uniformly
    at random.
    """
    emission = _param(
        "emission",
        lambda key: jax.random.dirichlet(key, jnp.ones(num_symbols), (num_states, X.shape[1])),
        constraints.simplex,
    )

    def of_state(state, observed):
        return _of_features(dist.Categorical(emission[state]), observed)

    symbols = jnp.nan_to_num(X).astype(int)
    _chain(symbols, begins, is_row, _observed(X, has_missing), num_states, of_state)


def poisson_program(
    X: Float[AnyArray, "row feature"],
    begins: Bool[AnyArray, "row"],
    is_row: Bool[AnyArray, "row"] | None,
    has_missing: bool,
    num_states: int,
) -> None:
    """Counts.

    Rates start at random between one half and three halves of the mean of each feature, the others
    as in `categorical_program`.
    """
    mean, _ = _mean_and_variance(X, is_row)
    shape = (num_states, X.shape[1])
    rate = _param(
        "rate",
        lambda key: mean * jax.random.uniform(key, shape, minval=0.5, maxval=1.5),
        constraints.positive,
    )

    def of_state(state, observed):
        return _of_features(dist.Poisson(rate[state]), observed)

    counts = jnp.nan_to_num(X)
    _chain(counts, begins, is_row, _observed(X, has_missing), num_states, of_state)


def gaussian_program(
    X: Float[AnyArray, "row feature"],
    begins: Bool[AnyArray, "row"],
    is_row: Bool[AnyArray, "row"] | None,
    has_missing: bool,
    num_states: int,
    covariance_type: str,
) -> None:
    """Points, in the unit of the data. `covariance_type`: "spherical", "diag", "full" or "tied".

    The start: the best of several short runs. The program's own: means drawn from a normal with the
    mean and the variance of each feature, which is every state's variance, too.
    """
    mean, variance = _mean_and_variance(X, is_row)
    shape = (num_states, X.shape[1])
    loc = _param("loc", lambda key: mean + jnp.sqrt(variance) * jax.random.normal(key, shape))
    if covariance_type in ("full", "tied"):
        of_state = _with_covariance(loc, variance, num_states, covariance_type == "full")
    else:
        of_state = _with_scale(loc, variance, num_states, covariance_type == "diag")
    points = jnp.nan_to_num(X)
    observed = _observed(X, has_missing)
    _chain(points, begins, is_row, observed, num_states, of_state, start="short-runs")


def _with_covariance(
    loc: Float[AnyArray, "state feature"],
    variance: Float[AnyArray, "feature"],
    num_states: int,
    is_own: bool,
) -> Emission:
    """Declare `covariance`, of each state or of all, and return the distribution of a state."""
    start = jnp.diag(variance)
    if is_own:
        start = jnp.tile(start, (num_states, 1, 1))
    covariance = _param("covariance", start, constraints.positive_definite)

    def of_state(state, observed):
        matrix = covariance[state] if is_own else covariance
        normal = dist.MultivariateNormal(loc[state], covariance_matrix=matrix)
        return normal if observed is None else PartiallyObserved(normal, observed)

    return of_state


def _with_scale(
    loc: Float[AnyArray, "state feature"],
    variance: Float[AnyArray, "feature"],
    num_states: int,
    is_diagonal: bool,
) -> Emission:
    """Declare `scale`, of each feature or of all, and return the distribution of a state."""
    start = jnp.sqrt(variance) if is_diagonal else jnp.sqrt(variance.mean())
    scale = _param("scale", jnp.tile(start, (num_states, *[1] * start.ndim)), constraints.positive)

    def of_state(state, observed):
        spread = scale[state] if is_diagonal else scale[state][None]
        return _of_features(dist.Normal(loc[state], spread), observed)

    return of_state


def _param(name: str, start: Any, constraint: Any = constraints.real) -> Any:
    """Declare a parameter; NumPyro's own annotation has it that it may be a number."""
    return numpyro.param(name, start, constraint=constraint)


def _of_features(
    distribution: dist.Distribution, observed: Bool[AnyArray, "feature"] | None
) -> dist.Distribution:
    """Return the distribution of a row whose features are independent."""
    if observed is not None:
        distribution = distribution.mask(observed)
    return distribution.to_event(1)


def _observed(
    X: Float[AnyArray, "row feature"], has_missing: bool
) -> Bool[AnyArray, "row feature"] | None:
    """Return which values are observed; None: all are."""
    return ~jnp.isnan(X) if has_missing else None


def _mean_and_variance(
    X: Float[AnyArray, "row feature"], is_row: Bool[AnyArray, "row"] | None
) -> tuple[Float[AnyArray, "feature"], Float[AnyArray, "feature"]]:
    """Return those of each feature, over what is observed."""
    observed = ~jnp.isnan(X)
    if is_row is not None:
        observed &= jnp.asarray(is_row)[:, None]
    return jnp.mean(X, axis=0, where=observed), jnp.var(X, axis=0, where=observed)


def _chain(
    data: Float[AnyArray, "row feature"] | Int[AnyArray, "row feature"],
    begins: Bool[AnyArray, "row"],
    is_row: Bool[AnyArray, "row"] | None,
    observed: Bool[AnyArray, "row feature"] | None,
    num_states: int,
    of_state: Emission,
    start: str | None = None,
) -> None:
    """Declare π and A, and sample every row. `start`: by what EM starts, None: as declared."""
    initial = _param("initial", jnp.full(num_states, 1 / num_states), constraints.simplex)
    mostly_stays = (jnp.eye(num_states) + 1 / num_states) / 2
    transition = _param("transition", mostly_stays, constraints.simplex)

    def step(previous, now):
        begins, _, x, observed = now
        state = numpyro.sample(
            "state",
            dist.Categorical(jnp.where(begins, initial, transition[previous])),
            infer={"start": start},
        )
        numpyro.sample("data", of_state(state, observed), obs=x)
        return state, None

    def masked_step(previous, now):
        with numpyro.handlers.mask(mask=now[1]):
            return step(previous, now)

    rows = (begins, is_row, data, observed)
    scan(step if is_row is None else masked_step, 0, rows)
