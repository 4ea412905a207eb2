"""Acceleration, polish, Aitken's rule and annealing: the same optimum in fewer steps, and never a
decrease.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to, constraints

from emjax import EM, Status
from emjax.run import acceleration, loop
from emjax.run.acceleration import Accelerator, anderson, squarem

KEY = jax.random.key(0)
ACCELERATIONS = ", ".join(map(repr, acceleration.ACCELERATORS))
RNG = np.random.default_rng(0)
X = np.concatenate(
    [RNG.normal(0, 1, 60), RNG.normal(2.0, 1.2, 60)]
)  # two clouds that overlap: EM crawls


def mixture(x):
    weights = numpyro.param("weights", jnp.array([0.3, 0.7]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    scale = numpyro.param("scale", jnp.array([1.0, 1.0]), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[component], scale[component]), obs=x)


def run(**settings):
    return EM(mixture, **{"tol": 1e-14, "max_steps": 1000, **settings}).run(KEY, X)


@pytest.fixture(scope="module")
def plain():
    return run()


@pytest.fixture(scope="module")
def exact():
    """The optimum to the last digit, by Newton's method on the exact likelihood."""
    return run(polish="newton")


# ── SQUAREM, Anderson ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", acceleration.ACCELERATORS)
def test_acceleration_needs_a_third_of_the_steps_at_most_and_ends_at_the_same_optimum(
    name, plain, exact
):
    fast = run(acceleration=name)
    assert fast.status == Status.CONVERGED
    assert fast.num_steps <= plain.num_steps / 3
    assert abs(fast.objective[-1] - exact.objective[-1]) <= 1e-8
    assert (np.diff(fast.objective) >= -1e-12).all()
    for site, value in exact.params.items():
        # where the objective is flat to rounding (1e-13 of 200 nats), parameters are known to the
        # root of that
        np.testing.assert_allclose(fast.params[site], value, atol=1e-5)


def test_steps_that_grow_by_a_saddle_are_leapt_forward():
    rule, u = anderson(), jnp.array([1.0])
    state = rule.init(u)
    state, _, _ = rule.propose(state, u, 1.5 * u)
    state, point, _ = rule.propose(state, 1.5 * u, 2.25 * u)
    np.testing.assert_allclose(
        point, 3.0, rtol=1e-12
    )  # the saddle is at 0, as far on the other side


def test_squarem_lands_on_the_fixed_point_of_a_geometric_sequence():
    rule, goal, rate = squarem(), np.array([3.0, -1.0]), 0.9
    state = {**rule.init(jnp.zeros(2)), "limit": jnp.asarray(100.0)}
    first = (1 - rate) * goal
    state, _, proposed = rule.propose(state, jnp.zeros(2), first)
    assert not proposed
    state, point, proposed = rule.propose(
        state, first, first + rate * (goal - first) * (1 - rate) / rate
    )
    assert proposed
    np.testing.assert_allclose(point, goal, rtol=1e-12)


def test_squarem_shortens_its_leaps_when_one_is_rejected():
    rule = squarem()
    state = {
        **rule.init(jnp.zeros(1)),
        "phase": jnp.asarray(2),
        "step": jnp.asarray(64.0),
        "limit": jnp.asarray(256.0),
    }
    assert rule.rejected(state)["limit"] == 16 and rule.rejected(state)["phase"] == 0


def test_anderson_solves_a_linear_map_of_two_unknowns_after_two_differences():
    rule, matrix, offset = anderson(), np.array([[0.9, 0.05], [0.0, 0.7]]), np.array([1.0, 2.0])
    fixed_point = np.linalg.solve(np.eye(2) - matrix, offset)
    u, state = jnp.array([5.0, -4.0]), rule.init(jnp.zeros(2))
    for expected in (False, True, True):
        image = matrix @ u + offset
        state, point, proposed = rule.propose(state, u, image)
        assert proposed == expected
        u = point if expected else image
    np.testing.assert_allclose(u, fixed_point, rtol=1e-9)


@pytest.mark.parametrize(
    "wild", [lambda u, image: image + 50, lambda u, image: image * jnp.nan], ids=["far", "nan"]
)
def test_a_proposal_that_decreases_the_objective_is_not_taken(wild, plain, monkeypatch):
    rule = Accelerator(
        lambda u: jnp.zeros(()),
        lambda state, u, image: (state, wild(u, image), jnp.ones((), bool)),
        lambda state: state,
    )
    monkeypatch.setitem(acceleration.ACCELERATORS, "squarem", lambda: rule)
    found = run(acceleration="squarem", max_steps=60)
    assert (np.diff(found.objective) >= 0).all()
    is_step = np.diff(found.objective) > 0
    # without its leaps, what is left is EM, step for step
    np.testing.assert_allclose(
        found.objective[1:][is_step], plain.objective[1:][: is_step.sum()], rtol=1e-14
    )


def test_acceleration_leaves_parameters_on_the_boundary_there():
    found = EM(mixture, acceleration="squarem", max_steps=30).run(
        KEY, X, init_params={"weights": jnp.array([0.0, 1.0])}
    )
    np.testing.assert_array_equal(found.params["weights"], [0, 1])
    np.testing.assert_allclose(found.params["loc"][1], X.mean(), rtol=1e-12)


# ── polish, stopping ──────────────────────────────────────────────────────────────────────────────


def gradient(params):
    bijections = {
        "weights": biject_to(constraints.simplex),
        "loc": biject_to(constraints.real),
        "scale": biject_to(constraints.positive),
    }
    em = EM(mixture)
    return jax.grad(
        lambda u: em.log_likelihood({name: bijections[name](v) for name, v in u.items()}, X)
    )({name: bijections[name].inv(v) for name, v in params.items()})


@pytest.mark.parametrize(("method", "steps"), [("newton", 5), ("lbfgs", 1000)])
def test_a_polish_finds_the_last_digits_and_em_confirms_them(method, steps, exact):
    found = run(tol=1e-6, max_steps=steps, polish=method)
    assert found.status == Status.CONVERGED and found.num_steps <= steps + 2
    assert (np.diff(found.objective) >= -1e-12).all() and len(
        found.objective
    ) == found.num_steps + 1
    if method == "lbfgs":
        np.testing.assert_allclose(found.objective[-1], exact.objective[-1], rtol=1e-9)


def test_a_polish_is_confirmed_after_accelerated_steps_that_ran_out(exact):
    found = run(max_steps=8, acceleration="squarem", polish="newton")
    assert found.status == Status.CONVERGED and found.num_steps <= 10
    np.testing.assert_allclose(found.objective[-1], exact.objective[-1], rtol=1e-12)


def test_the_gradient_vanishes_at_a_polished_end(exact):
    assert max(np.abs(g).max() for g in gradient(exact.params).values()) <= 1e-8


def test_what_is_still_to_gain_of_a_geometric_series_is_its_remainder():
    gains = 3.0 * 0.8 ** np.arange(6)
    np.testing.assert_allclose(loop.still_to_gain(gains[5], gains[4]), 3 * 0.8**6 / 0.2, rtol=1e-12)
    assert loop.still_to_gain(2.0, 1.0) == np.inf and loop.still_to_gain(1.0, 0.0) == np.inf


def test_aitkens_rule_stops_when_no_more_than_tol_is_left_to_gain(exact):
    tol = 1e-7
    found = run(stop="aitken", tol=tol)
    left = float(exact.objective[-1] - found.objective[-1])
    size = 1 + abs(float(exact.objective[-1]))
    assert found.status == Status.CONVERGED
    assert 0.3 * tol * size <= left <= 1.5 * tol * size  # the rate is estimated from two gains
    assert (
        float(exact.objective[-1] - run(tol=tol).objective[-1]) > 5 * left
    )  # a small gain is no small distance


def test_a_run_that_never_stops_takes_all_steps(mostly_by_numpy):
    """They are plain EM's, for as long as it goes on, and nothing more is compiled."""
    program = EM(mixture, tol=1e-3, max_steps=12)
    few = program.run(KEY, X)
    all_steps = EM(mixture, tol=1e-3, max_steps=12, stop="never").run(KEY, X)
    assert few.status == Status.CONVERGED and few.num_steps < 12
    assert all_steps.status == Status.MAX_STEPS and all_steps.num_steps == 12
    np.testing.assert_array_equal(all_steps.objective[: few.num_steps], few.objective[:-1])
    assert (np.diff(all_steps.objective) > 0).all()


def test_to_stop_or_not_is_one_program():
    kinds = [EM(mixture, stop=stop).settings.structure for stop in ("gain", "never", "aitken")]
    assert kinds[0] == kinds[1] != kinds[2]


# ── annealing ─────────────────────────────────────────────────────────────────────────────────────


def test_annealed_starts_are_em_steps_with_tempered_responsibilities():
    temperatures = [4.0, 2.0, 1.3]
    found = EM(mixture, annealing=temperatures, max_steps=0).run(KEY, X)
    weights, loc, scale = np.array([0.3, 0.7]), np.array([-1.0, 1.0]), np.array([1.0, 1.0])
    for temperature in temperatures:
        log_joint = np.log(weights) - np.log(scale) - 0.5 * ((X[:, None] - loc) / scale) ** 2
        r = np.exp(log_joint / temperature)
        r /= r.sum(1, keepdims=True)
        weights, loc = r.mean(0), r.T @ X / r.sum(0)
        scale = np.sqrt((r * (X[:, None] - loc) ** 2).sum(0) / r.sum(0))
    for site, value in (("weights", weights), ("loc", loc), ("scale", scale)):
        np.testing.assert_allclose(found.params[site], value, rtol=1e-11)


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"acceleration": "fast"},
            f"acceleration must be one of 'auto', None, {ACCELERATIONS}, not 'fast'",
        ),
        ({"polish": "steepest"}, r"polish must be one of None, 'newton', 'lbfgs', not 'steepest'"),
        ({"stop": "late"}, r"stop must be one of 'gain', 'aitken', 'never', not 'late'"),
        ({"stop": "never", "polish": "newton"}, r"stop='never' goes on to max_steps"),
        ({"stop": "aitken", "acceleration": "squarem"}, r"Use stop='gain'"),
        (
            {"polish": "newton", "e_step": "hard"},
            r"polish='newton' is for a soft E-step.*Use e_step='soft'",
        ),
        ({"stop": "aitken", "e_step": 0.5}, r"stop='aitken' is for a soft E-step"),
        ({"annealing": [0.0]}, r"annealing must be a list of positive temperatures"),
        ({"annealing": "slow"}, r"annealing must be a list of positive temperatures"),
    ],
)
def test_settings_that_make_no_sense_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        EM(mixture, **settings)
