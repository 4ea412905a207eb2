"""Bad annotators: who scored the images, and who clicked at random?

Every annotator a scores every image i between 0 and 1. A good annotator reports the value of the
image with some noise; a bad one draws a number. Neither the values nor who is good is known.

        π ──▶ (good_a) ──▶ [s_ia] ◀── μ_i, σ
                 │           │
                 │           └── plate "images", dim -2
                 └────────────── plate "annotators", dim -1

    good_a ~ Bernoulli(π)
    s_ia   ~ Normal(μ_i, σ²)  if good_a = 1,  Uniform(0, 1)  if good_a = 0

with s = `scores`, μ = `mu`, σ = `sigma`, π = `pi`, latent `good`, and I images.

E-step. One latent serves the whole column of an annotator, so its log-densities add up over images:

    r_a = p(good_a = 1 | s)
        = π Π_i N(s_ia | μ_i, σ²) / (π Π_i N(s_ia | μ_i, σ²) + (1 − π) Π_i U(s_ia | 0, 1))       (1)

M-step. Q(θ) = Σ_a r_a [log π + Σ_i log N(s_ia | μ_i, σ²)] + (1 − r_a) log(1 − π) + constant, so

    μ_i = Σ_a r_a s_ia / Σ_a r_a                                                                 (2)
    σ²  = Σ_a r_a Σ_i (s_ia − μ_i)² / (I Σ_a r_a)    with μ from (2): the maximum over both      (3)
    π   = mean_a r_a                                                                             (4)

The likelihood has no upper bound: a single good annotator with μ_i = s_ia and σ → 0. EM finds a
local maximum away from it from the start used here, where everyone is good: μ_i the mean of row i
and σ the spread about it.

Source: D. Hoiem, University of Illinois, CS 543 Computer Vision, lecture "Hidden Variables, the EM
Algorithm, and Mixtures of Gaussians" (the bad-annotator problem); Dempster, Laird & Rubin (1977),
section 4.3.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.distributions import constraints

from emjax.distributions import Select


def program(scores: Float[ArrayLike, "image annotator"]) -> None:
    """The generative program; scores lie in [0, 1].

    A score outside [0, 1] is impossible for a bad annotator, so whoever gave one is good with
    certainty. Parameters: `mu` (image,), `sigma` () positive, in the unit of the scores, `pi` () a
    probability.
    """
    num_images, num_annotators = scores.shape
    mu = numpyro.param("mu", lambda rng_key: jnp.mean(scores, axis=1))
    sigma = numpyro.param(
        "sigma",
        lambda rng_key: jnp.sqrt(jnp.mean(jnp.var(scores, axis=1))),
        constraint=constraints.positive,
    )
    pi = numpyro.param("pi", jnp.array(0.8), constraint=constraints.unit_interval)
    with numpyro.plate("annotators", num_annotators, dim=-1):
        good = numpyro.sample("good", dist.Bernoulli(pi))
        with numpyro.plate("images", num_images, dim=-2):
            score = Select(good, [dist.Uniform(0.0, 1.0), dist.Normal(mu[:, None], sigma)])
            numpyro.sample("scores", score, obs=scores)


def hand_derived_step(
    params: Mapping[str, ArrayLike], scores: Float[ArrayLike, "image annotator"]
) -> dict[str, np.ndarray]:
    """Return the parameters after one EM step, by equations (1) to (4).

    Where no annotator is good (Σ_a r_a = 0), `mu` and `sigma` stay where they are and `pi` is 0.
    """
    s = np.asarray(scores, np.float64)
    mu, sigma, pi = (np.asarray(params[name], np.float64) for name in ("mu", "sigma", "pi"))

    # (1): log-densities summed over the images of each annotator; a probability of 0 is -inf.
    log_normal = -0.5 * np.log(2 * np.pi) - np.log(sigma) - 0.5 * ((s - mu[:, None]) / sigma) ** 2
    log_uniform = np.where((s >= 0) & (s <= 1), 0.0, -np.inf)
    with np.errstate(divide="ignore"):
        log_good = np.log(pi) + log_normal.sum(axis=0)
        log_bad = np.log1p(-pi) + log_uniform.sum(axis=0)
    r = np.exp(log_good - np.logaddexp(log_good, log_bad))

    num_good = r.sum()
    if num_good > 0:
        mu = s @ r / num_good  # (2)
        sigma = np.sqrt(((s - mu[:, None]) ** 2 @ r).mean() / num_good)  # (3), about the new mu
    return {"mu": mu, "sigma": np.asarray(sigma), "pi": np.asarray(r.mean())}  # (4)
