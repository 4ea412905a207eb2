"""Incomplete data: coordinates of normals that are missing, and observations whose place a latent
takes.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris

from emjax import EM, compare_updates
from emjax.distributions import PartiallyObserved
from emjax.e_step import blocks
from emjax.families import missing

KEY = jax.random.key(0)
IRIS = load_iris().data
KNOWN = np.random.default_rng(0).random(IRIS.shape) < 0.7
INCOMPLETE = np.where(KNOWN, IRIS, np.nan)
START = {
    "pi": np.full(3, 1 / 3),
    "loc": IRIS[[0, 60, 120]],
    "covariance": np.tile(np.eye(4), (3, 1, 1)),
}
FORMS = {
    "covariance": "covariance_matrix",
    "precision": "precision_matrix",
    "scale_tril": "scale_tril",
}


def normal(loc, observed, **matrix):
    complete = dist.MultivariateNormal(loc, **matrix)
    return complete if observed is None else PartiallyObserved(complete, observed)


def mixture(x, observed=None, weight=1.0):
    """Three normals; `observed` None: without missing coordinates."""
    num_components, num_coordinates = 3, x.shape[-1]
    pi = numpyro.param(
        "pi", jnp.full(num_components, 1 / num_components), constraint=constraints.simplex
    )
    loc = numpyro.param("loc", jnp.zeros((num_components, num_coordinates)))
    covariance = numpyro.param(
        "covariance",
        jnp.tile(jnp.eye(num_coordinates), (num_components, 1, 1)),
        constraint=constraints.positive_definite,
    )
    with numpyro.plate("samples", len(x)), handlers.scale(scale=weight):
        component = numpyro.sample("component", dist.Categorical(pi))
        numpyro.sample(
            "x", normal(loc[component], observed, covariance_matrix=covariance[component]), obs=x
        )


def gaussian(x, observed, form="covariance"):
    """One normal, in any of three forms."""
    num_coordinates = x.shape[-1]
    loc = numpyro.param("loc", jnp.zeros(num_coordinates))
    constraint = (
        constraints.lower_cholesky if form == "scale_tril" else constraints.positive_definite
    )
    matrix = numpyro.param("matrix", jnp.eye(num_coordinates), constraint=constraint)
    with numpyro.plate("samples", len(x)):
        numpyro.sample("x", normal(loc, observed, **{FORMS[form]: matrix}), obs=x)


def completed(x, loc, covariance):
    """E[x | what is observed of it], Cov[x | …] and the log-density of what is observed, by Little
    & Rubin (2019), section 11.2.1.
    """
    known = ~np.isnan(x)
    missing, mean, spread = ~known, np.where(known, x, loc), np.zeros_like(covariance)
    residual, own = (x - loc)[known], covariance[np.ix_(known, known)]
    slopes = np.linalg.solve(own, covariance[np.ix_(known, missing)]).T
    mean[missing] = loc[missing] + slopes @ residual
    spread[np.ix_(missing, missing)] = (
        covariance[np.ix_(missing, missing)] - slopes @ covariance[np.ix_(known, missing)]
    )
    log_density = -0.5 * (
        residual @ np.linalg.solve(own, residual) + np.linalg.slogdet(2 * np.pi * own)[1]
    )
    return mean, spread, log_density


def mixture_step(params, x, *_):
    """One step of EM on a mixture of normals with missing coordinates, Ghahramani & Jordan (1994),
    section 3.
    """
    pi, loc, covariance = params["pi"], params["loc"], params["covariance"]
    found = [
        [completed(row, *component) for component in zip(loc, covariance, strict=True)]
        for row in np.asarray(x)
    ]
    mean, spread, log_density = (
        np.array([[entry[i] for entry in row] for row in found]) for i in range(3)
    )
    joint = np.log(pi) + log_density
    responsibilities = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    counts = responsibilities.sum(0)
    loc = np.einsum("nk,nkd->kd", responsibilities, mean) / counts[:, None]
    around = mean - loc
    second = np.einsum("nk,nkd,nke->kde", responsibilities, around, around) + np.einsum(
        "nk,nkde->kde", responsibilities, spread
    )
    return {"pi": counts / len(x), "loc": loc, "covariance": second / counts[:, None, None]}


def gaussian_step(params, x, observed, form="covariance"):
    """One step of EM on one normal, in the coordinates of its form."""
    into = {"covariance": lambda m: m, "precision": np.linalg.inv, "scale_tril": lambda m: m @ m.T}[
        form
    ]
    back = {
        "covariance": lambda m: m,
        "precision": np.linalg.inv,
        "scale_tril": np.linalg.cholesky,
    }[form]
    after = mixture_step(
        {"pi": np.ones(1), "loc": params["loc"][None], "covariance": into(params["matrix"])[None]},
        x,
    )
    return {"loc": after["loc"][0], "matrix": back(after["covariance"][0])}


def density_of_the_observed(x, loc, covariance):
    known = ~np.isnan(x)
    return (
        multivariate_normal(loc[known], covariance[np.ix_(known, known)]).logpdf(x[known])
        if known.any()
        else 0.0
    )


@functools.cache
def compiled_update(em):
    return jax.jit(em.update)


def step(em, params, *data):
    """The parameters after one step, and the objective before it."""
    state = em.init(KEY, *data)
    state = type(state)(
        {name: jnp.asarray(params[name], value.dtype) for name, value in state.params.items()},
        state.optimizer,
    )
    state, objective = compiled_update(em)(state, *data)
    return {name: np.asarray(value) for name, value in state.params.items()}, objective


def all_close(found, expected, **tolerances):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], **tolerances)


@pytest.fixture(scope="module")
def incomplete_iris():
    em = EM(mixture)
    return em, (jnp.asarray(INCOMPLETE), jnp.asarray(KNOWN))


@pytest.fixture(scope="module")
def after(incomplete_iris):
    em, data = incomplete_iris
    return step(em, START, *data)


# ── the update derived by hand ────────────────────────────────────────────────────────────────────


def test_mixture_with_missing_coordinates_follows_the_update_derived_by_hand(incomplete_iris):
    em, data = incomplete_iris
    found = compare_updates(em, mixture_step, START, *data, num_steps=35)
    assert found.largest < 1e-10, str(
        found
    )  # matrices of condition 100, 35 steps: rounding stays below 1e-12


@pytest.mark.sampled
@pytest.mark.parametrize("form", FORMS)
def test_one_normal_with_missing_coordinates_follows_the_update_derived_by_hand(form):
    x = np.concatenate([INCOMPLETE, np.full((1, 4), np.nan)])  # the last row is missing altogether
    found = compare_updates(
        EM(gaussian),
        gaussian_step,
        {"loc": IRIS[0], "matrix": np.eye(4)},
        x,
        ~np.isnan(x),
        form,
        num_steps=30,
    )
    assert found.largest < 1e-9, str(found)  # entries of the precision matrix are of order 100


def test_maximizers_have_closed_forms(incomplete_iris):
    em, data = incomplete_iris
    plan = em.plan(*data)
    assert {plan.method(name) for name in START} == {"closed form"}
    assert "expected covariance (covariance_matrix of 'x')" in str(plan)


def test_log_likelihood_and_posterior_are_those_of_what_is_observed(incomplete_iris):
    em, data = incomplete_iris
    joint = np.array(
        [
            [
                density_of_the_observed(row, *component)
                for component in zip(START["loc"], START["covariance"], strict=True)
            ]
            for row in INCOMPLETE
        ]
    )
    per_row = np.logaddexp.reduce(joint + np.log(1 / 3), axis=1)
    np.testing.assert_allclose(em.log_likelihood(START, *data), per_row.sum(), rtol=1e-13)
    np.testing.assert_allclose(
        em.posterior(START, *data)["component"],
        np.exp(joint + np.log(1 / 3) - per_row[:, None]),
        rtol=1e-11,
        atol=1e-14,
    )


# ── identities ────────────────────────────────────────────────────────────────────────────────────


def test_without_missing_coordinates_it_is_the_normal(incomplete_iris):
    em, _ = incomplete_iris
    complete, x, params = EM(mixture), jnp.asarray(IRIS), START
    for _ in range(3):
        found, objective = step(em, params, x, jnp.ones(IRIS.shape, bool))
        params, expected = step(complete, params, x)
        np.testing.assert_allclose(objective, expected, rtol=1e-13)
        all_close(found, params, rtol=1e-10, atol=1e-12)


def test_a_row_of_which_nothing_is_observed_adds_nothing_to_the_likelihood(incomplete_iris):
    em, (x, known) = incomplete_iris
    emptied = known.at[7].set(False)
    absent = EM(mixture).log_likelihood(START, x, known, jnp.ones(150).at[7].set(0))
    np.testing.assert_allclose(em.log_likelihood(START, x, emptied), absent, rtol=1e-13)
    np.testing.assert_allclose(
        em.posterior(START, x, emptied)["component"][7], START["pi"], rtol=1e-13
    )


def test_what_is_not_observed_is_not_read(incomplete_iris, after):
    em, (x, known) = incomplete_iris
    for filler in (0.0, 1e6, np.inf):
        found, objective = step(em, START, jnp.where(known, x, filler), known)
        assert objective == after[1]
        all_close(found, after[0], rtol=0)


def test_a_weight_of_two_is_the_row_twice(incomplete_iris):
    em, (x, known) = incomplete_iris
    weight = 1.0 + (np.arange(150) < 50)
    rows = np.repeat(np.arange(150), weight.astype(int))
    found, objective = step(EM(mixture), START, x, known, jnp.asarray(weight))
    expected, same = step(em, START, x[rows], known[rows])
    np.testing.assert_allclose(objective, same, rtol=1e-13)
    all_close(found, expected, rtol=1e-11, atol=1e-13)


def test_independent_coordinates_may_be_masked_instead():
    def joint(x, known):
        loc, scale = (
            numpyro.param("loc", jnp.zeros((2, 4))),
            numpyro.param("scale", jnp.ones((2, 4)), constraint=constraints.positive),
        )
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample(
                "x",
                PartiallyObserved(
                    dist.MultivariateNormal(loc[z], scale_tril=scale[z][..., None] * jnp.eye(4)),
                    known,
                ),
                obs=x,
            )

    def masked(x, known):
        loc, scale = (
            numpyro.param("loc", jnp.zeros((2, 4))),
            numpyro.param("scale", jnp.ones((2, 4)), constraint=constraints.positive),
        )
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]).mask(known).to_event(1), obs=x)

    params = {"loc": IRIS[[0, 70]], "scale": 0.5 + IRIS[[3, 80]] / 4}
    data = jnp.asarray(INCOMPLETE), jnp.asarray(KNOWN)
    np.testing.assert_allclose(
        EM(joint).log_likelihood(params, *data),
        EM(masked).log_likelihood(params, *data),
        rtol=1e-13,
    )
    np.testing.assert_allclose(
        EM(joint).posterior(params, *data)["z"],
        EM(masked).posterior(params, *data)["z"],
        rtol=1e-11,
        atol=1e-14,
    )


def test_a_mean_far_from_zero_does_not_cancel(incomplete_iris, after):
    em, (x, known) = incomplete_iris
    far, _ = step(em, START | {"loc": START["loc"] + 1e7}, x + 1e7, known)
    np.testing.assert_allclose(
        far["covariance"], after[0]["covariance"], atol=1e-8
    )  # x + 1e7 has itself been rounded to 1e-9


def test_float32_agrees_with_float64(after):
    with jax.enable_x64(False):
        found, objective = step(
            EM(mixture), START, jnp.asarray(INCOMPLETE, jnp.float32), jnp.asarray(KNOWN)
        )
    assert objective.dtype == jnp.float32 and objective == pytest.approx(float(after[1]), rel=1e-5)
    all_close(found, after[0], rtol=1e-4, atol=1e-5)


# ── large data ────────────────────────────────────────────────────────────────────────────────────


def test_rows_in_blocks_and_matrices_in_stretches_add_up(incomplete_iris, after, monkeypatch):
    data = incomplete_iris[1]
    monkeypatch.setattr(
        missing, "ENTRIES", {"cpu": 3 * 7 * 16}
    )  # 7 rows of 150, and a remainder of 3
    in_stretches, objective = step(EM(mixture), START, *data)
    np.testing.assert_allclose(objective, after[1], rtol=1e-13)
    all_close(in_stretches, after[0], rtol=1e-11, atol=1e-13)
    monkeypatch.setattr(blocks, "_rows_of_equal_blocks", lambda size, most: 40)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", {"cpu": 1})
    monkeypatch.setattr(blocks, "BLOCK_TABLES", 0)
    in_blocks, objective = step(EM(mixture), START, *data)
    np.testing.assert_allclose(objective, after[1], rtol=1e-13)
    all_close(in_blocks, after[0], rtol=1e-11, atol=1e-13)


def test_memory_does_not_grow_with_the_matrices_of_all_rows():
    num_rows, num_coordinates = 100_000, 8

    def one_step(x, observed):
        em = EM(gaussian)
        state, objective = em.update(em.init(KEY, x, observed), x, observed)
        return state.params, objective

    data = (
        jax.ShapeDtypeStruct((num_rows, num_coordinates), jnp.float64),
        jax.ShapeDtypeStruct((num_rows, num_coordinates), jnp.bool_),
    )
    needed = jax.jit(one_step).lower(*data).compile().memory_analysis().temp_size_in_bytes
    assert (
        needed < 0.5 * 8 * num_rows * num_coordinates**2 + 2**26
    )  # one matrix for each row would be 51 MB, a step keeps several


# ── chains ────────────────────────────────────────────────────────────────────────────────────────


def test_chain_with_missing_coordinates_is_the_sum_over_its_paths():
    rng = np.random.default_rng(1)
    x = np.where(rng.random((5, 2)) < 0.6, rng.normal(size=(5, 2)), np.nan)
    x[3] = np.nan
    transition, loc = np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([[0.0, 1.0], [1.0, -1.0]])
    covariance = np.array([[[1.0, 0.5], [0.5, 2.0]], [[0.7, -0.3], [-0.3, 0.6]]])

    def program(x):
        centers = numpyro.param("loc", jnp.asarray(loc))

        def move(previous, x):
            state = numpyro.sample("state", dist.Categorical(jnp.asarray(transition)[previous]))
            emission = dist.MultivariateNormal(
                centers[state], covariance_matrix=jnp.asarray(covariance)[state]
            )
            numpyro.sample("x", PartiallyObserved(emission, observed=~jnp.isnan(x)), obs=x)
            return state, None

        scan(move, 0, x)

    log_density = np.array(
        [[density_of_the_observed(row, loc[k], covariance[k]) for k in range(2)] for row in x]
    )
    paths = list(itertools.product(range(2), repeat=5))
    log_joint = [
        sum(
            np.log(transition[k, j]) + log_density[t, j]
            for t, (k, j) in enumerate(zip((0, *path), path, strict=False))
        )
        for path in paths
    ]
    total = np.logaddexp.reduce(log_joint)
    smoothed = np.array(
        [
            [
                sum(
                    np.exp(value - total)
                    for path, value in zip(paths, log_joint, strict=True)
                    if path[t] == k
                )
                for k in range(2)
            ]
            for t in range(5)
        ]
    )
    em, data = EM(program), jnp.asarray(x)
    np.testing.assert_allclose(em.log_likelihood({"loc": loc}, data), total, rtol=1e-12)
    np.testing.assert_allclose(em.posterior({"loc": loc}, data)["state"], smoothed, rtol=1e-10)
    drawn = handlers.trace(handlers.seed(program, 0)).get_trace(
        jax.random.normal(KEY, (5, 2))
    )  # in NumPyro alone, too
    assert drawn["x"]["fn"].log_prob(drawn["x"]["value"]).shape == (5,)


# ── observations whose place a latent takes ───────────────────────────────────────────────────────


def answers(answer, known):
    """Two questions, of which the second is not always answered; `known` None: it always is."""
    pi = numpyro.param("pi", jnp.array([0.6, 0.4]), constraint=constraints.simplex)
    first = numpyro.param("p_first", jnp.array([0.7, 0.2]), constraint=constraints.unit_interval)
    second = numpyro.param(
        "p_second", jnp.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]), constraint=constraints.simplex
    )
    with numpyro.plate("subjects", len(answer)):
        group = numpyro.sample("group", dist.Categorical(pi))
        numpyro.sample("first", dist.Bernoulli(first[group]), obs=answer[:, 0])
        if known is None:
            with handlers.mask(mask=answer[:, 1] >= 0):
                numpyro.sample("second", dist.Categorical(second[group]), obs=answer[:, 1])
        else:
            numpyro.sample(
                "second", dist.Categorical(second[group]), obs=answer[:, 1], obs_mask=known
            )


def test_a_missing_answer_is_a_row_that_is_absent_and_is_imputed():
    rng = np.random.default_rng(2)
    answer = np.stack(
        [rng.integers(0, 2, 12), np.where(rng.random(12) < 0.6, rng.integers(0, 3, 12), -1)], axis=1
    )
    data, absent = (
        (jnp.asarray(answer), jnp.asarray(answer[:, 1] >= 0)),
        (jnp.asarray(answer), None),
    )
    em, without = EM(answers, max_steps=8, tol=0), EM(answers, max_steps=8, tol=0)
    result, expected = em.run(KEY, *data), without.run(KEY, *absent)
    np.testing.assert_allclose(result.objective, expected.objective, rtol=1e-12)
    all_close(result.params, expected.params, rtol=1e-12, atol=1e-12)
    found = em.posterior(result.params, *data)
    np.testing.assert_allclose(
        found["group"], without.posterior(result.params, *absent)["group"], rtol=1e-12
    )
    imputed = np.where(
        (answer[:, 1] >= 0)[:, None],
        1 / 3,
        np.asarray(found["group"]) @ np.asarray(result.params["p_second"]),
    )
    np.testing.assert_allclose(found["second_unobserved"], imputed, rtol=1e-12)
    assert set(em.decode(result.params, *data)) == {"group", "second_unobserved"}


def test_a_parameter_of_what_nothing_observed_depends_on_is_held():
    def program(x):
        loc, later = (
            numpyro.param("loc", 0.0),
            numpyro.param("later", 0.4, constraint=constraints.unit_interval),
        )
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(loc + z, 1.0), obs=x)
            numpyro.sample("next", dist.Bernoulli(jnp.where(z == 1, later, 0.1)))

    em, x = EM(program), jnp.array([0.1, 1.3])
    assert em.plan(x).method("later") == "held" and em.plan(x).method("loc") != "held"
    posterior = em.posterior({"loc": 0.0, "later": 0.4}, x)
    np.testing.assert_allclose(
        posterior["next"][:, 1], posterior["z"] @ np.array([0.1, 0.4]), rtol=1e-12
    )


# ── the distribution in NumPyro alone ─────────────────────────────────────────────────────────────


LOC, ROOT = (
    jnp.array([1.0, -2.0, 0.5]),
    jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.5, 0.7]]),
)
ROWS = jnp.array(
    [[0.3, jnp.nan, 1.2], [jnp.nan, jnp.nan, jnp.nan], [0.1, -2.0, jnp.nan], [1.0, 2.0, 3.0]]
)


def test_log_prob_is_that_of_the_observed_coordinates():
    expected = [
        density_of_the_observed(np.asarray(row), np.asarray(LOC), np.asarray(ROOT @ ROOT.T))
        for row in ROWS
    ]
    for matrix in (
        {"covariance_matrix": ROOT @ ROOT.T},
        {"precision_matrix": jnp.linalg.inv(ROOT @ ROOT.T)},
        {"scale_tril": ROOT},
    ):
        law = PartiallyObserved(dist.MultivariateNormal(LOC, **matrix), ~jnp.isnan(ROWS))
        assert law.batch_shape == (4,) and law.event_shape == (3,)
        np.testing.assert_allclose(jax.jit(law.log_prob)(ROWS), expected, rtol=1e-12, atol=1e-14)
    gradient = jax.jit(
        jax.grad(
            lambda loc: (
                PartiallyObserved(dist.MultivariateNormal(loc, scale_tril=ROOT), ~jnp.isnan(ROWS))
                .log_prob(ROWS)
                .sum()
            )
        )
    )(LOC)
    assert np.isfinite(gradient).all()


def test_samples_have_all_coordinates():
    law = PartiallyObserved(
        dist.MultivariateNormal(LOC, scale_tril=ROOT).expand([4]), ~jnp.isnan(ROWS)
    )
    draws = law.sample(KEY, (20_000,))
    assert draws.shape == (20_000, 4, 3)
    np.testing.assert_allclose(draws.mean((0, 1)), LOC, atol=0.02)
    np.testing.assert_allclose(np.cov(draws.reshape(-1, 3).T), ROOT @ ROOT.T, atol=0.03)


def test_numpyro_reads_it_under_plates_masks_scales_and_validation():
    def program(x):
        with (
            numpyro.plate("rows", len(x)),
            handlers.mask(mask=jnp.array([True, True, False, True])),
            handlers.scale(scale=2.0),
        ):
            numpyro.sample(
                "x",
                PartiallyObserved(dist.MultivariateNormal(LOC, scale_tril=ROOT), ~jnp.isnan(x)),
                obs=x,
            )

    each = [
        density_of_the_observed(np.asarray(row), np.asarray(LOC), np.asarray(ROOT @ ROOT.T))
        for row in ROWS
    ]
    with numpyro.validation_enabled():
        np.testing.assert_allclose(
            log_density(program, (ROWS,), {}, {})[0], 2 * (each[0] + each[3]), rtol=1e-12
        )
    np.testing.assert_allclose(
        EM(program).log_likelihood({}, ROWS), 2 * (each[0] + each[3]), rtol=1e-12
    )


def test_it_can_be_mapped_over():
    law = PartiallyObserved(
        dist.MultivariateNormal(jnp.tile(LOC, (4, 1)), scale_tril=jnp.tile(ROOT, (4, 1, 1))),
        ~jnp.isnan(ROWS),
    )
    mapped = jax.jit(jax.vmap(lambda own, row: own.log_prob(row)))(law, ROWS)
    np.testing.assert_allclose(mapped, jax.jit(law.log_prob)(ROWS), rtol=1e-13)


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────


def test_nan_is_an_error_by_default_and_where_it_is_said_to_be_observed():
    x, em, params = (
        jnp.asarray(INCOMPLETE[:4]),
        EM(gaussian),
        {"loc": np.zeros(4), "matrix": np.eye(4)},
    )
    with pytest.raises(
        ValueError,
        match=r"Site 'x'.*NaN at index \(1,\)(?s:.*)PartiallyObserved\(dist.MultivariateNormal",
    ):
        em.log_likelihood(params, x, None)
    with pytest.raises(
        ValueError, match=r"Site 'x'.*NaN at index \(2,\) \(1 in all\).*observed=~jnp.isnan\(x\)"
    ):
        em.log_likelihood(params, x, ~jnp.isnan(x).at[2].set(False))
    with pytest.raises(
        ValueError,
        match=r"Site 'x': the observed value at index \(1,\) lies outside the support of "
        r"PartiallyObserved",
    ):
        em.log_likelihood(params, jnp.where(jnp.arange(4)[:, None] == 1, jnp.inf, x), ~jnp.isnan(x))


@pytest.mark.parametrize("num_rows", [150, 4], ids=["more rows than coordinates", "as many"])
def test_obs_mask_of_coordinates_is_an_error_that_pastes_the_fix(num_rows):
    def program(x):
        loc = numpyro.param("loc", jnp.zeros(4))
        with numpyro.plate("samples", len(x)):
            numpyro.sample(
                "x",
                dist.MultivariateNormal(loc, jnp.eye(4)),
                obs=jnp.nan_to_num(x),
                obs_mask=~jnp.isnan(x),
            )

    message = (
        rf"Site 'x': obs_mask has shape \({num_rows}, "
        rf"4\)(?s:.*)PartiallyObserved\(dist.MultivariateNormal(?s:.*)observed=obs_mask"
    )
    with pytest.raises(ValueError, match=message):
        EM(program).run(KEY, jnp.asarray(INCOMPLETE[:num_rows]))


def test_it_takes_normals_and_booleans_alone():
    with pytest.raises(
        ValueError, match=r"takes a MultivariateNormal, not Independent(?s:.*)mask\(observed\)"
    ):
        PartiallyObserved(dist.Normal(LOC, 1.0).to_event(1), ~jnp.isnan(ROWS))
    with pytest.raises(
        ValueError, match=r"must be booleans, one for each of 3 coordinates; it is float"
    ):
        PartiallyObserved(dist.MultivariateNormal(LOC, scale_tril=ROOT), ROWS)
    with pytest.raises(ValueError, match=r"of shape \(4,\)"):
        PartiallyObserved(dist.MultivariateNormal(LOC, scale_tril=ROOT), jnp.ones(4, bool))


def test_what_is_observed_must_not_depend_on_a_latent():
    def program(x):
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample(
                "x",
                PartiallyObserved(
                    dist.MultivariateNormal(LOC, scale_tril=ROOT),
                    (z == 0)[:, None] | jnp.ones(3, bool),
                ),
                obs=x,
            )

    with pytest.raises(
        ValueError, match="Site 'x': which coordinates are observed depends on latent 'z'"
    ):
        EM(program).run(KEY, jnp.nan_to_num(ROWS))


def test_it_is_observed_or_drawn_but_not_estimated():
    def program(x):
        numpyro.sample(
            "x", PartiallyObserved(dist.MultivariateNormal(LOC, scale_tril=ROOT), ~jnp.isnan(x))
        )

    with pytest.raises(ValueError, match=r"Site 'x'(?s:.*)obs="):
        EM(program).run(KEY, ROWS)
