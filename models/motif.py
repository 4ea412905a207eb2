"""Motifs: which short pattern do these DNA sequences share, and where in each of them is it?

Letter l of sequence n is drawn from column w of the motif if it is the w-th letter of the
occurrence, which begins at s_n, and from the background if it lies outside. The latent is where:
every sequence has one occurrence (OOPS).

                (s_n) ──▶ [x_nl] ◀── b, m_w
                  │         └── plate "positions"
                  └─────────┴── plate "sequences"

    s_n  ~ uniform over 0 … L_n − W                    latent `start`: W of the L_n letters are left
    x_nl ~ Categorical(m_w)  with w = l − s_n if 0 ≤ l − s_n < W
           Categorical(b)    elsewhere                 `letters`, numbers of A, C, G, T

with b = `background` (letter,) and m = `motif` (W, letter). Or a sequence has zero occurrences or
one (ZOOPS), one with probability γ = `occurrence`:

      γ ──▶ (o_n) ──▶ (s_n) ──▶ [x_nl] ◀── b, m_w

    o_n  ~ Bernoulli(γ)                                latent `occurs`
    s_n  ~ uniform as above if o_n = 1                 latent `start`, whose last value means:
           nowhere          if o_n = 0                 nowhere

E-step, where γ = 1 in OOPS, w = l − s, and nowhere is a start from which no letter is reached:

    r_ns ∝ γ / (L_n − W + 1) Π_{l: 0 ≤ w < W} m_{w x_nl} Π_{other l} b_{x_nl}                    (1)
    r_n,nowhere ∝ (1 − γ) Π_l b_{x_nl}                        normalized together, in each sequence

M-step: expected counts of each letter a in each column and outside, normalized over letters, of N
sequences.

    m_wa ∝ Σ_ns r_ns 1{x_{n,s+w} = a}                                                            (2)
    b_a  ∝ Σ_n Σ_{l: x_nl = a} Σ_{s: not 0 ≤ l − s < W} r_ns        s also nowhere               (3)
    γ    = 1 − Σ_n r_n,nowhere / N                                                               (4)

An occurrence read one letter late has all columns but one in common with the motif, and is a local
maximum: EM comes to rest at shifted motifs (Lawrence et al. 1993 call it phase). Several starts, or
a restart from the shifted motif, help.

Source: Lawrence & Reilly (1990), "An expectation maximization (EM) algorithm for the identification
and characterization of common sites in unaligned biopolymer sequences", Proteins 7, for OOPS;
Bailey & Elkan (1995), "The value of prior knowledge in discovering motifs with MEME", ISMB 3, for
ZOOPS, without the prior.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from numpyro.distributions import constraints

LETTERS = "ACGT"


def program(letters: Int[ArrayLike, "sequence position"], width: int) -> None:
    """One occurrence in every sequence.

    `letters` are places in "ACGT", and −1 past the end of a shorter sequence.

    Every sequence has `width` letters or more. Parameters: `background` (letter,) and each row of
    `motif` (width, letter) on the simplex. The background starts uniform, the motif uniformly at
    random.
    """
    probs = _probs(width)
    with numpyro.plate("sequences", len(letters)):
        start = numpyro.sample("start", dist.Categorical(_uniform_over_starts(letters, width)))
        _sample_letters(letters, start, probs)


def zoops_program(letters: Int[ArrayLike, "sequence position"], width: int) -> None:
    """Zero occurrences or one in each sequence.

    Data, parameters and start as in `program`, and `occurrence`, a probability that starts at one
    half. The last value of `start` is nowhere.
    """
    probs = _probs(width)
    occurrence = numpyro.param("occurrence", jnp.array(0.5), constraint=constraints.unit_interval)
    somewhere = jnp.pad(_uniform_over_starts(letters, width), ((0, 0), (0, 1)))
    nowhere = jnp.eye(1, somewhere.shape[1], somewhere.shape[1] - 1)
    with numpyro.plate("sequences", len(letters)):
        occurs = numpyro.sample("occurs", dist.Bernoulli(occurrence))
        start = numpyro.sample(
            "start", dist.Categorical(jnp.where(occurs[:, None] == 1, somewhere, nowhere))
        )
        _sample_letters(letters, start, probs)


def _probs(width: int) -> Float[Array, "column letter"]:
    """Declare b and m; return b above the rows of m."""
    num_letters = len(LETTERS)
    background = numpyro.param(
        "background", jnp.full(num_letters, 1 / num_letters), constraint=constraints.simplex
    )
    motif = numpyro.param(
        "motif",
        lambda rng_key: jax.random.dirichlet(rng_key, jnp.ones(num_letters), (width,)),
        constraint=constraints.simplex,
    )
    return jnp.concatenate([background[None], motif])


def _uniform_over_starts(
    letters: Int[ArrayLike, "sequence position"], width: int
) -> Float[Array, "sequence start"]:
    """Return p(s_n): the same for every place of sequence n where `width` letters are left."""
    num_starts = letters.shape[1] - width + 1
    fits = jnp.arange(num_starts) <= (letters >= 0).sum(axis=1, keepdims=True) - width
    return fits / fits.sum(axis=1, keepdims=True)


def _sample_letters(
    letters: Int[ArrayLike, "sequence position"],
    start: Int[ArrayLike, "sequence"],
    probs: Float[Array, "column letter"],
) -> None:
    """Observe every letter: one draw from the column that it lies in, and none past the end.

    A Categorical has the same density, looked up for each letter and start. Of a multinomial the
    indicators of the letters are statistics, and a sequence is one row of a matrix product with log
    p: ten times as fast.
    """
    width, longest = len(probs) - 1, letters.shape[1]
    offset = jnp.arange(longest) - start[:, None]
    somewhere = start[:, None] <= longest - width  # the last start is nowhere
    inside = somewhere & (offset >= 0) & (offset < width)
    indicators = jax.nn.one_hot(letters, len(LETTERS))  # of −1: all zero
    draws = dist.Multinomial(indicators.sum(axis=-1), probs[jnp.where(inside, offset + 1, 0)])
    numpyro.sample("letters", draws.to_event(1), obs=indicators)


def hand_derived_step(
    params: Mapping[str, ArrayLike], letters: Int[ArrayLike, "sequence position"], width: int
) -> dict[str, np.ndarray]:
    """Return the parameters of `program` after one EM step: that of `zoops_program` where γ = 1."""
    after = zoops_hand_derived_step({**params, "occurrence": 1.0}, letters, width)
    return {"background": after["background"], "motif": after["motif"]}


def zoops_hand_derived_step(
    params: Mapping[str, ArrayLike], letters: Int[ArrayLike, "sequence position"], width: int
) -> dict[str, np.ndarray]:
    """Return the parameters of `zoops_program` after one EM step, by (1) to (4), start by start.

    Where no letter is expected in any column of the motif, or none in the background, those
    probabilities stay.
    """
    letters = np.asarray(letters)
    background, motif, occurrence = (
        np.asarray(params[name], np.float64) for name in ("background", "motif", "occurrence")
    )
    probs = np.vstack([background, motif])
    num_sequences, longest = letters.shape
    sequence, position = np.nonzero(letters >= 0)  # one row for each letter
    letter = letters[sequence, position]
    num_fitting = (letters >= 0).sum(axis=1, keepdims=True) - width + 1
    starts = range(longest - width + 2)  # the last is nowhere

    def column(start: int) -> Int[np.ndarray, "row"]:
        """Return 0 for each letter outside the occurrence, and 1 + w for its w-th letter."""
        offset = position - start
        inside = (offset >= 0) & (offset < width) & (start < starts[-1])
        return np.where(inside, offset + 1, 0)

    # (1): a sum of logarithms over the letters of each sequence; what cannot be has -inf.
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs)
        somewhere = occurrence * (np.arange(starts[-1]) < num_fitting) / num_fitting
        nowhere = np.full((num_sequences, 1), 1 - occurrence)
        log_joint = np.log(np.hstack([somewhere, nowhere]))
    for start in starts:
        np.add.at(log_joint[:, start], sequence, log_probs[column(start), letter])
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))

    counts = np.zeros_like(probs)
    for start in starts:
        np.add.at(counts, (column(start), letter), r[sequence, start])  # (2), and in row 0 (3)
    totals = counts.sum(axis=1, keepdims=True)
    background, *motif = np.divide(counts, totals, out=probs, where=totals > 0)
    occurrence = np.asarray(1 - r[:, -1].mean())  # (4)
    return {"background": background, "motif": np.array(motif), "occurrence": occurrence}
