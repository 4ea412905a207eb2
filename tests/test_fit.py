"""A fit that can be asked: of its own data and of others, by itself and by functions."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import emjax
from emjax import EM
from emjax.models import gaussian_mixture

X = np.concatenate([np.random.default_rng(0).normal(m, 1, 30) for m in (-2, 2)])
OTHERS = X[:7] + 0.5


@pytest.fixture(scope="module")
def fit():
    return EM(gaussian_mixture.program, init="program").run(jax.random.key(0), X, 2)


def test_a_fit_is_asked_of_its_own_data_and_of_others(fit):
    for data in ((), (OTHERS, 2)):
        of_em = fit.em.posterior(fit.params, *(data or (X, 2)))
        np.testing.assert_array_equal(fit.posterior(*data)["component"], of_em["component"])
    assert fit.bound.args[0] is X
    most_probable = np.argmax(fit.posterior()["component"], axis=1)
    np.testing.assert_array_equal(fit.decode()["component"], most_probable)
    np.testing.assert_allclose(
        fit.log_likelihood_of(OTHERS, 2),
        fit.pointwise_log_likelihood(OTHERS, 2).sum(),
        rtol=1e-12,
    )
    assert str(fit.plan()) == str(fit.em.plan(X, 2))


def test_functions_of_an_em_take_a_fit_in_its_place(fit):
    by_hand = emjax.criteria(fit.em, fit.params, X, 2)
    assert str(emjax.criteria(fit)) == str(by_hand)
    assert str(emjax.criteria(fit, OTHERS, num_components=2)) == str(
        emjax.criteria(fit.em, fit, OTHERS, 2)
    )
    assert str(emjax.summary(fit)) == str(emjax.summary(fit.em, fit, X, 2))
    key = jax.random.key(1)
    held_out = emjax.cross_validate(fit, key, num_folds=2)
    of_em = emjax.cross_validate(fit.em, key, X, 2, num_folds=2)
    np.testing.assert_array_equal(held_out.pointwise, of_em.pointwise)
    by_name = emjax.cross_validate(fit, rng_key=key, num_folds=2)
    np.testing.assert_array_equal(by_name.pointwise, of_em.pointwise)


def test_a_program_on_data_makes_a_fit_too(fit):
    again = fit.on().run(jax.random.key(0))
    assert isinstance(again, emjax.Fit)
    assert again.em is fit.em
    mapped = jax.tree.map(lambda leaf: leaf, fit)
    assert jax.tree.structure(mapped) == jax.tree.structure(fit)


def test_a_fit_without_data_asks_for_them(fit):
    alone = emjax.Fit.of(fit.em, None, fit)
    with pytest.raises(ValueError, match=r"loaded without its data.*fit.posterior\(x\)"):
        alone.posterior()
    assert alone.posterior(OTHERS, 2)["component"].shape == (7, 2)


def test_without_latents_there_is_no_posterior_to_show_or_to_relabel():
    def normal(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    fit = EM(normal).run(jax.random.key(0), np.array([0.1, 0.3]))
    with pytest.raises(ValueError, match="has no latent, so that there is no posterior"):
        fit.posterior_frame()
    with pytest.raises(ValueError, match="no discrete latent, whose values could be relabeled"):
        fit.relabel("size")


def test_words_of_what_a_fit_does_not_take(fit, tmp_path):
    with pytest.raises(ValueError, match=r"num_samples=float64\[60\] must be .* follow it"):
        fit.sample_posterior(jax.random.key(0), X)
    with pytest.raises(TypeError, match=r"of fit.posterior and the like, all"):
        fit.posterior(OTHERS, number=2)
    with pytest.raises(ValueError, match=r"fit.save takes the file: .* not None"):
        fit.save(None)
    with pytest.raises(ValueError, match="outside of"):
        jax.jit(lambda x: fit.pointwise_log_likelihood(x, 2))(OTHERS)
    with pytest.raises(TypeError, match=r"summary has no option 'levels', .* are level, standard"):
        emjax.summary(fit, levels=0.9)
    assert fit.export(platforms="cpu").platforms == ("cpu",)
