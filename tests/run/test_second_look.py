"""A second look: a run that rests at a saddle says so, and one whose start was a poor one, too."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM
from tests.compilations import compilations

KEY = jax.random.key(0)


def two_normals(x):
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([0.0, 1.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


def four_normals(x):
    loc = numpyro.param("loc", jnp.array([[-1.0, 0.0], [0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(4) / 4))
        numpyro.sample("x", dist.Normal(loc[z], 1.0).to_event(1), obs=x)


def kinds(result):
    return [finding.kind for finding in result.findings]


@pytest.fixture(scope="module")
def overlapping():
    """Return many data of two normals whose centers are 2.4 standard deviations apart."""
    rng = np.random.default_rng(0)
    return rng.choice([-1.2, 1.2], 5000) + rng.normal(size=5000)


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_a_run_at_rest_between_its_components_is_at_a_saddle_in_any_unit(overlapping, unit):
    em = EM(two_normals, init="responsibilities")
    x = unit * (overlapping + 5)
    result = em.run(KEY, x)
    (finding,) = result.findings
    assert (finding.kind, finding.site, finding.where) == ("saddle", "z", "0 and 1")
    # what it recommends leads to where EM does from apart
    apart = {"loc": unit * np.array([4.0, 6.0])}
    best = em.run(KEY, x, init_params={**result.params, **apart})
    assert not best.findings and best.objective[-1] > result.objective[-1] + 100
    if unit == 1:
        assert em.diagnose(result, x).verdict != "local maximum"


@pytest.mark.filterwarnings("ignore:Latent 'z'. at the start only")
def test_a_saddle_is_seen_where_tables_are_as_long_as_the_data():
    def two_lines(x, y):
        slope = numpyro.param("slope", jnp.zeros(2))
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("y", dist.Normal(slope[z] * x, 1.0), obs=y)

    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    y = rng.choice([-1.0, 1.0], 3000) * x + rng.normal(size=3000)
    (finding,) = EM(two_lines).run(KEY, x, y).findings
    assert (finding.kind, finding.site) == ("saddle", "")


def test_components_that_one_normal_explains_are_no_saddle_that_anybody_would_leave():
    x = np.random.default_rng(0).normal(size=5000)
    assert kinds(EM(two_normals, init="responsibilities").run(KEY, x)) == []


def test_a_second_look_compiles_nothing(overlapping):
    em = EM(two_normals, init="responsibilities", tol=1e-8)
    with compilations() as count:
        result = em.run(KEY, overlapping[:4999])
    assert kinds(result) == ["saddle"]
    assert count.compiled.count("jit(run)") <= 1
    assert len([name for name in count.compiled if name != "jit(run)"]) == 0, count.compiled


def test_a_poor_start_of_the_program_is_a_finding_that_says_by_how_much():
    rng = np.random.default_rng(1)
    centers = np.array([[0.0, 6.0], [0.0, -6.0], [8.0, 6.0], [8.0, -6.0]])
    x = centers[rng.integers(0, 4, 200)] + rng.normal(size=(200, 2))
    em = EM(four_normals)
    result = em.run(KEY, x)
    (finding,) = result.findings
    assert finding.kind == "better start"
    best = em.run(KEY, x, init_params={"loc": centers})
    more = best.objective[-1] - result.objective[-1]
    # there after 20 steps, too, since these clusters are far apart
    assert f"{more:.3g} nats" in finding.sentence
    # nothing is said of the best, nor where somebody chose the start
    assert kinds(best) == []
    assert kinds(em.run(KEY, x, init_params={"loc": result.params["loc"]})) == []
