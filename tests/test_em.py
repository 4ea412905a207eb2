"""The driver: what it returns, when it stops, and how often it compiles."""

import dataclasses
from collections import Counter

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, Comparison, Status, compare_updates, register
from emjax.families.family import FAMILIES
from emjax.models import coins, grades
from tests.oracles.brute_force import joint_table

KEY = jax.random.key(0)
HEADS = jnp.array([5.0, 9.0, 8.0, 4.0, 7.0])
X = jnp.array([-1.2, 0.1, 3.9, 5.2, 4.4, 0.3])


def mixture(x, num_components=2):
    """A mixture whose means start at random."""
    loc = numpyro.param("loc", lambda rng_key: 3 * jax.random.normal(rng_key, (num_components,)))
    scale = numpyro.param("scale", jnp.ones(num_components), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.full(num_components, 1 / num_components)))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


def mixture_with_prior(x):
    """A mixture whose means have a prior."""
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


class Calls:
    """A program that counts how often Python runs it."""

    def __init__(self, program):
        self.program, self.count = program, 0

    def __call__(self, *args, **kwargs):
        self.count += 1
        return self.program(*args, **kwargs)


@pytest.fixture
def compilations():
    """Count what JAX traces and compiles."""
    events = Counter()

    def listen(event, duration, **kwargs):
        events[event.rsplit("/", 1)[-1]] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


# ── what a result says ────────────────────────────────────────────────────────────────────────────


def test_objective_is_at_the_parameters_entering_each_step():
    em = EM(coins.program, max_steps=4)
    result = em.run(KEY, HEADS)
    state, update, entered = em.init(KEY, HEADS), jax.jit(em.update), []
    for _ in range(result.num_steps):
        entered.append(em.log_likelihood(state.params, HEADS))
        state, objective = update(state, HEADS)
        np.testing.assert_allclose(objective, entered[-1], rtol=1e-14)
    assert result.status == Status.MAX_STEPS and result.num_steps == 4
    np.testing.assert_allclose(
        result.objective, [*entered, em.log_likelihood(result.params, HEADS)], rtol=1e-14
    )
    np.testing.assert_allclose(result.params["bias"], state.params["bias"], rtol=1e-14)


def test_result_of_the_coins_is_the_published_one():
    result = EM(coins.program).run(KEY, HEADS)
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.params["bias"], [0.7968, 0.5196], atol=1e-4)
    assert (np.diff(result.objective) > -1e-12).all()
    assert len(result.objective) == result.num_steps + 1
    gains = np.diff(result.objective) / (1 + np.abs(result.objective[1:]))
    assert gains[-1] <= 1e-9 and (gains[:-1] > 1e-9).all()


def test_objective_is_the_log_likelihood_and_the_log_prior():
    em = EM(mixture_with_prior)
    result = em.run(KEY, X)
    log_prior = dist.Normal(0.0, 2.0).log_prob(result.params["loc"]).sum()
    np.testing.assert_allclose(result.objective[-1], result.log_likelihood + log_prior, rtol=1e-12)
    table = joint_table(mixture_with_prior, result.params, X)
    np.testing.assert_allclose(result.log_likelihood, table.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(table.log_prior, log_prior, rtol=1e-12)


def test_without_steps_the_result_is_the_start():
    result = EM(coins.program, max_steps=0).run(KEY, HEADS)
    assert result.status == Status.MAX_STEPS and result.num_steps == 0
    np.testing.assert_array_equal(result.params["bias"], [0.6, 0.5])
    np.testing.assert_allclose(result.objective, [result.log_likelihood], rtol=1e-14)


def test_tolerance_decides_how_far_it_goes():
    loose, tight = (EM(coins.program, tol=tol).run(KEY, HEADS) for tol in (1e-3, 0.0))
    assert loose.status == tight.status == Status.CONVERGED
    assert loose.num_steps < tight.num_steps
    by_hand = coins.hand_derived_step(tight.params, HEADS)
    np.testing.assert_allclose(tight.params["bias"], by_hand["bias"], atol=1e-7)  # a fixed point


def test_collapse_onto_one_point_is_not_finite():
    x = jnp.array([0.0, 10.0, 10.4, 9.7])
    result = EM(mixture).run(KEY, x, init_params={"loc": [0.0, 10.0]})
    assert result.status == Status.NOT_FINITE
    assert "floor" in result.status.message
    assert np.isfinite(result.objective).all() and np.isfinite(result.log_likelihood)
    assert all(np.isfinite(value).all() for value in result.params.values())
    np.testing.assert_allclose(result.objective[-1], result.log_likelihood, rtol=1e-12)


class Odd(dist.Poisson):
    """A distribution that the test below registers wrongly."""


def test_decrease_is_told_apart_from_convergence():
    """A family whose natural parameters are not linear in its features has no such closed form:
    rate 1 is best, 3 is proposed.
    """
    right = next(family for family in FAMILIES[dist.Poisson])
    register(
        Odd, dataclasses.replace(right, naturals=lambda rate: (rate[0], -rate[1] - rate[1] ** 2))
    )

    def program(n):
        rate = numpyro.param("rate", jnp.array(1.0), constraint=constraints.positive)
        with numpyro.plate("rows", len(n)):
            numpyro.sample("n", Odd(rate), obs=n)

    result = EM(program).run(KEY, jnp.array([2, 3, 4]))
    assert result.status == Status.OBJECTIVE_DECREASED and result.num_steps == 0
    assert "decreased" in result.status.message
    np.testing.assert_array_equal(result.params["rate"], 1.0)
    assert len(result.objective) == 1
    np.testing.assert_allclose(result.objective[0], result.log_likelihood, rtol=1e-14)


def test_update_of_the_user_that_would_decrease_the_objective_is_not_taken():
    result = EM(
        coins.program, m_step={"bias": lambda value, objective: jnp.array([0.01, 0.99])}
    ).run(KEY, HEADS)
    np.testing.assert_array_equal(result.params["bias"], [0.6, 0.5])
    assert result.status == Status.NOT_MAXIMIZED


def test_hard_objective_is_of_the_best_assignment():
    em = EM(coins.program, e_step="hard")
    result = em.run(KEY, HEADS)
    table = joint_table(coins.program, result.params, HEADS)
    assert result.objective[-1] == pytest.approx(table.mode_log_likelihood, rel=1e-12)
    assert result.log_likelihood == pytest.approx(table.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(result.params["bias"], [0.80, 0.45], rtol=1e-12)
    assert set(np.unique(em.posterior(result.params, HEADS)["coin"])) == {0, 1}


def test_result_prints_why_it_stopped_and_what_it_found():
    text = str(EM(coins.program).run(KEY, HEADS))
    assert "converged" in text and "nats" in text and "bias = [0.7968 0.5196]" in text


# ── starts ────────────────────────────────────────────────────────────────────────────────────────


def test_some_parameters_may_be_given():
    em = EM(mixture, max_steps=0)
    result = em.run(KEY, X, init_params={"scale": [2.0, 3.0]})
    np.testing.assert_array_equal(result.params["scale"], [2, 3])
    np.testing.assert_array_equal(result.params["loc"], em.init(KEY, X).params["loc"])


def test_same_key_gives_the_same_result():
    first, again = (EM(mixture, max_steps=3).run(jax.random.key(7), X) for _ in range(2))
    np.testing.assert_array_equal(first.objective, again.objective)
    for name in first.params:
        np.testing.assert_array_equal(first.params[name], again.params[name])


def test_restarts_return_the_best_of_them():
    floor = {"tol": 1e-6}

    def program(x):
        loc = numpyro.param("loc", lambda rng_key: 3 * jax.random.normal(rng_key, (3,)))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("x", dist.Normal(loc[z], 0.2), obs=x)

    single = EM(program, **floor)
    ends = [single.run(key, X).objective[-1] for key in jax.random.split(KEY, 5)]
    best = EM(program, init="program", num_restarts=5, **floor).run(KEY, X)
    assert max(ends) - min(ends) > 1  # the starts matter
    assert best.objective[-1] == pytest.approx(max(ends), rel=1e-12)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "law",
    [lambda a: dist.Uniform(0.0, a), lambda a: dist.Normal(0.0, a - 5.0)],
    ids=["impossible data", "negative scale"],
)
def test_restarts_skip_starts_that_the_program_excludes(law):
    def program(x):
        a = numpyro.sample("a", dist.Uniform(0.0, 10.0))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", law(a), obs=x)

    def objective(key):
        try:
            return single.run(key, x).objective[-1]
        except ValueError:
            return -np.inf

    single, x = EM(program), jnp.array([0.5, 4.0])
    ends = [objective(key) for key in jax.random.split(KEY, 6)]
    assert np.isinf(ends).any() and np.isfinite(ends).any()
    best = EM(program, num_restarts=6).run(KEY, x)
    assert best.objective[-1] == pytest.approx(max(ends), rel=1e-12)
    with pytest.raises(ValueError, match=r"zero likelihood|scale of Normal must satisfy"):
        EM(program, num_restarts=2).run(KEY, x, init_params={"a": 3.0})


# ── pure functions ────────────────────────────────────────────────────────────────────────────────


def test_init_and_update_can_be_jitted_vmapped_and_scanned():
    em, keys = EM(mixture), jax.random.split(KEY, 3)
    update = jax.jit(em.update)

    @jax.jit
    def objectives(key, x):
        def step(state, _):
            return em.update(state, x)

        return jax.lax.scan(step, em.init(key, x), length=4)

    states, entered = jax.vmap(objectives, in_axes=(0, None))(keys, X)
    for i, key in enumerate(keys):
        state = em.init(key, X)
        for t in range(4):
            state, objective = update(state, X)
            np.testing.assert_allclose(entered[i, t], objective, rtol=1e-12)
        np.testing.assert_allclose(states.params["loc"][i], state.params["loc"], rtol=1e-12)


def test_log_likelihood_is_differentiable_and_fishers_identity_holds():
    em = EM(coins.program)
    slope = jax.grad(lambda bias: em.log_likelihood({"bias": bias}, HEADS))(jnp.array([0.6, 0.5]))
    r = em.posterior({"bias": jnp.array([0.6, 0.5])}, HEADS)["coin"]
    bias = jnp.array([0.6, 0.5])
    by_hand = (r * (HEADS[:, None] / bias - (10 - HEADS[:, None]) / (1 - bias))).sum(0)
    np.testing.assert_allclose(slope, by_hand, rtol=1e-10)


# ── compilation ───────────────────────────────────────────────────────────────────────────────────


def test_second_run_compiles_nothing_and_the_program_is_traced_once(compilations):
    program = Calls(coins.program)
    em = EM(program)
    first = em.run(KEY, HEADS)
    calls = program.count
    # its start, and its graph, at its own length and padded
    assert calls <= 4
    turned = HEADS[::-1] * 1.0
    compilations.clear()
    second, third = em.run(KEY, turned), em.run(KEY, HEADS)
    assert compilations["backend_compile_duration"] == 0, compilations
    assert program.count == calls
    np.testing.assert_array_equal(first.objective, third.objective)
    np.testing.assert_allclose(first.params["bias"], second.params["bias"], rtol=1e-12)


def test_other_shapes_are_traced_anew():
    program = Calls(coins.program)
    em = EM(program, max_steps=1)
    em.plan(HEADS)
    calls = program.count
    em.plan(HEADS[:3])
    assert program.count == 2 * calls
    em.plan(HEADS)
    assert program.count == 2 * calls
    em.plan(HEADS, flips=12)
    assert program.count == 3 * calls


def test_mutated_list_argument_is_not_mistaken_for_its_former_self():
    def program(x, bounds):
        loc = numpyro.param("loc", jnp.array(bounds))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    em, bounds = EM(program, max_steps=0), [0.0, 4.0]
    em.run(KEY, X, bounds)
    bounds[1] = 2.0
    np.testing.assert_array_equal(em.run(KEY, X, bounds).params["loc"], [0, 2])


class Frame:
    """A table of data that is no array and cannot be hashed, as a data frame is."""

    __hash__ = None

    def __init__(self, values):
        self.values = np.asarray(values)

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_mutated_table_is_not_mistaken_for_its_former_self():
    def program(heads):
        coins.program(jnp.asarray(np.asarray(heads)))

    em, table = EM(program, max_steps=1), Frame(HEADS)
    em.run(KEY, table)
    table.values = np.ceil(np.asarray(HEADS)[::-1] / 2)
    np.testing.assert_allclose(
        em.run(KEY, table).params["bias"],
        em.run(KEY, np.ceil(HEADS[::-1] / 2)).params["bias"],
        rtol=1e-12,
    )


@pytest.mark.sampled
@pytest.mark.parametrize(
    "data",
    [np.asarray(HEADS), np.asarray(HEADS, np.int32), np.asarray(HEADS, np.uint8)],
    ids=["float", "int32", "uint8"],
)
def test_numpy_arrays_and_keyword_arguments_work(data):
    em = EM(coins.program, max_steps=3)
    result = em.run(KEY, heads=data, flips=10)
    np.testing.assert_allclose(result.params["bias"], em.run(KEY, HEADS).params["bias"], rtol=1e-12)
    assert em.posterior(result.params, heads=data)["coin"].shape == (5, 2)


# ── progress ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.sampled
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "numbers"])
@pytest.mark.parametrize("looks_at_data", [False, True])
def test_random_key_may_be_an_argument_of_the_program(make, looks_at_data):
    def program(rng_key, x):
        loc = numpyro.param("loc", 0.0)
        size = int(np.asarray(x)[3]) if looks_at_data else 5
        noise = jax.random.normal(rng_key, (size,)) + jax.random.normal(jax.random.key(7), (size,))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(loc + noise[0] + z, 1.0), obs=x)

    em = EM(Calls(program))
    for seed in (0, 1):
        rng_key, params = make(seed), {"loc": jnp.array(0.5)}
        expected = joint_table(program, params, rng_key, X).log_likelihood
        np.testing.assert_allclose(em.log_likelihood(params, rng_key, X), expected, rtol=1e-12)
        traced = em.model.count
    assert em.run(KEY, rng_key, X).status == Status.CONVERGED
    assert em.model.count == traced
    # for its parameters, and with them, at its own length and padded
    assert looks_at_data or traced == 4


def test_progress_is_written_to_stderr_and_changes_nothing(capsys):
    quiet = EM(coins.program, tol=0.0).run(KEY, HEADS)
    assert capsys.readouterr().err == ""
    loud = EM(coins.program, tol=0.0, progress_bar=True).run(KEY, HEADS)
    printed = capsys.readouterr()
    assert "EM" in printed.err and "objective" in printed.err and printed.out == ""
    assert quiet.num_steps == loud.num_steps and quiet.status == loud.status
    np.testing.assert_array_equal(quiet.objective, loud.objective)
    np.testing.assert_array_equal(quiet.params["bias"], loud.params["bias"])


# ── posteriors ────────────────────────────────────────────────────────────────────────────────────


def coupled(x, y):
    """A latent group outside, a latent of each row inside that depends on it, and one beside it."""
    loc = numpyro.param("loc", jnp.array([[0.0, 1.0], [2.0, 4.5]]))
    transition = jnp.array([[0.8, 0.2], [0.35, 0.65]])
    with numpyro.plate("columns", x.shape[1], dim=-1):
        group = numpyro.sample("group", dist.Categorical(jnp.array([0.4, 0.6])))
        with numpyro.plate("rows", x.shape[0], dim=-2):
            z = numpyro.sample("z", dist.Categorical(transition[group]))
            flip = numpyro.sample("flip", dist.Bernoulli(0.2 + 0.3 * z))
            numpyro.sample("x", dist.Normal(loc[z, flip], 0.9), obs=x)
        numpyro.sample("y", dist.Normal(1.0 * group, 1.0), obs=y)


def test_posterior_and_decoding_of_coupled_latents_are_brute_force():
    x, y = jnp.array([[0.1, 4.4], [2.2, 1.3]]), jnp.array([0.2, 0.9])
    params = {"loc": jnp.array([[0.0, 1.0], [2.0, 4.5]])}
    em, table = EM(coupled), joint_table(coupled, params, x, y)
    posterior, decoded = em.posterior(params, x, y), em.decode(params, x, y)
    assert {name: value.shape for name, value in posterior.items()} == {
        "group": (2, 2),
        "z": (2, 2, 2),
        "flip": (2, 2, 2),
    }
    assert table.mode_gap > 1e-3
    for name in table.latents:
        np.testing.assert_allclose(posterior[name], table.posterior[name], atol=1e-12)
        np.testing.assert_array_equal(decoded[name], table.mode[name])
    assert em.log_likelihood(params, x, y) == pytest.approx(table.log_likelihood, rel=1e-12)


# ── comparison ────────────────────────────────────────────────────────────────────────────────────


def test_comparison_with_a_right_derivation_agrees():
    comparison = compare_updates(
        EM(coins.program), coins.hand_derived_step, {"bias": [0.6, 0.5]}, HEADS, num_steps=20
    )
    assert comparison.largest < 1e-12
    assert comparison.differences["bias"].shape == (20,)
    assert "they agree" in str(comparison)


def test_comparison_says_where_a_wrong_derivation_parts():
    def wrong(params, heads):
        after = coins.hand_derived_step(params, heads)
        return after if np.max(params["bias"]) < 0.75 else {"bias": after["bias"] + 0.01}

    comparison = compare_updates(
        EM(coins.program), wrong, {"bias": [0.6, 0.5]}, HEADS, num_steps=10
    )
    assert "they part at step 4, in 'bias' (by 1.0e-02)" in str(comparison)


def test_comparison_with_nan_is_nan():
    comparison = compare_updates(
        EM(grades.program),
        lambda params, counts: {"theta": np.nan},
        {"theta": 0.3},
        jnp.array([1.0, 2.0, 3.0]),
        num_steps=2,
    )
    assert np.isnan(comparison.largest)
    assert np.isnan(Comparison({"a": np.array([0.1]), "b": np.array([np.nan])}, {}, {}).largest)
    assert Comparison({"a": np.array([])}, {}, {}).largest == 0


def test_comparison_needs_the_parameters_of_the_program():
    with pytest.raises(ValueError, match=r"exactly.*\['bias'\]"):
        compare_updates(EM(coins.program), coins.hand_derived_step, {"bais": [0.6, 0.5]}, HEADS)
    with pytest.raises(ValueError, match=r"hand_derived_step must return exactly.*\['bias'\]"):
        compare_updates(EM(coins.program), lambda params, heads: {}, {"bias": [0.6, 0.5]}, HEADS)


def test_multiplicity_zero_and_fractions_are_allowed():
    result = EM(grades.program).run(KEY, jnp.array([0.0, 2.5, 7.5]))
    assert float(result.params["theta"]) == pytest.approx(0.375)


def test_a_program_may_be_seen_first_within_a_compiled_function():
    def program(x):
        rate = numpyro.param("rate", jnp.array([1.0, 2.0]), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Poisson(rate[jnp.array([1, 0])][z]), obs=x)

    params, x = {"rate": jnp.array([1.0, 2.0])}, jnp.array([1, 2, 3])
    inside = jax.jit(lambda params: EM(program).log_likelihood(params, x))(params)
    np.testing.assert_allclose(inside, EM(program).log_likelihood(params, x), rtol=1e-14)
