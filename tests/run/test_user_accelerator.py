"""An accelerator of a user's own, written with what is public: it leaps, EM keeps it honest."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from emjax import EM, Accelerator, Status
from emjax.models import coins

KEY = jax.random.key(0)
HEADS = jnp.array([5.0, 9.0, 8.0, 4.0, 7.0])


def run(acceleration=None):
    return EM(coins.program, acceleration=acceleration, tol=1e-14).run(KEY, HEADS)


@pytest.fixture(scope="module")
def plain():
    return run()


def unchanged(state):
    return state


# ── leaps ─────────────────────────────────────────────────────────────────────────────────────────


def over_relaxed(state, u, image):
    return state, u + 1.7 * (image - u), jnp.asarray(True)


def test_over_relaxation_ends_at_the_optimum_and_never_decreases(plain):
    fast = run(Accelerator(lambda u: (), over_relaxed, unchanged, cycle=2))
    assert fast.status == plain.status == Status.CONVERGED
    assert fast.num_steps < plain.num_steps
    assert abs(fast.objective[-1] - plain.objective[-1]) <= 1e-8
    np.testing.assert_allclose(fast.params["bias"], plain.params["bias"], atol=1e-6)
    assert (np.diff(fast.objective) >= 0).all()


def test_leaps_that_go_much_too_far_are_not_taken(plain):
    def too_far(state, u, image):
        return state, u + 1e3 * (image - u), jnp.asarray(True)

    slow = run(Accelerator(lambda u: (), too_far, unchanged))
    assert slow.status == Status.CONVERGED
    assert abs(slow.objective[-1] - plain.objective[-1]) <= 1e-8
    assert (np.diff(slow.objective) >= 0).all()


def test_a_leap_that_came_down_is_no_place_to_converge_at():
    """What Q gains there says nothing of where EM stays."""
    covariates = jnp.linspace(-2.0, 2.0, 60)
    rng = np.random.default_rng(2)
    counts = jnp.asarray(rng.poisson(np.exp(0.3 + 0.5 * covariates + 1.2 * (rng.random(60) < 0.5))))

    def two_rates(counts, tilt):
        level = numpyro.param("level", jnp.array([0.0, 1.0]))
        slope = numpyro.param("slope", tilt * jnp.array([1.0, -0.5]))
        with numpyro.plate("rows", len(counts)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            rate = jnp.exp(level[z] + slope[z] * covariates)
            numpyro.sample("counts", dist.Poisson(rate), obs=counts)

    def astray_at_times(count, u, image):
        return count + 1, image + 3.0, count % 3 == 2

    astray = Accelerator(lambda u: jnp.zeros((), int), astray_at_times, unchanged, cycle=2)
    for tilt in np.linspace(0.1, 1.0, 10):
        result = EM(two_rates, acceleration=astray, tol=1e-7).run(KEY, counts, tilt)
        assert result.status == Status.CONVERGED and result.findings == ()


# ── SQUAREM, from outside ─────────────────────────────────────────────────────────────────────────


def squarem_from_outside():
    """Varadhan & Roland (2008), scheme S3, with a tuple for a state."""

    def init(u):
        step = jnp.asarray(1.0, u.dtype)
        return jnp.zeros((), jnp.int32), u, jnp.zeros_like(u), step, step

    def propose(state, u, image):
        phase, start, residual, _, limit = state
        change = image - u - residual
        size = jnp.linalg.norm(change)
        step = jnp.linalg.norm(residual) / jnp.where(size > 0, size, 1)
        step = jnp.clip(step, 1, limit)
        point = start + 2 * step * residual + step**2 * change
        is_first, is_second = phase == 0, phase == 1
        state = (
            (phase + 1) % 3,
            jnp.where(is_first, u, start),
            jnp.where(is_first, image - u, residual),
            jnp.where(is_second, step, state[3]),
            jnp.where(is_second & (step == limit), 4.0 * step, limit),
        )
        return state, point, is_second

    def rejected(state):
        _, start, residual, step, _ = state
        return jnp.zeros((), jnp.int32), start, residual, step, jnp.maximum(step / 4.0, 1)

    return Accelerator(init, propose, rejected)


def test_squarem_from_outside_is_squarem_to_the_bit():
    outside, inside = run(squarem_from_outside()), run("squarem")
    np.testing.assert_array_equal(outside.objective, inside.objective)
    np.testing.assert_array_equal(outside.params["bias"], inside.params["bias"])
    assert outside.num_steps == inside.num_steps


# ── what an accelerator must be, and say ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("wrong", [over_relaxed, (over_relaxed, over_relaxed), "newton"])
def test_what_is_no_accelerator_is_an_error_that_says_what_to_pass(wrong):
    with pytest.raises(
        ValueError, match=r"acceleration must be one of .*pass an emjax\.Accelerator"
    ):
        EM(coins.program, acceleration=wrong)


@pytest.mark.parametrize("cycle", [1, 2])
def test_as_many_steps_as_a_cycle_has_must_gain_nothing_together(cycle, plain):
    def back_and_forth(is_back, u, image):
        return ~is_back, u, is_back

    idle = Accelerator(lambda u: jnp.asarray(True), back_and_forth, unchanged, cycle=cycle)
    result = run(idle)
    assert result.status == Status.CONVERGED
    if cycle == 1:
        # the first leap leads back to where it starts: a step without a gain
        assert result.num_steps == 1
        assert result.objective[-1] < plain.objective[-1] - 1e-3
    else:
        assert result.num_steps > plain.num_steps
        assert abs(result.objective[-1] - plain.objective[-1]) <= 1e-8
