"""A parameter that ends on a bound of its constraint is a finding, whatever maximized it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
Y = np.concatenate([np.zeros(20, int), RNG.poisson(5.0, 40)])
HEADS = np.array([0, 0, 0, 9, 10, 10, 8, 10])
X = RNG.normal(size=30)


def zero_inflated(share):
    """The share of what is always zero, read as it is or computed with."""

    def program(y, most=1.0):
        constraint = constraints.interval(0.0, most)
        w = numpyro.param("w", 0.1, constraint=constraint)
        rate = numpyro.param("rate", 1.0, constraint=constraints.positive)
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(share(w)))
            numpyro.sample("y", dist.Poisson(jnp.where(z == 1, 1e-12, rate)), obs=y)

    return program


SHARES = {"closed form": lambda w: w, "Newton": lambda w: 1 - (1 - w) ** 2 / (1 - w)}


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES.keys())
def test_a_weight_that_its_constraint_limits_says_so(share):
    found = EM(zero_inflated(share)).run(KEY, Y, most=0.25)
    (finding,) = found.findings
    assert (finding.kind, finding.site) == ("at the boundary", "w")
    assert "the bound of its constraint (0.25) at its value" in finding.sentence
    assert EM(zero_inflated(share)).run(KEY, Y, most=0.75).findings == ()


def test_a_probability_that_a_newton_step_brings_to_zero_within_rounding_is_named():
    def program(heads):
        p = numpyro.param("p", jnp.full(2, 0.5), constraint=constraints.unit_interval)
        with numpyro.plate("rows", len(heads)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            odds = p / (1 - p)
            probs = jnp.stack([odds[0], odds[0] + odds[1]]) / (1 + jnp.stack([odds[0], odds.sum()]))
            numpyro.sample("heads", dist.Binomial(10, probs[z]), obs=heads)

    found = EM(program).run(KEY, HEADS, init_params={"p": np.array([0.1, 0.9])})
    assert 0 <= float(found.params["p"][0]) < 1e-6
    assert [(f.kind, f.site, f.where) for f in found.findings] == [("at the boundary", "p", "(0,)")]


def test_a_rate_without_events_is_named_whatever_maximizes_it():
    def program(y, group, power):
        rate = numpyro.param("rate", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(rate[group] ** power), obs=y)

    group = np.arange(60) % 2
    for power in (1, 2):
        found = EM(program).run(KEY, Y * group, group, power)
        said = [(f.kind, f.where) for f in found.findings]
        assert said == [("at the boundary", "(0,)")], (power, found)


def test_bounds_that_a_run_does_not_reach_and_those_that_it_starts_from_are_no_finding():
    def program(x):
        scale = numpyro.param("scale", 2.0, constraint=constraints.greater_than(0.5))
        p = numpyro.param("p", jnp.array([0.0, 1.0]), constraint=constraints.simplex)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(p))
            numpyro.sample("x", dist.Normal(jnp.array([5.0, 0.0])[z], scale), obs=x)

    kinds = [finding.kind for finding in EM(program).run(KEY, X).findings]
    assert kinds == ["dead"]
    _, floor = EM(program).run(KEY, X / 100).findings
    assert "(0.5) at its value" in floor.sentence
