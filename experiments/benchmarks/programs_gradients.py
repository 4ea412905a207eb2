"""NumPyro programs whose latents NumPyro enumerates, and emjax sums out: the same for both."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Int
from numpyro.contrib.control_flow import scan


def chain(counts: Int[ArrayLike, "time sequence"], num_states: int) -> None:
    """Counts, Poisson with the rate of a hidden state."""
    simplex, positive = dist.constraints.simplex, dist.constraints.positive
    equal = jnp.full(num_states, 1 / num_states)
    initial = numpyro.param("initial", equal, constraint=simplex)
    moves = jnp.tile(equal, (num_states, 1))
    transition = numpyro.param("transition", moves, constraint=simplex)
    rate = numpyro.param("rate", jnp.arange(1.0, num_states + 1), constraint=positive)

    poisson_chain(counts, initial, transition, rate)


def poisson_chain(counts, initial, transition, rate) -> None:
    """Hidden states of each sequence, and counts (time, sequence), Poisson with their rates."""

    def step(carry, count):
        before, time = carry
        with numpyro.plate("sequences", counts.shape[1]):
            probs = jnp.where(time == 0, initial, transition[before])
            state = numpyro.sample(
                "state", dist.Categorical(probs), infer={"enumerate": "parallel"}
            )
            numpyro.sample("count", dist.Poisson(rate[state]), obs=count)
        return (state, time + 1), None

    scan(step, (jnp.zeros(counts.shape[1], int), 0), counts)


def mixture(points: Float[ArrayLike, "sample feature"], num_components: int) -> None:
    """Points of clouds with diagonal covariances."""
    shape = num_components, points.shape[1]
    equal = jnp.full(num_components, 1 / num_components)
    weights = numpyro.param("weights", equal, constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros(shape))
    scale = numpyro.param("scale", jnp.ones(shape), constraint=dist.constraints.positive)
    with numpyro.plate("samples", len(points)):
        z = numpyro.sample("component", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("data", dist.Normal(loc[z], scale[z]).to_event(1), obs=points)


PROGRAMS = {
    "chain_gradient": (chain, "num_states"),
    "mixture_gradient": (mixture, "num_components"),
}
