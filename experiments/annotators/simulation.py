"""How many images does it take? Scores drawn by the program itself, and EM on them."""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from emjax import EM
from emjax.models import annotators
from experiments.annotators.scores import ALL_GOOD, LECTURE, NUM_ANNOTATORS

SIGMAS = (0.05, 0.095, 0.15)  # noise of a good annotator, in units of the score


def simulated(key: jax.Array, num_images: int, sigma: float) -> jax.Array:
    """Return scores (image, annotator) drawn by the program, annotators 0, 1 and 3 good.

    The images' values are uniform between 0.2 and 0.8; a score beyond 0 or 1 is recorded as 0 or 1.
    """
    values, draws = jax.random.split(key)
    mu = jax.random.uniform(values, (num_images,), minval=0.2, maxval=0.8)
    good = jnp.isin(jnp.arange(NUM_ANNOTATORS), jnp.array(LECTURE)).astype(int)
    params = {"mu": mu, "sigma": sigma, "pi": 0.6}
    program = handlers.uncondition(handlers.substitute(annotators.program, data=params))
    program = handlers.seed(handlers.condition(program, data={"good": good}), draws)
    drawn = handlers.trace(program).get_trace(jnp.zeros((num_images, NUM_ANNOTATORS)))
    return jnp.clip(drawn["scores"]["value"], 0.0, 1.0)


def simulated_posteriors(num_images: int, num_tables: int, num_steps: int = 200) -> np.ndarray:
    """Return p(good | scores) on simulated tables, (noise, table, annotator).

    EM begins at the lecture's start.
    """
    em = EM(annotators.program)
    # trace the program before vmap does
    em.init(jax.random.key(0), jnp.zeros((num_images, NUM_ANNOTATORS)))

    def posterior(key: jax.Array, sigma: jax.Array) -> jax.Array:
        scores = simulated(key, num_images, sigma)
        state = em.init(key, scores)
        state = jax.lax.fori_loop(0, num_steps, lambda _, state: em.update(state, scores)[0], state)
        return em.posterior(state.params, scores)["good"][..., 1].reshape(NUM_ANNOTATORS)

    keys = jax.random.split(jax.random.key(num_images), num_tables)
    of_tables = jax.vmap(posterior, (0, None))
    of_noises = jax.jit(jax.vmap(of_tables, (None, 0)))
    return np.asarray(of_noises(keys, jnp.array(SIGMAS)))


def share_found(posteriors: np.ndarray) -> np.ndarray:
    """Return the share of tables in which exactly the lecture's annotators are good, (noise,)."""
    is_right = (posteriors > 0.5) == np.isin(ALL_GOOD, LECTURE)
    return is_right.all(axis=-1).mean(axis=-1)


def images_needed(posteriors: dict[int, np.ndarray], noise: int) -> str:
    """Return the first number of images from which on 95% of the tables are read correctly."""
    needed = None
    for num, table_posteriors in posteriors.items():
        if share_found(table_posteriors)[noise] < 0.95:
            needed = None  # fewer images sufficed by chance
        elif needed is None:
            needed = num
    return f"more than {max(posteriors)}" if needed is None else str(needed)
