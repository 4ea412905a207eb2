"""Each update derived by hand for a program with Gaussian latents, against its marginal density.

By Fisher's identity the gradient of the log-likelihood is that of the expected complete-data
log-likelihood, so a step is flat where the likelihood is, and climbs where it is not.
"""

from pathlib import Path

import numpy as np
import numpyro
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import FactorAnalysis

from emjax.models import factor_analysis, linear_gaussian_state_space, linear_mixed_model
from tests.models.gaussian_cases import (
    GAUSSIAN_CASES,
    every_gaussian_case,
    of_factors,
    of_groups,
    of_level,
)

DATA = Path(__file__).parents[2] / "experiments" / "data"

# ---------------------------------------------------------------- what holds for every model


def after(step, params, *args, num_steps):
    for _ in range(num_steps):
        params = step(params, *args)
    return params


@every_gaussian_case
def test_the_step_never_decreases_the_likelihood_without_latents(case):
    params, heights = case.start, [case.height(case.start)]
    for _ in range(50):
        params = case.next(params)
        heights.append(case.height(params))
    # rounding of a sum of about 100 terms of size |log p|
    assert np.all(np.diff(heights) >= -1e-12 * np.abs(heights[:-1]))
    assert heights[1] > heights[0] + 0.1


# the data of "state space" are few: its likelihood has no bound, and dynamax stands for this
BOUNDED = {name: case for name, case in GAUSSIAN_CASES.items() if name != "state space"}


@pytest.mark.parametrize("case", BOUNDED.values(), ids=BOUNDED.keys())
def test_where_the_step_stays_the_likelihood_is_flat(case):
    params = after(case.step, case.start, *case.args, num_steps=1000)
    ahead = case.next(params)
    for name in params:
        moved = np.abs(ahead[name] - params[name]).max()
        slopes = slopes_along(case, params, name)
        # a step is the slope through a bounded matrix: both are small
        assert np.abs(slopes).max() < 1e-6 + 1e4 * moved, name
        assert np.abs(slopes).max() < 0.1, name
        assert np.abs(slopes_along(case, case.start, name)).max() > 0.1, name


def slopes_along(case, params, name):
    """Return the derivative of the log-likelihood along two directions of a parameter."""
    rng, slopes = np.random.default_rng(3), []
    value = params[name]
    for _ in range(2):
        direction = rng.normal(size=value.shape)
        if "covariance" in name:
            direction = direction + direction.T
        if name == "weights":
            direction -= direction.mean()
        size = 1e-5 * np.abs(value).max()
        there, back = (
            case.height(params | {name: value + sign * size * direction}) for sign in (1, -1)
        )
        slopes.append((there - back) / (2 * size))
    return np.array(slopes)


@pytest.mark.sampled
@every_gaussian_case
def test_the_program_runs_forward_and_starts_inside_its_constraints(case):
    seeded = numpyro.handlers.seed(numpyro.handlers.uncondition(case.program), 11)
    trace = numpyro.handlers.trace(seeded).get_trace(*case.args)
    sites = {name: site for name, site in trace.items() if site["type"] == "param"}
    start = {name: np.asarray(site["value"]) for name, site in sites.items()}
    assert {name: value.shape for name, value in start.items()} == {
        name: np.shape(value) for name, value in case.start.items()
    }
    for name, site in sites.items():
        constraint = site["kwargs"].get("constraint", numpyro.distributions.constraints.real)
        assert np.all(constraint(site["value"])), name
    assert case.integrate <= set(trace)
    arrived = case.next(start)
    assert all(np.all(np.isfinite(value)) for value in arrived.values())
    assert case.height(arrived) > case.height(start)


@every_gaussian_case
def test_the_step_uses_numpy_alone_in_float64_and_leaves_its_arguments_as_they_were(
    case, monkeypatch
):
    entering = {name: np.array(value) for name, value in case.start.items()}
    for name in ("jax", "jnp", "numpyro", "dist", "constraints", "scan"):
        monkeypatch.setattr(case.module, name, None, raising=False)
    arrived = case.next(case.start)
    assert list(arrived) == list(case.start)
    for name, value in arrived.items():
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.float64
        assert value.shape == entering[name].shape
        np.testing.assert_array_equal(case.start[name], entering[name])


# ---------------------------------------------------------------- what is published


def test_factor_analysis_of_wines_ends_where_scikit_learn_does():
    raw = load_wine().data
    x = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    known = FactorAnalysis(3, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(x)
    start = {
        "loc": x.mean(axis=0),
        "loadings": 0.5 * np.random.default_rng(0).normal(size=(13, 3)),
        "scale": np.full(13, 0.7),
    }
    found = after(factor_analysis.hand_derived_step, start, x, 3, num_steps=4000)
    height = of_factors(found, x, 3)
    np.testing.assert_allclose(height, known.score(x) * len(x), rtol=1e-9)
    np.testing.assert_allclose(height, -2684.284457, atol=5e-7)
    covariance = found["loadings"] @ found["loadings"].T + np.diag(found["scale"] ** 2)
    np.testing.assert_allclose(covariance, known.get_covariance(), atol=1e-5)


def test_principal_components_are_those_of_the_eigenvalues():
    case = GAUSSIAN_CASES["principal components"]
    x, num_factors = case.args
    found = after(case.step, case.start, x, num_factors, num_steps=1200)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False, bias=True))
    noise = values[:-num_factors].mean()
    np.testing.assert_allclose(found["scale"] ** 2, noise, rtol=1e-12)
    shown = vectors[:, -num_factors:] * (values[-num_factors:] - noise)
    np.testing.assert_allclose(
        found["loadings"] @ found["loadings"].T, shown @ vectors[:, -num_factors:].T, atol=1e-11
    )


def dyestuff():
    rows = np.loadtxt(DATA / "dyestuff.csv", delimiter=",", skiprows=1, dtype=str)
    y, ones = rows[:, 1].astype(float), np.ones((len(rows), 1))
    return y, ones, ones, np.unique(rows[:, 0], return_inverse=True)[1], 6


def test_dyestuff_is_that_of_lme4():
    args = dyestuff()
    start = {"fixed": np.array([1500.0]), "covariance": np.eye(1) * 900, "scale": np.array(40.0)}
    found = after(linear_mixed_model.hand_derived_step, start, *args, num_steps=300)
    np.testing.assert_allclose(-2 * of_groups(found, *args), 327.3271, atol=5e-5)
    np.testing.assert_allclose(found["fixed"], [1527.5], rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(found["covariance"]), [[37.260]], atol=5e-4)
    np.testing.assert_allclose(found["scale"], 49.510, atol=5e-4)


def test_the_nile_has_the_variances_of_durbin_and_koopman():
    years, flow = np.loadtxt(DATA / "nile.csv", delimiter=",", skiprows=1).T
    assert years.tolist() == list(range(1871, 1971)) and flow.sum() == 91935
    start = {"level_scale": np.array(38.0), "scale": np.array(123.0)}
    step = linear_gaussian_state_space.local_level_hand_derived_step
    found = after(step, start, flow, num_steps=300)
    variances = [found["scale"] ** 2, found["level_scale"] ** 2]
    np.testing.assert_allclose(variances, [15098.5, 1469.2], atol=0.05)  # 15099 and 1469
    diffuse = of_level(found, flow, 1e5) + 0.5 * np.log(2 * np.pi * 1e10)
    np.testing.assert_allclose(diffuse, -632.54569, atol=1e-5)


# dynamax 1.0.3: LinearGaussianSSM's log-likelihood, and its m_step after one e_step. The variances
# of its initial state are not those of several sequences (one has -0.009), and left out.
DYNAMAX_HEIGHT = -126.28456619844
DYNAMAX = {
    "initial_loc": [0.3092131802, 0.0356456365],
    "transition": [[0.1677313004, 0.3846630369], [0.9512046691, 0.8400211349]],
    "transition_covariance": [[0.3502048034, -0.1107315854], [-0.1107315854, 1.8669553694]],
    "emission": [
        [-0.7918142131, -0.4521920157],
        [1.3308554653, -0.5214345086],
        [0.294663558, -0.7605998892],
    ],
    "emission_covariance": [
        [1.5415188565, 0.545351389, -0.0072388083],
        [0.545351389, 1.2544804747, -0.8412000925],
        [-0.0072388083, -0.8412000925, 1.8819216463],
    ],
}


def test_a_step_of_a_state_space_is_that_of_dynamax():
    case = GAUSSIAN_CASES["state space"]
    data, _, num_states = case.args
    args = data, np.ones(data.shape[:2], bool), num_states
    height = case.log_likelihood(case.start, *args)
    np.testing.assert_allclose(height, DYNAMAX_HEIGHT, atol=1e-7)
    arrived = case.step(case.start, *args)
    for name, value in DYNAMAX.items():
        # it adds 1e-9 to what it factors
        np.testing.assert_allclose(arrived[name], value, atol=1e-8, err_msg=name)
