"""What NumPyro's `test_infer_discrete` sums out: choices for all data, for each, and in time."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

from tests.programs_of_others.plates import latent, simplex


def global_choice(data):
    """distribution_1: z → [x], where z is read by a table of constants."""
    z = latent("z", simplex("p", [0.75, 0.25]))
    with numpyro.plate("data", len(data)):
        numpyro.sample("x", dist.Normal(jnp.array([0.0, 1.0])[z], 1.0), obs=data)


def two_global_choices(first, second):
    """distribution_2: z1 → z2, z1 → [x1], z2 → [x2], one table of probabilities for both."""
    p = simplex("p", [[0.25, 0.75], [0.1, 0.9]])
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    z1 = latent("z1", p[0])
    z2 = latent("z2", p[z1])
    with numpyro.plate("data", len(first)):
        numpyro.sample("x1", dist.Normal(loc[z1], 1.0), obs=first)
        numpyro.sample("x2", dist.Normal(loc[z2], 1.0), obs=second)


def local_choices(data):
    """distribution_3_simple: a mixture of two points."""
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    p = simplex("p", [0.25, 0.75])
    with numpyro.plate("data", len(data)):
        z2 = latent("z2", p)
        numpyro.sample("x2", dist.Normal(loc[z2], 1.0), obs=data)


def global_and_local_choices(first, second):
    """distribution_3: z1 → [x1], [z2 → x2], which share all parameters."""
    p = simplex("p", [0.25, 0.75])
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    z1 = latent("z1", p)
    with numpyro.plate("data[0]", len(first)):
        numpyro.sample("x1", dist.Normal(loc[z1], 1.0), obs=first)
    with numpyro.plate("data[1]", len(second)):
        z2 = latent("z2", p)
        numpyro.sample("x2", dist.Normal(loc[z2], 1.0), obs=second)


def choices_under_priors(first, second):
    """model_zzxx: the same with priors; the scale is the exponential of a normal."""
    p = simplex("p", [0.25, 0.75])
    loc = numpyro.sample("loc", dist.Normal(0, 1).expand([2]).to_event(1))
    scale = jnp.exp(numpyro.sample("scale", dist.Normal(0, 1)))
    z1 = latent("z1", p)
    with numpyro.plate("data[0]", len(first)):
        numpyro.sample("x1", dist.Normal(loc[z1], scale), obs=first)
    with numpyro.plate("data[1]", len(second)):
        z2 = latent("z2", p)
        numpyro.sample("x2", dist.Normal(loc[z2], scale), obs=second)


def prior_that_reads_a_latent(first, second):
    """model2: the scale is a parameter whose prior depends on z1."""
    p = simplex("p", [0.25, 0.75])
    loc = numpyro.sample("loc", dist.Normal(0, 1).expand([2]).to_event(1))
    z1 = latent("z1", p)
    scale = numpyro.sample("scale", dist.LogNormal(jnp.array([0.0, 1.0])[z1], 1))
    with numpyro.plate("data[0]", len(first)):
        numpyro.sample("x1", dist.Normal(loc[z1], scale), obs=first)
    with numpyro.plate("data[1]", len(second)):
        z2 = latent("z2", p)
        numpyro.sample("x2", dist.Normal(loc[z2], scale), obs=second)


def masked_data(data, known):
    """distribution_masked: z is the mean itself, an integer; some data are masked."""
    z = latent("z", simplex("p", [0.75, 0.25]))
    with numpyro.plate("data", len(data)), handlers.mask(mask=known):
        numpyro.sample("x", dist.Normal(z, 1.0), obs=data)


def hmm_in_a_loop(data, num_states=10):
    """hmm_smoke: a state for each step of a Python loop; nothing to estimate but the means."""
    transition = 0.3 / num_states + 0.7 * jnp.eye(num_states)
    means = numpyro.param("means", jnp.arange(float(num_states)))
    states = [0]
    for t in range(len(data)):
        states.append(latent(f"states_{t}", transition[states[-1]]))
        numpyro.sample(f"obs_{t}", dist.Normal(means[states[-1]], 1.0), obs=data[t])


def hmm_in_a_scan(data, num_states=10):
    """scan_hmm_smoke: the same as a scan, whose state starts as a Python integer."""
    transition = 0.3 / num_states + 0.7 * jnp.eye(num_states)
    means = numpyro.param("means", jnp.arange(float(num_states)))

    def step(state, y):
        state = latent("states", transition[state])
        y = numpyro.sample("obs", dist.Normal(means[state], 1.0), obs=y)
        return state, (state, y)

    scan(step, 0, data)


def sum_of_counts():
    """guide_plate_contraction: counts without a bound, added up."""
    with numpyro.plate("a_axis", size=2):
        a = numpyro.sample("a", dist.Poisson(jnp.array(3.0)))
    numpyro.sample("b", dist.Normal(jnp.sum(a), 1.0), obs=1)
