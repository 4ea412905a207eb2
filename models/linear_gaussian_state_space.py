"""Linear Gaussian state space: a hidden point moves on linearly, and is seen through noise.

    m, S ──▶ (f_1) ──A, Q──▶ (f_2) ──A, Q──▶ (f_3) ──A, Q──▶ …
               │               │               │
      C, R ──▶ [x_1]          [x_2]           [x_3]          …
               └── plate "sequences"

    f_1     ~ Normal(m, S)                             latent `state`, q coordinates
    f_{t+1} ~ Normal(A f_t, Q)
    x_t     ~ Normal(C f_t, R)                         `data`, in D dimensions

with m = `initial_loc` (state,) and S = `initial_covariance`, A = `transition` and Q =
`transition_covariance`, C = `emission` (feature, state) and R = `emission_covariance`. Several
sequences are of one length, the data with the time first, (time, sequence, feature), as a scan
reads them; `observed[t, n]` says which steps were seen. What was not is nothing that the state is
inferred from, whatever stands there.

`local_level_program` is the random walk that is seen through noise:

    f_1     ~ Normal(0, κ²)                            latent `level`
    f_{t+1} ~ Normal(f_t, σ²)                          σ = `level_scale`
    x_t     ~ Normal(f_t, ε²)                          ε = `scale`

where κ = `start_scale` is given, and large: at first all that is known of the level is the data.

E-step. Forward, the state given the past, and given the present too; backward, given everything:

    p_t = A u_{t-1},  P_t = A U_{t-1} Aᵀ + Q           f_t | x_1 … x_{t-1};  p_1 = m, P_1 = S    (1)
    K_t = P_t Cᵀ (C P_t Cᵀ + R)⁻¹                      0 where x_t was not seen                  (2)
    u_t = p_t + K_t (x_t − C p_t),  U_t = P_t − K_t C P_t          f_t | x_1 … x_t               (3)
    J_t = U_t Aᵀ P_{t+1}⁻¹                                                                       (4)
    f̄_t = u_t + J_t (f̄_{t+1} − p_{t+1})                            f̄_T = u_T                     (5)
    V_t = U_t + J_t (V_{t+1} − P_{t+1}) J_tᵀ                       V_T = U_T;  f_t | x           (6)
    W_t = V_{t+1} J_tᵀ                                             Cov[f_{t+1}, f_t | x]         (7)

M-step, where ⟨·⟩ is the mean over moves, over what was seen, or over sequences, and

    E[f_t f_tᵀ] = f̄_t f̄_tᵀ + V_t,          E[f_{t+1} f_tᵀ] = f̄_{t+1} f̄_tᵀ + W_t:

    A = ⟨E[f_{t+1} f_tᵀ]⟩ ⟨E[f_t f_tᵀ]⟩⁻¹,  Q = ⟨E[(f_{t+1} − A f_t)(f_{t+1} − A f_t)ᵀ]⟩         (8)
    C = ⟨x_t f̄_tᵀ⟩ ⟨E[f_t f_tᵀ]⟩⁻¹,         R = ⟨E[(x_t − C f_t)(x_t − C f_t)ᵀ]⟩                 (9)
    m = ⟨f̄_1⟩,                              S = ⟨E[(f_1 − m)(f_1 − m)ᵀ]⟩                        (10)
    σ² = ⟨E[(f_{t+1} − f_t)²]⟩,             ε² = ⟨E[(x_t − f_t)²]⟩      `local_level_program`   (11)

Of a single sequence S goes to 0: it has one first state.

Source: Shumway & Stoffer (1982), "An approach to time series smoothing and forecasting using the EM
algorithm", Journal of Time Series Analysis 3, (8)–(14) and (A3)–(A12), where the first state is
the one before x_1, S is given, and C is known; Durbin & Koopman (2012), Time Series Analysis by
State Space Methods, chapter 2, for the local level.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Bool, Float
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints


def program(
    data: Float[ArrayLike, "time sequence feature"],
    observed: Bool[ArrayLike, "time sequence"],
    num_states: int,
) -> None:
    """The generative program, for `EM(program, integrate={"state"})`.

    Parameters: `initial_loc`, `initial_covariance`, `transition`, `transition_covariance`,
    `emission` (feature, state) and `emission_covariance`. The states start at 0 with the unit
    matrix for S, keep 0.9 of themselves in a move and so their variance, and are mixed at random
    into the features, of whose variance half is noise.
    """
    _check(data, observed)
    num_steps, num_sequences, num_features = data.shape
    unit = jnp.eye(num_states)
    variance = _variance(data, observed) / 2

    def random_emission(rng_key: jax.Array) -> Float[ArrayLike, "feature state"]:
        directions = jax.random.normal(rng_key, (num_features, num_states))
        return jnp.sqrt(variance / num_states)[:, None] * directions

    def covariance(name: str, start: Float[ArrayLike, "row row"]) -> Float[ArrayLike, "row row"]:
        return numpyro.param(name, start, constraint=constraints.positive_definite)

    initial_loc = numpyro.param("initial_loc", jnp.zeros(num_states))
    initial_covariance = covariance("initial_covariance", unit)
    transition = numpyro.param("transition", 0.9 * unit)
    transition_covariance = covariance("transition_covariance", (1 - 0.9**2) * unit)
    emission = numpyro.param("emission", random_emission)
    emission_covariance = covariance("emission_covariance", jnp.diag(variance))

    def step(previous: Float[ArrayLike, "sequence state"], now: tuple) -> tuple:
        t, x, is_seen = now
        with numpyro.plate("sequences", num_sequences):
            mean = jnp.where(t == 0, initial_loc, previous @ transition.T)
            spread = jnp.where(t == 0, initial_covariance, transition_covariance)
            state = numpyro.sample("state", dist.MultivariateNormal(mean, spread))
            with numpyro.handlers.mask(mask=is_seen):
                seen = dist.MultivariateNormal(state @ emission.T, emission_covariance)
                numpyro.sample("data", seen, obs=x)
        return state, None

    nothing = jnp.zeros((num_sequences, num_states))
    scan(step, nothing, (jnp.arange(num_steps), data, observed))


def local_level_program(data: Float[ArrayLike, "time"], start_scale: float = 1e5) -> None:
    """The local level of one series, for `EM(local_level_program, integrate={"level"})`.

    Parameters, in the unit of the data: `level_scale` () and `scale` (), positive. Half of the
    variance of the data starts as noise, and a move as a third of the noise.
    """
    half = jnp.std(data) / jnp.sqrt(2)
    level_scale = numpyro.param("level_scale", half / 3, constraint=constraints.positive)
    scale = numpyro.param("scale", half, constraint=constraints.positive)

    def step(previous: Float[ArrayLike, ""], now: tuple) -> tuple:
        t, x = now
        mean = jnp.where(t == 0, 0.0, previous)
        level = numpyro.sample(
            "level", dist.Normal(mean, jnp.where(t == 0, start_scale, level_scale))
        )
        numpyro.sample("data", dist.Normal(level, scale), obs=x)
        return level, None

    scan(step, jnp.zeros(()), (jnp.arange(len(data)), data))


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "time sequence feature"],
    observed: Bool[ArrayLike, "time sequence"],
    num_states: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `program` after one EM step, by equations (1) to (10)."""
    seen = np.asarray(observed, bool)
    x = np.where(seen[..., None], np.asarray(data, np.float64), 0.0)
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    f, covariance, lag = _smoothed(start, x, seen)

    moves = lag.sum(axis=(0, 1)) + np.einsum("tni,tnj->ij", f[1:], f[:-1])
    before = covariance[:-1].sum(axis=(0, 1)) + np.einsum("tni,tnj->ij", f[:-1], f[:-1])
    transition = np.linalg.solve(before, moves.T).T  # (8)
    steps = f[1:] - f[:-1] @ transition.T
    crossed = transition @ lag.sum(axis=(0, 1)).T
    spread = covariance[1:].sum(axis=(0, 1)) - crossed - crossed.T
    spread += transition @ covariance[:-1].sum(axis=(0, 1)) @ transition.T
    spread += np.einsum("tni,tnj->ij", steps, steps)

    unknown = covariance[seen].sum(axis=0)
    emission = np.linalg.solve(unknown + f[seen].T @ f[seen], f[seen].T @ x[seen]).T  # (9)
    residual = x[seen] - f[seen] @ emission.T
    noise = residual.T @ residual + emission @ unknown @ emission.T

    initial_loc = f[0].mean(axis=0)  # (10)
    deviations = f[0] - initial_loc
    return {
        "initial_loc": initial_loc,
        "initial_covariance": covariance[0].mean(axis=0) + deviations.T @ deviations / len(f[0]),
        "transition": transition,
        "transition_covariance": spread / (steps.shape[0] * steps.shape[1]),
        "emission": emission,
        "emission_covariance": noise / seen.sum(),
    }


def local_level_hand_derived_step(
    params: Mapping[str, ArrayLike], data: Float[ArrayLike, "time"], start_scale: float = 1e5
) -> dict[str, np.ndarray]:
    """Return the parameters of `local_level_program` after one EM step, by (1) to (7) and (11)."""
    x = np.asarray(data, np.float64)
    variance = {name: np.full((1, 1), np.square(value)) for name, value in params.items()}
    start = {
        "initial_loc": np.zeros(1),
        "initial_covariance": np.full((1, 1), np.square(start_scale)),
        "transition": np.ones((1, 1)),
        "transition_covariance": variance["level_scale"],
        "emission": np.ones((1, 1)),
        "emission_covariance": variance["scale"],
    }
    mean, covariance, lag = (
        moment.reshape(-1)
        for moment in _smoothed(start, x[:, None, None], np.ones((len(x), 1), bool))
    )
    moves = np.diff(mean) ** 2 + covariance[1:] + covariance[:-1] - 2 * lag
    noise = (x - mean) ** 2 + covariance
    return {
        "level_scale": np.asarray(np.sqrt(moves.mean())),  # (11)
        "scale": np.asarray(np.sqrt(noise.mean())),
    }


def _smoothed(
    start: Mapping[str, np.ndarray],
    x: Float[np.ndarray, "time sequence feature"],
    seen: Bool[np.ndarray, "time sequence"],
) -> tuple[
    Float[np.ndarray, "time sequence state"],
    Float[np.ndarray, "time sequence state state"],
    Float[np.ndarray, "move sequence state state"],
]:
    """Return E[f_t | x], Cov[f_t | x] and Cov[f_{t+1}, f_t | x], by (1) to (7)."""
    transition, emission = start["transition"], start["emission"]
    shape = *seen.shape, len(transition)
    ahead, mean = np.empty(shape), np.empty(shape)  # p, and u, which becomes f̄
    ahead_spread, spread = np.empty((*shape, shape[-1])), np.empty((*shape, shape[-1]))
    for t in range(len(x)):
        if t == 0:
            ahead[t], ahead_spread[t] = start["initial_loc"], start["initial_covariance"]
        else:
            ahead[t] = mean[t - 1] @ transition.T
            moved = transition @ spread[t - 1] @ transition.T
            ahead_spread[t] = moved + start["transition_covariance"]  # (1)
        shown = emission @ ahead_spread[t] @ emission.T + start["emission_covariance"]
        gain = np.linalg.solve(shown, emission @ ahead_spread[t]).swapaxes(-1, -2)
        gain = gain * seen[t][:, None, None]  # (2)
        surprise = x[t] - ahead[t] @ emission.T
        mean[t] = ahead[t] + np.einsum("nfd,nd->nf", gain, surprise)
        spread[t] = ahead_spread[t] - gain @ emission @ ahead_spread[t]  # (3)

    lag = np.empty_like(spread[1:])
    for t in reversed(range(len(x) - 1)):
        back = np.linalg.solve(ahead_spread[t + 1], transition @ spread[t]).swapaxes(-1, -2)  # (4)
        mean[t] += np.einsum("nij,nj->ni", back, mean[t + 1] - ahead[t + 1])  # (5)
        lag[t] = spread[t + 1] @ back.swapaxes(-1, -2)  # (7)
        spread[t] += back @ (spread[t + 1] - ahead_spread[t + 1]) @ back.swapaxes(-1, -2)  # (6)
    return mean, spread, lag


def _variance(
    data: Float[ArrayLike, "time sequence feature"], observed: Bool[ArrayLike, "time sequence"]
) -> Float[ArrayLike, "feature"]:
    """Return the variance of each feature over the steps that were seen."""
    weights = jnp.asarray(observed, jnp.result_type(float))[..., None]
    x = jnp.where(observed[..., None], data, 0.0)
    mean = (weights * x).sum(axis=(0, 1)) / weights.sum()
    return (weights * (x - mean) ** 2).sum(axis=(0, 1)) / weights.sum()


def _check(
    data: Float[ArrayLike, "time sequence feature"], observed: Bool[ArrayLike, "time sequence"]
) -> None:
    """Raise ValueError for data that have other axes, or steps that are not theirs."""
    if data.ndim != 3:
        raise ValueError(
            f"data have {data.ndim} axes: pass (time, sequence, feature). A single sequence is "
            "data[:, None], a single feature data[..., None]."
        )
    if observed.shape != data.shape[:2]:
        raise ValueError(
            f"observed has the shape {observed.shape}: pass (time, sequence), {data.shape[:2]} "
            "here. Where all was seen it is np.ones(data.shape[:2], bool)."
        )
