"""Bad data, latents, weights, starts and settings: each error names the site and says the fix; and
input that only looks bad works.
"""

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, Status
from emjax.distributions import Select
from emjax.models import annotators, coins
from tests.oracles.brute_force import joint_table
from tests.programs import HALF, HEADS, KEY, X, mixture, run, weighted


@pytest.mark.parametrize("at", ["run", "log_likelihood"])
def test_nan_in_the_data_is_an_error(at):
    data = X.at[2].set(jnp.nan)
    with pytest.raises(ValueError, match=r"Site 'x'.*NaN at index \(2,\)(?s:.*)obs_mask"):
        run(mixture, data) if at == "run" else EM(mixture).log_likelihood(
            {"loc": X[:2], "scale": 1.0}, data
        )


def test_nan_under_a_mask_is_a_missing_value():
    def program(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", len(x)):
            numpyro.sample(
                "x", dist.Normal(loc, 1.0), obs=jnp.nan_to_num(x), obs_mask=~jnp.isnan(x)
            )

    assert run(program, X.at[2].set(jnp.nan)).params["loc"] == pytest.approx(5.5 / 3)


def test_nan_under_a_mask_is_a_missing_value_of_any_distribution():
    def program(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", len(x)), numpyro.handlers.mask(mask=~jnp.isnan(x)):
            numpyro.sample("x", dist.StudentT(4.0, loc, 1.0), obs=x)

    result = run(program, jnp.array([3.0, 4.0, 5.0, jnp.nan]), max_steps=20)
    assert result.params["loc"] == pytest.approx(4.0, abs=1e-6)  # by symmetry


@pytest.mark.parametrize("missing", [-1, 7])
@pytest.mark.parametrize("is_argument", [True, False])
def test_category_under_a_mask_need_not_exist(missing, is_argument):
    def program(y):
        probs = numpyro.param("probs", HALF, constraint=constraints.simplex)
        with numpyro.plate("rows", len(y)), numpyro.handlers.mask(mask=y != missing):
            numpyro.sample("y", dist.Categorical(probs), obs=y)

    y = jnp.array([0, 1, missing, 1])
    result = run(program, y) if is_argument else run(lambda: program(y))
    np.testing.assert_allclose(result.params["probs"], [1 / 3, 2 / 3])


@pytest.mark.parametrize("value", [11.0, -1.0, 0.5])
def test_observation_outside_the_support_is_an_error(value):
    with pytest.raises(
        ValueError, match=r"Site 'heads'.*index \(1,\).*outside the support of Binomial(?s:.*)mask"
    ):
        run(coins.program, HEADS.at[1].set(value))


def test_category_out_of_range_is_an_error():
    def program(y):
        probs = numpyro.param(
            "probs", jnp.array([[0.8, 0.2], [0.3, 0.7]]), constraint=constraints.simplex
        )
        with numpyro.plate("rows", len(y)):
            numpyro.sample(
                "y", dist.Categorical(probs[numpyro.sample("z", dist.Categorical(HALF))]), obs=y
            )

    with pytest.raises(
        ValueError, match=r"Site 'y'.*index \(2,\).*outside the support of Categorical"
    ):
        run(program, jnp.array([0, 1, 2]))


def test_value_that_one_component_of_a_select_excludes_is_certain_of_the_other():
    scores = jnp.array([[1.2, 0.5, 0.4], [0.3, 0.2, 0.9]])
    params = {"mu": jnp.array([0.6, 0.4]), "sigma": 0.3, "pi": 0.5}
    good = EM(annotators.program).posterior(params, scores)["good"]
    np.testing.assert_allclose(good[0], [0, 1], atol=1e-12)
    assert (good[1:] > 0).all()


def test_value_that_one_component_of_a_select_excludes_teaches_it_nothing():
    def program(x):
        scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample(
                "x", Select(z, [dist.Normal(-3.0, 1.0), dist.Weibull(scale, 1.5)]), obs=x
            )

    seen = np.array([4.0, 5.0, 6.0])
    result = run(program, jnp.array([-3.0, -2.5, *seen]), max_steps=50)
    assert result.params["scale"] == pytest.approx(
        np.mean(seen**1.5) ** (1 / 1.5), rel=1e-6
    )  # the others are almost surely normal


def test_value_that_every_component_of_a_select_excludes_is_an_error():
    def program(x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", Select(z, [dist.Uniform(0.0, 1.0), dist.Exponential(1.0)]), obs=x)

    with pytest.raises(ValueError, match=r"(site|Site) 'x'.*\(1,?\)"):
        run(program, jnp.array([0.5, -0.5]))


def test_support_that_depends_on_a_latent_excludes_values_of_the_latent():
    def program(x):
        width = numpyro.param("width", jnp.array([0.5, 2.0]), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(HALF))
            numpyro.sample("x", dist.Uniform(0.0, width[z]), obs=x)

    em, params = EM(program), {"width": jnp.array([0.5, 2.0])}
    x = jnp.array([0.1, 1.5])
    np.testing.assert_allclose(em.posterior(params, x)["z"], [[0.8, 0.2], [0, 1]], atol=1e-12)
    assert em.log_likelihood(params, x) == pytest.approx(
        np.log(0.5 * 2 + 0.5 * 0.5) + np.log(0.5 * 0.5)
    )
    with pytest.raises(ValueError, match=r"(site|Site) 'x' at index \(1"):
        run(program, jnp.array([0.1, 2.5]))


def chosen(index, x, seen=True):
    with numpyro.plate("rows", len(x)), numpyro.handlers.mask(mask=seen):
        numpyro.sample("x", Select(index, [dist.Normal(0.0, 1.0), dist.Normal(3.0, 1.0)]), obs=x)


@pytest.mark.parametrize("index", [[1, 2, 2, 1], [0, 1, -1, 0]])
def test_index_that_chooses_no_component_is_an_error(index):
    with pytest.raises(
        ValueError,
        match=r"Site 'x'.*out of range at position \([12],\).*none of the components of Select",
    ):
        run(chosen, jnp.array(index), X)
    with pytest.raises(
        ValueError,
        match=r"Site 'x'.*index of Select takes values that choose none of its components",
    ):
        run(lambda x: chosen(np.array(index), x), X)


def test_index_that_chooses_no_component_is_harmless_under_a_mask():
    index = jnp.array([0, 1, 2, 1])
    found = EM(chosen).log_likelihood({}, index, X, index < 2)
    assert found == pytest.approx(
        EM(chosen).log_likelihood({}, jnp.array([0, 1, 1]), X[jnp.array([0, 1, 3])])
    )


def test_latent_with_more_values_than_select_has_components_is_an_error():
    def program(x):
        with numpyro.plate("rows", len(x)):
            chosen_by = numpyro.sample("z", dist.Categorical(jnp.ones(3) / 3))
        chosen(chosen_by, x)

    with pytest.raises(
        ValueError, match=r"Site 'x': the index of Select, latent 'z',.*a component for every value"
    ):
        run(program, X)


# ── latents ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "law", [dist.Poisson(3.0), dist.Geometric(0.3), dist.NegativeBinomial2(3.0, 2.0)]
)
def test_latent_of_infinite_support_is_an_error(law):
    def program(x):
        with numpyro.plate("rows", len(x)):
            visits = numpyro.sample("visits", law)
            numpyro.sample("x", dist.Normal(visits, 1.0), obs=x)

    kind = type(law).__name__.removesuffix("Probs")
    with pytest.raises(
        ValueError,
        match=rf"Site 'visits' is latent and "
        rf"{kind}(?s:.*)obs=value(?s:.*)dist.Categorical\(logits=dist.{kind}",
    ):
        run(program, X)


def test_latent_of_infinite_support_that_nothing_depends_on_is_harmless():
    def program(x, seen):
        rate = numpyro.param("rate", 3.0, constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Poisson(rate), obs=x, obs_mask=seen)

    result = run(program, jnp.array([1, 7, 4]), jnp.array([True, False, True]))
    assert result.params["rate"] == pytest.approx(2.5)


def test_continuous_latent_with_as_many_values_as_data_is_map_with_a_warning():
    def program(x):
        with numpyro.plate("rows", len(x)):
            t = numpyro.sample("t", dist.Normal(1.0, 1.0))
            numpyro.sample("x", dist.Normal(t, 1.0), obs=x)

    message = r"'t' has as many values \(4\) as site 'x' has data.*MAP.*integrate={'t'}"
    with pytest.warns(UserWarning, match=message):
        result = run(program, X)
    np.testing.assert_allclose(result.params["t"], (X + 1) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    "read", [lambda: numpyro.sample("z", dist.Bernoulli(0.3)), lambda: numpyro.param("weight", 1.0)]
)
def test_multiplicity_that_is_not_known_is_an_error(read):
    def program(x):
        with numpyro.plate("rows", len(x)), numpyro.handlers.scale(scale=1.0 + read()):
            numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(
        ValueError, match="Site 'x': its multiplicity depends on a parameter or a latent"
    ):
        run(program, X)


@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_missing_plate_is_an_error(shape):
    def program(x):
        loc = numpyro.param("loc", jnp.zeros((2, *shape[1:])))
        z = numpyro.sample("z", dist.Categorical(HALF))
        numpyro.sample("x", dist.Normal(loc[z], 1.0).to_event(len(shape) - 1), obs=x)

    with pytest.raises(
        ValueError, match=r"Site 'x'(?s:.*)latent 'z'(?s:.*)with numpyro.plate\('rows', 4\)"
    ):
        run(program, jnp.ones(shape))


@pytest.mark.parametrize(
    "law",
    [
        lambda z: Select(z, [dist.Normal(0.0, 1.0), dist.Normal(3.0, 1.0)]),
        lambda z: dist.Normal(0.0, 1.0).mask(z == 1),
    ],
    ids=["index of Select", "mask"],
)
def test_missing_plate_is_an_error_however_the_latent_is_read(law):
    def program(x):
        numpyro.sample("x", law(numpyro.sample("z", dist.Bernoulli(0.3))), obs=x)

    with pytest.raises(
        ValueError, match=r"Site 'x'(?s:.*)latent 'z'(?s:.*)with numpyro.plate\('rows', 4\)"
    ):
        run(program, X)


def test_support_that_depends_on_data_is_an_error():
    def program(count, x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Binomial(count, 0.5))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"support of latent site 'z' .*as Python numbers"):
        run(program, jnp.array([3, 3, 4, 4]), X)


def test_elements_unequal_in_support_are_an_error():
    def program(x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Binomial(np.array([3, 3, 4, 4]), 0.5))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="support of latent site 'z'"):
        run(program, X)


def test_latent_uniform_between_bounds_in_the_data_is_an_error():
    def program(low, x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.DiscreteUniform(low, 5))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"'z'"):
        run(program, jnp.array(2), X)


def test_prior_that_depends_on_a_latent_is_map_or_a_clear_error():
    def program(x):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        loc = numpyro.sample("loc", dist.Normal(2.0 * z, 1.0))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    try:
        result = run(program, X)
    except ValueError as error:
        assert re.search("'loc'.*'z'", str(error))
    else:
        assert np.isfinite(result.params["loc"])


# ── memory ────────────────────────────────────────────────────────────────────────────────────────


def mixed(x, num_elements):
    loc = numpyro.param("loc", jnp.array([0.0, 1.5]))
    with numpyro.plate("rows", num_elements):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.6, 0.4])))
    numpyro.sample("x", dist.Normal(jnp.sum(loc[z]), 1.0), obs=x)


def test_reduction_over_few_elements_is_exact():
    params, x = {"loc": jnp.array([0.0, 1.5])}, jnp.array(2.0)
    table = joint_table(mixed, params, x, 4)
    assert EM(mixed).log_likelihood(params, x, 4) == pytest.approx(table.log_likelihood, abs=1e-12)


def test_reduction_over_many_elements_is_an_error_with_its_size():
    with pytest.raises(MemoryError, match=r"mixes the 40 elements of latent 'z'(?s:.*)2\^40"):
        EM(mixed).log_likelihood({"loc": jnp.array([0.0, 1.5])}, jnp.array(2.0), 40)


def test_latents_so_coupled_that_their_table_does_not_fit_are_an_error_with_its_size():
    def program(x):
        total = 0.0
        for i in range(50):
            total += numpyro.sample(f"z{i}", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(total, 1.0), obs=x)

    with pytest.raises(MemoryError, match=r"'?z\d+'?(?s:.*)Gi?B"):
        EM(program).log_likelihood({}, jnp.array(2.0))


def test_latents_of_many_values_whose_table_does_not_fit_are_an_error_with_its_size():
    def program(x):
        uniform = jnp.full(2000, 1 / 2000)
        a, b, c = (numpyro.sample(name, dist.Categorical(uniform)) for name in "abc")
        numpyro.sample("x", dist.Normal(1.0 * a * b + c, 1.0), obs=x)

    with pytest.raises(MemoryError, match=r"'[abc]'(?s:.*)Gi?B"):
        EM(program).log_likelihood({}, jnp.array(2.0))


# ── weights and starts ────────────────────────────────────────────────────────────────────────────


def test_constant_weights_that_do_not_sum_to_one_are_an_error():
    with pytest.raises(ValueError, match=r"Site 'z'.*probs.*sum to 1\.1.*keepdims"):
        run(mixture, X, jnp.array([0.5, 0.6]))


def test_weights_that_do_not_sum_to_one_are_an_error_as_a_parameter():
    with pytest.raises(ValueError, match=r"'weights'.*sum to 1\.1.*keepdims"):
        run(weighted, X, jnp.array([0.5, 0.6]))


def test_weights_that_do_not_sum_to_one_are_an_error_as_a_start():
    with pytest.raises(ValueError, match=r"'weights'.*sum to 1\.8.*keepdims"):
        run(weighted, X, init_params={"weights": [0.9, 0.9]})


def test_negative_weights_are_an_error():
    with pytest.raises(ValueError, match=r"'weights'.*-0\.1"):
        run(weighted, X, init_params={"weights": [-0.1, 1.1]})


def test_weights_that_do_not_sum_to_one_are_an_error_in_a_posterior():
    with pytest.raises(ValueError, match=r"'weights'.*sum to 1\.8"):
        EM(weighted).posterior({"weights": jnp.array([0.9, 0.9]), "loc": X[:2], "scale": 1.0}, X)


@pytest.mark.parametrize("scale", [-1.0, 0.0])
def test_start_that_breaks_a_constraint_is_an_error(scale):
    with pytest.raises(ValueError, match=r"'scale'.*init_params=\{'scale'"):
        run(mixture, X, init_params={"scale": scale})


def test_nan_in_the_start_is_an_error():
    with pytest.raises(ValueError, match=r"'scale'"):
        run(mixture, X, init_params={"scale": jnp.nan})


def test_start_with_zero_likelihood_names_the_first_offending_datum():
    heads = jnp.array([10.0, 0.0, 3.0, 4.0])
    with pytest.raises(
        ValueError, match=r"zero likelihood.*'heads' at index \(2.*value 3.*init_params"
    ):
        run(coins.program, heads, init_params={"bias": [0.0, 1.0]})


def test_start_with_zero_likelihood_names_the_first_offending_datum_though_no_latent_varies():
    def program(x):
        high = numpyro.param("high", 3.0, constraint=constraints.positive)
        with numpyro.plate("rows", 4):
            numpyro.sample(
                "x", dist.Uniform(jnp.zeros(x.shape[1:]), high).to_event(x.ndim - 1), obs=x
            )

    with pytest.raises(ValueError, match=r"'x' at index \(2\), value 4\."):
        run(program, X)
    with pytest.raises(ValueError, match=r"'x' at index \(3, 1\), value 5\."):
        run(program, jnp.stack([jnp.ones(4), X], axis=1).at[2].set(1.0))


def test_start_on_the_boundary_is_none_of_them():
    result = run(coins.program, jnp.array([10.0, 0.0, 10.0]), init_params={"bias": [0.0, 1.0]})
    np.testing.assert_array_equal(result.params["bias"], [0, 1])
    assert result.status == Status.CONVERGED


def test_symmetric_start_is_a_warning():
    with pytest.warns(UserWarning, match=r"Latent 'coin'.*only 1 of its 2 values.*init_params"):
        run(coins.program, HEADS, init_params={"bias": [0.5, 0.5]})


def test_values_that_the_program_itself_makes_equal_are_no_warning():
    def program(x):
        loc = numpyro.param("loc", jnp.array([0.0, 4.0]))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.full(4, 0.25)))
            numpyro.sample("x", dist.Normal(loc[z // 2], 1.0), obs=x)

    run(program, X)  # a warning would be an error here


# ── programs with nothing to do ───────────────────────────────────────────────────────────────────


def test_program_without_latent_is_maximum_likelihood_in_one_step():
    def program(x):
        loc = numpyro.param("loc", 0.0)
        scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc, scale), obs=x)

    result = run(program, X)
    assert result.status == Status.CONVERGED
    assert result.objective[1] == pytest.approx(result.objective[-1], rel=1e-14)
    assert result.params["loc"] == pytest.approx(np.mean(X))
    assert result.params["scale"] == pytest.approx(np.std(X))
    assert EM(program).posterior(result.params, X) == {}


def test_program_without_parameter_has_nothing_to_maximize():
    def program(x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    result = run(program, X)
    assert result.status == Status.CONVERGED
    assert result.params == {}
    assert result.log_likelihood == pytest.approx(joint_table(program, {}, X).log_likelihood)
    assert "nothing to maximize" in str(EM(program).plan(X))


def test_factor_is_a_term_like_any_other():
    def program(x):
        loc = numpyro.param("loc", 0.5)
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.factor("penalty", jnp.where(z == 1, -(loc**2), -1.0))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    result = run(program, X, max_steps=100)
    table = joint_table(program, result.params, X)
    assert result.log_likelihood == pytest.approx(table.log_likelihood)
    weight = table.posterior["z"][1]  # the maximum of -w loc² - Σ (x - loc)² / 2
    assert result.params["loc"] == pytest.approx(float(X.sum()) / (len(X) + 2 * weight), rel=1e-4)


def test_program_without_observation_keeps_its_start():
    def program():
        weights = numpyro.param("weights", jnp.array([0.3, 0.7]), constraint=constraints.simplex)
        numpyro.sample("z", dist.Categorical(weights))

    with pytest.warns(UserWarning, match=r"No site of the program is observed.*Is obs= missing\?"):
        result = run(program)
    assert [finding.kind for finding in result.findings] == ["nothing observed"]
    np.testing.assert_allclose(result.params["weights"], [0.3, 0.7], rtol=1e-14)
    assert float(result.log_likelihood) == pytest.approx(0.0, abs=1e-14)


# ── arguments and settings ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "given, message",
    [
        ({"bais": 0.5}, r"no parameter 'bais'.*it has 'bias'"),
        ({"bias": jnp.zeros(3)}, r"'bias' has shape \(2,\).*not \(3,\)"),
        ({"bias": 0.5}, r"'bias' has shape \(2,\).*not \(\)"),
        ({"bias": "half"}, "bias"),
    ],
)
def test_wrong_init_params_are_an_error(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(coins.program, HEADS, init_params=given)


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "lacks 'bias'"),
        ({"bias": jnp.zeros(3)}, r"'bias' has shape \(2,\)"),
        ({"bias": jnp.array([0.4, 0.5]), "weights": 1.0}, "no parameter 'weights'"),
        (None, r"such as result\.params, not NoneType"),
    ],
)
def test_wrong_params_are_an_error(given, message):
    for method in (
        EM(coins.program).log_likelihood,
        EM(coins.program).posterior,
        EM(coins.program).decode,
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            method(given, HEADS)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"e_step": "sfot"}, "e_step must be 'soft', 'hard' or a temperature.*not 'sfot'"),
        ({"e_step": -1}, "e_step.*not -1"),
        ({"e_step": float("nan")}, "e_step.*nan"),
        ({"e_step": None}, "e_step"),
        ({"tol": -1e-3}, "tol.*at least 0, not -0.001"),
        ({"tol": "small"}, "tol"),
        ({"max_steps": -1}, "max_steps.*at least 0, not -1"),
        ({"max_steps": 2.5}, "max_steps.*not 2.5"),
        ({"num_restarts": 0}, "num_restarts.*at least 1, not 0"),
        ({"m_step": "adam"}, "m_step"),
        ({"m_step": {"bais": None}}, "m_step names 'bais'.*'bias'"),
        ({"m_step": {"bias": 0.1}}, r"m_step\['bias'\] must be an optax optimizer or a function"),
    ],
)
def test_wrong_setting_is_an_error(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EM(coins.program, **settings).run(KEY, HEADS)
