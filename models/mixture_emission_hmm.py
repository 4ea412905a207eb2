"""Hidden Markov model of clouds of clouds: what a state shows is a Gaussian mixture of its own.

      π ──▶ (z_1) ──A──▶ (z_2) ──A──▶ …
              │            │
              ▼            ▼
      w ──▶ (c_1)        (c_2)          …
              │            │
              ▼            ▼
    m, σ ──▶ [x_1]       [x_2]          …
              └── plate "sequences"

    z_1     ~ Categorical(π)                           latent `state`
    z_{t+1} ~ Categorical(A_{z_t})
    c_t     ~ Categorical(w_{z_t})                     latent `component`, of this step alone
    x_t     ~ Normal(m_{z_t c_t}, diag σ²_{z_t c_t})   `data`, in D dimensions

with π = `initial` (state,), A = `transition` (state, next state), w = `weights` (state, component),
and m = `loc` and σ = `scale` (state, component, feature). Sequence n has T_n = `lengths[n]` steps,
and the data have the time first, (time, sequence, feature). What stands beyond the end of a
sequence counts nothing.

E-step. The component of a step depends on nothing but its state and what was seen, so it is summed
out first:

    b_tk = Σ_c w_kc Normal(x_t; m_kc, σ_kc²)                    p(x_t | z_t = k)                 (1)

and what remains is a chain. Forward, the state given the past; backward, given everything:

    g_1k = π_k,             g_{t+1,k} = Σ_j f_tj A_jk           p(z_t = k | x_1 … x_{t-1})       (2)
    f_tk = g_tk b_tk / Σ_j g_tj b_tj                            p(z_t = k | x_1 … x_t)           (3)
    ξ_tjk = f_tj A_jk r_{t+1,k} / g_{t+1,k}                     p(z_t = j, z_{t+1} = k | x)      (4)
    r_Tk = f_Tk,            r_tj = Σ_k ξ_tjk                    p(z_t = j | x)                   (5)
    r_tkc = r_tk w_kc Normal(x_t; m_kc, σ_kc²) / b_tk           p(z_t = k, c_t = c | x)          (6)

In (4), the next state tells all that the future knows of this one:

    p(z_t | z_{t+1}, x) = p(z_t | z_{t+1}, x_1 … x_t)

M-step, sums over every sequence:

    π_k   ∝ r_1k                                                                                 (7)
    A_jk  ∝ Σ_{t<T} ξ_tjk                              normalized over k                         (8)
    w_kc  ∝ Σ_t r_tkc                                  normalized over c                         (9)
    m_kc  = Σ_t r_tkc x_t / Σ_t r_tkc                                                           (10)
    σ_kc² = Σ_t r_tkc (x_t − m_kc)² / Σ_t r_tkc        each feature apart, about the new mean   (11)

Source: Rabiner (1989), "A tutorial on hidden Markov models", Proceedings of the IEEE 77, section
IV.A, for (1) and (9) to (11); Kitagawa (1987), Journal of the American Statistical Association 82,
section 2, for (2) to (5), there for any state.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Real
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints


def program(
    data: Float[ArrayLike, "time sequence feature"],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
    num_components: int,
) -> None:
    """The generative program. `lengths[n]` says how many steps sequence n has.

    Parameters: `initial`, each row of `transition` and each row of `weights` on the simplex, `loc`
    and `scale` in the unit of the data. States and components start equally probable, a state lasts
    two steps or more, the means are random points of the data, and every component has the spread
    of all of them.
    """
    _check_sequences(data, lengths, "time", "sequence", "feature")
    num_steps, num_sequences, num_features = data.shape
    shape = num_states, num_components
    points = jnp.reshape(data, (-1, num_features))
    observed = (jnp.arange(num_steps)[:, None] < jnp.asarray(lengths)).reshape(-1)

    def random_points(rng_key: jax.Array) -> Float[ArrayLike, "state component feature"]:
        probability = observed / observed.sum()
        chosen = jax.random.choice(
            rng_key, points, (num_states * num_components,), replace=False, p=probability
        )
        return chosen.reshape(*shape, num_features)

    initial = numpyro.param(
        "initial", jnp.full(num_states, 1 / num_states), constraint=constraints.simplex
    )
    mostly_stays = (jnp.eye(num_states) + 1 / num_states) / 2
    transition = numpyro.param("transition", mostly_stays, constraint=constraints.simplex)
    weights = numpyro.param(
        "weights", jnp.full(shape, 1 / num_components), constraint=constraints.simplex
    )
    loc = numpyro.param("loc", random_points)
    deviations = points - jnp.average(points, axis=0, weights=observed)
    everyone = jnp.sqrt(jnp.average(deviations**2, axis=0, weights=observed))
    scale = numpyro.param("scale", jnp.tile(everyone, (*shape, 1)), constraint=constraints.positive)

    def step(previous: Int[ArrayLike, "sequence"], now: tuple) -> tuple:
        t, x = now
        with numpyro.plate("sequences", num_sequences), numpyro.handlers.mask(mask=t < lengths):
            z = numpyro.sample(
                "state", dist.Categorical(jnp.where(t == 0, initial, transition[previous]))
            )
            c = numpyro.sample("component", dist.Categorical(weights[z]))
            numpyro.sample("data", dist.Normal(loc[z, c], scale[z, c]).to_event(1), obs=x)
        return z, None

    scan(step, jnp.zeros(num_sequences, int), (jnp.arange(num_steps), data))


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    data: Float[ArrayLike, "time sequence feature"],
    lengths: Int[ArrayLike, "sequence"],
    num_states: int,
    num_components: int,
) -> dict[str, np.ndarray]:
    """Return the parameters after one EM step, by equations (1) to (11).

    A state that is never left keeps its row of `transition`, one that is never expected its row of
    `weights`, and a component that is never expected its mean and its scale.
    """
    points = np.asarray(data, np.float64)
    x = points[:, :, None, None]  # (time, sequence, state, component, feature)
    start = {name: np.asarray(value, np.float64) for name, value in params.items()}
    observed = (np.arange(len(data))[:, None] < np.asarray(lengths))[..., None]

    standardized = (x - start["loc"]) / start["scale"]
    log_normal = -0.5 * (np.log(2 * np.pi) + standardized**2).sum(axis=-1)
    log_normal = log_normal - np.log(start["scale"]).sum(axis=-1)
    log_joint = _log(start["weights"]) + log_normal
    log_b = np.logaddexp.reduce(log_joint, axis=-1)  # (1)
    r, pairs = _smoothed(start, np.where(observed, log_b, 0.0))
    r, pairs = observed * r, (observed[1:, ..., None] * pairs).sum(axis=(0, 1))
    possible = log_b[..., None] > -np.inf  # of an impossible state, -inf − -inf would be NaN
    nothing = np.full_like(log_joint, -np.inf)
    log_within = np.subtract(log_joint, log_b[..., None], out=nothing, where=possible)
    r_component = r[..., None] * np.exp(log_within)  # (6)

    totals = r_component.sum(axis=(0, 1))[..., None]
    sums = np.einsum("tnkc,tnd->kcd", r_component, points)
    loc = np.divide(sums, totals, out=start["loc"].copy(), where=totals > 0)  # (10)
    squares = np.einsum("tnkc,tnkcd->kcd", r_component, (x - loc) ** 2)
    variance = np.divide(squares, totals, out=start["scale"] ** 2, where=totals > 0)  # (11)
    return {
        "initial": _normalized(r[0].sum(axis=0), start["initial"]),  # (7)
        "transition": _normalized(pairs, start["transition"]),  # (8)
        "weights": _normalized(totals[..., 0], start["weights"]),  # (9)
        "loc": loc,
        "scale": np.sqrt(variance),
    }


def _smoothed(
    start: Mapping[str, np.ndarray], log_b: Float[np.ndarray, "time sequence state"]
) -> tuple[
    Float[np.ndarray, "time sequence state"], Float[np.ndarray, "pair sequence state state"]
]:
    """Return p(z_t | x) and p(z_t, z_{t+1} | x), by (2) to (5).

    In logarithms until the end, since products over a long sequence underflow.

    Beyond its end a sequence goes on unseen, b = 1: there the past says all that is known, and r =
    g.
    """
    log_transition = _log(start["transition"])
    log_g, log_f = np.empty_like(log_b), np.empty_like(log_b)
    log_g[0] = _log(start["initial"])
    for t in range(len(log_b)):
        if t > 0:
            log_g[t] = np.logaddexp.reduce(log_f[t - 1, :, :, None] + log_transition, axis=1)  # (2)
        log_joint = log_g[t] + log_b[t]
        log_f[t] = log_joint - np.logaddexp.reduce(log_joint, axis=-1, keepdims=True)  # (3)

    log_r = log_f.copy()
    log_pairs = np.empty((len(log_b) - 1, *log_b.shape[1:], log_b.shape[-1]))
    for t in reversed(range(len(log_b) - 1)):
        impossible = np.full_like(log_g[t], -np.inf)  # a state that cannot come next
        gain = np.subtract(log_r[t + 1], log_g[t + 1], out=impossible, where=log_g[t + 1] > -np.inf)
        log_pairs[t] = log_f[t, :, :, None] + log_transition + gain[:, None]  # (4)
        log_r[t] = np.logaddexp.reduce(log_pairs[t], axis=-1)  # (5)
    return np.exp(log_r), np.exp(log_pairs)


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
