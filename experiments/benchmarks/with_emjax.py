"""emjax: the plain NumPyro programs of `emjax.models`, run by `EM`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.typing import ArrayLike
from jaxtyping import Float

from emjax import EM, compress
from emjax.models import dawid_skene, gaussian_mixture, hidden_markov, latent_class, topics
from experiments.benchmarks.contestant import Fit, Run


def counted_program(
    answers: Float[ArrayLike, "pattern item"], num_classes: int, count: Float[ArrayLike, "pattern"]
) -> None:
    """Latent classes where `count` people gave the same answers."""
    with numpyro.handlers.scale(scale=count):
        latent_class.program(answers, num_classes)


def runner(
    program: Callable, start: dict, *args, settings: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    """Return the run of EM with these arguments, and `settings` beside those of every row.

    The loop is compiled once for each number of steps.
    """
    compiled: dict[int, EM] = {}

    def run(num_steps: int) -> Fit:
        if num_steps not in compiled:
            # a row in float32 is in float32 to its end
            compiled[num_steps] = EM(
                program, stop="never", max_steps=num_steps, precision="single", **settings
            )
        em = compiled[num_steps]
        result = em.run(jax.random.key(0), *args, init_params=start)
        return Fit(
            {name: np.asarray(value) for name, value in result.params.items()}, result.num_steps
        )

    return run


def gaussian(covariance: str) -> Callable[..., Run]:
    """Return the set-up of a Gaussian mixture."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        points = jnp.asarray(data.pop("points"))
        return runner(gaussian_mixture.program, start, points, sizes["num_components"], covariance)

    return setup


def crowd(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of Dawid–Skene on rows (item, annotator, label)."""
    rows = [jnp.asarray(data.pop(name)) for name in ("item", "annotator", "label")]
    return runner(
        dawid_skene.program,
        start,
        *rows,
        sizes["num_items"],
        sizes["num_annotators"],
        sizes["num_classes"],
    )


def answers(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of latent classes on all rows."""
    return runner(
        latent_class.program, start, jnp.asarray(data.pop("answers")), sizes["num_classes"]
    )


def patterns(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of latent classes on the rows that `emjax.compress` leaves."""
    (answers,), count, _ = compress(data.pop("answers"))
    count = jnp.asarray(count, answers.dtype)
    return runner(counted_program, start, jnp.asarray(answers), sizes["num_classes"], count)


def word_rows(program: Callable) -> Callable[..., Run]:
    """Return the set-up of a topic model on rows (document, word, count)."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        rows = [jnp.asarray(data.pop(name)) for name in ("document", "word", "count")]
        return runner(
            program, start, *rows, sizes["num_documents"], sizes["num_words"], sizes["num_topics"]
        )

    return setup


def chain(program: Callable, seen: str, *names: str) -> Callable[..., Run]:
    """Return the set-up of a hidden Markov model of what is `seen`.

    `names` are the sizes that its program takes.
    """

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        lengths = jnp.full(sizes["num_sequences"], sizes["sequence_length"])
        return runner(
            program, start, jnp.asarray(data.pop(seen)), lengths, *(sizes[name] for name in names)
        )

    return setup


SETUPS = {
    "emjax": {
        "gaussian_full": gaussian("full"),
        "gaussian_diagonal": gaussian("diagonal"),
        "gaussian_1d": gaussian("diagonal"),
        "dawid_skene": crowd,
        "latent_class": answers,
        "plsa": word_rows(topics.plsa_program),
        "multinomials": word_rows(topics.sparse_mixture_program),
        "hmm_categorical": chain(
            hidden_markov.categorical_program, "symbols", "num_states", "num_symbols"
        ),
        "hmm_gaussian": chain(hidden_markov.gaussian_program, "points", "num_states"),
    },
    "emjax, compressed": {"latent_class": patterns},
}
