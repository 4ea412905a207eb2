"""Standard errors against finite differences of the brute-force likelihood, textbook formulas,
refits, and a thousand simulated data sets.
"""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from scipy import stats

from emjax import EM, Status, labeled, standard_errors
from emjax.answers.relabeling import Symmetry, best_order, symmetries, with_labels_of_estimate
from emjax.certificates.coordinates import coordinates, num_free_parameters
from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.refits import information, uncertainty
from emjax.refits.bootstrap import Refits, simulated
from emjax.refits.standard_errors import interval_within

KEY = jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


# ── programs ──────────────────────────────────────────────────────────────────────────────────────


def mixture(x):
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-2.0, 2.0]))
    scale = numpyro.param("scale", jnp.array([1.0, 1.0]), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


def chain(y, start=(0.5, 0.5)):
    start = numpyro.param("start", jnp.array(start), constraint=constraints.simplex)
    transition = numpyro.param(
        "transition", jnp.array([[0.7, 0.3], [0.2, 0.8]]), constraint=constraints.simplex
    )
    rate = numpyro.param("rate", jnp.array([1.0, 4.0]), constraint=constraints.positive)

    def step(carry, y):
        before, t = carry
        with numpyro.plate("sequences", y.shape[0]):
            now = numpyro.sample(
                "state", dist.Categorical(jnp.where(t == 0, start, transition[before]))
            )
            numpyro.sample("y", dist.Poisson(rate[now]), obs=y)
        return (now, t + 1), None

    scan(step, (jnp.zeros(y.shape[1], int), 0), y)


def plain(x, b, c, kind):
    """No latent: what the textbooks have formulas for."""
    loc, scale = (
        numpyro.param("loc", 0.0),
        numpyro.param("scale", 1.0, constraint=constraints.positive),
    )
    p = numpyro.param("p", 0.5, constraint=constraints.unit_interval)
    rate = numpyro.param("rate", 1.0, constraint=constraints.positive)
    shares = numpyro.param("shares", jnp.full(4, 0.25), constraint=constraints.simplex)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(loc, scale), obs=x)
        numpyro.sample("b", dist.Bernoulli(p), obs=b)
        numpyro.sample("c", dist.Poisson(rate), obs=c)
        numpyro.sample("kind", dist.Categorical(shares), obs=kind)


RNG = np.random.default_rng(0)
X = np.where(RNG.uniform(size=400) < 0.4, RNG.normal(-2, 1, 400), RNG.normal(2, 0.8, 400))
Y = RNG.poisson(np.where(RNG.uniform(size=(4, 1)) < np.linspace(0.2, 0.8, 12), 1.0, 6.0)).astype(
    float
)  # (time, sequence)
N = 50
PLAIN = (
    RNG.normal(3, 2, N),
    (RNG.uniform(size=N) < 0.3).astype(float),
    RNG.negative_binomial(2, 0.4, N).astype(float),
    RNG.choice(3, N, p=[0.5, 0.3, 0.2]),
)


@pytest.fixture(scope="module")
def fitted_mixture():
    em = EM(mixture, tol=0.0, max_steps=300)
    return em, em.run(KEY, X)


@pytest.fixture(scope="module")
def fitted_chain():
    em = EM(chain, tol=1e-12, max_steps=500)
    return em, em.run(KEY, Y)


@pytest.fixture(scope="module")
def fitted_plain():
    x, b, c, kind = PLAIN
    em, params = (
        EM(plain),
        {
            "loc": x.mean(),
            "scale": x.std(),
            "p": b.mean(),
            "rate": c.mean(),
            "shares": np.bincount(kind, minlength=4) / N,
        },
    )
    return (
        params,
        standard_errors(em, params, *PLAIN),
        standard_errors(em, params, *PLAIN, method="sandwich"),
    )


# ── the oracle: finite differences of the brute-force log-likelihood ──────────────────────────────


def log_mixture(u):
    """u: loc, log scale, log weights[0]/weights[1]."""
    log_weights = np.array([u[4], 0.0]) - np.logaddexp(u[4], 0.0)
    return np.logaddexp.reduce(
        log_weights + stats.norm.logpdf(X[:, None], u[:2], np.exp(u[2:4])), axis=1
    ).sum()


def log_chain(u):
    """u: log rate, log start[0]/start[1], log transition[k, 0]/transition[k, 1]; the sum over all
    2⁴ paths of every sequence.
    """
    start, transition = (np.array([[x, 0.0] for x in u[a:b]]) for a, b in ((2, 3), (3, 5)))
    start, transition = (
        table - np.logaddexp.reduce(table, 1)[:, None] for table in (start, transition)
    )
    density = stats.poisson.logpmf(Y[..., None], np.exp(u[:2]))
    paths = np.array(list(itertools.product(range(2), repeat=len(Y))))
    prior = start[0, paths[:, 0]] + transition[paths[:, :-1], paths[:, 1:]].sum(1)
    return sum(
        np.logaddexp.reduce(prior + density[np.arange(len(Y)), n, paths].sum(1))
        for n in range(Y.shape[1])
    )


def finite_difference_hessian(function, u, h=2e-3):
    """Central differences at h and 2h, extrapolated: the error is of order h⁴."""
    steps = np.eye(len(u))

    def at(h):
        return np.array(
            [
                [
                    sum(s * t * function(u + h * (s * a + t * b)) for s in (-1, 1) for t in (-1, 1))
                    / (4 * h * h)
                    for a in steps
                ]
                for b in steps
            ]
        )

    return (4 * at(h) - at(2 * h)) / 3


MIXTURE_NAMES = (
    "loc[z=0]",
    "loc[z=1]",
    "log scale[z=0]",
    "log scale[z=1]",
    "log weights[z=0]/weights[z=1]",
)
CHAIN_NAMES = (
    "log rate[state=0]",
    "log rate[state=1]",
    "log start[state=0]/start[state=1]",
    "log transition[state=0, next_state=0]/transition[state=0, next_state=1]",
    "log transition[state=1, next_state=0]/transition[state=1, next_state=1]",
)


@pytest.mark.parametrize(
    ("fitted", "args", "oracle", "names"),
    [
        ("fitted_mixture", (X,), log_mixture, MIXTURE_NAMES),
        ("fitted_chain", (Y,), log_chain, CHAIN_NAMES),
    ],
)
def test_information_is_a_finite_difference_of_the_brute_force_likelihood(
    fitted, args, oracle, names, request
):
    em, result = request.getfixturevalue(fitted)
    found = standard_errors(em, result, *args)
    assert found.coordinates == names
    bound = em.on(*args)
    compiled, params = bound.compiled, bound.checked(result.params)
    vector = np.asarray(coordinates(compiled.graph, compiled.maximizers, params).flatten(params))
    np.testing.assert_allclose(result.log_likelihood, oracle(vector), rtol=1e-12)
    expected = -finite_difference_hessian(oracle, vector)
    np.testing.assert_allclose(
        np.linalg.inv(found.covariance), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )
    assert found.distance < 1e-2


def test_textbook_standard_errors_follow(fitted_plain):
    params, found, _ = fitted_plain
    p, shares = params["p"], params["shares"]
    expected = {
        "loc": params["scale"] / np.sqrt(N),
        "scale": params["scale"] / np.sqrt(2 * N),
        "p": np.sqrt(p * (1 - p) / N),
        "rate": np.sqrt(params["rate"] / N),
        "shares": np.where(shares > 0, np.sqrt(shares * (1 - shares) / N), np.nan),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found.standard_error[name], value, rtol=1e-9, err_msg=name)


def test_an_entry_on_the_boundary_is_flagged_and_has_no_standard_error(fitted_plain):
    _, found, _ = fitted_plain
    np.testing.assert_array_equal(
        found.on_boundary["shares"], [False, False, False, True]
    )  # the fourth kind was never seen
    assert not any(found.on_boundary[name].any() for name in ("loc", "scale", "p", "rate"))
    assert all(np.isnan(end[3]) for end in found.interval()["shares"])
    assert str(found).split("\n")[-1].split() == [
        "shares[3]",
        "0",
        *"–––––",
        "on",
        "the",
        "boundary",
    ]


def test_the_sandwich_is_the_robust_formula_of_a_misspecified_model(fitted_plain):
    """Poisson counts that are overdispersed: sd / √n; of a normal's location sd / √n, of its scale
    √(m₄ − σ⁴) / (2 σ √n).
    """
    _, found, robust = fitted_plain
    x, _, c, _ = PLAIN
    np.testing.assert_allclose(robust.standard_error["rate"], c.std() / np.sqrt(N), rtol=1e-9)
    assert robust.standard_error["rate"] > 1.2 * found.standard_error["rate"]
    np.testing.assert_allclose(robust.standard_error["loc"], x.std() / np.sqrt(N), rtol=1e-9)
    fourth = ((x - x.mean()) ** 4).mean()
    np.testing.assert_allclose(
        robust.standard_error["scale"],
        np.sqrt(fourth - x.std() ** 4) / (2 * x.std() * np.sqrt(N)),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        robust.standard_error["p"], found.standard_error["p"], rtol=1e-9
    )  # a proportion cannot be misspecified


def test_intervals_stay_within_bounds_and_are_those_of_the_unbounded_scale(fitted_plain):
    params, found, _ = fitted_plain
    z = stats.norm.ppf(0.95)
    error, interval = found.standard_error, found.interval(0.9)
    np.testing.assert_allclose(
        interval["loc"], params["loc"] + np.array([-z, z]) * error["loc"], rtol=1e-9
    )
    np.testing.assert_allclose(
        interval["rate"],
        params["rate"] * np.exp(np.array([-z, z]) * error["rate"] / params["rate"]),
        rtol=1e-9,
    )
    p, odds = params["p"], error["p"] / (params["p"] * (1 - params["p"]))
    np.testing.assert_allclose(
        interval["p"],
        1 / (1 + np.exp(-(np.log(p / (1 - p)) + np.array([-z, z]) * odds))),
        rtol=1e-9,
    )
    low, high = interval["shares"]
    assert (low[:3] > 0).all() and (high[:3] < 1).all() and (low[:3] < params["shares"][:3]).all()
    above = interval_within(np.array(1.0), np.array(0.5), np.array(-np.inf), np.array(3.0), 2.0)
    np.testing.assert_allclose(
        above, [3 - 2 * np.exp(0.5), 3 - 2 * np.exp(-0.5)]
    )  # bounded above: log(3 − value)
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, such as 0\.95, not 95"):
        found.interval(95)


def test_entries_of_a_covariance_matrix_have_their_textbook_standard_errors():
    x = np.random.default_rng(1).normal(size=(40, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])

    def program(x):
        loc = numpyro.param("loc", jnp.zeros(2))
        covariance = numpyro.param(
            "covariance", jnp.eye(2), constraint=constraints.positive_definite
        )
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.MultivariateNormal(loc, covariance), obs=x)

    s = np.cov(x, rowvar=False, bias=True)
    found = standard_errors(EM(program), {"loc": x.mean(0), "covariance": s}, x)
    np.testing.assert_allclose(
        found.standard_error["covariance"],
        np.sqrt((np.outer(np.diag(s), np.diag(s)) + s**2) / len(x)),
        rtol=1e-9,
    )
    assert "unconstrained covariance[0]" in found.coordinates


def test_with_a_prior_they_are_those_of_laplaces_approximation_and_what_is_held_has_none():
    def program(x):
        p = numpyro.sample("p", dist.Beta(3.0, 2.0))
        numpyro.sample("unused", dist.Normal(0.0, 1.0))
        numpyro.param("idle", 1.0)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Bernoulli(p), obs=x)

    x, a, b = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]), 3 + 5 - 1, 2 + 2 - 1
    found = standard_errors(EM(program), {"p": a / (a + b), "unused": 0.0, "idle": 1.0}, x)
    assert found.coordinates == ("logit p",)
    np.testing.assert_allclose(found.standard_error["p"], np.sqrt(a * b / (a + b) ** 3), rtol=1e-9)
    assert np.isnan(found.standard_error["idle"]) and not found.on_boundary["idle"]
    assert "Laplace's approximation of the posterior" in str(found) and "held" in str(found)


# ── coordinates ───────────────────────────────────────────────────────────────────────────────────


def several(x):
    numpyro.param(
        "table",
        jnp.array([[0.2, 0.0, 0.8], [0.0, 1.0, 0.0], [0.1, 0.3, 0.6]]),
        constraint=constraints.simplex,
    )
    numpyro.param("one", jnp.ones((2, 1)), constraint=constraints.simplex)
    numpyro.param("p", jnp.array([0.0, 0.4, 1.0]), constraint=constraints.unit_interval)
    numpyro.param("floor", jnp.array([0.1, 0.7]), constraint=constraints.greater_than(0.1))
    numpyro.param("rate", jnp.array([0.0, 2.0]), constraint=constraints.positive)
    numpyro.param(
        "low", jnp.array([[[1.0, 0.0], [0.5, 2.0]]]), constraint=constraints.lower_cholesky
    )
    numpyro.param("vector", jnp.zeros((2, 3)), constraint=constraints.real_vector)


SEVERAL = {
    "table": [[0.2, 0.0, 0.8], [0.0, 1.0, 0.0], [0.1, 0.3, 0.6]],
    "one": np.ones((2, 1)),
    "p": [0.0, 0.4, 1.0],
    "floor": [0.1, 0.7],
    "rate": [0.0, 2.0],
    "low": [[[1.0, 0.0], [0.5, 2.0]]],
    "vector": np.arange(6.0).reshape(2, 3),
}


@pytest.fixture(scope="module")
def several_coordinates():
    em = EM(several)
    compiled = em.on(X).compiled
    estimated = [replace(m, is_fixed=False) for m in compiled.maximizers]
    params = {name: jnp.asarray(value) for name, value in SEVERAL.items()}
    return (
        compiled.graph,
        estimated,
        compiled.maximizers,
        params,
        coordinates(compiled.graph, estimated, params),
    )


def test_entries_on_the_boundary_have_no_coordinate(several_coordinates):
    _, _, _, _, own = several_coordinates
    assert own.names == (
        "unconstrained floor[1]",
        "unconstrained low[0, 0]",
        "unconstrained low[0, 1]",
        "unconstrained low[0, 2]",
        "logit p[1]",
        "log rate[1]",
        "log table[0, 0]/table[0, 2]",
        "log table[2, 0]/table[2, 2]",
        "log table[2, 1]/table[2, 2]",
        *(f"vector[{i}, {j}]" for i in range(2) for j in range(3)),
    )
    np.testing.assert_array_equal(
        own.on_boundary["table"], [[False, True, False], [True] * 3, [False] * 3]
    )
    np.testing.assert_array_equal(own.on_boundary["p"], [True, False, True])
    np.testing.assert_array_equal(own.on_boundary["floor"], [True, False])
    np.testing.assert_array_equal(own.on_boundary["rate"], [True, False])
    assert not own.on_boundary["one"].any() and not own.on_boundary["low"].any()


def test_coordinates_lead_back_to_the_parameters_and_derivatives_are_finite(several_coordinates):
    _, _, _, params, own = several_coordinates

    @jax.jit
    def found(params):
        vector = own.flatten(params)
        slope = jax.grad(lambda u: sum(v.sum() for v in own.unflatten(u, params).values()))(vector)
        along = jax.jacfwd(lambda u: own.unflatten(u, params))(vector)
        return (
            own.unflatten(vector, params),
            own.unflatten(vector + 0.1, params),
            {name: along[name] for name in own.charts},
            slope,
        )

    back, moved, jacobian, slope = found(params)
    for name, value in back.items():
        np.testing.assert_allclose(value, params[name], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(moved["table"].sum(-1), 1, rtol=1e-12)
    np.testing.assert_array_equal(moved["table"][1], params["table"][1])
    assert moved["table"][0, 1] == 0 and moved["p"][0] == 0 and moved["p"][2] == 1
    assert all(np.isfinite(value).all() for value in (*jacobian.values(), slope))
    np.testing.assert_allclose(
        slope,
        sum(np.asarray(rows).reshape(-1, own.size).sum(0) for rows in jacobian.values()),
        rtol=1e-10,
        atol=1e-12,
    )


def test_free_parameters_are_counted_whatever_lies_on_the_boundary(several_coordinates):
    graph, estimated, maximizers, _, _ = several_coordinates
    assert (
        num_free_parameters(graph, estimated)
        == 6 + 0 + 3 + 2 + 2 + 3 + 6
        == coordinates(graph, estimated).size
    )
    assert num_free_parameters(graph, maximizers) == 0  # nothing observed depends on any of them


def test_a_fixed_parameter_has_no_coordinate():
    compiled = EM(mixture, fixed={"scale"}).on(X).compiled
    own = coordinates(compiled.graph, compiled.maximizers)
    assert own.held == ("scale",) and own.names == ("loc[0]", "loc[1]", "log weights[0]/weights[1]")
    assert num_free_parameters(compiled.graph, compiled.maximizers) == 3


# ── refits ────────────────────────────────────────────────────────────────────────────────────────


def test_sandwich_and_bootstraps_agree_with_the_information_on_a_regular_model(fitted_mixture):
    em, result = fitted_mixture
    information, sandwich = (
        standard_errors(em, result, X),
        standard_errors(em, result, X, method="sandwich"),
    )
    refits = {
        method: standard_errors(em, result, X, method=method, num_draws=256, rng_key=KEY)
        for method in ("bootstrap", "parametric bootstrap")
    }
    for name, expected in information.standard_error.items():
        np.testing.assert_allclose(
            sandwich.standard_error[name], expected, rtol=0.2
        )  # of 400 rows, the moments themselves differ from the model's
        np.testing.assert_allclose(
            refits["bootstrap"].standard_error[name], sandwich.standard_error[name], rtol=0.15
        )  # of these it is the limit
        for method, found in refits.items():
            # of 256 draws, a standard deviation has a relative standard error of 4.4 %
            np.testing.assert_allclose(
                found.standard_error[name], expected, rtol=0.25, err_msg=f"{method} {name}"
            )
            np.testing.assert_allclose(
                found.interval()[name], information.interval()[name], atol=0.8 * expected.max()
            )
    for found in refits.values():
        assert (
            found.draws["loc"].shape == (256, 2)
            and found.num_failed == 0
            and found.num_unconverged == 0
            and found.aligned == ("z",)
        )
        np.testing.assert_allclose(
            found.draws["loc"].mean(0),
            result.params["loc"],
            atol=0.3 * information.standard_error["loc"].max(),
        )
        np.testing.assert_allclose(
            np.sqrt(np.diag(found.covariance)), np.sqrt(np.diag(information.covariance)), rtol=0.25
        )
        assert "256 refits" in str(found) and "labels of z aligned" in str(found)


def test_refits_that_end_badly_are_counted_and_said(fitted_mixture, monkeypatch):
    em, result = fitted_mixture
    draws = {
        name: np.stack([np.asarray(value)] * 6) + 0.01 * np.arange(6)[:, None]
        for name, value in result.params.items()
    }
    status = np.array(
        [
            Status.CONVERGED,
            Status.NOT_FINITE,
            Status.MAX_STEPS,
            Status.OBJECTIVE_DECREASED,
            Status.CONVERGED,
            Status.AT_RESOLUTION,
        ]
    )
    agreement = {"z": np.stack([np.eye(2)] * 6)}
    monkeypatch.setattr(uncertainty, "resampled", lambda *args: Refits(draws, status, agreement))
    found = standard_errors(em, result, X, method="bootstrap", num_draws=6, rng_key=KEY)
    assert (found.num_failed, found.num_unconverged) == (2, 1)
    np.testing.assert_allclose(
        found.standard_error["loc"], 0.01 * np.std([0, 2, 4, 5], ddof=1), rtol=1e-9
    )
    np.testing.assert_allclose(found.draws["loc"], draws["loc"][[0, 2, 4, 5]])
    assert "2 of them failed and are left out; 1 did not converge" in str(found)
    assert "; 1 stopped at the resolution of float32" in str(found)
    monkeypatch.setattr(
        uncertainty,
        "resampled",
        lambda *args: Refits(draws, np.full(6, Status.NOT_FINITE), agreement),
    )
    with pytest.raises(
        ValueError, match="6 of 6 refits failed: their objective became infinite or decreased"
    ):
        standard_errors(em, result, X, method="bootstrap", num_draws=6, rng_key=KEY)


def test_a_refit_in_which_a_component_collapses_onto_copies_of_a_row_is_left_out():
    def mixture(x):
        loc = numpyro.param("loc", jnp.array([-1.6, 3.7]))
        scale = numpyro.param("scale", jnp.array([0.6, 0.3]), constraint=constraints.positive)
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.6, 0.4])))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    # in some draws, those of the three on the right are copies of one
    x = jnp.array([-2.43, -2.11, -1.74, -1.52, -1.31, -0.87, 3.41, 3.63, 4.07])
    em, options = EM(mixture), {"method": "bootstrap", "num_draws": 40, "rng_key": KEY}
    found = standard_errors(em, em.run(KEY, x), x, **options)
    assert found.num_failed > 0 and len(found.draws["scale"]) == 40 - found.num_failed
    assert found.draws["scale"].min() > 1e-3


def test_a_bootstrap_of_sequences_draws_sequences_and_simulates_them_in_time(fitted_chain):
    em, result = fitted_chain
    found = standard_errors(em, result, Y, method="bootstrap", num_draws=4, rng_key=KEY)
    assert (
        found.draws["transition"].shape == (4, 2, 2)
        and found.aligned == ("state",)
        and "'sequences'" in str(found)
    )
    bound = em.on(Y)
    params = bound.checked(result.params)
    draw, data = simulated(bound), bound.data
    many = jax.jit(jax.vmap(lambda key: draw(key, params, data)["y"]))(jax.random.split(KEY, 1000))
    # E[y_t] = start · transitionᵗ · rate
    start, transition, rate = (np.asarray(params[name]) for name in ("start", "transition", "rate"))
    expected = [start @ np.linalg.matrix_power(transition, t) @ rate for t in range(4)]
    np.testing.assert_allclose(
        many.mean((0, 2)), expected, atol=5 * np.std(many) / np.sqrt(many[:, 0].size)
    )


# ── labels ────────────────────────────────────────────────────────────────────────────────────────


def test_the_symmetry_of_a_chain_exchanges_both_axes_of_its_transitions(fitted_chain):
    em, result = fitted_chain
    estimate = Estimate.of(em.on(Y), result)
    (symmetry,), params = symmetries(estimate), estimate.params
    assert symmetry == Symmetry(("state",), 2, {"start": (0,), "transition": (0, 1), "rate": (0,)})
    other = symmetry.relabeled(params, [1, 0])
    np.testing.assert_allclose(other["transition"], np.asarray(params["transition"])[::-1, ::-1])
    np.testing.assert_allclose(
        em.log_likelihood(other, Y), em.log_likelihood(params, Y), rtol=1e-12
    )


def test_a_planted_permutation_is_undone():
    rng, size = np.random.default_rng(5), 4
    symmetry = Symmetry(("z",), size, {"transition": (0, 1), "rate": (1,)})
    estimate = {
        "transition": rng.uniform(size=(size, size)),
        "rate": rng.uniform(size=(3, size)),
        "other": np.arange(2.0),
    }
    posterior = rng.dirichlet(np.full(size, 0.2), 50)
    draws, agreement = {name: [] for name in estimate}, []
    for _ in range(6):
        order = rng.permutation(size)
        for name, value in symmetry.relabeled(estimate, order).items():
            draws[name].append(np.asarray(value))
        agreement.append(posterior.T @ posterior[:, order])
    found = with_labels_of_estimate(
        [symmetry],
        {name: np.stack(value) for name, value in draws.items()},
        {"z": np.stack(agreement)},
    )
    for name, value in estimate.items():
        np.testing.assert_array_equal(found[name], np.broadcast_to(value, found[name].shape))


def test_labels_that_compete_are_assigned_at_the_least_loss():
    agreement = np.array([[5.0, 4.0, 0.0], [6.0, 1.0, 2.0], [0.0, 3.0, 2.5]])
    best = max(
        itertools.permutations(range(3)), key=lambda order: agreement[np.arange(3), order].sum()
    )
    np.testing.assert_array_equal(best_order(agreement), best)


def symmetric_or_not(x, how):
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0, 3.0]))
    weights = {
        "free": lambda: numpyro.param(
            "weights", jnp.full(3, 1 / 3), constraint=constraints.simplex
        ),
        "uniform": lambda: jnp.full(3, 1 / 3),
        "known": lambda: jnp.array([0.2, 0.3, 0.5]),
    }.get(how, lambda: jnp.full(3, 1 / 3))()
    log_scale = numpyro.param("log_scale", jnp.array([0.0, 0.1, 0.2]))
    if how == "prior":
        loc = numpyro.sample("place", dist.Normal(jnp.zeros(3), 5.0).to_event(1))
    elif how == "unequal prior":
        loc = numpyro.sample("place", dist.Normal(jnp.array([-3.0, 0.0, 3.0]), 5.0).to_event(1))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        if how == "shared":
            w = numpyro.sample("w", dist.Categorical(weights))
            numpyro.sample("v", dist.Normal(loc[w], 1.0), obs=x)
        numpyro.sample(
            "x", dist.Normal(loc[z], jnp.exp(log_scale[z]) if how != "shared" else 1.0), obs=x
        )


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("free", [(("z",), {"loc": (0,), "log_scale": (0,), "weights": (0,)})]),
        ("uniform", [(("z",), {"loc": (0,), "log_scale": (0,)})]),
        ("known", []),
        ("prior", [(("z",), {"place": (0,), "log_scale": (0,)})]),
        ("unequal prior", []),
        ("shared", [(("z", "w"), {"loc": (0,)})]),
    ],
)
def test_a_program_says_itself_which_values_can_be_exchanged(how, expected):
    bound = EM(symmetric_or_not).on(X[:4], how)
    compiled = bound.compiled
    params = {name: np.ones(p.shape) for name, p in compiled.graph.parameters.items()}
    chart = coordinates(compiled.graph, compiled.maximizers)
    found = symmetries(Estimate(bound, params, chart))
    assert [(symmetry.latents, dict(symmetry.axes)) for symmetry in found] == expected


# ── a thousand data sets ──────────────────────────────────────────────────────────────────────────


def test_intervals_cover_as_often_as_they_say(fitted_mixture):
    """1,000 data sets of 400 rows from two separated Gaussians: 95 % intervals cover the truth in
    93 to 97 % (±3 standard errors of a proportion).
    """
    truth = {
        "weights": np.array([0.4, 0.6]),
        "loc": np.array([-2.0, 2.0]),
        "scale": np.array([1.0, 0.8]),
    }
    rng = np.random.default_rng(6)
    z = (rng.uniform(size=(1000, 400)) > 0.4).astype(int)
    data = rng.normal(truth["loc"][z], truth["scale"][z])
    em, _ = fitted_mixture
    bound = em.on(data[0])
    compiled, start = bound.compiled, bound.checked(truth)
    own = coordinates(compiled.graph, compiled.maximizers)
    state = replace(em.init(KEY, data[0]), params=start)

    def fitted(x):
        params = jax.lax.fori_loop(0, 40, lambda _, state: em.update(state, x)[0], state).params
        around = Neighborhood(compiled.pure, own, params, compiled.graph.prepare([x]))
        hessian = jax.hessian(lambda u: around.objective(around.at(u)))(around.vector)
        covariance = jnp.linalg.inv(-hessian)
        return params, {
            name: jnp.sqrt(jnp.einsum("...i,ij,...j->...", rows, covariance, rows))
            for name, rows in jax.jacfwd(around.at)(around.vector).items()
        }

    estimates, errors = jax.device_get(
        jax.jit(lambda x: jax.lax.map(jax.vmap(fitted), x))(data.reshape(20, 50, 400))
    )
    first = standard_errors(em, {name: value[0, 0] for name, value in estimates.items()}, data[0])
    for name, value in truth.items():
        np.testing.assert_allclose(errors[name][0, 0], first.standard_error[name], rtol=1e-8)
        low, high = interval_within(
            estimates[name], errors[name], *first.limits[name], stats.norm.ppf(0.975)
        )
        covered = ((low <= value) & (value <= high)).reshape(1000, -1).mean(0)
        assert (covered >= 0.93).all() and (covered <= 0.97).all(), f"{name}: {covered}"


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────


def test_what_is_asked_for_must_exist(fitted_mixture):
    em, result = fitted_mixture
    with pytest.raises(
        ValueError,
        match="method must be one of 'information', 'sandwich', 'linearization', 'jackknife', "
        "'bootstrap', 'parametric bootstrap', not 'profile'",
    ):
        standard_errors(em, result, X, method="profile")
    with pytest.raises(ValueError, match=r"pass rng_key=jax.random.key\(0\)"):
        standard_errors(em, result, X, method="bootstrap")
    with pytest.raises(ValueError, match="num_draws must be a whole number of at least 2, not 1"):
        standard_errors(em, result, X, method="bootstrap", num_draws=1, rng_key=KEY)
    with pytest.raises(ValueError, match="no plate 'columns' with a sample site in it; its plates"):
        standard_errors(em, result, X, method="sandwich", plate="columns")
    with pytest.raises(ValueError, match="params lacks"):
        standard_errors(em, {"loc": [0.0, 1.0]}, X)


def test_a_hard_e_step_has_no_second_derivatives(fitted_mixture):
    _, result = fitted_mixture
    with pytest.raises(ValueError, match="a hard or tempered E-step does not climb"):
        standard_errors(EM(mixture, e_step="hard"), result, X)


def test_an_information_matrix_too_large_to_form_is_an_error(fitted_mixture, monkeypatch):
    em, result = fitted_mixture
    monkeypatch.setattr(information, "LARGEST_INFORMATION", 4)
    with pytest.raises(ValueError, match="information matrix of 5 coordinates"):
        standard_errors(em, result, X)


def test_parameters_that_are_no_maximum_are_an_error_that_names_the_direction(fitted_mixture):
    em, result = fitted_mixture
    symmetric = {"weights": [0.5, 0.5], "loc": [X.mean()] * 2, "scale": [X.std()] * 2}
    with pytest.raises(
        ValueError, match=r"no maximum: the objective curves upward along \+1 loc\[z=\d\], -1 loc"
    ):
        standard_errors(em, symmetric, X)
    away = dict(result.params) | {"loc": result.params["loc"] + 0.2}
    with pytest.raises(
        ValueError, match=r"standard errors from the maximum\. Run EM to convergence"
    ):
        standard_errors(em, away, X)
    far = dict(result.params) | {"scale": jnp.array([1.0, 1e-200])}
    with pytest.raises(ValueError, match="derivatives of the objective are not finite along"):
        standard_errors(em, far, X)


def test_parameters_that_the_data_do_not_determine_are_named():
    def program(x):
        a, b = numpyro.param("a", 1.0), numpyro.param("b", 2.0)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"the objective is flat along \+1 [ab], -1 [ab]"):
        standard_errors(EM(program), {"a": X.mean() - 1, "b": 1.0}, X)


def test_the_plate_must_hold_independent_elements():
    def crossed(x, y, weight=None):
        loc = numpyro.param("loc", 0.0)
        with (
            numpyro.plate("first", len(x)),
            handlers.mask(mask=True) if weight is None else handlers.scale(scale=weight),
        ):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)
        with numpyro.plate("second", len(y)):
            numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    em, args = EM(crossed), (X[:3], X[3:8])
    params = {"loc": X[:8].mean()}
    with pytest.raises(ValueError, match=r"several outermost plates.*plate='first'.*'second'"):
        standard_errors(em, params, *args, method="sandwich")
    for method in ("sandwich", "bootstrap"):
        with pytest.raises(ValueError, match="is not the sum over the elements of plate 'first'"):
            standard_errors(em, params, *args, method=method, plate="first", rng_key=KEY)
    with pytest.raises(ValueError, match=r"counts copies \(handlers.scale\).*np.repeat"):
        standard_errors(
            em,
            params,
            *args,
            weight=np.array([1.0, 2.0, 1.0]),
            method="bootstrap",
            plate="first",
            rng_key=KEY,
        )


def by_rows(item, answer, num_items):
    p, weight = (
        numpyro.param("p", jnp.array([0.3, 0.8]), constraint=constraints.unit_interval),
        numpyro.param("weight", 0.5, constraint=constraints.unit_interval),
    )
    with numpyro.plate("items", num_items):
        z = numpyro.sample("z", dist.Bernoulli(weight))
    with numpyro.plate("answers", len(answer)):
        numpyro.sample("answer", dist.Bernoulli(p[z[item]]), obs=answer)


def by_items(table):
    p, weight = (
        numpyro.param("p", jnp.array([0.3, 0.8]), constraint=constraints.unit_interval),
        numpyro.param("weight", 0.5, constraint=constraints.unit_interval),
    )
    with numpyro.plate("items", len(table)):
        z = numpyro.sample("z", dist.Bernoulli(weight))
        numpyro.sample(
            "answer",
            dist.Bernoulli(p[z][:, None]).expand([len(table), table.shape[1]]).to_event(1),
            obs=table,
        )


def test_rows_of_another_plate_go_with_the_units_that_they_belong_to():
    rng = np.random.default_rng(7)
    table = (
        rng.uniform(size=(40, 5)) < np.where(rng.uniform(size=(40, 1)) < 0.5, 0.2, 0.9)
    ).astype(float)
    item, answer = np.repeat(np.arange(40), 5), table.ravel()
    order = rng.permutation(200)
    em, args = EM(by_rows, tol=1e-12), (item[order], answer[order], 40)
    result = em.run(KEY, *args)
    found = standard_errors(
        em, result, *args, method="sandwich", plate="items", rows={"answers": item[order]}
    )
    expected = standard_errors(EM(by_items), result, table, method="sandwich")
    for name, value in expected.standard_error.items():
        np.testing.assert_allclose(found.standard_error[name], value, rtol=1e-9)
    assert "plate 'items', with their rows of 'answers'" in str(found)
    with pytest.raises(
        ValueError,
        match=r"not the sum over the elements of plate 'items'.*plate='items', "
        r"rows=\{'labels': item\}",
    ):
        standard_errors(em, result, *args, method="sandwich", plate="items")
    for index in (item[:-1], item + 1, item * 1.0):
        with pytest.raises(
            ValueError,
            match=r"rows\['answers'\] must say, for each of the 200 elements of that plate, which "
            r"of the 40 elements of 'items'",
        ):
            standard_errors(
                em, result, *args, method="sandwich", plate="items", rows={"answers": index}
            )


def test_a_factor_cannot_be_simulated():
    def factor(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)
        numpyro.factor("penalty", -(loc**2))

    em = EM(factor)
    with pytest.raises(ValueError, match=r"'penalty' is a numpyro\.factor"):
        standard_errors(em, {"loc": 0.0}, X, method="parametric bootstrap", rng_key=KEY)


def test_a_program_that_looks_at_its_arguments_can_be_bootstrapped():
    def program(x, group):
        loc = numpyro.param("loc", jnp.zeros(int(group.max()) + 1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc[group], 1.0), obs=x)

    group = np.arange(400) % 2
    params = {"loc": [X[::2].mean(), X[1::2].mean()]}
    found = standard_errors(
        EM(program), params, X, group, method="parametric bootstrap", num_draws=256, rng_key=KEY
    )
    np.testing.assert_allclose(found.standard_error["loc"], np.sqrt(1 / 200), rtol=0.2)


# ── found by combining ────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_drawn_again_is_an_error():
    def coin(x, count):
        p = numpyro.param("p", 0.5, constraint=constraints.unit_interval)
        with numpyro.plate("tosses", len(x)), handlers.scale(scale=count):
            numpyro.sample("x", dist.Bernoulli(p), obs=x)

    args = np.array([1, 0]), np.array([600.0, 400.0])
    with pytest.raises(ValueError, match=r"'x' counts copies.*one datum for all copies"):
        standard_errors(EM(coin), {"p": 0.6}, *args, method="parametric bootstrap", rng_key=KEY)
    np.testing.assert_allclose(
        standard_errors(EM(coin), {"p": 0.6}, *args).standard_error["p"],
        np.sqrt(0.24 / 1000),
        rtol=1e-9,
    )


def test_labels_are_not_drawn_again():
    def mixture(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    labels = np.where(np.arange(len(X)) < 2, [0] * len(X), -1)
    with pytest.raises(
        ValueError, match="'z_label' holds labels: which rows have one is not drawn"
    ):
        standard_errors(
            EM(labeled(mixture, "z")),
            {"loc": np.array([-1.0, 1.0])},
            labels,
            X,
            method="parametric bootstrap",
            rng_key=KEY,
            num_draws=2,
        )


def test_units_of_measurement_do_not_put_a_rate_on_the_boundary():
    def two(x):
        rate = numpyro.param("rate", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Exponential(rate).to_event(1), obs=x)

    x = np.random.default_rng(0).exponential(size=(50, 2)) * [1e5, 1e-3]
    found = standard_errors(EM(two), EM(two).run(KEY, x), x)
    np.testing.assert_allclose(found.standard_error["rate"], 1 / x.mean(0) / np.sqrt(50), rtol=1e-9)


def test_where_all_is_on_the_boundary_nothing_has_a_standard_error_and_a_failed_run_has_none():
    def coin(x):
        p = numpyro.param("p", 0.5, constraint=constraints.unit_interval)
        with numpyro.plate("tosses", len(x)):
            numpyro.sample("x", dist.Bernoulli(p), obs=x)

    em, x = EM(coin), np.ones(5)
    result = em.run(KEY, x)
    assert (
        np.isnan(standard_errors(em, result, x).standard_error["p"])
        and em.diagnose(result, x).is_local_maximum
    )
    failed = replace(result, status=Status.NOT_FINITE)
    with pytest.raises(
        ValueError, match="There is no estimate to judge: the objective became infinite"
    ):
        standard_errors(em, failed, x)


def test_values_of_single_elements_have_no_sandwich():
    def effects(y):
        mu = numpyro.param("mu", 0.0)
        with numpyro.plate("rows", len(y)):
            b = numpyro.sample("b", dist.Normal(mu, 1.0))
            numpyro.sample("y", dist.Normal(b, 1.0), obs=y)

    params = {"mu": X[:4].mean(), "b": (X[:4] + X[:4].mean()) / 2}
    with pytest.raises(ValueError, match="'b' has a value for each element of plate 'rows'"):
        standard_errors(EM(effects), params, X[:4], method="sandwich")
