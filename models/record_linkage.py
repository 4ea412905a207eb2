"""Record linkage: which pairs of records are one person, if no field identifies anybody?

Two records are compared field by field: the level of agreement of a field is 0 where it differs, up
to L_f − 1 where it is the same, with degrees of similarity between; −1 where either record lacks
it. A pair is a match or not, and given that its fields agree independently (Fellegi & Sunter).

      λ ──▶ (z_n) ──▶ [γ_nf] ◀── m_f, u_f
              └──────────┴── plate "comparisons", each c_n times

    z_n  ~ Bernoulli(λ)                                latent `match`
    γ_nf ~ Categorical(m_f) of a match, Categorical(u_f) of none       a site named as the field

with λ = `match_rate`, m_f = `m_FIELD` and u_f = `u_FIELD` (level,). A missing comparison is masked:
it says nothing for or against a match. Comparisons with the same levels are one row, and `count`
says how many they are (`emjax.compress`): 10⁸ comparisons are a few thousand rows.

Term frequencies. That two records agree on a rare value says more than that they agree on a common
one. Where records agree exactly, the value v on which they do is observed, too. A match has drawn
it once and others have drawn it twice, from the shares φ_f of values among records:

    v_nf ~ Categorical(φ_f) of a match, Categorical(φ_f² / Σ φ_f²) of none       `FIELD_value`

E-step. Odds multiply, so that their logarithms to base 2, the match weights, add up:

    log₂ r_n / (1 − r_n) = log₂ λ / (1 − λ) + Σ_{f: γ_nf ≥ 0} log₂ m_{f γ_nf} / u_{f γ_nf}
                           + Σ_{f: v_nf is known} log₂ Σ_v φ_fv² / φ_{f v_nf}                    (1)

M-step: expected counts, normalized.

    λ    = Σ_n c_n r_n / Σ_n c_n                                                                 (2)
    m_fl = Σ_{n: γ_nf = l} c_n r_n       / Σ_{n: γ_nf ≥ 0} c_n r_n                               (3)
    u_fl = Σ_{n: γ_nf = l} c_n (1 − r_n) / Σ_{n: γ_nf ≥ 0} c_n (1 − r_n)                         (4)

If u_f is not estimated here but known, from pairs of records drawn at random, it is held:
`EM(program, fixed={"u_city"}).run(key, …, init_params={"u_city": u})`. If in particular u_f of
exact agreement is Σ φ_f², two draws that happen to agree, the weight of agreement on v in (1) is
log₂ m_fl / φ_fv, which is Splink's term-frequency adjustment. With any other u_f Splink's is that
of no distribution (the chances of a level's values do not add up to the level's), and here (1)
holds as it stands.

Renaming matches as non-matches changes nothing but names: the start says that fields of a match
mostly agree, and that few comparisons are matches.

Source: Fellegi & Sunter (1969), "A theory for record linkage", JASA 64, for the model and the
weights; Winkler (1988), "Using the EM algorithm for weight computation in the Fellegi–Sunter model
of record linkage", for (1) to (4); Linacre et al. (2022), "Splink: free software for probabilistic
record linkage at scale", IJPDS 7(3), for levels, missing fields, u held, and frequencies; how the
agreed value is drawn: ours.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Real
from numpyro.distributions import constraints


def program(
    levels: Mapping[str, Int[ArrayLike, "comparison"]],
    num_levels: Mapping[str, int],
    count: Real[ArrayLike, "*comparison"] = 1.0,
) -> None:
    """`levels[field][n]` says how far a field of the n-th pair of records agrees.

    A level is an integer from 0 to `num_levels[field]` − 1, or −1 of a missing comparison.
    `count[n]` pairs are like the n-th.

    Parameters: `match_rate`, a probability; `m_FIELD` and `u_FIELD` (level,) on the simplex. The
    start: one comparison in a hundred is a match; 95 % of a field's comparisons are at the highest
    level of agreement in a match and at the lowest in another pair, and other levels are equally
    probable.
    """
    match_rate, agreement = _match_rate(), _agreement(num_levels)
    with numpyro.plate("comparisons", _num_rows(levels)), numpyro.handlers.scale(scale=count):
        match = numpyro.sample("match", dist.Bernoulli(match_rate))
        _observe_levels(match, agreement, levels)


def frequency_program(
    levels: Mapping[str, Int[ArrayLike, "comparison"]],
    values: Mapping[str, Int[ArrayLike, "comparison"]],
    num_levels: Mapping[str, int],
    frequencies: Mapping[str, Real[ArrayLike, "_"]],
    count: Real[ArrayLike, "*comparison"] = 1.0,
) -> None:
    """As `program`, where agreement on a rare value says more than on a common one.

    `frequencies`: for some fields, how many records have each value, or their share. `values`: for
    each of these fields, which value both records have, an index of its frequencies; −1 where they
    do not agree exactly, or nobody knows how frequent it is.
    """
    match_rate, agreement = _match_rate(), _agreement(num_levels)
    with numpyro.plate("comparisons", _num_rows(levels)), numpyro.handlers.scale(scale=count):
        match = numpyro.sample("match", dist.Bernoulli(match_rate))
        _observe_levels(match, agreement, levels)
        for field, frequency in frequencies.items():
            value, once = jnp.asarray(values[field]), jnp.asarray(frequency, float)
            once = once / once.sum()
            twice = once**2 / (once**2).sum()
            with numpyro.handlers.mask(mask=value >= 0):
                drawn = dist.Categorical(jnp.stack([twice, once])[match])
                numpyro.sample(f"{field}_value", drawn, obs=jnp.maximum(value, 0))


def _num_rows(levels: Mapping[str, Int[ArrayLike, "comparison"]]) -> int:
    return len(next(iter(levels.values())))


def _match_rate() -> Float[ArrayLike, ""]:
    """Declare λ."""
    return numpyro.param("match_rate", 0.01, constraint=constraints.unit_interval)


def _agreement(num_levels: Mapping[str, int]) -> dict[str, Float[ArrayLike, "2 level"]]:
    """Declare m and u of every field: u in row 0, m in row 1."""
    agreement = {}
    for field, num in num_levels.items():
        mostly_same = np.full(num, 0.05 / (num - 1))
        mostly_same[-1] = 0.95
        m, u = (
            numpyro.param(f"{name}_{field}", jnp.asarray(start), constraint=constraints.simplex)
            for name, start in (("m", mostly_same), ("u", mostly_same[::-1]))
        )
        agreement[field] = jnp.stack([u, m])
    return agreement


def _observe_levels(
    match: jax.Array,
    agreement: Mapping[str, Float[ArrayLike, "2 level"]],
    levels: Mapping[str, Int[ArrayLike, "comparison"]],
) -> None:
    """State the sites of all fields, those that are missing masked."""
    for field, probs in agreement.items():
        level = jnp.asarray(levels[field])
        with numpyro.handlers.mask(mask=level >= 0):
            numpyro.sample(field, dist.Categorical(probs[match]), obs=jnp.maximum(level, 0))


def prior_weight(params: Mapping[str, ArrayLike]) -> float:
    """Return the match weight of a pair before it is compared, log₂ λ / (1 − λ)."""
    match_rate = np.asarray(params["match_rate"], np.float64)
    with np.errstate(divide="ignore"):
        return float(np.log2(match_rate) - np.log2(1 - match_rate))


def match_weights(params: Mapping[str, ArrayLike]) -> dict[str, Float[np.ndarray, "level"]]:
    """Return the match weight of each level of each field, log₂ m / u (level,).

    A weight of 3 multiplies the odds of a match by 8. It is infinite where a level is impossible
    among matches or among other pairs, and NaN where it is among both.
    """
    weights = {}
    for name, m in params.items():
        if name.startswith("m_"):
            u = np.asarray(params[f"u_{name[2:]}"], np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                weights[name[2:]] = np.log2(np.asarray(m, np.float64)) - np.log2(u)
    return weights


def value_weights(
    frequencies: Mapping[str, Real[ArrayLike, "_"]],
) -> dict[str, Float[np.ndarray, "_"]]:
    """Return what agreement on each value adds to the weight of its level, log₂ Σ φ² / φ."""
    weights = {}
    for field, frequency in frequencies.items():
        share = np.asarray(frequency, np.float64) / np.sum(frequency)
        with np.errstate(divide="ignore"):
            weights[field] = np.log2((share**2).sum()) - np.log2(share)
    return weights


def total_weight(
    params: Mapping[str, ArrayLike], levels: Mapping[str, Int[ArrayLike, "comparison"]]
) -> Float[np.ndarray, "comparison"]:
    """Return the match weight of each comparison: (1), without term frequencies.

    The probability of a match is 1 / (1 + 2^−weight).
    """
    weights, total = match_weights(params), np.full(_num_rows(levels), prior_weight(params))
    for field, level in levels.items():
        # the last entry is that of a missing comparison, −1
        total += np.append(weights[field], 0.0)[np.asarray(level)]
    return total


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    levels: Mapping[str, Int[ArrayLike, "comparison"]],
    num_levels: Mapping[str, int],
    count: Real[ArrayLike, "*comparison"] = 1.0,
) -> dict[str, np.ndarray]:
    """Return the parameters of `program` after one EM step, by equations (1) to (4).

    Where no comparison of a field is expected among matches, its m stays; likewise u.
    """
    return frequency_hand_derived_step(params, levels, {}, num_levels, {}, count)


def frequency_hand_derived_step(
    params: Mapping[str, ArrayLike],
    levels: Mapping[str, Int[ArrayLike, "comparison"]],
    values: Mapping[str, Int[ArrayLike, "comparison"]],
    num_levels: Mapping[str, int],
    frequencies: Mapping[str, Real[ArrayLike, "_"]],
    count: Real[ArrayLike, "*comparison"] = 1.0,
) -> dict[str, np.ndarray]:
    """Return the parameters of `frequency_program` after one EM step, by equations (1) to (4)."""
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}
    num_rows = _num_rows(levels)
    count = np.broadcast_to(np.asarray(count, np.float64), num_rows)

    # (1): log p(z, data) of z = 0 and 1, -inf where it is impossible
    rate = params["match_rate"]
    with np.errstate(divide="ignore"):
        log_joint = np.tile(np.log([1 - rate, rate]), (num_rows, 1))
        for field in num_levels:
            log_probs = np.log([params[f"u_{field}"], params[f"m_{field}"]])
            log_joint += _log_prob(log_probs, levels[field])
        for field, frequency in frequencies.items():
            share = np.asarray(frequency, np.float64) / np.sum(frequency)
            log_joint += _log_prob(np.log([share**2 / (share**2).sum(), share]), values[field])
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))

    expected = count[:, None] * r  # (comparison, 2)
    after = {"match_rate": np.asarray(expected[:, 1].sum() / count.sum())}  # (2)
    for field, num in num_levels.items():
        level = np.asarray(levels[field])
        given = level >= 0
        for name, z in (("m", 1), ("u", 0)):
            totals = np.bincount(level[given], expected[given, z], minlength=num)
            before = params[f"{name}_{field}"]
            after[f"{name}_{field}"] = totals / totals.sum() if totals.any() else before  # (3), (4)
    return after


def _log_prob(
    log_probs: Float[np.ndarray, "2 value"], observed: Int[ArrayLike, "comparison"]
) -> Float[np.ndarray, "comparison 2"]:
    """Return log p(observed | z) of z = 0 and 1; zero where it is missing, −1."""
    observed = np.asarray(observed)
    return np.where(observed[:, None] >= 0, log_probs.T[observed], 0.0)
