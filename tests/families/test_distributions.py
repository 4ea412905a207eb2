"""`Select`: a distribution that an index chooses among components."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import Predictive

from emjax import EM, compare_updates
from emjax.distributions import Select
from tests.oracles.brute_force import joint_table

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")
KEY = jax.random.key(3)
THREE = [dist.Uniform(0.0, 1.0), dist.Normal(jnp.array(5.0), 0.5), dist.Exponential(2.0)]


def test_samples_come_from_the_chosen_component():
    index = jnp.array([0, 1, 2, 1])
    draws = Select(index, THREE).sample(KEY, (20_000,))
    assert draws.shape == (20_000, 4)
    np.testing.assert_allclose(draws.mean(0), [0.5, 5.0, 0.5, 5.0], atol=0.02)
    np.testing.assert_allclose(draws.std(0), [12**-0.5, 0.5, 0.5, 0.5], atol=0.02)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(4), atol=0.03)


def test_log_prob_is_that_of_the_chosen_component():
    index, x = jnp.array([0, 1, 2, 1]), jnp.array([0.3, 5.2, 1.7, 4.0])
    expected = [THREE[k].log_prob(v) for k, v in zip(index.tolist(), x, strict=True)]
    np.testing.assert_allclose(Select(index, THREE).log_prob(x), expected, rtol=1e-14)


def test_log_prob_of_no_component_is_nan():
    np.testing.assert_array_equal(
        np.isnan(Select(jnp.array([-1, 0, 3]), THREE).log_prob(0.5)), [True, False, True]
    )


def test_gradient_is_finite_where_another_component_has_none():
    def log_prob(rate):
        return (
            Select(jnp.array([0, 1]), [dist.Normal(rate, 1.0), dist.LogNormal(rate, 1.0)])
            .log_prob(jnp.array([-1.0, 2.0]))
            .sum()
        )

    assert np.isfinite(log_prob(0.5)) and np.isfinite(jax.grad(log_prob)(0.5))
    assert jax.grad(log_prob)(0.5) == pytest.approx(-1.5 + np.log(2) - 0.5)


def test_batch_shapes_broadcast_and_events_stay():
    components = [
        dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1),
        dist.MultivariateNormal(jnp.ones(2), jnp.eye(2)),
    ]
    law = Select(jnp.array([[0], [1]]), components)
    assert law.batch_shape == (2, 3) and law.event_shape == (2,)
    assert law.sample(KEY, (7,)).shape == (7, 2, 3, 2)
    x = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(law.log_prob(x)[0], components[0].log_prob(x), rtol=1e-14)
    np.testing.assert_allclose(law.log_prob(x)[1], components[1].log_prob(x), rtol=1e-14)


def test_wrappers_around_it_work():
    law = Select(jnp.array([0, 1, 2]), THREE)
    x = jnp.array([0.3, 5.2, 1.7])
    assert law.expand((4, 3)).sample(KEY).shape == (4, 3)
    assert law.to_event(1).log_prob(x) == pytest.approx(law.log_prob(x).sum())
    mask = jnp.array([True, False, True])
    np.testing.assert_array_equal(law.mask(mask).log_prob(x), jnp.where(mask, law.log_prob(x), 0))


def test_support_is_the_components_own_where_they_share_one():
    assert (
        Select(jnp.array(0), [dist.Exponential(1.0), dist.Gamma(2.0, 1.0)]).support
        is constraints.positive
        or Select(jnp.array(0), [dist.Exponential(1.0), dist.Gamma(2.0, 1.0)]).support
        == dist.Gamma(2.0, 1.0).support
    )
    assert Select(jnp.array(0), [dist.Bernoulli(0.2), dist.Bernoulli(0.4)]).support.is_discrete
    mixed = Select(jnp.array(0), THREE).support
    assert bool(mixed(5.0)) and bool(mixed(0.5))


def test_it_needs_components_of_one_event_shape():
    with pytest.raises(ValueError, match="at least one component"):
        Select(jnp.array(0), [])
    with pytest.raises(ValueError, match=r"differ in event shape.*to_event"):
        Select(jnp.array(0), [dist.Normal(0.0, 1.0), dist.Normal(jnp.zeros(2), 1.0).to_event(1)])


def test_it_survives_jit_and_vmap():
    def log_prob(law, x):
        return law.log_prob(x)

    law, x = (
        Select(jnp.array([0, 1]), [dist.Normal(0.0, 1.0), dist.Normal(3.0, 2.0)]),
        jnp.array([0.5, 2.0]),
    )
    np.testing.assert_allclose(jax.jit(log_prob)(law, x), law.log_prob(x), rtol=1e-14)
    rows = jax.vmap(
        lambda k: Select(k, [dist.Normal(0.0, 1.0), dist.Normal(3.0, 2.0)]).log_prob(x)
    )(jnp.arange(2))
    np.testing.assert_allclose(
        rows, [dist.Normal(0.0, 1.0).log_prob(x), dist.Normal(3.0, 2.0).log_prob(x)], rtol=1e-14
    )


# ── in programs ───────────────────────────────────────────────────────────────────────────────────


def scores(x, shape=(4,)):
    """Three kinds of scorers: at random, about their own mean, and by a rate."""
    loc = numpyro.param("loc", jnp.array(0.6))
    scale = numpyro.param("scale", jnp.array(0.4), constraint=constraints.positive)
    rate = numpyro.param("rate", jnp.array(2.0), constraint=constraints.positive)
    with numpyro.plate("rows", shape[0]):
        kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.3, 0.5, 0.2])))
        numpyro.sample(
            "x",
            Select(kind, [dist.Uniform(0.0, 1.0), dist.Normal(loc, scale), dist.Exponential(rate)]),
            obs=x,
        )


X = jnp.array([0.2, 0.7, 0.9, 0.4])
PARAMS = {"loc": jnp.array(0.6), "scale": jnp.array(0.4), "rate": jnp.array(2.0)}


def assert_brute_force(program, params, *data):
    table, em = joint_table(program, params, *data), EM(program)
    np.testing.assert_allclose(em.log_likelihood(params, *data), table.log_likelihood, rtol=1e-12)
    for name, posterior in em.posterior(params, *data).items():
        np.testing.assert_allclose(posterior, table.posterior[name], atol=1e-12)


def test_predictive_samples_have_the_moments_of_the_mixture():
    program = handlers.substitute(lambda: scores(None, (1000,)), PARAMS)
    draws = Predictive(program, num_samples=40)(KEY)
    assert draws["x"].shape == (40, 1000)
    for kind, mean in ((0, 0.5), (1, 0.6), (2, 0.5)):
        np.testing.assert_allclose(draws["x"][draws["kind"] == kind].mean(), mean, atol=0.02)


def test_three_components_are_brute_force_and_each_has_its_closed_form():
    assert_brute_force(scores, PARAMS, X)
    plan = EM(scores).plan(X)
    assert {p.name: p.method for p in plan.parameters} == dict.fromkeys(
        ("loc", "scale", "rate"), "closed form"
    )

    def by_hand(params, x):
        x, (loc, scale, rate) = (
            np.asarray(x),
            (float(params[name]) for name in ("loc", "scale", "rate")),
        )
        normal = np.exp(-0.5 * ((x - loc) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
        joint = np.stack([0.3 * np.ones_like(x), 0.5 * normal, 0.2 * rate * np.exp(-rate * x)])
        r = joint / joint.sum(0)
        loc = (r[1] @ x) / r[1].sum()
        return {
            "loc": loc,
            "scale": np.sqrt(r[1] @ (x - loc) ** 2 / r[1].sum()),
            "rate": r[2].sum() / (r[2] @ x),
        }

    comparison = compare_updates(EM(scores), by_hand, PARAMS, X, num_steps=3)
    assert comparison.largest < 1e-12, str(comparison)


def test_vector_components_inside_to_event_and_expand_are_brute_force():
    def program(x):
        loc = numpyro.param("loc", jnp.array([0.3, 0.8]))
        with numpyro.plate("rows", len(x)):
            kind = numpyro.sample("kind", dist.Bernoulli(0.4))
            law = Select(
                kind,
                [
                    dist.Normal(0.0, 1.0).expand([2]).to_event(1),
                    dist.MultivariateNormal(loc, jnp.eye(2)),
                ],
            )
            numpyro.sample("x", law, obs=x)

    assert_brute_force(
        program, {"loc": jnp.array([0.3, 0.8])}, jnp.array([[0.1, 0.9], [1.2, -0.3], [0.5, 0.5]])
    )


def test_masked_and_reinterpreted_select_is_brute_force():
    def program(x, seen):
        loc = numpyro.param("loc", jnp.array(0.6))
        with numpyro.plate("rows", len(x)):
            kind = numpyro.sample("kind", dist.Bernoulli(0.4))
            law = Select(kind[:, None], [dist.Normal(0.0, 1.0), dist.Normal(loc, 0.5)]).expand(
                [len(x), 2]
            )
            numpyro.sample("x", law.mask(seen).to_event(1), obs=x)

    seen = jnp.array([[True, True], [False, True], [False, False]])
    assert_brute_force(
        program, {"loc": jnp.array(0.6)}, jnp.array([[0.1, 0.9], [1.2, -0.3], [0.5, 0.5]]), seen
    )


def test_index_in_another_plate_is_brute_force():
    def program(annotator, x):
        loc = numpyro.param("loc", jnp.array(0.6))
        with numpyro.plate("annotators", 2):
            good = numpyro.sample("good", dist.Bernoulli(0.7))
        with numpyro.plate("scores", len(x)):
            numpyro.sample(
                "x", Select(good[annotator], [dist.Uniform(0.0, 1.0), dist.Normal(loc, 0.3)]), obs=x
            )

    assert_brute_force(program, {"loc": jnp.array(0.6)}, jnp.array([0, 1, 1, 0]), X)


def test_component_that_reads_a_latent_of_its_own_is_brute_force():
    def program(x):
        loc = numpyro.param("loc", jnp.array([0.2, 0.9]))
        with numpyro.plate("rows", len(x)):
            good = numpyro.sample("good", dist.Bernoulli(0.7))
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
            numpyro.sample(
                "x", Select(good, [dist.Uniform(0.0, 1.0), dist.Normal(loc[z], 0.3)]), obs=x
            )

    assert_brute_force(program, {"loc": jnp.array([0.2, 0.9])}, X)


def test_category_that_does_not_exist_is_of_another_component():
    def program(n):
        probs = numpyro.param("probs", jnp.array([0.2, 0.7, 0.1]), constraint=constraints.simplex)
        with numpyro.plate("rows", 4):
            kind = numpyro.sample("kind", dist.Bernoulli(0.6))
            numpyro.sample("n", Select(kind, [dist.Categorical(probs), dist.Poisson(2.0)]), obs=n)

    params, n = {"probs": jnp.array([0.2, 0.7, 0.1])}, jnp.array([0, 7, 1, 2])
    found = [2.0**k * np.exp(-2.0) / math.factorial(k) for k in n.tolist()]
    expected = np.log(0.4 * np.array([0.2, 0.0, 0.7, 0.1]) + 0.6 * np.array(found)).sum()
    for model, data in ((program, (n,)), (lambda: program(n), ())):
        np.testing.assert_allclose(EM(model).log_likelihood(params, *data), expected, rtol=1e-12)
        np.testing.assert_allclose(
            EM(model).posterior(params, *data)["kind"][1], [0, 1], atol=1e-12
        )


def test_discrete_components_are_brute_force():
    def program(n):
        rate = numpyro.param("rate", jnp.array(2.0), constraint=constraints.positive)
        with numpyro.plate("rows", len(n)):
            kind = numpyro.sample("kind", dist.Bernoulli(0.6))
            numpyro.sample("n", Select(kind, [dist.Delta(0), dist.Poisson(rate)]), obs=n)

    assert_brute_force(program, {"rate": jnp.array(2.0)}, jnp.array([0, 3, 0, 1]))
