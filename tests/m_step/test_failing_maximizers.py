"""A maximizer that fails never looks like one that has nothing to gain: each kind of failure."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.util import clamp_probs

from emjax import EM, EMState, Status

POSITIVE, UNIT = constraints.positive, constraints.unit_interval
KEY = jax.random.key(0)
COUNTS = jnp.array([0, 1, 3, 0, 9, 11, 8, 2, 1, 12])
X = jnp.array([0.1, -0.4, 0.7, 2.2, 2.9, 3.1, -0.2, 2.4, 0.3, 5.0])


# ── what could not be maximized, and is ───────────────────────────────────────────────────────────


def occupancy(y, probability, has_priors):
    """Sites that are occupied or not, each visited several times."""
    if has_priors:
        psi = numpyro.sample("psi", dist.Uniform(0, 1))
        rho = numpyro.sample("rho", dist.Uniform(0, 1))
    else:
        psi = numpyro.param("psi", 0.5, constraint=UNIT)
        rho = numpyro.param("rho", 0.5, constraint=UNIT)
    with numpyro.plate("sites", len(y), dim=-2):
        z = numpyro.sample("z", dist.Bernoulli(psi))
        with numpyro.plate("visits", y.shape[1], dim=-1):
            numpyro.sample("y", dist.Bernoulli(probability(rho * z)), obs=y)


@pytest.mark.parametrize("has_priors", [False, True])
def test_a_clamp_next_to_zero_has_an_infinite_curvature_and_the_maximum_is_reached(has_priors):
    rng = np.random.default_rng(0)
    z = rng.random(60) < 0.6
    y = ((rng.random((60, 4)) < 0.4) & z[:, None]).astype(float)
    start = {"psi": 0.5, "rho": 0.5}
    plain = EM(occupancy).run(KEY, y, jnp.asarray, has_priors, init_params=start)
    clamped = EM(occupancy).run(KEY, y, clamp_probs, has_priors, init_params=start)
    assert plain.status == clamped.status == Status.CONVERGED
    np.testing.assert_allclose(clamped.objective, plain.objective, rtol=1e-9)
    assert round(float(clamped.log_likelihood), 4) == -99.0772


def test_a_parameter_without_a_derivative_is_maximized_by_its_values():
    hours = jnp.array([0.0, 1, 2, 4, 0, 1, 3, 0, 2, 1])

    def program(x, root):
        rate = numpyro.param("rate", 0.5, constraint=POSITIVE)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(root(rate * hours) + z, 1.0), obs=x)

    def safe(x):
        return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)

    def unsafe(x):
        # its derivative at zero is NaN: that of the branch not taken, times zero
        return jnp.where(x > 0, jnp.sqrt(x), 0)

    expected, found = (EM(program).run(KEY, X, root) for root in (safe, unsafe))
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(found.params["rate"], expected.params["rate"], rtol=1e-4)


@pytest.mark.parametrize("logit", [-36.0, 20.0, 36.0])
def test_newton_comes_back_from_where_a_probability_has_no_curvature(logit):
    y = jnp.array([1, 0, 0, 0, 1.0, 0, 1, 1, 0, 0])
    x = jnp.repeat(jnp.array([0.0, 9.0]), 5)

    def program(power):
        p = numpyro.param("p", jnp.array([0.5, 0.4]), constraint=UNIT)
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(9.0 * z, 1.0), obs=x)
            # to the power of one: the same program, and Newton's method in place of a formula
            numpyro.sample("y", dist.Bernoulli((p if power is None else p**power)[z]), obs=y)

    start = {"p": jnp.array([jax.nn.sigmoid(logit), 0.4])}
    steps = []
    for power in (None, 1.0):
        em = EM(program)
        em_state = EMState(start, tuple(() for _ in em.on(power).compiled.maximizers))
        steps.append(em.update(em_state, power)[0].params["p"])
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-8)
    np.testing.assert_allclose(steps[0], 0.4, atol=1e-2)


def test_at_a_kink_other_parameters_still_move():
    x = jnp.array([0.0, 0.0, 1.0, 1.3, 2.0, 3.1, 4.0, 2.5, 1.1])

    def program():
        # both by L-BFGS: a Laplace is no exponential family while its location is unknown
        median = numpyro.param("median", 1.3)
        log_scale = numpyro.param("log_scale", 1.5)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            scale = jnp.exp(log_scale) * (1 + 0.0 * z)
            numpyro.sample("x", dist.Laplace(median + 0.0 * z, scale), obs=x)

    result = EM(program).run(KEY)
    assert result.status == Status.CONVERGED
    deviation = np.abs(x - np.median(x)).mean()
    np.testing.assert_allclose(result.params["median"], np.median(x), atol=1e-5)
    np.testing.assert_allclose(np.exp(result.params["log_scale"]), deviation, rtol=1e-4)


# ── what is not maximized, and says so ────────────────────────────────────────────────────────────


def rates(root=lambda x: x):
    """Counts of two rates, the second one after a computation."""

    def program():
        first = numpyro.param("first", 1.0, constraint=POSITIVE)
        second = numpyro.param("second", 5.0, constraint=POSITIVE)
        with numpyro.plate("rows", len(COUNTS)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("n", dist.Poisson(jnp.where(z == 1, root(second), first)), obs=COUNTS)

    return program


def without_reverse_mode(x):
    return jax.lax.while_loop(lambda y: (y < 0).any(), lambda y: -y, x)


FAILURES = {
    "a learning rate that is too low": (optax.sgd(1e-12), "optax", "Raise its learning rate"),
    "steps down, halved to nothing": (optax.sgd(-0.1), "optax", "Raise its learning rate"),
    "a proposal that is worse": (lambda value, objective: 0.1 * value, "user", "Return a value"),
    "NaN": (lambda value, objective: jnp.nan * value, "user", "Return a value"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("root", [lambda x: x, without_reverse_mode], ids=["smooth", "loop"])
def test_a_maximizer_that_fails_is_a_status_and_a_finding(failure, root):
    maximizer, method, remedy = FAILURES[failure]
    if method == "optax" and root is without_reverse_mode:
        pytest.skip("an optax optimizer needs the derivative, and JAX says that there is none")
    result = EM(rates(root), m_step={"second": maximizer}).run(KEY)
    assert result.status == Status.NOT_MAXIMIZED
    (finding,) = result.findings
    assert (finding.kind, finding.site) == ("not maximized", "second")
    assert result.gaps["second"].gain > 0.1
    assert method in finding.sentence and remedy in finding.remedy
    assert str(finding) in str(result)


def test_a_function_may_keep_to_a_part_of_the_space():
    def program():
        effects = numpyro.param("effects", jnp.array([1.0, -1.0]))
        with numpyro.plate("rows", len(X)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(effects[z], 1.0), obs=X)

    def centered(value, objective):
        # Q is a parabola along this line
        line = lambda half: objective(jnp.stack([half, -half]))  # noqa: E731
        half = value[0] - jax.grad(line)(value[0]) / jax.grad(jax.grad(line))(value[0])
        return jnp.stack([half, -half])

    result = EM(program, m_step={"effects": centered}).run(KEY)
    assert result.status == Status.CONVERGED and not result.findings
    assert result.params["effects"].sum() == 0 and result.gaps["effects"].slope > 1


def test_a_maximizer_that_is_good_enough_has_converged():
    climb = EM(rates(), m_step={"second": optax.sgd(0.05)}).run(KEY)
    expected = EM(rates()).run(KEY)
    assert climb.status == expected.status == Status.CONVERGED
    np.testing.assert_allclose(climb.log_likelihood, expected.log_likelihood, rtol=1e-8)
    assert not expected.gaps
    assert climb.gaps["second"].gain == 0 and climb.gaps["second"].slope < 1e-3


def test_many_parameters_without_a_derivative_are_not_maximized_and_say_where():
    size = 201

    def program():
        effects = numpyro.param("effects", jnp.full(size, 0.1), constraint=POSITIVE)
        with numpyro.plate("rows", size):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            total = jnp.where(effects > 1, jnp.sqrt(effects - 1), 0.2)
            numpyro.sample("n", dist.Poisson(total + z), obs=jnp.arange(size) % 5)

    result = EM(program).run(KEY)
    assert result.status == Status.NOT_MAXIMIZED
    (finding,) = result.findings
    assert "'effects' could not be improved by L-BFGS" in finding.sentence
    assert "it has no derivative there" in finding.sentence


def test_an_unbounded_likelihood_through_a_computation_has_not_converged():
    x = jnp.array([0.0, 0.0, 0.0, 1.0, 1.3, 2.0, 3.1, 4.0, 2.5, 1.1])

    def program():
        w = numpyro.param("w", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
        loc = numpyro.param("loc", jnp.array([0.0, 2.0]))
        log_sd = numpyro.param("log_sd", jnp.array([-3.0, 0.0]))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(w))
            numpyro.sample("x", dist.Normal(loc[z], jnp.exp(log_sd)[z]), obs=x)

    assert EM(program).run(KEY).status != Status.CONVERGED


@pytest.mark.parametrize("law", [dist.Poisson, lambda rate: dist.StudentT(4.0, rate, 1.0)])
def test_a_regression_on_no_covariates_has_nothing_to_maximize(law):
    def program(covariates, y):
        effects = numpyro.param("effects", jnp.zeros(covariates.shape[1]))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", law(jnp.exp(covariates @ effects)), obs=y)

    result = EM(program).run(KEY, jnp.zeros((len(COUNTS), 0)), COUNTS)
    assert result.status == Status.CONVERGED and result.findings == ()
    np.testing.assert_allclose(
        result.log_likelihood, law(jnp.ones(len(COUNTS))).log_prob(COUNTS).sum(), rtol=1e-10
    )
