"""The oracle against formulas written by hand, and against funsor's enumeration where both define
the same thing.
"""

import itertools
import math

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

from tests.oracles.brute_force import complete_log_likelihood, expected_log_likelihood, joint_table


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def gaussian_mixture(x):
    weights = numpyro.param("weights", jnp.ones(2) / 2, constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros(2))
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[component], 1.5), obs=x)


MIXTURE_DATA = np.array([0.3, -1.2, 2.5, 0.9])
MIXTURE_PARAMS = {"weights": np.array([0.3, 0.7]), "loc": np.array([-1.0, 1.3])}


def mixture_densities():
    """p(x_n, component = k): (sample, component)."""
    return MIXTURE_PARAMS["weights"] * stats.norm.pdf(
        MIXTURE_DATA[:, None], MIXTURE_PARAMS["loc"], 1.5
    )


def test_float64_is_on():
    assert jnp.zeros(()).dtype == jnp.float64


def test_gaussian_mixture_is_its_formula():
    table = joint_table(gaussian_mixture, MIXTURE_PARAMS, MIXTURE_DATA)
    density = mixture_densities()
    close(table.log_likelihood, np.log(density.sum(1)).sum())
    close(table.posterior["component"], density / density.sum(1, keepdims=True))
    np.testing.assert_array_equal(table.mode["component"], density.argmax(1))
    close(table.mode_log_likelihood, np.log(density.max(1)).sum())
    close(table.mode_gap, np.abs(np.diff(np.log(density), axis=1)).min())
    close(table.complete_log_likelihood_at(table.mode), table.mode_log_likelihood)
    assert table.log_prior == 0


def test_one_assignment_at_a_time_is_all_at_once():
    together = joint_table(gaussian_mixture, MIXTURE_PARAMS, MIXTURE_DATA)
    one_by_one = joint_table(gaussian_mixture, MIXTURE_PARAMS, MIXTURE_DATA, vectorize=False)
    close(one_by_one.complete_log_likelihood, together.complete_log_likelihood)


def test_expected_log_likelihood_has_the_gradient_of_the_log_likelihood():
    table = joint_table(gaussian_mixture, MIXTURE_PARAMS, MIXTURE_DATA)
    gradient = jax.grad(lambda p: expected_log_likelihood(gaussian_mixture, p, table, MIXTURE_DATA))
    density = mixture_densities()
    responsibilities = density / density.sum(1, keepdims=True)
    residual = (MIXTURE_DATA[:, None] - MIXTURE_PARAMS["loc"]) / 1.5**2
    close(gradient(MIXTURE_PARAMS)["loc"], (responsibilities * residual).sum(0))


INITIAL = np.array([0.6, 0.1, 0.3])
TRANSITION = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.0, 0.3, 0.7]])
EMISSION = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
SYMBOLS = [0, 1, 1, 0, 1]


def hmm_by_loop():
    state = numpyro.sample("state_0", dist.Categorical(INITIAL))
    for time, symbol in enumerate(SYMBOLS):
        if time > 0:
            state = numpyro.sample(
                f"state_{time}", dist.Categorical(jnp.asarray(TRANSITION)[state])
            )
        numpyro.sample(f"symbol_{time}", dist.Categorical(jnp.asarray(EMISSION)[state]), obs=symbol)


def hmm_by_scan():
    def step(state, symbol):
        state = numpyro.sample("state", dist.Categorical(jnp.asarray(TRANSITION)[state]))
        numpyro.sample("symbol", dist.Categorical(jnp.asarray(EMISSION)[state]), obs=symbol)
        return state, None

    first = numpyro.sample("state_0", dist.Categorical(INITIAL))
    numpyro.sample("symbol_0", dist.Categorical(jnp.asarray(EMISSION)[first]), obs=SYMBOLS[0])
    scan(step, first, jnp.array(SYMBOLS[1:]))


def hmm_by_matrix_products():
    forward = [INITIAL * EMISSION[:, SYMBOLS[0]]]
    for symbol in SYMBOLS[1:]:
        forward.append(forward[-1] @ TRANSITION * EMISSION[:, symbol])
    backward = [np.ones(3)]
    for symbol in SYMBOLS[:0:-1]:
        backward.append(TRANSITION @ (EMISSION[:, symbol] * backward[-1]))
    likelihood = forward[-1].sum()
    return np.log(likelihood), np.array(forward) * np.array(backward[::-1]) / likelihood


def test_hmm_is_its_matrix_products():
    log_likelihood, posterior = hmm_by_matrix_products()
    table = joint_table(hmm_by_loop, {})
    close(table.log_likelihood, log_likelihood)
    close([table.posterior[f"state_{time}"] for time in range(len(SYMBOLS))], posterior)


def test_scanned_hmm_is_its_matrix_products():
    log_likelihood, posterior = hmm_by_matrix_products()
    table = joint_table(hmm_by_scan, {})
    close(table.log_likelihood, log_likelihood)
    close(table.posterior["state_0"], posterior[0])
    close(table.posterior["state"], posterior[1:])


def topics(words):
    """An outer latent for each document, an inner one for each word."""
    num_documents, num_words = words.shape
    theme_table = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    word_table = jnp.array(
        [[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], [[0.3, 0.3, 0.4], [0.0, 0.4, 0.6]]]
    )
    with numpyro.plate("documents", num_documents, dim=-2):
        theme = numpyro.sample("theme", dist.DiscreteUniform(1, 2))
        with numpyro.plate("words", num_words, dim=-1):
            topic = numpyro.sample("topic", dist.Categorical(theme_table[theme - 1]))
            numpyro.sample("word", dist.Categorical(word_table[theme - 1, topic]), obs=words)


def test_two_plates_are_their_formula():
    words = np.array([[0, 2], [1, 1]])
    theme_table = np.array([[0.9, 0.1], [0.2, 0.8]])
    word_table = np.array(
        [[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], [[0.3, 0.3, 0.4], [0.0, 0.4, 0.6]]]
    )
    joint = 0.5 * np.ones((2, 2))  # (document, theme)
    for d, (a, b) in enumerate(words):
        for h in range(2):
            joint[d, h] *= (theme_table[h] @ word_table[h, :, a]) * (
                theme_table[h] @ word_table[h, :, b]
            )
    table = joint_table(topics, {}, words)
    close(table.log_likelihood, np.log(joint.sum(1)).sum())
    close(table.posterior["theme"], (joint / joint.sum(1, keepdims=True))[:, None])
    np.testing.assert_array_equal(table.latents["theme"].support, [1, 2])
    assert table.posterior["topic"].shape == (2, 2, 2)


def two_plates_for_funsor(x):
    with numpyro.plate("outer", 2, dim=-2):
        z = numpyro.sample(
            "z", dist.Categorical(jnp.array([0.2, 0.5, 0.3])), infer={"enumerate": "parallel"}
        )
        with numpyro.plate("inner", 3, dim=-1):
            w = numpyro.sample(
                "w", dist.Bernoulli(jnp.array([0.1, 0.4, 0.8])[z]), infer={"enumerate": "parallel"}
            )
            numpyro.sample("x", dist.Normal(jnp.array([-1.0, 0.0, 2.0])[z] + w, 0.7), obs=x)


def test_funsor_agrees():
    from numpyro.contrib.funsor import config_enumerate, enum, log_density

    x = np.array([[0.1, 1.7, -0.4], [2.2, 2.9, 1.8]])
    enumerated = enum(config_enumerate(two_plates_for_funsor), first_available_dim=-3)
    close(
        joint_table(two_plates_for_funsor, {}, x).log_likelihood,
        log_density(enumerated, (x,), {}, {})[0],
    )


def test_masked_observation_contributes_nothing():
    def masked(x, seen):
        with handlers.mask(mask=jnp.asarray(seen)):
            gaussian_mixture(x)

    seen = np.array([True, False, True, True])
    table = joint_table(masked, MIXTURE_PARAMS, MIXTURE_DATA, seen)
    close(
        table.log_likelihood,
        joint_table(gaussian_mixture, MIXTURE_PARAMS, MIXTURE_DATA[seen]).log_likelihood,
    )
    close(table.posterior["component"][1], [0.5, 0.5])


@pytest.mark.parametrize("wrap", ["outside", "inside", "event", "event outside"])
def test_masked_latent_is_uniform_wherever_the_mask_stands(wrap):
    seen = jnp.array([True, False])
    law = dist.Categorical(jnp.array([0.2, 0.3, 0.5]))

    def model():
        if wrap == "outside":
            with handlers.mask(mask=seen), numpyro.plate("rows", 2):
                numpyro.sample("z", law)
        elif wrap == "inside":
            with (
                numpyro.plate("columns", 2, dim=-2),
                numpyro.plate("rows", 2, dim=-1),
                handlers.mask(mask=seen),
            ):
                numpyro.sample("z", law)
        elif wrap == "event":
            numpyro.sample("z", law.expand([2]).mask(seen).to_event(1))
        else:
            with numpyro.plate("rows", 2):
                numpyro.sample("z", law.expand([2, 2]).to_event(1).mask(seen))

    table = joint_table(model, {})
    posterior = table.posterior["z"].reshape(-1, 2, 3)
    close(table.log_likelihood, 0)
    if wrap == "event outside":
        posterior = posterior.swapaxes(0, 1)
    close(posterior[:, 0], np.broadcast_to([0.2, 0.3, 0.5], posterior[:, 0].shape))
    close(posterior[:, 1], np.full_like(posterior[:, 1], 1 / 3))


def test_half_labelled_rows():
    labels, known = np.array([1, 0, 0, 0]), np.array([True, False, True, False])

    def model():
        with numpyro.plate("samples", 4):
            z = numpyro.sample(
                "z", dist.Categorical(MIXTURE_PARAMS["weights"]), obs=labels, obs_mask=known
            )
            numpyro.sample(
                "x", dist.Normal(jnp.asarray(MIXTURE_PARAMS["loc"])[z], 1.5), obs=MIXTURE_DATA
            )

    density = mixture_densities()
    per_row = np.where(known, density[np.arange(4), labels], density.sum(1))
    table = joint_table(model, {})
    close(table.log_likelihood, np.log(per_row).sum())
    posterior = density / density.sum(1, keepdims=True)
    close(table.posterior["z_unobserved"], np.where(known[:, None], 0.5, posterior))


def test_batch_dimension_without_plate_is_independent_elements():
    def model():
        z = numpyro.sample("z", dist.Categorical(MIXTURE_PARAMS["weights"]).expand([4]))
        numpyro.sample(
            "x", dist.Normal(jnp.asarray(MIXTURE_PARAMS["loc"])[z], 1.5), obs=MIXTURE_DATA
        )

    close(joint_table(model, {}).log_likelihood, np.log(mixture_densities().sum(1)).sum())


def test_reduction_over_latents_is_what_the_program_says():
    def model():
        z = numpyro.sample("z", dist.Bernoulli(0.3).expand([3]))
        numpyro.sample("total", dist.Normal(z.sum(), 1.0), obs=1.6)

    by_total = [stats.binom.pmf(k, 3, 0.3) * stats.norm.pdf(1.6, k) for k in range(4)]
    close(joint_table(model, {}).log_likelihood, np.log(sum(by_total)))


def test_binomial_latent():
    def model():
        with numpyro.plate("rows", 2):
            z = numpyro.sample("z", dist.Binomial(2, 0.3))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=jnp.array([0.2, 3.0]))

    density = stats.binom.pmf(np.arange(3), 2, 0.3) * stats.norm.pdf(
        np.array([[0.2], [3.0]]), np.arange(3)
    )
    table = joint_table(model, {})
    close(table.log_likelihood, np.log(density.sum(1)).sum())
    close(table.posterior["z"], density / density.sum(1, keepdims=True))


def test_continuous_site_is_a_parameter_and_its_prior_is_not_likelihood():
    def model():
        with numpyro.plate("components", 2):
            loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
        with numpyro.plate("samples", 4):
            z = numpyro.sample("z", dist.Categorical(MIXTURE_PARAMS["weights"]))
            numpyro.sample("x", dist.Normal(loc[z], 1.5), obs=MIXTURE_DATA)

    table = joint_table(model, {"loc": MIXTURE_PARAMS["loc"]})
    close(table.log_likelihood, np.log(mixture_densities().sum(1)).sum())
    close(table.log_prior, stats.norm.logpdf(MIXTURE_PARAMS["loc"], 0, 10).sum())


def test_scaled_observation_is_copies_given_the_same_latents():
    def model(counts):
        with numpyro.plate("samples", 4):
            z = numpyro.sample("z", dist.Categorical(MIXTURE_PARAMS["weights"]))
            with handlers.scale(scale=counts):
                numpyro.sample(
                    "x", dist.Normal(jnp.asarray(MIXTURE_PARAMS["loc"])[z], 1.5), obs=MIXTURE_DATA
                )

    counts = np.array([1, 2, 3, 1])
    likelihood = (
        stats.norm.pdf(MIXTURE_DATA[:, None], MIXTURE_PARAMS["loc"], 1.5) ** counts[:, None]
    )
    close(
        joint_table(model, {}, counts).log_likelihood,
        np.log(likelihood @ MIXTURE_PARAMS["weights"]).sum(),
    )


def test_scaled_latent_is_refused():
    def model():
        with numpyro.plate("samples", 4), handlers.scale(scale=2.0):
            numpyro.sample("z", dist.Bernoulli(0.5))

    with pytest.raises(ValueError, match=r"'z' is scaled.*repeat the rows"):
        joint_table(model, {})


def test_unbounded_latent_is_refused():
    with pytest.raises(ValueError, match="'n' has no finite support"):
        joint_table(lambda: numpyro.sample("n", dist.Poisson(1.0)), {})


def test_continuous_site_without_a_value_is_refused():
    with pytest.raises(ValueError, match="'loc' needs a value"):
        joint_table(lambda: numpyro.sample("loc", dist.Normal(0, 1)), {})


def test_prior_that_depends_on_a_latent_is_refused():
    def model():
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("loc", dist.Normal(z, 1.0))

    with pytest.raises(ValueError, match="depends on a latent"):
        joint_table(model, {"loc": 0.0})


def test_impossible_data_have_no_posterior():
    def model():
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Delta(1.0 * z), obs=0.5)

    table = joint_table(model, {})
    assert table.log_likelihood == -math.inf
    with pytest.raises(ValueError, match="probability zero"):
        _ = table.posterior


def test_assignment_outside_the_table_is_refused():
    table = joint_table(gaussian_mixture, MIXTURE_PARAMS, MIXTURE_DATA)
    with pytest.raises(ValueError, match="not one joint assignment"):
        table.complete_log_likelihood_at({"component": np.array([0, 1, 2, 0])})
    with pytest.raises(ValueError, match="has shape"):
        table.complete_log_likelihood_at({"component": np.array([0, 1])})


def test_every_assignment_is_a_row():
    table = joint_table(topics, {}, np.array([[0, 2], [1, 1]]))
    assert len(table.complete_log_likelihood) == 2**6
    for theme, topic in itertools.product([[1, 1], [1, 2]], [[0, 1, 1, 0], [1, 1, 0, 1]]):
        z = {"theme": np.array(theme).reshape(2, 1), "topic": np.array(topic).reshape(2, 2)}
        expected = complete_log_likelihood(topics, {}, z, np.array([[0, 2], [1, 1]]))[0]
        close(table.complete_log_likelihood_at(z), expected)
