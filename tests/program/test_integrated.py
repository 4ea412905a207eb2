"""`EM(integrate={…})`: which sites are integrated out, and what is said of others and of uses that
have no exact integral.
"""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import init_to_median

from emjax import EM
from emjax.distributions import Select
from emjax.program.trace import initial_values, trace
from tests.programs import X, mixture

STANDARD = dist.Normal(0, 1)


def reading(location, law=STANDARD, size=4):
    """Return a program that observes x at a location that reads b and c."""

    def program(x):
        scale = numpyro.param("scale", 1.0)
        with numpyro.plate("groups", size):
            b = numpyro.sample("b", law)
        with numpyro.plate("rows", len(x)):
            c = numpyro.sample("c", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(location(b, c), scale), obs=x)

    return program


def own(b, c):
    return b


def accumulating(x):
    def step(level, x):
        level = level + numpyro.sample("change", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(level, 1), obs=x)
        return level, None

    scan(step, 0.0, x)


def summed_over_time(x):
    def step(level, _):
        level = numpyro.sample("level", dist.Normal(level, 1))
        return level, level

    _, levels = scan(step, 0.0, None, length=len(x))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(jnp.cumsum(levels), 1), obs=x)


WRONG_SITES = {
    "no site": (reading(own), {"b", "a"}, "'a', which is no site. The program has: 'b', 'c', "),
    "observed": (reading(own), {"x"}, "Site 'x' has a value.*Remove 'x'"),
    "discrete": (mixture, {"z"}, "Site 'z' is discrete"),
    "a parameter": (reading(own), {"scale"}, "'scale' is a numpyro.param"),
    "StudentT": (reading(own, dist.StudentT(3.0)), {"b"}, "'b' is StudentT.*MAP, or.*dist.Normal"),
    "a walk": (reading(own, dist.GaussianRandomWalk(1.0, 2)), {"b"}, "within a `scan`"),
    "within to_event": (
        reading(lambda b, c: b[:, 0], dist.Laplace(0, 1).expand([2]).to_event(1)),
        {"b"},
        "'b' is Laplace",
    ),
    "accumulated": (accumulating, {"change"}, "accumulates Gaussian latent 'change'.*previous"),
}
# (location, what is said of it)
WRONG_LOCATIONS = {
    "exp": (lambda b, c: jnp.exp(b), "'x' reads Gaussian latent 'b' by 'exp' at .*exp.b.*MAP"),
    "a product": (lambda b, c: b * c, "latents 'b' and 'c' by 'mul' at"),
    "a square": (lambda b, c: b**2, "by 'integer_pow'"),
    "a comparison": (lambda b, c: jnp.where(b > 0, c, 1.0), "'b' by 'gt'"),
    "an index": (lambda b, c: c[b.astype(int)], "by 'convert_element_type'"),
    "a quotient": (lambda b, c: 1 / b, "by 'div'"),
    "a call": (lambda b, c: jax.nn.relu(b), "by 'max' at .*relu"),
    "a branch": (lambda b, c: jax.lax.cond(b[0] > 0, lambda: b, lambda: c), "by 'gt'"),
    "a matrix": (lambda b, c: jnp.linalg.solve(jnp.diag(b), jnp.ones(4)), "latent 'b' by"),
    "a step of a loop": (
        lambda b, c: jax.lax.scan(lambda v, _: (v * b, v), c, None, length=3)[1][2],
        "by 'mul' at .*loop|by 'mul' at .*scan",
    ),
    "a long loop": (
        lambda b, c: jax.lax.fori_loop(0, 70, lambda _, v: 0.5 * v + 1, b),
        "by 'scan of 70 steps'",
    ),
}
# (distribution of x given b, what is said of it)
WRONG_SITES_THAT_READ = {
    "a scale": (lambda b: dist.Normal(0.0, b), "'x' reads Gaussian latent 'b' in its scale.*MAP"),
    "a covariance": (
        lambda b: dist.MultivariateNormal(jnp.zeros(4), b * jnp.eye(4)),
        "in its covariance_matrix",
    ),
    "no normal": (lambda b: dist.Bernoulli(logits=b), "'b' and is BernoulliLogits"),
    "StudentT": (lambda b: dist.StudentT(3.0, b), "'b' and is StudentT. Write it as dist.Normal"),
    "LogNormal": (lambda b: dist.LogNormal(b, 1.0), "Observe its logarithm"),
    "a mask": (lambda b: dist.Normal(0.0, 1.0).mask(b > 0), "in its mask"),
    "Select": (
        lambda b: Select(jnp.zeros(4, int), [dist.Normal(b, 1.0), dist.Normal(0.0, 1.0)]),
        "'b' and is a component of a Select",
    ),
}


@pytest.mark.parametrize("name", WRONG_SITES)
def test_site_that_cannot_be_integrated_out_is_an_error(name):
    program, integrate, message = WRONG_SITES[name]
    with pytest.raises(ValueError, match=message):
        EM(program, integrate=integrate).plan(X)


@pytest.mark.parametrize("name", WRONG_LOCATIONS)
def test_location_that_is_not_affine_is_an_error_with_the_line(name):
    location, message = WRONG_LOCATIONS[name]
    with pytest.raises(ValueError, match=message):
        EM(reading(location), integrate={"b", "c"}).plan(X)


@pytest.mark.parametrize("name", WRONG_SITES_THAT_READ)
def test_site_that_reads_a_gaussian_latent_otherwise_is_an_error(name):
    law, message = WRONG_SITES_THAT_READ[name]

    def program(x):
        with numpyro.plate("rows", 4):
            b = numpyro.sample("b", dist.Normal(0, 1))
        numpyro.sample("x", law(b), obs=x)

    with pytest.raises(ValueError, match=message):
        EM(program, integrate={"b"}).plan(X)


def test_parameter_whose_prior_reads_a_gaussian_latent_is_an_error():
    def program(x):
        b = numpyro.sample("b", dist.Normal(0, 1))
        theta = numpyro.sample("theta", dist.Normal(b, 1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(theta, 1), obs=x)

    with pytest.raises(ValueError, match=r"Site 'theta' reads.*'b'.*integrate it out, too"):
        EM(program, integrate={"b"}).plan(X)


def test_steps_that_are_mixed_are_an_error():
    with pytest.raises(
        ValueError, match=r"mixes the steps of Gaussian latent 'level' at.*'cumsum'"
    ):
        EM(summed_over_time, integrate={"level"}).plan(X)


def test_more_coordinates_than_can_be_integrated_out_are_an_error():
    mixed = reading(lambda b, c: b.mean(), size=4001)
    with pytest.raises(MemoryError, match=r"'b' at.*by 'reduce_sum', so that 4001 coordinates"):
        EM(mixed, integrate={"b"}).plan(X)
    law = dist.Normal(0, 1).expand([4001]).to_event(1)
    with pytest.raises(MemoryError, match="element of Gaussian latent 'b' has 4001 coordinates"):
        EM(reading(lambda b, c: b[:, 0], law), integrate={"b"}).plan(X)


@pytest.mark.parametrize("names", ["b", 3, {1}])
def test_what_is_no_set_of_names_is_an_error(names):
    with pytest.raises(ValueError, match=r"integrate must be a set.*integrate={'[bf]'}"):
        EM(reading(own), integrate=names)


def test_integrated_sites_are_shown_kept_and_told_apart():
    em = EM(mixture, integrate={"b"})
    assert repr(em) == "EM(mixture, integrate={'b'})"
    assert pickle.loads(pickle.dumps(em)).settings.integrate == {"b"}
    assert em.settings.structure != EM(mixture).settings.structure
    assert em.settings.structure == EM(mixture, integrate=["b"]).settings.structure


def test_integrated_sites_are_latents_and_no_parameters():
    mask = np.array([True, True, False])

    def program(y):
        start = numpyro.sample("start", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
        other = numpyro.sample("other", dist.Normal(0, 1))
        with numpyro.plate("groups", 3):
            law = dist.Normal(other, 1).expand([3, 2]).to_event(1).mask(mask)
            b = numpyro.sample("b", law)

        def step(state, y):
            with numpyro.plate("series", 2):
                state = numpyro.sample("state", dist.Normal(0.5 * state, 1.0))
                numpyro.sample("y", dist.Normal(state + b[0, 0], 1), obs=y)
            return state, None

        scan(step, start, y)

    y, integrate = np.ones((5, 2)), {"start", "b", "state"}
    start = initial_values(program, init_to_median, (y,), {}, integrate=integrate)
    assert set(start.parameters) == {"other"}
    traced = trace(program, start.parameters, (y,), {}, integrate=integrate)
    assert traced.latents == {}
    described = {name: (g.elements, g.size) for name, g in traced.gaussians.items()}
    assert described == {"start": ((), 2), "b": ((3,), 2), "state": ((5, 2), 1)}
    assert traced.gaussians["state"].is_series
    assert all(site.is_integrated for site in traced.sites if site.name in integrate)
