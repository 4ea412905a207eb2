"""What must hold of the temperature, of multiplicities, of masks and of priors, on one mixture of
each kind.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import constraints
from scipy import stats

from emjax import EM

FAST_COMPILATION = {"xla_backend_optimization_level": 0}  # every step runs a few times


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


RNG = np.random.default_rng(50)
DATA = np.where(RNG.uniform(size=12) < 0.4, RNG.normal(-1, 0.7, 12), RNG.normal(2, 1.2, 12))
PARAMS = {
    "weights": jnp.array([0.3, 0.7]),
    "loc": jnp.array([-0.4, 1.1]),
    "scale": jnp.array([0.9, 1.6]),
}


def declared():
    return (
        numpyro.param("weights", PARAMS["weights"], constraint=constraints.simplex),
        numpyro.param("loc", PARAMS["loc"]),
        numpyro.param("scale", PARAMS["scale"], constraint=constraints.positive),
    )


def mixture(data, multiplicity=None, is_known=None):
    weights, loc, scale = declared()
    ones, known = np.ones(len(data)), np.ones(len(data), bool)
    with (
        numpyro.plate("rows", len(data)),
        handlers.scale(scale=ones if multiplicity is None else multiplicity),
        handlers.mask(mask=known if is_known is None else is_known),
    ):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=data)


def partly_observed(data, is_known):
    weights, loc, scale = declared()
    with numpyro.plate("rows", len(data)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]).mask(is_known), obs=data)


def paired(data):
    """Two latents that are coupled through what is observed: the posterior is not a product over
    them.
    """
    loc = numpyro.param("loc", jnp.array([[-0.4, 0.8], [1.1, 2.0]]))
    with numpyro.plate("rows", len(data)):
        a = numpyro.sample("a", dist.Bernoulli(0.4))
        b = numpyro.sample("b", dist.Bernoulli(jnp.array([0.3, 0.6])[a]))
        numpyro.sample("x", dist.Normal(loc[a, b], 1.0), obs=data)


def updated(em, params, *args, num_steps=1):
    state = replace(em.init(jax.random.key(0), *args), params=params)
    update = jax.jit(lambda state: em.update(state, *args), compiler_options=FAST_COMPILATION)
    for _ in range(num_steps):
        state, objective = update(state)
    return state.params, objective


def log_joint(params, data=DATA):
    return np.log(params["weights"]) + stats.norm.logpdf(
        data[:, None], params["loc"], params["scale"]
    )


def assert_close(actual, expected, rtol=1e-11):
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol, atol=rtol, err_msg=name)


# ---------------------------------------------------------------- temperature


def softmax(table):
    table = np.exp(table - table.max(axis=1, keepdims=True))
    return table / table.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_a_tempered_posterior_is_a_power_of_the_posterior(temperature):
    posterior = EM(mixture, e_step=temperature).posterior(PARAMS, DATA)["z"]
    np.testing.assert_allclose(
        posterior, softmax(log_joint(PARAMS) / temperature), rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize("temperature", [0.25, 3.0])
def test_a_tempered_posterior_of_coupled_latents_is_a_power_of_their_joint(temperature):
    params = {"loc": jnp.array([[-0.4, 0.8], [1.1, 2.0]])}
    prior = np.log([[0.6 * 0.7, 0.6 * 0.3], [0.4 * 0.4, 0.4 * 0.6]])
    table = prior + stats.norm.logpdf(DATA[:, None, None], params["loc"], 1.0)
    joint = softmax(table.reshape(len(DATA), 4) / temperature).reshape(table.shape)
    posterior = EM(paired, e_step=temperature).posterior(params, DATA)
    np.testing.assert_allclose(posterior["a"], joint.sum(2), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(posterior["b"], joint.sum(1), rtol=1e-11, atol=1e-14)


def test_temperature_one_is_the_soft_e_step_and_zero_the_hard_one():
    assert_close(
        updated(EM(mixture, e_step=1.0), PARAMS, DATA)[0],
        updated(EM(mixture), PARAMS, DATA)[0],
        1e-14,
    )
    hard = updated(EM(mixture, e_step="hard"), PARAMS, DATA)
    zero = updated(EM(mixture, e_step=0.0), PARAMS, DATA)
    assert_close(zero[0], hard[0], 1e-14)
    np.testing.assert_allclose(hard[1], log_joint(PARAMS).max(axis=1).sum(), rtol=1e-12)
    cold = updated(EM(mixture, e_step=1e-4), PARAMS, DATA)
    assert (
        np.abs(np.diff(log_joint(PARAMS), axis=1)).min() > 40 * 1e-4
    )  # no datum is torn between the two
    assert_close(cold[0], hard[0])
    np.testing.assert_allclose(cold[1], hard[1], rtol=1e-11)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_tempered_objective_is_the_free_energy_and_never_decreases(temperature):
    em = EM(mixture, e_step=temperature)
    state = em.init(jax.random.key(0), DATA)
    update = jax.jit(lambda state: em.update(state, DATA), compiler_options=FAST_COMPILATION)
    objectives = []
    for _ in range(10):
        expected = (
            temperature * np.logaddexp.reduce(log_joint(state.params) / temperature, axis=1).sum()
        )
        state, objective = update(state)
        np.testing.assert_allclose(
            objective, expected, rtol=1e-12
        )  # T log Σ p^(1/T): Neal & Hinton (1998)
        objectives.append(float(objective))
    assert np.all(np.diff(objectives) >= -1e-12 * np.abs(objectives[:-1]))
    assert objectives[-1] > objectives[0] + 1


def test_annealing_from_hot_to_soft_ends_where_soft_em_stays():
    params = PARAMS
    for temperature in (4.0, 2.0, 1.0):
        params = (
            EM(mixture, e_step=temperature, tol=0.0, max_steps=400)
            .run(jax.random.key(0), DATA, init_params=params)
            .params
        )
    assert_close(updated(EM(mixture), params, DATA)[0], params, 1e-6)


# ---------------------------------------------------------------- multiplicities and masks


def test_a_row_of_weight_two_is_two_rows():
    weights = np.where(np.arange(12) < 4, 2.0, 1.0)
    em = EM(mixture)
    weighted, objective = updated(em, PARAMS, DATA, weights)
    repeated, expected = updated(em, PARAMS, np.concatenate([DATA, DATA[:4]]))
    np.testing.assert_allclose(objective, expected, rtol=1e-12)
    assert_close(weighted, repeated)
    np.testing.assert_allclose(
        em.posterior(PARAMS, DATA, weights)["z"], softmax(log_joint(PARAMS)), rtol=1e-11, atol=1e-14
    )


def test_a_fractional_weight_is_a_fraction_of_a_row():
    weights = RNG.uniform(0.1, 3.0, 12)
    arrived, objective = updated(EM(mixture), PARAMS, DATA, weights)
    np.testing.assert_allclose(
        objective, weights @ np.logaddexp.reduce(log_joint(PARAMS), axis=1), rtol=1e-12
    )
    counts = weights[:, None] * softmax(log_joint(PARAMS))
    loc = DATA @ counts / counts.sum(0)
    scale = np.sqrt((counts * (DATA[:, None] - loc) ** 2).sum(0) / counts.sum(0))
    assert_close(arrived, {"weights": counts.sum(0) / weights.sum(), "loc": loc, "scale": scale})


IS_KNOWN = np.arange(12) % 3 > 0


@pytest.mark.parametrize("how", ["a weight of zero", "a mask"])
def test_a_row_without_weight_is_a_row_that_is_not_there(how):
    em = EM(mixture)
    absent = (IS_KNOWN.astype(float),) if how == "a weight of zero" else (None, IS_KNOWN)
    here, objective = updated(em, PARAMS, DATA, *absent)
    gone, expected = updated(em, PARAMS, DATA[IS_KNOWN])
    np.testing.assert_allclose(objective, expected, rtol=1e-12)
    assert_close(here, gone)


def test_a_masked_row_says_nothing_of_its_latent():
    posterior = EM(mixture).posterior(PARAMS, DATA, None, IS_KNOWN)["z"]
    np.testing.assert_allclose(posterior[~IS_KNOWN], 0.5, rtol=1e-12)
    np.testing.assert_allclose(
        posterior[IS_KNOWN], softmax(log_joint(PARAMS))[IS_KNOWN], rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize("e_step", ["soft", "hard", 0.5])
def test_a_masked_row_adds_nothing_to_the_objective_at_any_temperature(e_step):
    def program(x, mask):
        loc = numpyro.param("loc", jnp.array([0.0, 1.0]))
        with numpyro.plate("rows", len(x)), numpyro.handlers.mask(mask=mask):
            component = numpyro.sample("component", dist.Categorical(jnp.array([0.9, 0.1])))
            numpyro.sample("x", dist.Normal(loc[component], 1.0), obs=x)

    em = EM(program, e_step=e_step)
    objectives = []
    for x, mask in (([0.3], [True]), ([0.3, 1.0, 2.0], [True, False, False])):
        args = jnp.array(x), jnp.array(mask)
        objectives.append(jax.jit(em.update)(em.init(jax.random.key(0), *args), *args)[1])
    np.testing.assert_allclose(*objectives, rtol=1e-14)


def test_a_masked_observation_leaves_the_prior_of_its_latent():
    em = EM(partly_observed)
    posterior = em.posterior(PARAMS, DATA, IS_KNOWN)["z"]
    np.testing.assert_allclose(posterior[~IS_KNOWN], np.tile(PARAMS["weights"], (4, 1)), rtol=1e-12)
    _, objective = updated(em, PARAMS, DATA, IS_KNOWN)
    np.testing.assert_allclose(
        objective, np.logaddexp.reduce(log_joint(PARAMS)[IS_KNOWN], axis=1).sum(), rtol=1e-12
    )


# ---------------------------------------------------------------- priors


def with_priors(data):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([2.0, 3.0])))
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.5, 2.0))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("rows", len(data)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=data)


def log_prior(params):
    params = {name: np.asarray(value) for name, value in params.items()}
    return (
        stats.dirichlet.logpdf(params["weights"], [2.0, 3.0])
        + stats.norm.logpdf(params["loc"], 0.5, 2.0).sum()
        + stats.lognorm.logpdf(params["scale"], 0.5).sum()
    )


def test_the_objective_of_map_is_the_log_likelihood_and_the_log_prior():
    em = EM(with_priors, max_steps=40)
    result = em.run(jax.random.key(0), DATA, init_params=PARAMS)
    likelihood = np.logaddexp.reduce(log_joint(PARAMS), axis=1).sum()
    np.testing.assert_allclose(result.objective[0], likelihood + log_prior(PARAMS), rtol=1e-12)
    np.testing.assert_allclose(em.log_likelihood(PARAMS, DATA), likelihood, rtol=1e-12)
    np.testing.assert_allclose(
        result.objective[-1], result.log_likelihood + log_prior(result.params), rtol=1e-12
    )
    np.testing.assert_allclose(
        result.log_likelihood,
        np.logaddexp.reduce(log_joint(result.params), axis=1).sum(),
        rtol=1e-12,
    )
    assert len(result.objective) == result.num_steps + 1
    assert np.all(np.diff(result.objective) >= -1e-12 * np.abs(result.objective[:-1]))
    np.testing.assert_allclose(
        em.posterior(result.params, DATA)["z"],
        softmax(log_joint(result.params)),
        rtol=1e-9,
        atol=1e-12,
    )
