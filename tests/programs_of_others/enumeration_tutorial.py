"""Pyro's tutorial of enumeration ("Inference with Discrete Latent Variables"), in NumPyro's words.

What the tutorial calls invalid, because Pyro cannot enumerate it in a plate, is here as well.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.ops.indexing import Vindex


def rows(name, num_rows, num_columns, seed):
    """A parameter: rows on the simplex, drawn by a seed."""
    start = np.random.default_rng(seed).dirichlet(np.ones(num_columns), num_rows)
    return numpyro.param(name, jnp.asarray(start), constraint=constraints.simplex)


def one_latent():
    """Nothing is observed."""
    numpyro.sample("z", dist.Categorical(jnp.ones(5) / 5), infer={"enumerate": "parallel"})


def three_in_a_row(z):
    """x → y → z, one table for all three; z is observed, so that there is something to learn."""
    p = rows("p", 3, 3, seed=0)
    x = numpyro.sample("x", dist.Categorical(p[0]), infer={"enumerate": "parallel"})
    y = numpyro.sample("y", dist.Categorical(p[x]), infer={"enumerate": "parallel"})
    numpyro.sample("z", dist.Categorical(p[y]), obs=z)


def indexed_by_two(z):
    """`Vindex` of a table by two latents, one of them in a plate."""
    p = numpyro.param(
        "p",
        jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(5), (5, 4, 3))),
        constraint=constraints.simplex,
    )
    x = numpyro.sample("x", dist.Categorical(jnp.ones(4) / 4), infer={"enumerate": "parallel"})
    y = numpyro.sample("y", dist.Categorical(jnp.ones(3) / 3), infer={"enumerate": "parallel"})
    with numpyro.plate("z_plate", 5):
        p_xy = Vindex(p)[..., x, y, :]
        numpyro.sample("z", dist.Categorical(p_xy), obs=z)


def gaussian_mixture(data, num_components=3):
    """Components share one scale; a Dirichlet of 1/2, and a wide log-normal."""
    p = numpyro.sample("p", dist.Dirichlet(0.5 * jnp.ones(num_components)))
    scale = numpyro.sample("scale", dist.LogNormal(0, num_components))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(0, 10))
    with numpyro.plate("data", len(data)):
        x = numpyro.sample("x", dist.Categorical(p), infer={"enumerate": "parallel"})
        numpyro.sample("obs", dist.Normal(loc[x], scale), obs=data)


def sum_of_a_plate(data, num_elements=10):
    """Invalid to Pyro: something outside of a plate reads all of its latents."""
    probs = numpyro.param("probs", 0.4, constraint=constraints.unit_interval)
    with numpyro.plate("plate", num_elements):
        x = numpyro.sample("x", dist.Bernoulli(probs), infer={"enumerate": "parallel"})
    numpyro.sample("obs", dist.Normal(x.sum(), 1.0), obs=data)


def sum_of_a_loop(data, num_elements=10):
    """Valid to Pyro: a loop in the plate's place."""
    probs = numpyro.param("probs", 0.4, constraint=constraints.unit_interval)
    x = [
        numpyro.sample(f"x_{i}", dist.Bernoulli(probs), infer={"enumerate": "parallel"})
        for i in range(num_elements)
    ]
    numpyro.sample("obs", dist.Normal(sum(x), 1.0), obs=data)


def boltzmann_machine(z):
    """Invalid to Pyro: each row of a matrix has a latent, and each column."""
    rows_plate = numpyro.plate("plate_1", z.shape[1], dim=-1)
    columns_plate = numpyro.plate("plate_2", z.shape[0], dim=-2)
    probs_x = numpyro.param("probs_x", 0.5, constraint=constraints.unit_interval)
    probs_y = numpyro.param("probs_y", 0.4, constraint=constraints.unit_interval)
    with rows_plate:
        x = numpyro.sample("x", dist.Bernoulli(probs_x), infer={"enumerate": "parallel"})
    with columns_plate:
        y = numpyro.sample("y", dist.Bernoulli(probs_y), infer={"enumerate": "parallel"})
    with rows_plate, columns_plate:
        numpyro.sample("z", dist.Bernoulli((1.0 + x + y) / 4.0), obs=z)


def boltzmann_machine_in_a_loop(z):
    """Valid to Pyro: a loop over the rows."""
    columns = numpyro.plate("plate_1", z.shape[1], dim=-1)
    probs_x = numpyro.param("probs_x", 0.5, constraint=constraints.unit_interval)
    probs_y = numpyro.param("probs_y", 0.4, constraint=constraints.unit_interval)
    with columns:
        x = numpyro.sample("x", dist.Bernoulli(probs_x), infer={"enumerate": "parallel"})
    for i, row in enumerate(z):
        y = numpyro.sample(f"y_{i}", dist.Bernoulli(probs_y), infer={"enumerate": "parallel"})
        with columns:
            numpyro.sample(f"z_{i}", dist.Bernoulli((1.0 + x + y) / 4.0), obs=row)


def hmm(data, num_values, num_states, concentration=0.5):
    """A hidden Markov model as a loop over its steps, under priors of Jeffreys."""
    with numpyro.plate("hidden_state", num_states):
        prior = dist.Dirichlet(concentration * jnp.ones(num_states))
        transition = numpyro.sample("transition", prior)
        emission = numpyro.sample("emission", dist.Dirichlet(concentration * jnp.ones(num_values)))
    x = 0
    for t, y in enumerate(data):
        x = numpyro.sample(
            f"x_{t}", dist.Categorical(transition[x]), infer={"enumerate": "parallel"}
        )
        numpyro.sample(f"y_{t}", dist.Categorical(emission[x]), obs=y)


def hmm_under_markov(data, num_values, num_states, concentration=0.5):
    """The same, under `markov`, which lets NumPyro use a dimension again."""
    from numpyro.contrib.funsor import markov

    with numpyro.plate("hidden_state", num_states):
        prior = dist.Dirichlet(concentration * jnp.ones(num_states))
        transition = numpyro.sample("transition", prior)
        emission = numpyro.sample("emission", dist.Dirichlet(concentration * jnp.ones(num_values)))
    x = 0
    for t, y in markov(enumerate(data)):
        x = numpyro.sample(
            f"x_{t}", dist.Categorical(transition[x]), infer={"enumerate": "parallel"}
        )
        numpyro.sample(f"y_{t}", dist.Categorical(emission[x]), obs=y)
