"""Three images scored by five annotators, and where EM ends on them."""

from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emjax import EM, Status
from emjax.models import annotators

SCORES = np.array(  # image, annotator
    [
        [0.59, 0.52, 0.50, 0.39, 0.65],
        [0.88, 0.96, 0.88, 0.94, 0.69],
        [0.70, 0.71, 0.52, 0.65, 0.46],
    ]
)
NUM_ANNOTATORS = SCORES.shape[1]
ALL_GOOD = tuple(range(NUM_ANNOTATORS))
LECTURE = (0, 1, 3)  # the good annotators of the lecture's answer
# a noise below this is on its way to zero: at every bounded optimum σ is three times as large
COLLAPSED = 0.01


class End(NamedTuple):
    """Where EM ended.

    - `posterior`: p(good | scores), (annotator,); NaN if the likelihood has no bound.
    - `sigma`, `pi`: the noise of a good annotator, and the share of good ones.
    - `log_likelihood`: in nats, inf if it has no bound.
    """

    posterior: np.ndarray
    sigma: float
    pi: float
    log_likelihood: float

    @property
    def name(self) -> str:
        """Return the end in words."""
        if np.isinf(self.log_likelihood):
            return "σ → 0"
        good = np.flatnonzero(self.posterior > 0.5)
        if len(good) == NUM_ANNOTATORS:
            return "all good"
        return ", ".join(map(str, good)) + " good" if len(good) else "none good"


def lecture_em() -> EM:
    """Return EM on the annotators, patient and precise enough to tell the optima apart."""
    return EM(annotators.program, tol=1e-10, max_steps=2000)


def start_from(good: tuple[int, ...]) -> dict:
    """Return the M-step's answer if exactly these annotators were good.

    σ and π are kept away from their bounds.
    """
    scores = SCORES[:, list(good)]
    spread = np.sqrt(scores.var(axis=1).mean())
    share = np.clip(len(good) / NUM_ANNOTATORS, 0.05, 0.95)
    return {"mu": scores.mean(axis=1), "sigma": np.maximum(spread, 0.03), "pi": share}


def random_start(key: jax.Array) -> dict:
    """Return values and π uniform on [0, 1], and σ log-uniform between 0.02 and 0.5."""
    values, noise, share = jax.random.split(key, 3)
    sigma = jnp.exp(jax.random.uniform(noise, (), minval=jnp.log(0.02), maxval=jnp.log(0.5)))
    return {
        "mu": jax.random.uniform(values, (len(SCORES),)),
        "sigma": sigma,
        "pi": jax.random.uniform(share),
    }


def end_of(em: EM, start: dict) -> End:
    """Return where EM ends from this start."""
    result = em.run(jax.random.key(0), SCORES, init_params=start)
    sigma, pi = float(result.params["sigma"]), float(result.params["pi"])
    if result.status == Status.NOT_FINITE or sigma < COLLAPSED:
        return End(np.full(NUM_ANNOTATORS, np.nan), 0.0, pi, np.inf)
    posterior = np.asarray(em.posterior(result.params, SCORES)["good"])[..., 1]
    return End(posterior.reshape(NUM_ANNOTATORS), sigma, pi, float(result.log_likelihood))


def subset_ends(em: EM) -> dict[tuple[int, ...], End]:
    """Return the end from each of the 31 non-empty sets of annotators taken for good."""
    ends = {}
    for size in range(NUM_ANNOTATORS, 0, -1):
        for good in combinations(ALL_GOOD, size):
            ends[good] = end_of(em, start_from(good))
    return ends


def random_ends(em: EM, num_starts: int) -> list[End]:
    """Return the ends from random starts."""
    keys = jax.random.split(jax.random.key(1), num_starts)
    return [end_of(em, random_start(key)) for key in keys]


def along_sigma(em: EM, good: tuple[int, ...], sigmas: np.ndarray) -> np.ndarray:
    """Return the log-likelihood in nats for each σ, with exactly these annotators good.

    μ and π are what they would be then.
    """
    start = start_from(good) | {"pi": np.array(len(good) / NUM_ANNOTATORS)}
    log_likelihood = jax.vmap(lambda sigma: em.log_likelihood(start | {"sigma": sigma}, SCORES))
    return np.asarray(log_likelihood(jnp.asarray(sigmas)))
