"""Each maximizer against the definition: after one update, no nearby parameters have a larger Q(θ |
θ₀).

A case is a mixture of two components, so that its responsibilities and Q are three lines of
NumPyro's own `log_prob` and nothing of the engine. How far an update is from the maximum of Q is
the length of a Newton step from it, in unconstrained coordinates.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer import init_to_value

from emjax import EM
from tests.m_step.mixtures import (
    BITS,
    CASES,
    COMPUTED,
    CONJUGATE,
    COUNTS,
    FEATURES,
    FEW,
    GROUP,
    LABELS,
    NUM_ROWS,
    POSITIVE,
    POSITIVES,
    REALS,
    SCALES,
    Mixture,
    data_of,
    responsibilities_of,
    updated,
)

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.mark.sampled
@every_case
def test_an_update_is_the_maximum_of_the_expected_log_likelihood(case):
    plan, arrived = updated(case)
    assert {name: plan.method(name) for name in case.start} == {
        name: case.methods.get(name, "closed form") for name in case.start
    }
    before, after = (
        case.oracle[0](case.unconstrained(params))[0] for params in (case.params, arrived)
    )
    assert after > before
    iterative = (
        "L-BFGS" in case.methods.values()
    )  # a fixed number of steps of a quasi-Newton method
    tolerance = 1e-4 if iterative else 1e-8
    together = [
        name for name in case.start if name not in case.in_turn and plan.method(name) != "held"
    ]
    assert case.distance_to_maximum(arrived, together) < tolerance
    for i, name in enumerate(case.in_turn):
        not_yet = {later: case.params[later] for later in case.in_turn[i + 1 :]}
        assert case.distance_to_maximum({**arrived, **not_yet}, [name]) < tolerance


# ---------------------------------------------------------------- formulas


def test_a_mixture_of_regressions_is_weighted_least_squares():
    case = COMPUTED["a linear regression"]
    _, arrived = updated(case)
    design, x = np.column_stack([np.ones(NUM_ROWS), FEATURES]), REALS
    for k, r in enumerate(responsibilities_of(case).T):
        root = np.sqrt(r)
        coefficients, *_ = np.linalg.lstsq(design * root[:, None], x * root)
        np.testing.assert_allclose(
            np.append(arrived["base"][k], arrived["slope"][k]), coefficients, rtol=1e-9
        )
        mean_square = r @ (x - design @ coefficients) ** 2 / r.sum()
        np.testing.assert_allclose(arrived["scale"][k], np.sqrt(mean_square), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "x", "mean", "variance"),
    [
        (
            "a logistic regression",
            BITS,
            lambda eta: 1 / (1 + np.exp(-eta)),
            lambda mean: mean * (1 - mean),
        ),
        ("a Poisson regression", COUNTS, np.exp, lambda mean: mean),
    ],
    ids=["logistic", "Poisson"],
)
def test_a_mixture_of_generalized_regressions_is_reweighted_least_squares(name, x, mean, variance):
    """Iteratively reweighted least squares: McCullagh & Nelder (1989), section 2.5."""
    case = COMPUTED[name]
    _, arrived = updated(case)
    design = np.column_stack([np.ones(NUM_ROWS), FEATURES])
    for k, r in enumerate(responsibilities_of(case).T):
        coefficients = np.append(case.params["base"][k], case.params["slope"][k])
        for _ in range(30):
            mu = mean(design @ coefficients)
            fisher = design.T @ (design * (r * variance(mu))[:, None])
            coefficients = coefficients + np.linalg.solve(fisher, design.T @ (r * (x - mu)))
        np.testing.assert_allclose(
            np.append(arrived["base"][k], arrived["slope"][k]), coefficients, rtol=1e-8
        )


def test_conjugate_priors_add_what_the_textbook_says():
    """The modes of the conjugate posteriors: Gelman et al. (2013), Bayesian Data Analysis, chapter
    2.
    """

    def parts(name):
        case = CONJUGATE[name]
        return responsibilities_of(case), updated(case)[1]

    r, arrived = parts("Beta")
    np.testing.assert_allclose(
        arrived["probs"], (FEW @ r + 2 - 1) / (6 * r.sum(0) + 2 + 5 - 2), rtol=1e-12
    )
    r, arrived = parts("Dirichlet")
    counts = r.T @ np.eye(3)[LABELS] + [1.0, 0.5, 2.0]
    np.testing.assert_allclose(arrived["probs"], counts / counts.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(arrived["weights"], (r.sum(0) + [1, 3]) / (NUM_ROWS + 4), rtol=1e-12)
    r, arrived = parts("Gamma")
    np.testing.assert_allclose(arrived["rate"], (COUNTS @ r + 3 - 1) / (r.sum(0) + 2), rtol=1e-12)
    r, arrived = parts("Normal")
    precision, prior = r.sum(0) / 1.3**2, 1 / 0.4**2
    np.testing.assert_allclose(
        arrived["loc"], (REALS @ r / 1.3**2 + 0.5 * prior) / (precision + prior), rtol=1e-12
    )


# ---------------------------------------------------------------- constraints


def test_a_bound_that_binds_is_met_exactly_and_one_that_does_not_changes_nothing():
    free = Mixture(
        lambda z, data, scale, **_: dist.Normal(0.5, scale[z]), {"scale": SCALES}, data_of(REALS)
    )
    _, unbounded = updated(free)
    low, high = np.sort(unbounded["scale"])
    between = (low + high) / 2
    for constraint, expected in (
        (constraints.greater_than(between), np.maximum(unbounded["scale"], between)),
        (constraints.less_than(between), np.minimum(unbounded["scale"], between)),
        (constraints.greater_than(0.5 * low), unbounded["scale"]),
    ):
        case = replace(free, start={"scale": (SCALES[0], constraint)})
        np.testing.assert_array_equal(updated(case)[1]["scale"], expected)


LOW, HIGH = jnp.array([1.0, 4.0]), jnp.array([3.0, 8.0])
TABLE = jnp.array([[2.0, 5.0], [1.5, 7.0], [2.5, 4.5]])
PAIRS = jnp.array([[0.0, 9.0], [3.0, 5.0], [7.0, 1.0], [2.0, 12.0], [2.0, 6.0]])


def pairs_from(table, law):
    with numpyro.plate("rows", len(PAIRS)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        numpyro.sample("x", law(table[z]).to_event(1), obs=PAIRS)


@pytest.mark.parametrize(
    "constraint",
    [
        constraints.interval(LOW, HIGH),
        constraints.interval(LOW, 8.0),
        constraints.greater_than(LOW),
        constraints.less_than(HIGH),
    ],
    ids=["both", "an array and a number", "low", "high"],
)
@pytest.mark.parametrize(
    "law", [dist.Poisson, lambda loc: dist.Normal(loc, 1.0)], ids=["rate", "location"]
)
def test_each_column_of_a_table_may_have_bounds_of_its_own(law, constraint):
    def bounded(constraint):
        pairs_from(numpyro.param("table", TABLE, constraint=constraint), law)

    low, high = (
        getattr(constraint, "lower_bound", -np.inf),
        getattr(constraint, "upper_bound", np.inf),
    )
    maximizer = one_step(EM(partial(bounded, POSITIVE)))["table"]
    assert (maximizer != jnp.clip(maximizer, low, high)).any()
    em = EM(partial(bounded, constraint))
    assert em.plan().method("table") == "closed form" and "within [" in str(em.plan())
    np.testing.assert_allclose(one_step(em)["table"], jnp.clip(maximizer, low, high), rtol=1e-12)


def test_a_uniform_prior_may_have_an_array_for_one_bound_and_a_number_for_the_other():
    def flat():
        pairs_from(numpyro.param("table", TABLE, constraint=POSITIVE), dist.Poisson)

    def in_plates():
        with numpyro.plate("components", 3, dim=-2), numpyro.plate("coordinates", 2):
            table = numpyro.sample("table", dist.Uniform(LOW, 8.0))
        pairs_from(table, dist.Poisson)

    def as_event():
        pairs_from(
            numpyro.sample("table", dist.Uniform(LOW, 8.0).expand([3, 2]).to_event(2)), dist.Poisson
        )

    for program in (in_plates, as_event):
        em = EM(program, init=init_to_value(values={"table": TABLE}))
        np.testing.assert_allclose(
            one_step(em)["table"], jnp.clip(one_step(EM(flat))["table"], LOW, 8.0), rtol=1e-12
        )


def test_a_computed_location_may_have_bounds_for_each_entry():
    def program(x):
        shift = numpyro.param(
            "shift", jnp.array([2.0, 5.0]), constraint=constraints.greater_than(LOW)
        )
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(2.0 * shift, 1.0).to_event(1), obs=x)

    em = EM(program)
    assert em.plan(PAIRS).method("shift") == "Newton"
    np.testing.assert_allclose(
        em.run(jax.random.key(0), PAIRS).params["shift"],
        jnp.maximum(PAIRS.mean(0) / 2, LOW),
        rtol=1e-4,
    )


# ---------------------------------------------------------------- what is shared, what is missing


def shared_by_two_sites(x, y):
    rate = numpyro.param("rate", jnp.array([1.0, 3.0]), constraint=POSITIVE)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Poisson(rate[z]), obs=x)
        numpyro.sample("y", dist.Exponential(rate[z]), obs=y)


def one_step(em, *args):
    return em.update(em.init(jax.random.key(0), *args), *args)[0].params


def test_a_rate_shared_by_two_families_is_events_over_exposure_of_both():
    em = EM(shared_by_two_sites)
    r = em.posterior({"rate": jnp.array([1.0, 3.0])}, COUNTS, POSITIVES)["z"]
    assert em.plan(COUNTS, POSITIVES).method("rate") == "closed form"
    expected = (COUNTS @ r + r.sum(0)) / (r.sum(0) + POSITIVES @ r)
    np.testing.assert_allclose(one_step(em, COUNTS, POSITIVES)["rate"], expected, rtol=1e-12)


def test_a_location_of_vectors_and_of_numbers_is_the_mean_weighted_by_precision():
    covariance = np.array([[1.0, 0.5], [0.5, 2.0]])

    def program(x, y):
        loc = numpyro.param("loc", jnp.zeros(2))
        with numpyro.plate("vectors", len(x)):
            numpyro.sample("x", dist.MultivariateNormal(loc, covariance), obs=x)
        with numpyro.plate("numbers", len(y)):
            numpyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)

    x, y = np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[0.0, 1.0], [4.0, 1.0], [2.0, 2.0]])
    em, precision = EM(program), np.linalg.inv(covariance)
    assert "a location and a location vector at once" in str(em.plan(x, y))
    expected = np.linalg.solve(2 * precision + 3 * np.eye(2), precision @ x.sum(0) + y.sum(0))
    np.testing.assert_allclose(one_step(em, x, y)["loc"], expected, rtol=1e-10)


def with_missing(x, is_known=None):
    loc = numpyro.param("loc", jnp.array([-0.5, 1.5]))
    scale = numpyro.param("scale", jnp.array([0.8, 1.4]), constraint=POSITIVE)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x, obs_mask=is_known)


def test_a_row_that_obs_mask_says_is_missing_is_no_evidence():
    em, is_known = EM(with_missing), GROUP > 0
    here, expected = one_step(em, REALS, is_known), one_step(em, REALS[is_known])
    for name, value in expected.items():
        np.testing.assert_allclose(here[name], value, rtol=1e-12)


def test_rows_read_from_a_table_of_data_count_as_often_as_they_are_read():
    def program(y, index):
        mu = numpyro.param("mu", jnp.array(0.0))
        with numpyro.plate("rows", len(index)):
            numpyro.sample("x", dist.Normal(mu, 1.0), obs=y[index])

    arrived = one_step(EM(program), jnp.array([1.0, 5.0]), jnp.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(arrived["mu"], 2.6, rtol=1e-12)  # (3 · 1 + 2 · 5) / 5


@pytest.mark.sampled
@pytest.mark.parametrize(
    "declare",
    [
        lambda low, high: numpyro.sample("loc", dist.Uniform(low, high)),
        lambda low, high: numpyro.sample("loc", dist.Uniform(low * jnp.ones(1), high).to_event(1))[
            0
        ],
        lambda low, high: numpyro.param(
            "loc", 0.5 * (low + high), constraint=constraints.interval(low, high)
        ),
    ],
    ids=["prior", "vector", "param"],
)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_bounds_may_be_computed_from_data(declare, power):
    def program(x, y):
        loc = declare(x.min(), x.max())
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(loc**power, 1.0), obs=y)

    em = EM(program, tol=1e-13)
    for x, y, expected in (
        ([1.0, 2.0], [2.0, 3.0], 2.5 ** (1 / power) if power > 1 else 2.0),
        ([2.0, 4.0], [9.0, 8.0], 8.5 ** (1 / power) if power > 1 else 4.0),
    ):
        result = em.run(jax.random.key(0), jnp.array(x), jnp.array(y))
        np.testing.assert_allclose(np.ravel(result.params["loc"]), expected, rtol=1e-6)
