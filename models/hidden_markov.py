"""Hidden Markov model: a state moves by chance, and something is seen of it at each time.

      π ──▶ (z_1) ──A──▶ (z_2) ──A──▶ (z_3) ──A──▶ …
              │            │            │
      θ ──▶ [x_1]        [x_2]        [x_3]        …
              └── plate "sequences"

    z_1     ~ Categorical(π)                           latent `state`
    z_{t+1} ~ Categorical(A_{z_t})
    x_t     ~ p(x | θ_{z_t})                           `data`, one of

    categorical           B_{z_t}                      `emission` (state, symbol)
    Gaussian, diagonal    Normal(m_k, diag σ_k²)       `loc`, `scale` (state, feature)
    Gaussian, full        Normal(m_k, Σ_k)             `loc`, `covariance` (state, feature, feature)
    Poisson               Poisson(λ_k)                 `rate` (state,)

with π = `initial` (state,) and A = `transition` (state, next state). Sequence n has T_n =
`lengths[n]` steps, and the data have the time first, (time, sequence[, feature]), as a scan reads
them. What stands beyond the end of a sequence counts nothing:
any number, and no NaN.

E-step: forward and backward over each sequence, with b_tk = p(x_t | z_t = k), in logarithms.

    α_1k = π_k b_1k,      α_{t+1,k} = Σ_j α_tj A_jk b_{t+1,k}   p(x_1 … x_t, z_t = k)            (1)
    β_Tk = 1,             β_tj = Σ_k A_jk b_{t+1,k} β_{t+1,k}   p(x_{t+1} … x_T | z_t = j)       (2)
    r_tk = α_tk β_tk / Σ_j α_Tj                                 p(z_t = k | x)                   (3)
    ξ_tjk = α_tj A_jk b_{t+1,k} β_{t+1,k} / Σ_j α_Tj            p(z_t = j, z_{t+1} = k | x)      (4)

M-step, sums over every sequence: each probability is an expected count, normalized. With
R_k = Σ_t r_tk,

    π_k  ∝ r_1k                                                                                  (5)
    A_jk ∝ Σ_{t<T} ξ_tjk                               normalized over k                         (6)
    categorical      B_kv ∝ Σ_{t: x_t = v} r_tk        normalized over v                         (7)
    Gaussian         m_k  = Σ_t r_tk x_t / R_k                                                   (8)
      full           Σ_k  = Σ_t r_tk (x_t − m_k)(x_t − m_k)ᵀ / R_k      about the new mean       (9)
      diagonal       σ_k² = the diagonal of (9)                                                 (10)
    Poisson          λ_k  = Σ_t r_tk x_t / R_k                                                  (11)

Hard EM, in which the most probable path stands for the posterior, is Viterbi training.

Source: Baum, Petrie, Soules & Weiss (1970), Annals of Mathematical Statistics 41; Rabiner (1989),
"A tutorial on hidden Markov models", Proceedings of the IEEE 77, (19)–(20), (24)–(25), (27) and
(37) for (1) to (4), (40) for (5) to (7), (109)–(110) for several sequences; Zucchini, MacDonald &
Langrock (2016), Hidden Markov Models for Time Series, chapter 4, for (11).
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Real
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

COVARIANCES = ("diagonal", "full")


def categorical_program(
    data: Int[ArrayLike, "time sequence"],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
    num_symbols: int,
) -> None:
    """Symbols 0 … num_symbols − 1. `lengths[n]` says how many steps sequence n has.

    Parameters: `initial`, each row of `transition` and each row of `emission` (state, symbol) on
    the simplex. The states start equally probable and last two steps or more; the rows of
    `emission` start uniformly at random.
    """
    _check_sequences(data, lengths, "time", "sequence")
    emission = numpyro.param(
        "emission",
        lambda rng_key: jax.random.dirichlet(rng_key, jnp.ones(num_symbols), (num_states,)),
        constraint=constraints.simplex,
    )
    _chain(data, lengths, num_states, lambda state: dist.Categorical(emission[state]))


def gaussian_program(
    data: Float[ArrayLike, "time sequence feature"],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
    covariance: str = "diagonal",
) -> None:
    """Points in D dimensions, in the unit of the data. `covariance` is "diagonal" or "full".

    Parameters: `initial` and `transition` as in `categorical_program`, `loc` (K, D), and `scale`
    (K, D) or `covariance` (K, D, D). The start: the best of several short
    runs; with `init="program"` or parameters that are given, means at random points of the data,
    every state with the spread of all of them.

    Raises ValueError for an unknown `covariance`.
    """
    _check(covariance)
    _check_sequences(data, lengths, "time", "sequence", "feature")
    points = data.reshape(-1, data.shape[-1])
    observed = _observed(data, lengths).reshape(-1)
    loc = numpyro.param(
        "loc",
        lambda rng_key: jax.random.choice(
            rng_key, jnp.asarray(points), (num_states,), replace=False, p=observed / observed.sum()
        ),
    )
    everyone = jnp.atleast_2d(jnp.cov(points, rowvar=False, aweights=observed, bias=True))
    if covariance == "full":
        matrix = numpyro.param(
            "covariance",
            jnp.tile(everyone, (num_states, 1, 1)),
            constraint=constraints.positive_definite,
        )

        def emission(state: Int[ArrayLike, "sequence"]) -> dist.Distribution:
            return dist.MultivariateNormal(loc[state], covariance_matrix=matrix[state])

    else:
        start = jnp.tile(jnp.sqrt(jnp.diagonal(everyone)), (num_states, 1))
        scale = numpyro.param("scale", start, constraint=constraints.positive)

        def emission(state: Int[ArrayLike, "sequence"]) -> dist.Distribution:
            return dist.Normal(loc[state], scale[state]).to_event(1)

    _chain(data, lengths, num_states, emission, start="short-runs")


def poisson_program(
    data: Real[ArrayLike, "time sequence"], lengths: Int[ArrayLike, "sequence"], num_states: int
) -> None:
    """Counts. `lengths[n]` says how many steps sequence n has.

    Parameters: `initial` and `transition` as in `categorical_program`, and `rate` (state,),
    positive, in events per step. The rates start at random between one half and three halves of the
    mean of the data.
    """
    _check_sequences(data, lengths, "time", "sequence")
    mean = jnp.average(data, weights=_observed(data, lengths))
    rate = numpyro.param(
        "rate",
        lambda rng_key: mean * jax.random.uniform(rng_key, (num_states,), minval=0.5, maxval=1.5),
        constraint=constraints.positive,
    )
    _chain(data, lengths, num_states, lambda state: dist.Poisson(rate[state]))


def _chain(
    data: Real[ArrayLike, "time sequence ..."],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
    emission: Callable[..., dist.Distribution],
    start: str | None = None,
) -> None:
    """Declare π and A, and sample every sequence.

    `emission(state)` is p(x | state); `start`: by what EM starts, None: the program's own values.
    """
    initial = numpyro.param(
        "initial", jnp.full(num_states, 1 / num_states), constraint=constraints.simplex
    )
    mostly_stays = (jnp.eye(num_states) + 1 / num_states) / 2
    transition = numpyro.param("transition", mostly_stays, constraint=constraints.simplex)
    num_steps, num_sequences = data.shape[:2]

    def step(previous: Int[ArrayLike, "sequence"], now: tuple) -> tuple:
        t, x = now
        with numpyro.plate("sequences", num_sequences), numpyro.handlers.mask(mask=t < lengths):
            state = numpyro.sample(
                "state",
                dist.Categorical(jnp.where(t == 0, initial, transition[previous])),
                infer={"start": start},
            )
            numpyro.sample("data", emission(state), obs=x)
        return state, None

    scan(step, jnp.zeros(num_sequences, int), (jnp.arange(num_steps), data))


def _observed(
    data: Real[ArrayLike, "time sequence ..."], lengths: Int[ArrayLike, "sequence"]
) -> Bool[ArrayLike, "time sequence"]:
    """Return which steps belong to their sequence."""
    return jnp.arange(len(data))[:, None] < jnp.asarray(lengths)


def categorical_hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Int[ArrayLike, "time sequence"],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
    num_symbols: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `categorical_program` after one EM step, by equations (1) to (7).

    A state that is never expected keeps its row of `emission`, and one that is never left that of
    `transition`.
    """
    x = np.asarray(data)
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    maximum, r = _baum_welch(start, _log(start["emission"]).T[x], lengths)
    counts = np.zeros((num_symbols, num_states))
    np.add.at(counts, x, r)
    return maximum | {"emission": _normalized(counts.T, start["emission"])}  # (7)


def gaussian_hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "time sequence feature"],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
    covariance: str = "diagonal",
) -> dict[str, np.ndarray]:
    """Return the parameters of `gaussian_program` after one EM step, by (1) to (6), (8) to (10).

    A state that is never expected keeps its mean and its spread, and one that is never left its row
    of `transition`.

    Raises ValueError as the program does, and np.linalg.LinAlgError for a covariance that is not
    positive definite.
    """
    _check(covariance)
    x = np.asarray(data, np.float64)
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    identity = np.eye(x.shape[-1])
    if covariance == "full":
        matrices = start["covariance"]
    else:
        matrices = start["scale"][..., None] ** 2 * identity

    # log b, with Σ_k = L Lᵀ: the quadratic form is ‖L⁻¹ (x − m_k)‖², and ½ log det is Σ_d log L_dd.
    factors = np.linalg.cholesky(matrices)
    whitened = np.einsum("kde,tnke->tnkd", np.linalg.inv(factors), x[:, :, None] - start["loc"])
    log_scales = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    squares = (whitened**2).sum(axis=-1)
    log_density = -0.5 * (len(identity) * np.log(2 * np.pi) + squares) - log_scales
    maximum, r = _baum_welch(start, log_density, lengths)

    totals = r.sum(axis=(0, 1))[:, None]
    sums = np.einsum("tnk,tnd->kd", r, x)
    loc = np.divide(sums, totals, out=start["loc"].copy(), where=totals > 0)  # (8)
    deviations = x[:, :, None] - loc
    scatter = np.einsum("tnk,tnkd,tnke->kde", r, deviations, deviations)
    after = np.divide(scatter, totals[..., None], out=matrices.copy(), where=totals[..., None] > 0)
    if covariance == "full":
        return maximum | {"loc": loc, "covariance": after}  # (9)
    return maximum | {"loc": loc, "scale": np.sqrt(np.diagonal(after, axis1=1, axis2=2))}  # (10)


def poisson_hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Real[ArrayLike, "time sequence"],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `poisson_program` after one EM step, by (1) to (6) and (11).

    A state that is never expected keeps its rate, and one that is never left its row of
    `transition`.
    """
    x = np.asarray(data, np.float64)[..., None]
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    rate = start["rate"]
    # log b, without log x!, which all states share; 0 log 0 = 0.
    log_power = np.multiply(x, _log(rate), out=np.zeros((*x.shape[:2], num_states)), where=x > 0)
    maximum, r = _baum_welch(start, log_power - rate, lengths)
    totals = r.sum(axis=(0, 1))
    after = np.divide((r * x).sum(axis=(0, 1)), totals, out=rate.copy(), where=totals > 0)  # (11)
    return maximum | {"rate": after}


def _baum_welch(
    start: Mapping[str, np.ndarray],
    log_density: Float[np.ndarray, "time sequence state"],
    lengths: Int[ArrayLike, "sequence"],
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "time sequence state"]]:
    """Return `initial` and `transition` after one step, and r_tk, by (1) to (6).

    Beyond its end a sequence goes on unseen, b = 1, which leaves β at one; its responsibilities
    there are zero.
    """
    observed = (np.arange(len(log_density))[:, None] < np.asarray(lengths))[..., None]
    log_b = np.where(observed, log_density, 0.0)
    log_transition = _log(start["transition"])

    log_alpha, log_beta = np.empty_like(log_b), np.zeros_like(log_b)
    log_alpha[0] = _log(start["initial"]) + log_b[0]
    for t in range(len(log_b) - 1):
        log_next = np.logaddexp.reduce(log_alpha[t, :, :, None] + log_transition, axis=1)
        log_alpha[t + 1] = log_next + log_b[t + 1]  # (1)
    log_ahead = log_b + log_beta  # log b β
    for t in reversed(range(len(log_b) - 1)):
        log_beta[t] = np.logaddexp.reduce(log_transition + log_ahead[t + 1, :, None], axis=2)  # (2)
        log_ahead[t] += log_beta[t]
    log_likelihood = np.logaddexp.reduce(log_alpha[-1], axis=-1)[:, None]  # of each sequence

    r = observed * np.exp(log_alpha + log_beta - log_likelihood)  # (3)
    log_rest = (log_ahead[1:] - log_likelihood)[:, :, None]
    log_pairs = log_alpha[:-1, :, :, None] + log_transition + log_rest
    pairs = (observed[1:, ..., None] * np.exp(log_pairs)).sum(axis=(0, 1))  # (4)
    initial = _normalized(r[0].sum(axis=0), start["initial"])  # (5)
    transition = _normalized(pairs, start["transition"])  # (6)
    return {"initial": initial, "transition": transition}, r


def _log(probability: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return log p, which is -inf of what cannot be."""
    with np.errstate(divide="ignore"):
        return np.log(probability)


def _normalized(
    expected_counts: Float[np.ndarray, "... value"], otherwise: Float[np.ndarray, "... value"]
) -> Float[np.ndarray, "... value"]:
    """Return each row divided by its sum; where nothing is expected, the row of `otherwise`."""
    totals = expected_counts.sum(axis=-1, keepdims=True)
    return np.divide(expected_counts, totals, out=otherwise.copy(), where=totals > 0)


def _check(covariance: str) -> None:
    """Raise ValueError for a kind of covariance that does not exist."""
    if covariance not in COVARIANCES:
        raise ValueError(
            f"covariance={covariance!r} is unknown: choose one of {', '.join(COVARIANCES)}."
        )


def _check_sequences(
    data: Real[ArrayLike, "..."], lengths: Int[ArrayLike, "..."], *axes: str
) -> None:
    """Raise ValueError for data that have other axes, or lengths for other sequences."""
    if data.ndim != len(axes):
        raise ValueError(
            f"data have {data.ndim} axes: pass ({', '.join(axes)}). A single sequence is "
            "data[:, None], a single feature data[..., None]."
        )
    if jnp.shape(lengths) not in ((), data.shape[1:2]):
        raise ValueError(
            f"lengths has shape {jnp.shape(lengths)}: pass a number of steps for each of the "
            f"{data.shape[1]} sequences."
        )
