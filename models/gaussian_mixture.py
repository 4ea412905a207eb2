"""Gaussian mixture: every point comes from one of K clouds.

      w ──▶ (z_n) ──▶ [x_n] ◀── m_k, Σ_k
              └─────────┴── plate "samples"

    z_n ~ Categorical(w)                       latent `component`
    x_n ~ Normal(m_{z_n}, Σ_{z_n})             `data`, in D dimensions

with w = `weights`, m = `loc`, and Σ_k one of

    covariance     Σ_k                       parameter (shape)
    "spherical"    σ_k² I                    `scale` (K,)
    "diagonal"     diag(σ_k1², …, σ_kD²)     `scale` (K, D)
    "full"         any                       `covariance` (K, D, D)
    "tied"         one Σ for all             `covariance` (D, D)

Data of shape (N,) have D = 1: `loc` is (K,) and σ is `scale`, of shape (K,), or () if tied.

E-step, in logarithms, with Σ_k = L_k L_kᵀ (Cholesky):

    log p(x_n, z_n = k) = log w_k − ½ [D log 2π + 2 Σ_d log (L_k)_dd + ‖L_k⁻¹ (x_n − m_k)‖²]     (1)
    r_nk = p(x_n, z_n = k) / Σ_j p(x_n, z_n = j)                                                 (2)

M-step. Q(θ) = Σ_nk r_nk log p(x_n, z_n = k | θ). With R_k = Σ_n r_nk its maximum is at

    w_k = R_k / N                                                                                (3)
    m_k = Σ_n r_nk x_n / R_k                         whatever Σ_k is                             (4)
    S_k = Σ_n r_nk (x_n − m_k)(x_n − m_k)ᵀ           scatter about the new mean                  (5)
    full       Σ_k   = S_k / R_k                                                                 (6)
    tied       Σ     = Σ_k S_k / N                                                               (7)
    diagonal   σ_kd² = (S_k)_dd / R_k                                                            (8)
    spherical  σ_k²  = tr S_k / (D R_k)                                                          (9)

The likelihood has no upper bound: a component on a single point with σ → 0. A floor, σ ≥
`scale_floor`, bounds it. In a single σ, Q is −R log σ − S / 2σ²: it rises up to √(S/R) and falls
after it, so under the floor the maximum is

    σ = max(σ of (8) or (9), floor)                                                             (10)

Source: Dempster, Laird & Rubin (1977), section 4.3; Bishop (2006), Pattern Recognition and Machine
Learning, (9.23)–(9.27); the unbounded likelihood and constraints that bound it: Hathaway (1985),
Annals of Statistics 13.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.distributions import constraints

COVARIANCES = ("spherical", "diagonal", "full", "tied")


def program(
    data: Float[ArrayLike, "sample *feature"],
    num_components: int,
    covariance: str = "full",
    scale_floor: int | float = 0.0,
) -> None:
    """The generative program, for data of shape (N, D) or (N,).

    Parameters: `weights` (K,) on the simplex, `loc` (K, D) or (K,), and `scale` or `covariance` as
    in the table above, in the unit of the data and in its square. The start: the best
    of several short runs; with `EM(program, init="program")` or parameters that are given, equal
    weights, means at random points of the data, and the spread of all the data for each component.

    Raises ValueError for an unknown `covariance`, and for a `scale_floor` where there is no
    `scale`.
    """
    _check(covariance, scale_floor, data.ndim)
    weights = numpyro.param(
        "weights", jnp.full(num_components, 1 / num_components), constraint=constraints.simplex
    )
    loc = numpyro.param(
        "loc",
        lambda rng_key: jax.random.choice(
            rng_key, jnp.asarray(data), (num_components,), replace=False
        ),
    )
    cloud = _cloud(data, num_components, covariance, scale_floor)
    with numpyro.plate("samples", len(data)):
        component = numpyro.sample(
            "component", dist.Categorical(weights), infer={"start": "short-runs"}
        )
        numpyro.sample("data", cloud(loc, component), obs=data)


def _cloud(
    data: Float[ArrayLike, "sample *feature"],
    num_components: int,
    covariance: str,
    scale_floor: int | float,
) -> Callable[..., dist.Distribution]:
    """Declare the spread as the table says; return the distribution of x given `loc` and z."""

    def scale_param(start: Callable, *shape: int) -> Float[ArrayLike, "..."]:
        return numpyro.param(
            "scale",
            lambda rng_key: jnp.full(shape, scale_floor + start()),  # strictly above the floor
            constraint=constraints.greater_than(scale_floor),
        )

    def covariance_of_all() -> Float[ArrayLike, "feature feature"]:
        return jnp.atleast_2d(jnp.cov(data, rowvar=False, bias=True))

    def covariance_param(*copies: int) -> Float[ArrayLike, "..."]:
        return numpyro.param(
            "covariance",
            lambda rng_key: jnp.tile(covariance_of_all(), (*copies, 1, 1)),
            constraint=constraints.positive_definite,
        )

    match covariance, data.ndim:
        case "tied", 1:
            scale = scale_param(lambda: jnp.std(data))
            return lambda loc, z: dist.Normal(loc[z], scale)
        case _, 1:
            scale = scale_param(lambda: jnp.std(data), num_components)
            return lambda loc, z: dist.Normal(loc[z], scale[z])
        case "spherical", 2:
            scale = scale_param(lambda: jnp.sqrt(jnp.mean(jnp.var(data, axis=0))), num_components)
            return lambda loc, z: dist.Normal(loc[z], scale[z][:, None]).to_event(1)
        case "diagonal", 2:
            scale = scale_param(lambda: jnp.std(data, axis=0), num_components, data.shape[1])
            return lambda loc, z: dist.Normal(loc[z], scale[z]).to_event(1)
        case "full", 2:
            covariances = covariance_param(num_components)
            return lambda loc, z: dist.MultivariateNormal(loc[z], covariance_matrix=covariances[z])
        case "tied", 2:
            shared = covariance_param()
            return lambda loc, z: dist.MultivariateNormal(loc[z], covariance_matrix=shared)


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "sample *feature"],
    num_components: int,
    covariance: str = "full",
    scale_floor: int | float = 0.0,
) -> dict[str, np.ndarray]:
    """Return the parameters after one EM step, by equations (1) to (10).

    A component with no responsibility at all keeps its `loc`, `scale` and `covariance`, and its
    weight is 0.

    Raises ValueError as `program` does, and np.linalg.LinAlgError for a covariance that is not
    positive definite.
    """
    _check(covariance, scale_floor, np.ndim(data))
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    # (sample, feature): D = 1 is a single column
    x = np.asarray(data, np.float64).reshape(len(data), -1)
    num_samples, num_features = x.shape
    loc = start["loc"].reshape(num_components, num_features)

    # E-step (1), (2), every kind of spread written as (component, feature, feature).
    factors = np.linalg.cholesky(_covariances(start, num_components, num_features))
    deviations = x[None] - loc[:, None]  # (component, sample, feature)
    whitened = np.linalg.solve(factors, deviations.swapaxes(1, 2))  # (component, feature, sample)
    log_det = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    with np.errstate(divide="ignore"):
        log_weights = np.log(start["weights"])
    log_normal = -0.5 * (num_features * np.log(2 * np.pi) + log_det + (whitened**2).sum(axis=1).T)
    log_joint = log_weights + log_normal  # (sample, component)
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))

    # M-step (3), (4), (5).
    totals = r.sum(axis=0)
    loc = np.divide(r.T @ x, totals[:, None], out=loc.copy(), where=totals[:, None] > 0)
    deviations = x[None] - loc[:, None]
    scatter = np.einsum("nk,knd,kne->kde", r, deviations, deviations)
    maximum = {"weights": totals / num_samples, "loc": loc.reshape(start["loc"].shape)}
    return maximum | _maximal_spread(start, scatter, totals, num_samples, scale_floor)


def _maximal_spread(
    start: Mapping[str, np.ndarray],
    scatter: Float[np.ndarray, "component feature feature"],
    totals: Float[np.ndarray, "component"],
    num_samples: int,
    scale_floor: int | float,
) -> dict[str, np.ndarray]:
    """Return `scale` or `covariance`, whichever `start` has, by (6) to (10)."""
    spread = "covariance" if "covariance" in start else "scale"
    num_features = scatter.shape[1]
    squares = np.diagonal(scatter, axis1=1, axis2=2)  # (component, feature)
    match spread, start[spread].ndim:
        case "covariance", 3:
            sums, counts = scatter, totals[:, None, None]  # (6)
        case "covariance", 2:
            sums, counts = scatter.sum(axis=0), num_samples  # (7)
        case "scale", 2:
            sums, counts = squares, totals[:, None]  # (8)
        case "scale", 1:
            sums, counts = squares.sum(axis=1), num_features * totals  # (9)
        case "scale", 0:
            sums, counts = squares.sum(), num_samples  # (7), where D = 1
    before = np.array(start[spread] if spread == "covariance" else start[spread] ** 2)
    # a component without responsibility would have 0 / 0
    after = np.divide(sums, counts, out=before, where=np.asarray(counts) > 0)
    if spread == "scale":
        after = np.asarray(np.maximum(np.sqrt(after), scale_floor))  # (10)
    return {spread: after}


def _covariances(
    params: Mapping[str, np.ndarray], num_components: int, num_features: int
) -> Float[np.ndarray, "component feature feature"]:
    """Return Σ_k for every component, from whichever parameter of the table above is there."""
    shape = (num_components, num_features, num_features)
    if "covariance" in params:
        return np.broadcast_to(params["covariance"], shape)
    scale = params["scale"] if params["scale"].ndim == 2 else params["scale"][..., None]
    return np.broadcast_to(scale[..., None] ** 2 * np.eye(num_features), shape)


def _check(covariance: str, scale_floor: int | float, num_dimensions: int) -> None:
    """Raise ValueError for an unknown covariance, or one that has no scale to bound."""
    if covariance not in COVARIANCES:
        raise ValueError(
            f"covariance={covariance!r} is unknown: choose one of {', '.join(COVARIANCES)}."
        )
    if num_dimensions not in (1, 2):
        raise ValueError(
            f"data have {num_dimensions} dimensions: pass an array of shape (N,) or (N, D)."
        )
    if scale_floor > 0 and num_dimensions == 2 and covariance in ("full", "tied"):
        raise ValueError(
            f"scale_floor bounds a `scale`, and covariance={covariance!r} has none. Either\n"
            "  - leave the floor out:      scale_floor=0.0, or\n"
            '  - bound every coordinate:   covariance="diagonal", or\n'
            '  - bound every component:    covariance="spherical".'
        )
