"""Truncated, folded and zero-inflated data: NumPyro's tutorial "Truncated and folded distributions"
and its example `zero_inflated_poisson.py`, with the laws that the tutorial defines itself.
"""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import expit
from jax.scipy.stats import norm, poisson
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes


class RightTruncatedNormal(dist.Distribution):
    """A normal below `high`, written from its definition."""

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "high": constraints.real,
    }
    reparametrized_params: ClassVar = ["loc", "scale", "high"]

    def __init__(self, loc=0.0, scale=1.0, high=jnp.inf, validate_args=None):
        shape = lax.broadcast_shapes(jnp.shape(loc), jnp.shape(scale), jnp.shape(high))
        self.loc, self.scale, self.high = promote_shapes(loc, scale, high)
        super().__init__(shape, validate_args=validate_args)

    def log_prob(self, value):
        log_mass = norm.logcdf(self.high, self.loc, self.scale)
        log_p = norm.logpdf(value, self.loc, self.scale)
        return jnp.where(value < self.high, log_p - log_mass, -jnp.inf)

    @constraints.dependent_property
    def support(self):
        return constraints.less_than(self.high)


class LeftTruncatedPoisson(dist.Distribution):
    """Counts of at least `low`, written from their definition."""

    arg_constraints: ClassVar = {
        "low": constraints.nonnegative_integer,
        "rate": constraints.positive,
    }

    def __init__(self, rate=1.0, low=0, validate_args=None):
        shape = lax.broadcast_shapes(jnp.shape(low), jnp.shape(rate))
        self.low, self.rate = promote_shapes(low, rate)
        super().__init__(shape, validate_args=validate_args)

    def log_prob(self, value):
        mass = 1 - poisson.cdf(self.low - 1, self.rate)
        log_p = poisson.logpmf(value, self.rate)
        return jnp.where(value >= self.low, log_p - jnp.log(mass), -jnp.inf)

    @constraints.dependent_property(is_discrete=True)
    def support(self):
        return constraints.integer_greater_than(self.low - 1)


def truncated_normal(num_observations, high, x):
    """Below a bound that is known."""
    loc = numpyro.sample("loc", dist.Normal())
    scale = numpyro.sample("scale", dist.LogNormal())
    with numpyro.plate("observations", num_observations):
        numpyro.sample("x", dist.TruncatedNormal(loc, scale, high=high), obs=x)


def folded_student(num_observations, x):
    """The absolute value of a Student's t."""
    df = numpyro.sample("df", dist.Gamma(6, 2))
    loc = numpyro.sample("loc", dist.Normal())
    scale = numpyro.sample("scale", dist.LogNormal())
    with numpyro.plate("observations", num_observations):
        law = dist.FoldedDistribution(dist.StudentT(df, loc, scale))
        numpyro.sample("x", law, obs=x)


def right_truncated_normal(num_observations, high, x):
    """A law of the user's own."""
    loc = numpyro.sample("loc", dist.Normal())
    scale = numpyro.sample("scale", dist.LogNormal())
    with numpyro.plate("observations", num_observations):
        numpyro.sample("x", RightTruncatedNormal(loc, scale, high), obs=x)


def truncated_poisson(num_observations, x):
    """A law of the user's own whose bound is a latent: one of 0 … 4."""
    low = numpyro.sample("low", dist.Categorical(0.2 * jnp.ones((5,))))
    rate = numpyro.sample("rate", dist.LogNormal(1, 1))
    with numpyro.plate("observations", num_observations):
        numpyro.sample("x", LeftTruncatedPoisson(rate, low), obs=x)


def zero_inflated_regression(features, counts):
    """Whether a party fishes at all, and how many fish it catches, are two regressions."""
    num_features = features.shape[1]
    prior = dist.Normal(0.0, 1.0).expand([num_features]).to_event(1)
    b1, b2 = numpyro.sample("b1", prior), numpyro.sample("b2", prior)
    gate = expit(jnp.dot(features, b1[:, None])).reshape(-1)
    rate = jnp.exp(jnp.dot(features, b2[:, None]).reshape(-1))
    with numpyro.plate("obs", features.shape[0]):
        numpyro.sample("Y", dist.ZeroInflatedPoisson(gate=gate, rate=rate), obs=counts)


def zero_inflated_regression_by_a_latent(features, counts):
    """The same: who does not fish is a latent, whose rate is zero."""
    num_features = features.shape[1]
    prior = dist.Normal(0.0, 1.0).expand([num_features]).to_event(1)
    b1, b2 = numpyro.sample("b1", prior), numpyro.sample("b2", prior)
    with numpyro.plate("obs", features.shape[0]):
        idle = numpyro.sample(
            "idle", dist.Bernoulli(logits=features @ b1), infer={"enumerate": "parallel"}
        )
        numpyro.sample("Y", dist.Poisson((1 - idle) * jnp.exp(features @ b2)), obs=counts)


def below(high, num_observations, seed):
    """Normals of mean 1 and scale 0.8 below a bound, drawn by rejection."""
    x = np.random.default_rng(seed).normal(1.0, 0.8, 10 * num_observations)
    return x[x < high][:num_observations]


def fishing(num_parties, seed):
    """Features (party, feature) and counts (party,) of parties of whom some do not fish."""
    rng = np.random.default_rng(seed)
    campers, persons = rng.integers(0, 2, num_parties), rng.integers(1, 5, num_parties)
    features = np.stack([campers, persons, np.ones(num_parties)], -1).astype(float)
    idle = rng.random(num_parties) < 1 / (1 + np.exp(-features @ [-1.0, -0.3, 0.8]))
    counts = rng.poisson(np.exp(features @ [0.5, 0.4, -0.8])) * ~idle
    return features, counts
