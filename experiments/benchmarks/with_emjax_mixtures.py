"""emjax: several starts side by side, values that are missing, motifs, data in chunks."""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float

from emjax import Stream
from emjax.distributions import PartiallyObserved
from emjax.models import gaussian_mixture, motif
from experiments.benchmarks.by_hand_streams import mapped
from experiments.benchmarks.contestant import Run
from experiments.benchmarks.with_emjax import gaussian, runner


def incomplete_program(data: Float[ArrayLike, "sample feature"], num_components: int) -> None:
    """A mixture of normals with full covariances, of points some of whose coordinates are NaN."""
    num_features = data.shape[1]
    simplex, definite = dist.constraints.simplex, dist.constraints.positive_definite
    equal = jnp.full(num_components, 1 / num_components)
    unit = jnp.tile(jnp.eye(num_features), (num_components, 1, 1))
    weights = numpyro.param("weights", equal, constraint=simplex)
    loc = numpyro.param("loc", jnp.zeros((num_components, num_features)))
    covariance = numpyro.param("covariance", unit, constraint=definite)
    with numpyro.plate("samples", len(data)):
        z = numpyro.sample("component", dist.Categorical(weights))
        complete = dist.MultivariateNormal(loc[z], covariance_matrix=covariance[z])
        seen = PartiallyObserved(complete, ~jnp.isnan(data))
        numpyro.sample("data", seen, obs=jnp.nan_to_num(data))


def incomplete(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the mixture of incomplete points."""
    points = jnp.asarray(data.pop("points"))
    return runner(incomplete_program, start, points, sizes["num_components"])


def restarts(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of several starts, whose means `data_mixtures` knows that they draw."""
    points = jnp.asarray(data.pop("points"))
    settings = {
        "init": "program",
        "num_restarts": sizes["num_starts"],
        "short_steps": None,
    }
    given = {name: value for name, value in start.items() if name != "loc"}
    return runner(
        gaussian_mixture.program, given, points, sizes["num_components"], settings=settings
    )


def motifs(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of one occurrence in every sequence."""
    return runner(motif.program, start, jnp.asarray(data.pop("letters")), sizes["width"])


def stream(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of a mixture with diagonal covariances on a memory map, chunk by chunk."""
    points = Stream.of(mapped(data.pop("points")))
    return runner(gaussian_mixture.program, start, points, sizes["num_components"], "diagonal")


SETUPS: dict[str, dict[str, Callable[..., Run]]] = {
    "emjax": {
        "restarts": restarts,
        "incomplete_at_random": incomplete,
        "incomplete_in_blocks": incomplete,
        "motif": motifs,
        "gaussian_stream": stream,
    },
    "emjax, in memory": {"gaussian_stream": gaussian("diagonal")},
}
