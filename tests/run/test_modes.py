"""Modes in unconstrained coordinates, and priors that have none in others."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to, constraints
from numpyro.infer import init_to_value
from numpyro.infer.util import potential_energy
from scipy.optimize import minimize

from emjax import EM, Status

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def priors(x):
    """Sites under priors of all kinds: conjugate and sparse, bounded, flat, masked."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(3, 0.1)))
    with numpyro.plate("coins", 3, dim=-1):
        probability = numpyro.sample("probability", dist.Beta(0.1, 0.9))
        with numpyro.plate("days", 2, dim=-2):
            heads = jnp.array([[0, 5, 2], [0, 5, 0]])
            numpyro.sample("heads", dist.Binomial(5, probability), obs=heads)
    rate = numpyro.sample("rate", dist.Gamma(0.1, 0.5))
    fraction = numpyro.sample("fraction", dist.Uniform(0, 1))
    scale = numpyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
    location = numpyro.sample("location", dist.Uniform(-3, 5))
    with numpyro.handlers.mask(mask=False):
        numpyro.sample("masked", dist.Beta(0.1, 0.1))
    with numpyro.plate("data", 4):
        numpyro.sample("kind", dist.Categorical(weights), obs=jnp.array([0, 0, 2, 0]))
        numpyro.sample("count", dist.Poisson(rate), obs=jnp.zeros(4, int))
        numpyro.sample("success", dist.Bernoulli(fraction), obs=jnp.zeros(4, int))
        numpyro.sample("error", dist.Normal(0.0, scale), obs=x)
        numpyro.sample("x", dist.Normal(location, 1.0), obs=x)


def test_mode_in_unconstrained_coordinates_is_numpyros():
    x = jnp.asarray(RNG.normal(size=4))
    em = EM(priors, map="unconstrained", tol=1e-14)
    plan = em.plan(x)
    assert plan.method("location") == "Newton"
    for name in ("weights", "probability", "rate", "fraction", "scale"):
        assert plan.method(name) == "closed form", str(plan)
    result = em.run(KEY, x)
    assert result.status == Status.CONVERGED and not result.findings
    coordinates = {}
    for name, parameter in em.on(x).compiled.graph.parameters.items():
        coordinates[name] = biject_to(parameter.constraint).inv(result.params[name])

    def energy(u):
        return potential_energy(priors, (x,), {}, u)

    np.testing.assert_allclose(-energy(coordinates), result.objective[-1], rtol=1e-12)
    for name, slope in jax.grad(energy)(coordinates).items():
        np.testing.assert_allclose(slope, 0, atol=1e-8, err_msg=name)


def counts(x, start):
    """A mixture of Poissons under sparse priors, of as many components as its start."""
    size = len(start["rate"])
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(size, 0.1)))
    with numpyro.plate("components", size):
        rate = numpyro.sample("rate", dist.Gamma(0.1, 0.1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rate[z]), obs=x)


COUNTS = np.array([0, 0, 0, 1, 0, 7, 9, 6, 8, 0])
TWO = {"weights": jnp.full(2, 0.5), "rate": jnp.array([0.1, 5.0])}
THREE = {"weights": jnp.full(3, 1 / 3), "rate": jnp.array([0.1, 5.0, 20.0])}


def test_closed_forms_reach_the_numerical_maximum():
    def energy(u):
        log_weights, rate = jax.nn.log_softmax(jnp.append(u[:1], 0.0)), jnp.exp(u[1:])
        joint = log_weights + dist.Poisson(rate).log_prob(COUNTS[:, None])
        # α in place of α − 1
        prior = 0.1 * log_weights.sum() + (0.1 * u[1:] - 0.1 * rate).sum()
        return -(jax.nn.logsumexp(joint, 1).sum() + prior)

    start = jnp.append(0.0, jnp.log(TWO["rate"]))
    found = minimize(jax.jit(jax.value_and_grad(energy)), start, jac=True, tol=1e-12)
    u = found.x
    for _ in range(3):
        u = u - np.linalg.solve(jax.hessian(energy)(u), jax.grad(energy)(u))
    em = EM(counts, map="unconstrained", tol=0)
    result = em.run(KEY, COUNTS, TWO, init_params=TWO)
    np.testing.assert_allclose(result.params["rate"], np.exp(u[1:]), rtol=1e-8)
    weights = jax.nn.softmax(jnp.append(u[:1], 0.0))
    np.testing.assert_allclose(result.params["weights"], weights, rtol=1e-8)
    # what is certified is the same objective
    found = em.diagnose(result, COUNTS, TWO)
    assert found.is_local_maximum and found.distance < 1e-6
    np.testing.assert_allclose(found.objective, result.objective[-1], rtol=1e-12)


def test_start_where_a_prior_has_no_density_is_refused():
    at_bound = TWO | {"weights": jnp.array([1.0, 0.0])}
    with pytest.raises(ValueError, match="The start has zero density under the prior of 'weights'"):
        EM(counts, map="unconstrained").run(KEY, COUNTS, TWO, init_params=at_bound)


def test_start_that_rounds_to_a_bound_lies_inside():
    at_bound = init_to_value(
        values={"weights": jnp.array([1.0, 0.0]), "rate": jnp.array([0.0, 5.0])}
    )
    result = EM(counts, map="unconstrained", init=at_bound, max_steps=1).run(KEY, COUNTS, TWO)
    assert np.isfinite(result.objective).all()


def computed(x, start):
    """A sparse prior of what the program computes with: Newton's method."""
    probability = numpyro.sample("probability", dist.Beta(0.1, 0.9))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Bernoulli(0.5 * probability), obs=x)


@pytest.mark.parametrize(
    ("program", "x", "start", "sites"),
    [
        (counts, COUNTS, THREE, {"rate", "weights"}),
        (computed, np.zeros(5, int), {"probability": jnp.array(0.1)}, {"probability"}),
    ],
    ids=["closed form", "Newton"],
)
def test_prior_without_a_finite_mode_is_a_finding(program, x, start, sites):
    em = EM(program)
    result = em.run(KEY, x, start, init_params=start)
    found = result.findings
    assert {finding.site for finding in found} == sites
    for finding in found:
        assert finding.kind == "unbounded prior"
        assert "is infinite at the bound to which EM goes" in finding.sentence
        assert 'EM(model, map="unconstrained")' in finding.remedy
    if result.status == Status.CONVERGED:
        found = em.diagnose(result, x, start)
        assert found.verdict == "degenerate" and "has no finite mode" in found.reason
    result = EM(program, map="unconstrained").run(KEY, x, start, init_params=start)
    assert result.status == Status.CONVERGED
    assert all(finding.kind != "unbounded prior" for finding in result.findings)


def test_other_coordinates_are_refused():
    with pytest.raises(ValueError, match="map must be one of 'constrained', 'unconstrained'"):
        EM(counts, map="stick")
