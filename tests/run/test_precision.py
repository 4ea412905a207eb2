"""Where JAX computes in single precision, runs end in double: the optimum that float64 has."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

import emjax
from emjax import EM, Status
from emjax.models import gaussian_mixture
from emjax.run import on_data

KEY = jax.random.key(0)
X = np.random.default_rng(5).normal(size=(300, 2)) + np.repeat([[0, 0], [1.5, 0], [0, 2]], 100, 0)


def mixture(x, weights=(0.4, 0.6)):
    """Two clouds with a start of its own, which is the same in both precisions."""
    weights = numpyro.param("weights", jnp.asarray(weights), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.asarray([[-1.0, 0.5], [1.0, 1.0]]))
    scale = numpyro.param("scale", jnp.ones((2, 2)), constraint=constraints.positive)
    with numpyro.plate("n", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]).to_event(1), obs=x)


def run(model, *args, x64=False, **settings):
    with jax.enable_x64(x64):
        return EM(model, **settings).run(KEY, *args)


def test_small_work_is_done_in_double():
    expected = run(gaussian_mixture.program, X, 3, x64=True, num_restarts=4, short_steps=None)
    found = run(gaussian_mixture.program, X, 3, num_restarts=4, short_steps=None)
    np.testing.assert_array_equal(found.objective, expected.objective)
    np.testing.assert_array_equal(found.restarts.objective, expected.restarts.objective)
    assert found.params["loc"].dtype == found.restarts.params["loc"].dtype == jnp.float32
    np.testing.assert_allclose(found.params["loc"], expected.params["loc"], rtol=1e-6)
    assert found.log_likelihood == expected.log_likelihood


@pytest.mark.parametrize("acceleration", [None, "squarem"])
def test_large_work_ends_in_double(monkeypatch, acceleration):
    monkeypatch.setattr(on_data, "SMALL", 0)
    expected = run(mixture, X, x64=True, tol=0, acceleration=acceleration)
    found = run(mixture, X, tol=0, acceleration=acceleration)
    assert found.status == expected.status == Status.CONVERGED
    # both have come to where a step gains less than rounding: to its square root in the parameters
    assert found.objective[-1] == pytest.approx(expected.objective[-1], rel=1e-13)
    assert found.log_likelihood == found.objective[-1]
    np.testing.assert_allclose(found.params["loc"], expected.params["loc"], rtol=2e-6)
    assert len(found.objective) == found.num_steps + 1
    # the bulk was done in single precision
    unit = np.finfo(np.float32).eps * abs(expected.objective[0])
    in_bulk = found.objective[:5] - expected.objective[:5]
    assert 0 < abs(in_bulk).max() < 10 * unit


def test_every_start_of_large_work_ends_in_double(monkeypatch):
    monkeypatch.setattr(on_data, "SMALL", 0)
    settings = {"num_restarts": 3, "short_steps": None, "init": "data", "tol": 0}
    found = run(mixture, X, **settings).restarts
    assert found.objective.dtype == np.float64
    assert (found.status == Status.CONVERGED).all()
    for number in range(3):
        there = {name: value[number] for name, value in found.params.items()}
        with jax.enable_x64(True):
            again = EM(mixture, tol=0).run(KEY, X, init_params=there)
        assert again.objective[-1] == pytest.approx(found.objective[number], rel=1e-13)


def test_single_precision_says_that_it_resolves_no_more():
    found = run(mixture, X, precision="single")
    assert found.status == Status.AT_RESOLUTION
    assert "resolution of float32" in str(found) and "precision='double'" in str(found)
    assert found.objective.dtype == np.float32
    # what single precision resolves may be asked for
    assert run(mixture, X, precision="single", tol=1e-5).status == Status.CONVERGED
    restarts = run(mixture, X, precision="single", num_restarts=3, short_steps=None).restarts
    assert (restarts.status == Status.AT_RESOLUTION).all()
    (optimum,) = restarts.optima()
    assert list(np.sort(optimum.starts)) == [0, 1, 2]


def test_probabilities_rounded_to_single_precision_are_no_decrease():
    rounded = np.asarray([0.1, 0.9], np.float32)
    assert rounded.astype(float).sum() != 1
    found = run(mixture, X, x64=True, fixed={"loc", "scale"})
    start = {**found.params, "weights": np.asarray(found.params["weights"], np.float32)}
    again = EM(mixture).run(KEY, X, init_params=start)
    assert again.status == Status.CONVERGED
    assert EM(mixture).run(KEY, X, init_params={"weights": rounded}).status == Status.CONVERGED


def test_a_program_of_single_precision_alone_runs_in_it():
    def walk(x):
        loc = numpyro.param("loc", jnp.asarray([-1.0, 1.0]))

        def step(total, value):
            z = numpyro.sample("z", dist.Categorical(jnp.ones(2) / 2))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=value)
            # a carry of another type than the data's: double precision does not trace
            return (total + value).astype(total.dtype), None

        scan(step, jnp.zeros((), jnp.float32), x)
        if jnp.result_type(float) != jnp.float32:
            raise TypeError("single precision only")

    found = run(walk, X[:40, 0])
    assert found.status == Status.AT_RESOLUTION
    assert found.objective.dtype == np.float32


def test_what_is_asked_of_small_work_is_computed_in_double():
    args = gaussian_mixture.program, X, 3
    with jax.enable_x64(True):
        em, result = EM(args[0]), run(*args, x64=True)
        params = {name: np.asarray(v, np.float32) for name, v in result.params.items()}
        expected = em.diagnose(params, *args[1:]), emjax.criteria(em, params, *args[1:])
        heights = emjax.pointwise_log_likelihood(em, params, *args[1:])
    with jax.enable_x64(False):
        found = em.diagnose(params, *args[1:]), emjax.criteria(em, params, *args[1:])
        single = emjax.pointwise_log_likelihood(em, params, *args[1:])
        posterior = em.posterior(params, *args[1:])["component"]
    assert str(found[0]) == str(expected[0])
    assert str(found[1]) == str(expected[1])
    assert single.dtype == posterior.dtype == jnp.float32
    # rounded once, and not at each operation
    np.testing.assert_array_equal(single, np.asarray(heights, np.float32))


def test_probabilities_of_single_precision_are_probabilities_in_double_for_every_question():
    def thirds(x):
        weights = numpyro.param("weights", jnp.ones(2) / 2, constraint=constraints.simplex)
        with numpyro.plate("n", len(x)):
            z = numpyro.sample("z", dist.Categorical(weights))
            numpyro.sample("x", dist.Normal(jnp.array([-1.0, 1.0])[z], 1.0), obs=x)

    with jax.enable_x64(False):
        em, data, params = EM(thirds), X[:20, 0], {"weights": jnp.array([1 / 3, 2 / 3])}
        assert np.sum(np.asarray(params["weights"], float)) - 1 > 1e-8
        heights = emjax.pointwise_log_likelihood(em, params, data)
        np.testing.assert_allclose(heights.sum(), em.log_likelihood(params, data), rtol=1e-6)
        folds = emjax.cross_validate(
            em, jax.random.key(0), data, init_params=params, num_folds=2, plate="n"
        )
        assert np.isfinite(folds.log_likelihood)


@pytest.mark.parametrize("floor", [0.1, 0.7])
def test_an_estimate_on_a_bound_is_on_it_in_either_precision(floor):
    """In single precision 0.7 is less than in double, and 0.1 more."""

    def floored(x):
        scale = numpyro.param("scale", 1.0, constraint=constraints.greater_than(floor))
        with numpyro.plate("n", len(x)):
            numpyro.sample("x", dist.Normal(0.0, scale), obs=x)

    data = np.linspace(-1e-3, 1e-3, 20)
    found = run(floored, data)
    assert found.params["scale"] == np.float32(floor)
    assert np.isfinite(EM(floored).log_likelihood(found, data))


def test_parameters_that_the_program_holds_in_single_precision_are_no_decrease():
    weights, scale = np.full(2, 0.5, np.float32), np.ones(2, np.float32)
    x = np.random.default_rng(0).normal(size=120) * 0.8 + np.repeat([-2, 2], 60)

    def program(x):
        shares = numpyro.param("shares", weights, constraint=constraints.simplex)
        loc = numpyro.param("loc", np.asarray([0, 1], np.float32))
        spread = numpyro.param("scale", scale, constraint=constraints.positive)
        with numpyro.plate("n", len(x)):
            z = numpyro.sample("z", dist.Categorical(shares))
            numpyro.sample("x", dist.Normal(loc[z], spread[z]), obs=x)

    assert run(program, x).status == Status.CONVERGED


@pytest.mark.parametrize("small", [0, on_data.SMALL])
def test_what_rounds_to_a_bound_that_is_excluded_can_be_asked_of(monkeypatch, small):
    monkeypatch.setattr(on_data, "SMALL", small)
    counts = np.repeat([0, 6, 8, 10], [50, 20, 20, 20])

    def program(counts):
        rate = numpyro.param("rate", jnp.array([1.0, 10.0]), constraint=constraints.positive)
        with numpyro.plate("n", len(counts)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("counts", dist.Poisson(rate[z]), obs=counts)

    with jax.enable_x64(False):
        em = EM(program)
        result = em.run(KEY, counts)
        assert result.params["rate"].dtype == jnp.float32
        assert em.posterior(result.params, counts)["z"][0, 0] == pytest.approx(1, abs=1e-3)


def test_a_program_bound_to_data_is_asked_in_either_precision():
    bound_to_data = EM(mixture, precision="single").on(X)
    for is_double in (False, True, False):
        with jax.enable_x64(is_double):
            result = bound_to_data.run(KEY)
            dtype = jnp.result_type(float)
            assert result.params["loc"].dtype == result.objective.dtype == dtype
            assert bound_to_data.posterior(result.params)["z"].dtype == dtype


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_program_that_reads_columns_by_name_ends_in_double(dtype):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"first": X[:, 0], "second": X[:, 1]}, dtype=dtype)

    def program(frame):
        return mixture(jnp.stack([jnp.asarray(frame[name]) for name in ("first", "second")], 1))

    found, expected = run(program, frame), run(mixture, X.astype(dtype))
    assert found.status == Status.CONVERGED
    assert found.objective[-1] == pytest.approx(expected.objective[-1], rel=1e-7)
