"""Maximizers where no textbook has the formula: derivatives of the program's own, maxima at
infinity, methods on request, priors of priors, a family of one's own.
"""

from dataclasses import replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

from emjax import EM, EMState, Family, Status, register
from emjax.conjugate import RATE, SIMPLEX_LOGITS, UNIT_INTERVAL_LOGITS
from emjax.distributions import Select
from tests.m_step.mixtures import (
    COUNTS,
    FAMILIES,
    FAST_COMPILATION,
    GROUP,
    NUM_ROWS,
    POSITIVE,
    POSITIVES,
    RATES,
    REALS,
    SIMPLEX,
    UNIT,
    Mixture,
    argument,
    data_of,
    responsibilities_of,
    updated,
)


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


# ---------------------------------------------------------------- derivatives of the program's own


def root_by_iteration(a):
    """Return √a by a loop, which has no reverse mode."""
    return jax.lax.while_loop(
        lambda y: jnp.any(jnp.abs(y * y - a) > 1e-13 * a), lambda y: 0.5 * (y + a / y), 1.0 + a
    )


root_vjp, root_vjp_once, root_jvp = (
    jax.custom_vjp(root_by_iteration),
    jax.custom_vjp(root_by_iteration),
    jax.custom_jvp(root_by_iteration),
)


root_vjp.defvjp(lambda a: (root_vjp(a),) * 2, lambda y, slope: (slope / (2 * y),))


root_vjp_once.defvjp(lambda a: (root_by_iteration(a),) * 2, lambda y, slope: (slope / (2 * y),))


root_jvp.defjvp(
    lambda primals, tangents: (root_jvp(*primals), tangents[0] / (2 * root_jvp(*primals)))
)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "root",
    [root_vjp, root_vjp_once, root_jvp, lambda a: jax.vmap(root_vjp)(a)],
    ids=["vjp", "vjp once", "jvp", "vmap"],
)
def test_the_derivative_of_a_root_that_a_loop_finds_is_the_one_that_the_program_defines(root):
    def program():
        squares = numpyro.param("squares", RATES[0] ** 2, constraint=POSITIVE)
        groups = numpyro.param("groups", jnp.ones(3), constraint=POSITIVE)
        with numpyro.plate("rows", NUM_ROWS):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
            numpyro.sample("x", dist.Poisson(root(squares)[z]), obs=COUNTS)
            numpyro.sample("y", dist.Exponential(root(groups[GROUP])), obs=POSITIVES)

    em = EM(program)
    start = {"squares": RATES[0] ** 2, "groups": jnp.ones(3)}
    state, r = em.init(jax.random.key(0)), em.posterior(start)["z"]
    arrived = jax.jit(em.update)(state)[0].params
    assert em.plan().method("squares") == ("Newton" if root is root_jvp else "L-BFGS")
    tolerance = 1e-8 if em.plan().method("squares") == "Newton" else 1e-3  # some steps of L-BFGS
    np.testing.assert_allclose(arrived["squares"], (COUNTS @ r / r.sum(0)) ** 2, rtol=tolerance)
    rates = [(g == GROUP).sum() / POSITIVES[g == GROUP].sum() for g in range(3)]
    np.testing.assert_allclose(arrived["groups"], np.square(rates), rtol=tolerance)


# ---------------------------------------------------------------- maxima at infinity


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_features_of_infinite_logits_and_their_gradients_are_finite(infinite):
    for form, value in (
        (UNIT_INTERVAL_LOGITS, jnp.array(infinite)),
        (SIMPLEX_LOGITS, jnp.array([0.3, infinite, -0.5])),
    ):
        assert all(np.isfinite(feature).all() for feature in form.features(value))
        assert np.isfinite(jax.jacobian(form.features)(value)).all()


def of_groups(concentration, kind):
    """Three entries under a prior: of `group` and `x`, in the second one outcome was never seen,
    and in the third nothing was.
    """

    def program(group, x):
        with numpyro.plate("entries", 3):
            if kind == "rate":
                value = numpyro.sample("value", dist.Gamma(concentration, 1.0))
            elif kind == "probability":
                value = numpyro.sample("value", dist.Beta(concentration, concentration))
            else:
                value = numpyro.sample("value", dist.Dirichlet(jnp.full(4, concentration)))
        with numpyro.plate("rows", len(x)):
            numpyro.sample(
                "x",
                {"rate": dist.Poisson, "probability": dist.Bernoulli, "simplex": dist.Categorical}[
                    kind
                ](value[group]),
                obs=x,
            )

    return EM(program)


GROUPS, OUTCOMES = (
    jnp.array([0] * 10 + [1] * 4),
    jnp.array([0, 1, 1, 2, 3, 0, 1, 1, 2, 3, 0, 0, 0, 0]),
)
SEEN = {"rate": OUTCOMES, "probability": OUTCOMES % 2, "simplex": OUTCOMES}
KEPT = {"rate": 2.0, "probability": 0.2, "simplex": np.array([0.1, 0.2, 0.3, 0.4])}


def from_kept(em, kind):
    """Return the state at which each of the three entries is the same, and the objective there and
    after a step.
    """
    start = EMState(
        {"value": jnp.array([KEPT[kind]] * 3)},
        em.init(jax.random.key(0), GROUPS, SEEN[kind]).optimizer,
    )
    update = jax.jit(em.update)
    state, before = update(start, GROUPS, SEEN[kind])
    return state, before, update(state, GROUPS, SEEN[kind])[1]


@pytest.mark.sampled
@pytest.mark.parametrize("concentration", [0.5, 0.999, 1.0, 1.001, 3.0])
@pytest.mark.parametrize("kind", SEEN)
def test_a_prior_is_climbed_within_its_support_even_where_it_is_infinite(kind, concentration):
    em = of_groups(concentration, kind)
    state, before, after = from_kept(em, kind)
    support = {"rate": constraints.nonnegative, "probability": UNIT, "simplex": SIMPLEX}[kind]
    assert support(state.params["value"]).all() and after >= before
    assert np.isposinf(after) == (
        concentration < 1
    )  # at the boundary, where no evidence keeps it away
    result = em.run(jax.random.key(0), GROUPS, SEEN[kind])
    assert result.status == (Status.NOT_FINITE if concentration < 1 else Status.CONVERGED)
    assert np.isfinite(result.objective).all()
    if kind != "rate":  # a rate of zero is no start
        assert (
            em.run(jax.random.key(0), GROUPS, SEEN[kind], init_params=state.params).status
            == result.status
        )


def test_counts_below_zero_are_zero_and_an_entry_without_any_is_kept():
    for kind, evidence in (
        ("probability", [5.5 / 9, 0.0]),
        ("simplex", [np.array([1.5, 3.5, 1.5, 1.5]) / 8, np.eye(4)[0]]),
    ):
        state, _, _ = from_kept(of_groups(0.5, kind), kind)
        np.testing.assert_allclose(state.params["value"], [*evidence, KEPT[kind]], rtol=1e-12)


def words(counts, by):
    rows = (
        numpyro.param("rows", jnp.array([[0.2, 0.3, 0.5], [0.5, 0.4, 0.1]]), constraint=SIMPLEX)
        if by == "probs"
        else numpyro.param("rows", jnp.log(jnp.array([[0.2, 0.3, 0.5], [0.5, 0.4, 0.1]])))
    )
    with numpyro.plate("documents", len(counts)):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("counts", dist.Multinomial(5, **{by: rows[z]}), obs=counts)


def test_logits_of_a_category_that_was_never_seen_are_those_of_probability_zero():
    counts = jnp.array([[3, 2, 0], [1, 4, 0], [0, 5, 0]])
    by_logits, by_probs = (
        EM(partial(words, by=by)).run(jax.random.key(0), counts) for by in ("logits", "probs")
    )
    assert by_logits.status == Status.CONVERGED
    np.testing.assert_allclose(
        jax.nn.softmax(by_logits.params["rows"]), by_probs.params["rows"], rtol=1e-12
    )
    np.testing.assert_allclose(by_logits.objective, by_probs.objective, rtol=1e-12)


def test_log_odds_of_what_always_happened_are_those_of_certainty():
    def program(x):
        numpyro.sample(
            "x",
            dist.Bernoulli(logits=numpyro.param("w", jnp.zeros(2))[:, None]).expand([2, 3]),
            obs=x,
        )

    em, x = EM(program), jnp.array([[1, 1, 1], [0, 0, 0]])
    result = em.run(jax.random.key(0), x)
    assert result.status == Status.CONVERGED and result.log_likelihood == 0
    np.testing.assert_array_equal(jax.nn.sigmoid(result.params["w"]), [1, 0])
    np.testing.assert_array_equal(
        jax.grad(lambda params: em.log_likelihood(params, x))(result.params)["w"], [0, 0]
    )


# ---------------------------------------------------------------- on request
REQUESTED = {
    "adam": optax.adam(0.1),
    "sgd, too fast": optax.sgd(100.0),
    "lbfgs": optax.lbfgs(),
}


@pytest.mark.parametrize("optimizer", REQUESTED.values(), ids=REQUESTED.keys())
def test_an_optax_optimizer_never_decreases_the_objective(optimizer):
    case = FAMILIES["Poisson"]
    em = EM(case.program, m_step={"rate": optimizer})
    plan = em.plan(case.data)
    assert plan.method("rate") == "optax" and plan.method("weights") == "closed form"
    state = em.init(jax.random.key(0), case.data)
    update = jax.jit(lambda state: em.update(state, case.data), compiler_options=FAST_COMPILATION)
    objectives = []
    for _ in range(30):
        state, objective = update(state)
        objectives.append(float(objective))
    assert np.all(np.diff(objectives) >= -1e-12 * np.abs(objectives[:-1]))
    assert objectives[-1] > objectives[0] + 0.1


def test_a_user_s_own_update_is_taken_where_it_helps_and_only_there():
    case = FAMILIES["Poisson"]
    ours = updated(case)[1]
    plan, halfway = updated(
        case, m_step={"rate": lambda rate, objective: (rate + ours["rate"]) / 2}
    )
    assert plan.method("rate") == "user"
    np.testing.assert_allclose(
        halfway["rate"], (case.params["rate"] + ours["rate"]) / 2, rtol=1e-12
    )
    _, stayed = updated(case, m_step={"rate": lambda rate, objective: 100 * rate})
    np.testing.assert_array_equal(stayed["rate"], case.params["rate"])


def test_what_nothing_observed_depends_on_is_held():
    case = replace(FAMILIES["Poisson"], start={"rate": RATES, "idle": (np.array([0.3, 0.7]), UNIT)})
    plan, arrived = updated(case)
    assert plan.method("idle") == "held"
    np.testing.assert_array_equal(arrived["idle"], [0.3, 0.7])
    assert "nothing observed depends on it" in str(plan)


def predicts(y):
    """Beside the data: a new mean, what it predicts, and whether that is large. Nothing observed
    depends on them.
    """
    m = numpyro.param("m", jnp.array(0.0))
    s = numpyro.param("s", jnp.array(1.0), constraint=POSITIVE)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(m, s), obs=y)
    new = numpyro.sample("new", dist.Normal(m, s))
    predicted = numpyro.sample("predicted", dist.Normal(new, 1.0))
    numpyro.sample("is_large", dist.Bernoulli(logits=predicted))


def test_predictions_integrate_to_one_however_long_their_chain():
    y = jnp.array([1.0, 2.0, 5.0])
    em = EM(predicts)
    result = em.run(jax.random.key(0), y)
    np.testing.assert_allclose(result.params["s"], np.std(y), rtol=1e-9)
    np.testing.assert_allclose(
        result.log_likelihood, dist.Normal(np.mean(y), np.std(y)).log_prob(y).sum(), rtol=1e-12
    )
    plan = em.plan(y)
    assert plan.method("new") == plan.method("predicted") == "held"


@pytest.mark.sampled
@pytest.mark.parametrize(
    "law",
    [
        lambda t: Select((t > 0) * 1, [dist.Normal(0.0, 1.0), dist.Normal(3.0, 1.0)]),
        lambda t: dist.Normal(3.0, 1.0).mask(t > 0),
        lambda t: dist.Uniform(t, 9.0),
    ],
    ids=["index of Select", "mask", "support"],
)
def test_a_latent_that_an_observation_reads_is_no_prediction(law):
    def program(x):
        numpyro.sample("x", law(numpyro.sample("t", dist.Normal(0.5, 1.0))), obs=x)

    em = EM(program)
    for start in (0.7, -0.3):
        result = em.run(jax.random.key(0), jnp.array(2.0), init_params={"t": start})
        log_prior = dist.Normal(0.5, 1.0).log_prob(start)
        np.testing.assert_allclose(
            result.objective[0], law(jnp.array(start)).log_prob(2.0) + log_prior, rtol=1e-12
        )
        assert np.all(np.diff(result.objective) >= -1e-12) and result.status == Status.CONVERGED


# ---------------------------------------------------------------- priors of priors


def hierarchical(x, group):
    center = numpyro.sample("center", dist.Normal(0.0, 5.0))
    with numpyro.plate("groups", 3):
        loc = numpyro.sample("loc", dist.Normal(center, 0.8))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Normal(loc[group] + 2.0 * z, 1.1), obs=x)


def test_a_hierarchical_prior_is_climbed_to_the_joint_mode():
    em = EM(hierarchical, tol=0.0, max_steps=300)
    result = em.run(
        jax.random.key(0), REALS, GROUP, init_params={"center": 0.5, "loc": jnp.zeros(3)}
    )
    assert np.all(np.diff(result.objective) >= -1e-12 * np.abs(result.objective[:-1]))
    center, loc = result.params["center"], np.asarray(result.params["loc"])
    shift = 2.0 * np.asarray(em.posterior(result.params, REALS, GROUP)["z"])[:, 1]
    for g in range(
        3
    ):  # each loc between its rows and the center; the center between the locs and zero
        rows = g == GROUP
        precision = rows.sum() / 1.1**2 + 1 / 0.8**2
        expected = ((REALS - shift)[rows].sum() / 1.1**2 + center / 0.8**2) / precision
        np.testing.assert_allclose(loc[g], expected, rtol=1e-5)
    np.testing.assert_allclose(center, loc.sum() / 0.8**2 / (3 / 0.8**2 + 1 / 5.0**2), rtol=1e-5)


# ---------------------------------------------------------------- a family of one's own


class Rayleigh(dist.Distribution):
    """log p(x | precision) = log x + log precision − precision x² / 2, for x > 0."""

    arg_constraints: ClassVar = {"precision": POSITIVE}
    support = POSITIVE

    def __init__(self, precision, *, validate_args=None):
        self.precision = precision
        super().__init__(jnp.shape(precision), (), validate_args=validate_args)

    def log_prob(self, value):
        return jnp.log(value) + jnp.log(self.precision) - 0.5 * self.precision * value**2


def test_a_registered_family_has_the_closed_form_it_states():
    case = Mixture(
        argument(Rayleigh, "precision"),
        {"precision": RATES},
        data_of(POSITIVES),
        {"precision": "L-BFGS"},
    )
    plan, climbed = updated(case)
    assert plan.method("precision") == "L-BFGS"
    register(
        Rayleigh,
        Family(
            {"precision": RATE},
            naturals=lambda precision: (precision[0], -precision[1]),
            statistics=lambda x: (1.0, 0.5 * x**2),
            base=lambda x: jnp.log(x),
            event_dims=(0, 0),
        ),
    )
    plan, arrived = updated(case)
    assert plan.method("precision") == "closed form"
    r = responsibilities_of(case)
    expected = r.sum(0) / (0.5 * POSITIVES**2 @ r)
    np.testing.assert_allclose(arrived["precision"], expected, rtol=1e-12)
    np.testing.assert_allclose(climbed["precision"], expected, rtol=1e-4)


# Tables whose rows are read out, one for each datum
# ---------------------------------------------------------------------------------------------


def test_entries_are_found_where_two_tables_of_as_many_rows_as_data_meet():
    def program(x, first, second):
        loc = numpyro.param("loc", jnp.array([0.0, 1.0, 2.0]))
        scale = numpyro.param("scale", jnp.array([1.0, 2.0, 3.0]), constraint=constraints.positive)
        with numpyro.plate("rows", 3):
            numpyro.sample("x", dist.Normal(loc[first], scale[second]), obs=x)

    x, first, second = jnp.array([10.0, 20.0, 31.0]), jnp.array([2, 0, 1]), jnp.array([1, 2, 0])
    em = EM(program, m_step={"loc": lambda value, objective: value})
    state, _ = em.update(em.init(jax.random.key(0), x, first, second), x, first, second)
    np.testing.assert_allclose(
        state.params["scale"], [30.0, 8.0, 20.0], rtol=1e-12
    )  # |x − loc| of the one datum that reads it
