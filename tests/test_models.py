"""One registry, every property: what docs/design.md promises of EM, for every program in `emjax.models`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from emjax import EM, compare_updates
from emjax.models import annotators, coins, gaussian_mixture, grades, k_means, topics
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

FAST_COMPILATION = {"xla_backend_optimization_level": 0}  # a step of a small program runs at most 50 times
NUM_STEPS = 50


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


@dataclass(frozen=True, eq=False)
class Model:
    """A program on small data, from one start.

    - `step`: the update derived by hand.
    - `components`: the axis of each parameter that numbers the values of the latent, where these may be renumbered.
    - `twice`: the arguments for every row of the data repeated.
    """

    program: Callable
    step: Callable
    args: tuple
    start: dict
    components: dict
    twice: Callable
    e_step: str = "soft"

    @cached_property
    def em(self):
        return EM(self.program, e_step=self.e_step)

    @cached_property
    def update(self):
        return update_of(self.em, self.args)

    @property
    def params(self):
        return {name: jnp.asarray(value, float) for name, value in self.start.items()}


def update_of(em, args):
    """Return the compiled EM step: params -> (params, objective at those that entered)."""
    state = em.init(jax.random.key(0), *args)

    def update(params):
        after, objective = em.update(replace(state, params=params), *args)
        return after.params, objective

    return jax.jit(update, compiler_options=FAST_COMPILATION)


def both(*arrays):
    return tuple(np.concatenate([array, array]) for array in arrays)


def annotators_model():
    rng = np.random.default_rng(1)
    good, values = np.array([1, 1, 0, 1, 1, 0, 1]), rng.uniform(0.3, 0.7, size=10)
    scores = np.where(good, rng.normal(values[:, None], 0.06, (10, 7)), rng.uniform(size=(10, 7)))
    start = {"mu": rng.uniform(0.3, 0.7, 10), "sigma": 0.15, "pi": 0.6}
    return Model(
        annotators.program, annotators.hand_derived_step, (scores,), start, {}, lambda s: (np.concatenate([s, s], axis=1),)
    )  # fmt: skip


HEADS = np.array([5, 9, 8, 4, 7, 2, 0, 10])


def two_coins(e_step="soft"):
    def step(params, heads, flips):
        return coins.hand_derived_step(params, heads, flips, hard=e_step == "hard")

    return Model(
        coins.program, step, (HEADS, 10), {"bias": np.array([0.6, 0.5])}, {"bias": 0}, lambda h, m: (*both(h), m), e_step
    )  # fmt: skip


def weighted_coins(e_step="soft"):
    def step(params, heads, flips, num_coins):
        return coins.weighted_hand_derived_step(params, heads, flips, num_coins, hard=e_step == "hard")

    start = {"weights": np.array([0.3, 0.5, 0.2]), "bias": np.array([0.2, 0.55, 0.8])}
    return Model(
        coins.weighted_program, step, (HEADS, 10, 3), start, {"weights": 0, "bias": 0}, lambda h, *n: (*both(h), *n), e_step
    )  # fmt: skip


def mixture(covariance, num_features=2, scale_floor=0.0):
    rng = np.random.default_rng(4)
    centers = np.array([[-1.0, 0.5], [1.5, -0.7], [0.2, 2.0]])[np.arange(60) % 3]
    data = centers + rng.normal(size=(60, 2)) * [0.6, 0.9]
    start = {"weights": np.array([0.5, 0.2, 0.3]), "loc": data[[0, 1, 2]]}
    if num_features == 0:
        data, start["loc"] = data[:, 0], start["loc"][:, 0]
    if covariance in ("full", "tied") and num_features:
        root = rng.normal(size=(3, 2, 2))
        start["covariance"] = (root @ root.swapaxes(-1, -2) + np.eye(2))[slice(None) if covariance == "full" else 0]
    else:
        shape = {"diagonal": (3, *data.shape[1:]), "tied": ()}.get(covariance, (3,))
        start["scale"] = scale_floor + rng.uniform(0.5, 2.0, size=shape)
    components = {name: 0 for name, value in start.items() if covariance != "tied" or name in ("weights", "loc")}
    return Model(
        gaussian_mixture.program,
        gaussian_mixture.hand_derived_step,
        (data, 3, covariance, scale_floor),
        start,
        components,
        lambda x, *others: (*both(x), *others),
    )


def k_means_model():
    data = mixture("full").args[0]
    return Model(
        k_means.program, k_means.hand_derived_step, (data, 3), {"loc": data[[0, 3, 4]]}, {"loc": 0},
        lambda x, k: (*both(x), k), "hard",
    )  # fmt: skip


def topics_mixture():
    rng = np.random.default_rng(7)
    counts = rng.multinomial(15, rng.dirichlet(np.ones(4), size=2)[np.arange(8) % 2])
    start = {"weights": np.array([0.3, 0.2, 0.5]), "words": rng.dirichlet(np.ones(4), size=3)}
    return Model(
        topics.mixture_program, topics.mixture_hand_derived_step, (counts, 3), start, {"weights": 0, "words": 0},
        lambda c, k: (*both(c), k),
    )  # fmt: skip


def plsa():
    rng = np.random.default_rng(8)
    document, word, count = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0, 3]), np.array([3, 1, 2, 2, 1, 2, 5])
    start = {"theta": rng.dirichlet(np.ones(2), size=3), "words": rng.dirichlet(np.ones(4), size=2)}
    return Model(
        topics.plsa_program, topics.plsa_hand_derived_step, (document, word, count, 3, 4, 2), start, {"theta": 1, "words": 0},
        lambda d, w, c, *sizes: (d, w, 2 * c, *sizes),
    )  # fmt: skip


MODELS = {
    "annotators": annotators_model(),
    "coins": two_coins(),
    "coins, hard": two_coins("hard"),
    "weighted coins": weighted_coins(),
    "weighted coins, hard": weighted_coins("hard"),
    **{f"mixture, {kind}": mixture(kind) for kind in gaussian_mixture.COVARIANCES},
    "mixture, diagonal with a floor that binds": mixture("diagonal", scale_floor=0.7),
    "mixture, spherical with a floor that binds": mixture("spherical", scale_floor=0.7),
    "mixture, one dimension": mixture("full", 0),
    "mixture, one dimension, tied": mixture("tied", 0),
    "k-means": k_means_model(),
    "topics, one a document": topics_mixture(),
    "topics, one a word": plsa(),
    "grades": Model(
        grades.program, grades.hand_derived_step, (np.array([14, 6, 9]),), {"theta": 0.31}, {}, lambda counts: (2 * counts,)
    ),
    "grades, partial": Model(
        grades.partial_program, grades.partial_hand_derived_step, (np.array(7), np.array(30)), {"theta": 0.41}, {},
        lambda num_c, num_total: (2 * num_c, 2 * num_total),
    ),
}  # fmt: skip
SOFT = {name: model for name, model in MODELS.items() if model.e_step == "soft"}
LATENT = {name: model for name, model in MODELS.items() if name != "grades"}
SYMMETRIC = {name: model for name, model in MODELS.items() if model.components}


def every(models):
    return pytest.mark.parametrize("model", models.values(), ids=models.keys())


def assert_close(actual, expected, rtol=1e-10):
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol, atol=rtol, err_msg=name)


# ---------------------------------------------------------------- every model


def test_every_program_is_listed():
    modules = (annotators, coins, gaussian_mixture, grades, k_means, topics)
    programs = {value for module in modules for name, value in vars(module).items() if name.endswith("program")}
    assert programs == {model.program for model in MODELS.values()}


@every(MODELS)
def test_em_is_the_update_derived_by_hand(model):
    comparison = compare_updates(model.em, model.step, model.start, *model.args, num_steps=NUM_STEPS)
    assert set(comparison.differences) == set(model.start)
    assert all(len(differences) == NUM_STEPS for differences in comparison.differences.values())
    assert comparison.largest <= 1e-10
    assert "they agree" in str(comparison)


@every(MODELS)
def test_the_objective_never_decreases(model):
    params, objectives = model.params, []
    for _ in range(NUM_STEPS):
        params, objective = model.update(params)
        objectives.append(float(objective))
    assert np.all(np.diff(objectives) >= -1e-9 * np.abs(objectives[:-1]))
    assert objectives[-1] > objectives[0]


@every(LATENT)
def test_every_posterior_sums_to_one(model):
    latents = {latent.name: latent for latent in model.em.plan(*model.args).latents}
    posteriors = model.em.posterior(model.params, *model.args)
    assert set(posteriors) == set(latents)
    for name, posterior in posteriors.items():
        assert posterior.shape == (*latents[name].shape, latents[name].num_values)
        assert np.all(posterior >= 0)
        np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-12)


def traced(model, params, latents):
    substituted = handlers.substitute(model.program, data={**params, **latents})
    with numpyro.validation_enabled(False):
        trace = handlers.trace(handlers.seed(substituted, jax.random.key(0))).get_trace(*model.args)
    return {name: site for name, site in trace.items() if site["type"] == "sample"}


def expected_log_likelihood(model, params, posterior):
    """Return Σ_k p(z = k | x) log p(x, z = k | params) with NumPyro's own densities, which are rows of one plate."""
    if not posterior:
        return sum(jnp.sum(site["scale"] * site["fn"].log_prob(site["value"])) for site in traced(model, params, {}).values())
    ((name, probability),) = posterior.items()
    total = 0.0
    for k in range(probability.shape[-1]):
        weight = probability[..., k]
        for site in traced(model, params, {name: jnp.full(weight.shape, k)}).values():
            scale = 1.0 if site["scale"] is None else site["scale"]
            density = jnp.broadcast_to(weight, site["fn"].batch_shape) * scale
            log_prob = site["fn"].log_prob(site["value"])
            total += jnp.where(density > 0, density * jnp.where(density > 0, log_prob, 0.0), 0.0).sum()
    return total


CONSTRAINTS = {
    "mu": constraints.real, "loc": constraints.real, "sigma": constraints.positive, "scale": constraints.positive,
    "pi": constraints.unit_interval, "bias": constraints.unit_interval, "theta": constraints.interval(0, 0.5),
    "weights": constraints.simplex, "words": constraints.simplex, "covariance": constraints.positive_definite,
}  # fmt: skip


@every({name: model for name, model in SOFT.items() if "floor" not in name})
def test_fishers_identity(model):
    laws = CONSTRAINTS | ({"theta": constraints.simplex} if "words" in model.start else {})
    bijections = {name: biject_to(laws[name]) for name in model.start}
    start = {name: bijections[name].inv(value) for name, value in model.params.items()}
    rng = np.random.default_rng(12)
    point = {name: value + 0.3 * rng.normal(size=value.shape) for name, value in start.items()}

    def constrained(unconstrained):
        return {name: bijections[name](value) for name, value in unconstrained.items()}

    posterior = model.em.posterior(constrained(point), *model.args)

    @partial(jax.jit, compiler_options=FAST_COMPILATION)
    def slopes(point):
        likelihood = jax.value_and_grad(lambda u: model.em.log_likelihood(constrained(u), *model.args))(point)
        q = jax.grad(lambda u: expected_log_likelihood(model, constrained(u), posterior))(point)
        return likelihood, q

    (log_likelihood, actual), expected = slopes(point)
    np.testing.assert_allclose(model.update(constrained(point))[1], log_likelihood, rtol=1e-12)  # at what enters
    size = max(np.abs(value).max() for value in expected.values())
    assert size > 0.1
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-9, atol=1e-9 * size, err_msg=name)


@every(MODELS)
def test_repeated_data_double_the_log_likelihood_and_leave_the_update_alone(model):
    once, objective = model.update(model.params)
    args = model.twice(*model.args)
    twice, doubled = update_of(model.em, args)(model.params)
    np.testing.assert_allclose(doubled, 2 * objective, rtol=1e-12)
    assert_close(twice, once)


@every(SYMMETRIC)
def test_renumbering_the_values_of_the_latent_renumbers_the_results(model):
    def renumbered(params):
        return {
            name: jnp.flip(value, model.components[name]) if name in model.components else value
            for name, value in params.items()
        }

    here, objective = model.update(model.params)
    there, same = model.update(renumbered(model.params))
    np.testing.assert_allclose(same, objective, rtol=1e-12)
    assert_close(there, renumbered(here))
    (posterior,) = model.em.posterior(model.params, *model.args).values()
    (flipped,) = model.em.posterior(renumbered(model.params), *model.args).values()
    np.testing.assert_allclose(flipped, np.flip(posterior, -1), rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------- edge sizes


def one_component(name):
    model = MODELS[name]
    start = {key: np.take(value, [0], model.components[key]) if key in model.components else value for key, value in model.start.items()}
    start = {key: value / value.sum(-1, keepdims=True) if key in ("weights", "theta") else value for key, value in start.items()}
    at = {"topics, one a word": 5}.get(name, {"weighted coins": 2}.get(name, 1))
    args = (*model.args[:at], 1, *model.args[at + 1 :])
    return replace(model, args=args, start=start)


ONE_COMPONENT = {
    name: one_component(name)
    for name in ("weighted coins", "mixture, full", "mixture, diagonal", "topics, one a document", "topics, one a word")
}


@every(ONE_COMPONENT)
def test_one_component_is_maximum_likelihood_in_one_step(model):
    once, _ = model.update(model.params)
    twice, _ = model.update(once)
    assert_close(twice, once)
    assert_close(once, model.step(model.start, *model.args))


def one_row(name, *args):
    return replace(MODELS[name], args=args)


def mixture_of_one_row(covariance):
    """One component: the program itself starts from as many rows. The scale ends at its floor."""
    start = {"weights": np.ones(1), "loc": np.array([[0.0, 1.0]]), "scale": np.ones(1)}
    return replace(MODELS[f"mixture, {covariance}"], args=(np.array([[0.3, 0.1]]), 1, covariance, 0.7), start=start)


ONE_ROW = {
    "coins": one_row("coins", HEADS[:1], 10),
    "weighted coins": one_row("weighted coins", HEADS[:1], 10, 3),
    "topics, one a document": one_row("topics, one a document", np.array([[3, 0, 1, 2]]), 3),
    "mixture, spherical": mixture_of_one_row("spherical"),
}


@every(ONE_ROW)
def test_one_observation_is_the_update_derived_by_hand(model):
    after, objective = model.update(model.params)
    assert np.isfinite(objective)
    assert_close(after, model.step(model.start, *model.args))


# ---------------------------------------------------------------- k-means


def test_k_means_is_the_hard_e_step():
    model = MODELS["k-means"]
    data, num_components = model.args
    squared = ((data[:, None] - model.start["loc"]) ** 2).sum(-1)
    nearest = squared.argmin(1)
    posterior = model.em.posterior(model.params, *model.args)["component"]
    np.testing.assert_array_equal(posterior, np.eye(num_components)[nearest])
    np.testing.assert_array_equal(model.em.decode(model.params, *model.args)["component"], nearest)
    _, objective = model.update(model.params)
    constant = len(data) * (-np.log(num_components) - np.log(2 * np.pi))
    np.testing.assert_allclose(objective, constant - 0.5 * squared.min(1).sum(), rtol=1e-12)
