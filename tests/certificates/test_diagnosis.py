"""Certificates: a maximum is called one, and a saddle, a ridge, an early stop, an empty value and a
duplicate by their names.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.certificates import evaluation
from emjax.certificates.curvature import not_finite
from emjax.certificates.eigenvalues import largest_eigenvalues
from emjax.certificates.estimate import Estimate
from emjax.e_step.e_step import e_step
from emjax.e_step.instance import instance_of
from emjax.e_step.occupancy import duplicates, expected_counts

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")
KEY = jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def mixture(x, num_values=2):
    weights = numpyro.param(
        "weights", jnp.full(num_values, 1 / num_values), constraint=constraints.simplex
    )
    loc = numpyro.param("loc", jnp.linspace(-1.0, 1.0, num_values))
    scale = numpyro.param("scale", jnp.ones(num_values), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


RNG = np.random.default_rng(0)
X = np.where(RNG.uniform(size=200) < 0.4, RNG.normal(-1.5, 1, 200), RNG.normal(1.5, 0.8, 200))


@pytest.fixture(scope="module")
def two():
    """A slow run: the components overlap."""
    em = EM(mixture, tol=0.0, max_steps=3000)
    result = em.run(KEY, X)
    return em, result, em.diagnose(result, X)


# ── a maximum ─────────────────────────────────────────────────────────────────────────────────────


def test_a_maximum_is_one_and_every_certificate_says_so(two):
    _, result, found = two
    assert found.is_local_maximum and found.verdict == "local maximum"
    assert found.gradient_norm < 1e-3 and found.distance < 1e-4 and found.fisher_residual < 1e-10
    assert (
        (found.eigenvalues < 0).all()
        and len(found.eigenvalues) == len(found.coordinates) == 5
        and found.is_dense
    )
    np.testing.assert_allclose(found.objective, result.objective[-1], rtol=1e-12)
    assert (
        found.empty == {"z": ()}
        and found.duplicates == {"z": ()}
        and not any(where.any() for where in found.on_boundary.values())
    )
    text = str(found)
    for part in (
        "local maximum: the gradient is zero",
        "standard errors",
        "Fisher's identity",
        "% of the distance",
        "5 coordinates",
        "z: expected counts",
    ):
        assert part in text


def test_counts_are_the_posteriors_sum(two):
    em, result, found = two
    np.testing.assert_allclose(
        found.counts["z"], em.posterior(result.params, X)["z"].sum(0), rtol=1e-10
    )


def test_the_rate_is_the_ratio_of_successive_differences(two):
    em, _, found = two
    state, update = em.init(KEY, X), jax.jit(lambda state: em.update(state, X)[0])
    path = [state := update(state) for _ in range(51)]
    steps = np.diff(
        [np.concatenate([np.ravel(value) for value in state.params.values()]) for state in path],
        axis=0,
    )
    ratio = np.linalg.norm(steps[49]) / np.linalg.norm(steps[48])
    assert 0.7 < found.rate < 1
    np.testing.assert_allclose(found.rate, ratio, atol=1e-4)


def test_the_derivative_of_em_is_one_less_the_part_of_the_information_that_is_observed(two):
    """DM = I − I_c⁻¹ I_o, Dempster, Laird & Rubin (1977), and the derivative of `em.update`
    itself.
    """
    em, result, found = two
    estimate = Estimate.of(em.on(X), result)
    chart, params = estimate.chart, estimate.params
    second = evaluation.derivatives_at(estimate).second
    expected = np.eye(5) - np.linalg.inv(-second.hessian_of_q) @ -second.hessian
    np.testing.assert_allclose(second.derivative_of_em.T, expected, atol=1e-6)
    state = em.init(KEY, X)

    def updated(vector):
        return chart.flatten(
            em.update(replace(state, params=chart.unflatten(vector, params)), X)[0].params
        )

    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(updated))(chart.flatten(params)), second.derivative_of_em.T, atol=1e-10
    )
    np.testing.assert_allclose(np.linalg.eigvalsh(second.hessian), found.eigenvalues, rtol=1e-6)


def test_what_is_not_in_closed_form_converges_at_its_own_rate():
    """A mixture of logistic regressions: Newton's method climbs Q, and the derivative is that of
    the maximum it reaches.
    """
    rng = np.random.default_rng(1)
    covariate, slope = rng.normal(size=60), np.where(rng.uniform(size=60) < 0.5, 2.5, -2.0)
    y = rng.binomial(6, 1 / (1 + np.exp(-slope * covariate))).astype(float)

    def regressions(covariate, y):
        slope, weight = (
            numpyro.param("slope", jnp.array([-1.0, 1.0])),
            numpyro.param("weight", 0.4, constraint=constraints.unit_interval),
        )
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(weight))
            numpyro.sample("y", dist.Binomial(6, logits=slope[z] * covariate), obs=y)

    em = EM(regressions, tol=0.0, max_steps=400)
    assert em.plan(covariate, y).method("slope") == "Newton"
    found = em.diagnose(em.run(KEY, covariate, y), covariate, y)
    state, update = (
        em.init(KEY, covariate, y),
        jax.jit(lambda state: em.update(state, covariate, y)[0]),
    )
    path = [state := update(state) for _ in range(16)]
    steps = np.diff(
        [np.append(state.params["slope"], state.params["weight"]) for state in path], axis=0
    )
    assert found.is_local_maximum
    np.testing.assert_allclose(
        found.rate, np.linalg.norm(steps[14]) / np.linalg.norm(steps[13]), atol=1e-4
    )
    np.testing.assert_allclose(
        found.counts["z"], em.posterior(state.params, covariate, y)["z"].sum(0), rtol=1e-4
    )  # Bernoulli: no table of its own values


def test_many_coordinates_are_diagnosed_without_their_matrices(two, monkeypatch):
    _, result, dense = two
    monkeypatch.setattr(evaluation, "LARGEST_DENSE", 4)
    found = EM(mixture, tol=0.0).diagnose(result.params, X)  # params in place of a result
    assert (
        found.is_local_maximum
        and not found.is_dense
        and "of those that Lanczos's method sees" in str(found)
        and "no direction of increase was found" in found.reason
    )
    np.testing.assert_allclose(found.eigenvalues[[0, -1]], dense.eigenvalues[[0, -1]], rtol=1e-6)
    np.testing.assert_allclose(found.rate, dense.rate, rtol=1e-4)
    assert found.distance < 1e-3


def test_lanczos_finds_the_outermost_eigenvalues():
    matrix = np.random.default_rng(2).normal(size=(80, 80))
    matrix = matrix + matrix.T
    expected, vectors = np.linalg.eigh(matrix)
    values, top = largest_eigenvalues(lambda v: matrix @ v, 80, 50)
    np.testing.assert_allclose(values[[0, -1]], expected[[0, -1]], rtol=1e-8)
    np.testing.assert_allclose(abs(top @ vectors[:, -1]), 1, atol=1e-6)
    all_of_them, _ = largest_eigenvalues(
        lambda v: np.diag([3.0, 1.0, 1.0]) @ v, 3, 10
    )  # an invariant subspace ends it
    np.testing.assert_allclose(all_of_them, [1, 3], rtol=1e-10)


# ── what is none ──────────────────────────────────────────────────────────────────────────────────


def test_a_symmetric_start_is_a_saddle_along_the_difference_of_its_components(two):
    em, _, _ = two
    found = em.diagnose({"weights": [0.5, 0.5], "loc": [X.mean()] * 2, "scale": [X.std()] * 2}, X)
    assert (
        found.verdict == "saddle"
        and not found.is_local_maximum
        and found.eigenvalues[-1] > 0
        and found.rate > 1
    )
    assert "+1 loc" in found.reason and "-1 loc" in found.reason
    assert found.duplicates == {"z": ((0, 1),)} and "duplicates: 0 and 1" in str(found)


def test_a_run_that_stopped_early_is_not_stationary(two):
    em, result, _ = two
    near = {name: value + 0.1 * (name == "loc") for name, value in result.params.items()}
    found = em.diagnose(near, X)
    assert found.verdict == "not stationary" and found.distance > 0.1
    far = em.diagnose({"weights": [0.5, 0.5], "loc": [-0.1, 0.1], "scale": [3.0, 3.0]}, X)
    assert (
        far.verdict == "not stationary"
        and "still moving" in far.reason
        and "of the complete data" in str(far)
    )


@pytest.fixture(scope="module")
def three():
    return EM(mixture, tol=0.0, max_steps=3000)


def test_a_planted_duplicate_and_an_empty_component_are_named(two, three):
    _, result, _ = two
    weights, loc, scale = (np.asarray(result.params[name]) for name in ("weights", "loc", "scale"))
    split = {
        "weights": [weights[0] / 3, 2 * weights[0] / 3, weights[1]],
        "loc": loc[[0, 0, 1]],
        "scale": scale[[0, 0, 1]],
    }
    found = three.diagnose(split, X, num_values=3)
    assert found.duplicates == {"z": ((0, 1),)} and found.empty == {"z": ()}
    # the objective has the same value whatever the two share, to first order: a ridge, or a saddle
    # if a third component helps
    assert found.verdict in ("ridge", "saddle")
    lonely = {
        "weights": [weights[0] * 0.999, 0.001, weights[1] * 0.999],
        "loc": [loc[0], 0.1, loc[1]],
        "scale": [scale[0], 0.3, scale[1]],
    }
    lonely["weights"] = np.array(lonely["weights"]) / np.sum(lonely["weights"])
    found = three.diagnose(lonely, X, num_values=3)
    assert (
        found.empty == {"z": (1,)}
        and "empty (less than one element): 1" in str(found)
        and found.duplicates == {"z": ()}
    )


def test_an_entry_on_the_boundary_is_named_and_whether_the_objective_would_leave_it(two, three):
    _, result, _ = two
    weights, loc, scale = (np.asarray(result.params[name]) for name in ("weights", "loc", "scale"))
    helpful = X[
        np.argmax(np.abs(X - X.mean()))
    ]  # a component for the outlier would help; one where no datum is would not
    found = {}
    for name, place in (("helpful", helpful), ("useless", 30.0)):
        found[name] = three.diagnose(
            {
                "weights": np.append(weights, 0.0),
                "loc": np.append(loc, place),
                "scale": np.append(scale, 0.05),
            },
            X,
            num_values=3,
        )
        np.testing.assert_array_equal(found[name].on_boundary["weights"], [False, False, True])
        assert "on the boundary      weights[z=2]" in str(found[name])
    assert found["helpful"].inward["weights"].tolist() == [
        False,
        False,
        True,
    ] and "would increase inward from weights[z=2]" in str(found["helpful"])
    assert not found["useless"].inward["weights"].any()


def test_equal_states_of_a_chain_are_duplicates():
    def chain(y):
        start = numpyro.param("start", jnp.full(3, 1 / 3), constraint=constraints.simplex)
        transition = numpyro.param(
            "transition", jnp.full((3, 3), 1 / 3), constraint=constraints.simplex
        )
        rate = numpyro.param("rate", jnp.ones(3), constraint=constraints.positive)

        def step(before, t_y):
            t, y = t_y
            now = numpyro.sample(
                "state", dist.Categorical(jnp.where(t == 0, start, transition[before]))
            )
            numpyro.sample("y", dist.Poisson(rate[now]), obs=y)
            return now, None

        scan(step, 0, (jnp.arange(len(y)), y))

    y = np.array([0.0, 1, 6, 8, 5, 0, 1, 0, 7, 9, 0, 2])
    params = {
        "start": [0.5, 0.2, 0.3],
        "transition": [[0.6, 0.2, 0.2], [0.3, 0.2, 0.5], [0.3, 0.2, 0.5]],
        "rate": [1.0, 7.0, 7.0],
    }
    em = EM(chain)
    bound = em.on(y)
    compiled, (_, constants) = bound.compiled, bound.at(params)
    graph = compiled.graph

    @jax.jit
    def expected(params):
        arrays = graph.arrays(params, constants)
        statistics = e_step(graph, arrays).statistics
        return (
            instance_of(graph, arrays).tables,
            statistics,
            expected_counts(graph, arrays, statistics),
        )

    def found(params):
        tables, statistics, counts = jax.device_get(
            expected({name: jnp.asarray(value) for name, value in params.items()})
        )
        return duplicates(graph, tables, statistics, counts), counts

    pairs, counts = found(params)
    assert pairs == {"state": ((1, 2),)}
    np.testing.assert_allclose(counts["state"], em.posterior(params, y)["state"].sum(0), rtol=1e-10)
    # the same emissions, but not the same states to follow
    assert found(params | {"transition": [[0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.6, 0.1, 0.3]]})[
        0
    ] == {"state": ()}


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_diagnosed_is_an_error(two):
    em, result, _ = two
    with pytest.raises(ValueError, match=r"Diagnose with the soft E-step: EM\(model\).diagnose"):
        EM(mixture, e_step="hard").diagnose(result, X)
    with pytest.raises(ValueError, match="The objective is not finite at these parameters"):
        em.diagnose(dict(result.params) | {"scale": jnp.array([1e-200, 1e-200])}, X)
    with pytest.raises(ValueError, match="params lacks 'loc'"):
        em.diagnose({"weights": [0.5, 0.5]}, X)
    with pytest.raises(ValueError, match="Parameters are a dictionary"):
        em.diagnose(3.0, X)


@pytest.mark.parametrize(
    ("hessian", "gradient", "to_blame"),
    [
        ([[1.0, 0.0], [0.0, np.nan]], [0.0, 0.0], [False, True]),
        ([[1.0, np.nan], [np.nan, np.nan]], [0.0, 0.0], [False, True]),
        ([[np.nan, np.nan], [np.nan, np.nan]], [0.0, np.inf], [False, True]),
        ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], [False, False]),
    ],
)
def test_the_coordinate_that_has_no_derivative_is_to_blame(hessian, gradient, to_blame):
    assert not_finite(np.array(hessian), np.array(gradient)).tolist() == to_blame


def test_a_parameter_without_a_derivative_is_named():
    """A root at zero, beside a parameter that has derivatives."""

    def roots(x):
        mean = numpyro.param("mean", 0.1)
        square = numpyro.param("square", 0.0)
        loc = mean + jnp.sqrt(jnp.abs(square))
        numpyro.sample("x", dist.Normal(loc, 1.0).expand([3]).to_event(1), obs=x)

    x = np.array([0.1, 0.3, 0.4])
    with pytest.raises(ValueError, match=r"not finite along square .*fixed=\{'square'\}"):
        EM(roots).diagnose({"mean": 0.1, "square": 0.0}, x)


def test_latents_of_elements_that_data_pick_are_counted_and_compared():
    """Words in long form: `topic` is one of a document's, and data say whose each word is."""

    def program(word, document):
        words = numpyro.param("words", jnp.ones((3, 4)) / 4, constraint=constraints.simplex)
        with numpyro.plate("documents", 6):
            topic = numpyro.sample("topic", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        with numpyro.plate("tokens", len(word)):
            numpyro.sample("word", dist.Categorical(words[topic[document]]), obs=word)

    document, word = np.repeat(np.arange(6), 6), np.tile([0, 1, 0, 1, 2, 1, 3, 2, 3, 3, 2, 0], 3)
    equal = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    em = EM(program)
    with pytest.warns(UserWarning, match="only 2 of its 3 values"):
        result = em.run(KEY, word, document, init_params={"words": equal})
    assert [(f.kind, f.where) for f in result.findings if f.site == "topic"] == [
        ("copies", "1 and 2")
    ]
    found = em.diagnose(result, word, document)
    assert found.duplicates == {"topic": ((1, 2),)}
    np.testing.assert_allclose(found.counts["topic"].sum(), 6, rtol=1e-12)
