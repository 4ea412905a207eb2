"""Whether a scale has collapsed has one answer, however its entries are read."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM

RNG = np.random.default_rng(0)
# equal data: a component alone with them collapses
X = np.concatenate([RNG.normal(-2, 1, 20), RNG.normal(2, 1, 20), np.full(8, 9.0)])


def with_a_known_scale(x):
    """Three components; the scale of the first is known, so that its cells read no parameter."""
    loc = numpyro.param("loc", jnp.array([0.0, 1.0, 2.0]))
    # a floor that is none
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.greater_than(1e-7))
    scales = jnp.concatenate([jnp.array([1.0]), scale])
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[z], scales[z]), obs=x)


def test_a_fold_sees_that_the_last_of_the_free_scales_has_collapsed():
    em = EM(with_a_known_scale, init="data", num_restarts=8)
    folds = emjax.cross_validate(em, jax.random.key(0), X, num_folds=3)
    assert np.asarray(folds.params["scale"]).min() > 1e-3


def with_all_of(scales):
    """The program above, with the scales of its components given by a function of the free ones."""

    def program(x):
        sigma = numpyro.param("sigma", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample(
                "x", dist.Normal(jnp.array([-2.0, 2.0, 9.0])[z], scales(sigma)[z]), obs=x
            )

    return program


READINGS = {
    "concatenated": lambda sigma: jnp.concatenate([jnp.array([1.0]), sigma]),
    "stacked": lambda sigma: jnp.stack([1.0, sigma[0], sigma[1]]),
    "last first": lambda sigma: jnp.stack([sigma[1], 1.0, sigma[0]]),
    "all known but one": lambda sigma: jnp.stack([2.0, 1.0, sigma[1]]),
}


@pytest.mark.parametrize("scales", READINGS.values(), ids=READINGS.keys())
@pytest.mark.parametrize("small", [0, 1])
def test_what_is_said_of_a_scale_is_what_restarts_know_of_it(scales, small):
    sigma = np.where(np.arange(2) == small, 1e-8, 1.0)
    starts = EM(with_all_of(scales), max_steps=0, num_restarts=2)
    result = starts.run(jax.random.key(0), X, init_params={"sigma": sigma})
    is_read = np.asarray(scales(jnp.array([10.0, 20.0]))) == 10.0 * (1 + small)
    said = [text for text in result.warnings if f"'sigma'[{small}] has shrunk to" in text]
    # and that both starts are the same
    assert len(said) == len(result.warnings) - 1 == is_read.sum()
    np.testing.assert_array_equal(result.restarts.degenerate, is_read.any())


@pytest.mark.parametrize(
    "name, matrix",
    {
        "covariance_matrix": np.diag([1.0, 1e-16]),
        "scale_tril": np.diag([1.0, 1e-8]),
        "precision_matrix": np.diag([1.0, 1e16]),
    }.items(),
)
def test_a_matrix_without_extent_in_one_direction_has_collapsed_in_every_parametrization(
    name, matrix
):
    constraint = {"scale_tril": constraints.lower_cholesky}.get(name, constraints.positive_definite)

    def program(x):
        value = numpyro.param("matrix", jnp.eye(2), constraint=constraint)
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(2), **{name: value}), obs=x)

    x = RNG.normal(size=(30, 2))
    em = EM(program, max_steps=0, num_restarts=2)
    result = em.run(jax.random.key(0), x, init_params={"matrix": matrix})
    finding, alike = result.findings
    assert alike.kind == "identical starts"
    assert (finding.kind, finding.site) == ("collapsed", "matrix")
    assert finding.sentence.startswith("parameter 'matrix' collapses: 'matrix' has shrunk to")
    assert str(finding) == result.warnings[0] == f"{finding.sentence} {finding.remedy}"
    assert result.restarts.degenerate.all()


def test_a_precision_that_leaves_a_direction_free_is_no_collapse():
    """It is singular, and its least variance is not: no direction has lost its extent."""

    def program(x):
        value = numpyro.param("matrix", jnp.eye(2), constraint=constraints.positive_definite)
        with numpyro.plate("samples", len(x)):
            normal = dist.MultivariateNormal(jnp.zeros(2), precision_matrix=value)
            numpyro.sample("x", normal, obs=x)

    x = RNG.normal(size=(30, 2))
    em = EM(program, max_steps=0, num_restarts=2)
    result = em.run(jax.random.key(0), x, init_params={"matrix": np.diag([1.0, 1e-18])})
    assert [finding.kind for finding in result.findings] == ["identical starts"]
    assert not result.restarts.degenerate.any()


@pytest.mark.filterwarnings("ignore:Latent 'z'. at the start only")
def test_components_that_are_copies_at_a_saddle_are_a_finding_of_the_run_and_parted_ones_are_none():
    def program(x):
        loc = numpyro.param("loc", jnp.zeros(3))
        log_scale = numpyro.param("log_scale", jnp.zeros(3))
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
            numpyro.sample("x", dist.Normal(loc[z], jnp.exp(log_scale)[z]), obs=x)

    x, em = RNG.normal(size=80) + np.repeat([-5.0, 0.0, 5.0, 0.0], 20), EM(program)
    finding, saddle = em.run(jax.random.key(0), x, init_params={"loc": [-1.0, 1.0, 1.0]}).findings
    assert (finding.kind, finding.site, finding.where) == ("copies", "z", "1 and 2")
    assert (saddle.kind, saddle.site, saddle.where) == ("saddle", "z", "1 and 2")
    # on the way to one limit
    near = {"loc": [0.0, 0.0, 1e-5]}
    found = em.run(jax.random.key(0), x, init_params=near).findings
    assert [f.where for f in found if f.kind == "copies"] == ["0 and 1, 0 and 2, 1 and 2"]
    assert em.run(jax.random.key(0), x, init_params={"loc": [-4.0, 0.0, 4.0]}).findings == ()


def test_values_that_the_program_makes_equal_are_no_copies():
    def program(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))[jnp.array([0, 1, 1])]
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    x = RNG.normal(size=40) + np.repeat([-3.0, 3.0], 20)
    assert EM(program).run(jax.random.key(0), x).findings == ()


def test_values_that_no_data_could_part_are_no_copies():
    def program(x, counts):
        q = numpyro.param("q", jnp.array([0.3, 0.6]), constraint=constraints.unit_interval)
        with numpyro.plate("samples", len(x)):
            u = numpyro.sample("u", dist.Categorical(jnp.array([0.4, 0.6])))
            with numpyro.handlers.mask(mask=counts):
                numpyro.sample("y", dist.Bernoulli(q[u]), obs=x)

    x = jnp.array([0.0, 1.0, 1.0, 0.0])
    found = EM(program).run(jax.random.key(0), x, jnp.zeros(4, bool)).findings
    assert "copies" not in {finding.kind for finding in found}


def test_a_component_whose_computed_weight_vanishes_has_died():
    def program(x):
        logits = numpyro.param("logits", jnp.zeros(2))
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jax.nn.softmax(2 * logits)))
            numpyro.sample("x", dist.Normal(jnp.array([0.0, 30.0])[z], 1.0), obs=x)

    found = EM(program).run(jax.random.key(0), RNG.normal(size=40))
    assert ("dead", "z", "1") in {(f.kind, f.site, f.where) for f in found.findings}
