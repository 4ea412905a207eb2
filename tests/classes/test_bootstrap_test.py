"""The bootstrap likelihood-ratio test: each replicate against fits made one by one."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import emjax
from emjax import EM, labeled, weighted
from emjax.classes import bootstrap_test
from emjax.models import latent_class
from emjax.refits.bootstrap import simulated

KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
PROBS = np.array([[0.9, 0.8, 0.9, 0.8], [0.1, 0.3, 0.2, 0.2]])
ANSWERS = (RNG.random((60, 4)) < PROBS[RNG.integers(0, 2, 60)]).astype(int)


def classes(answers, num_classes):
    latent_class.program(answers, num_classes=num_classes)


@pytest.fixture(scope="module")
def fits():
    ems = [EM(partial(classes, num_classes=k), tol=1e-11) for k in (1, 2)]
    yield [em.run(KEY, ANSWERS) for em in ems]
    jax.clear_caches()


def test_replicates_are_fits_to_data_that_the_smaller_program_draws(fits):
    smaller, larger = fits
    found = emjax.bootstrap_likelihood_ratio(smaller, larger, KEY, num_replicates=4)
    draw, bound = simulated(smaller.on()), smaller.on()
    expected = []
    for key in jax.random.split(KEY, 4):
        of_draw, _ = jax.random.split(key)
        answers = np.asarray(draw(of_draw, smaller.params, bound.data)["answers"])
        heights = [fit.em.run(key, answers).log_likelihood for fit in fits]
        expected.append(2 * (heights[1] - heights[0]))
    np.testing.assert_allclose(found.replicates, expected, atol=1e-3)
    np.testing.assert_allclose(
        found.statistic, 2 * (larger.log_likelihood - smaller.log_likelihood), rtol=1e-14
    )
    assert found.p_value == 1 / 5
    assert (found.num_failed, found.num_negative, found.findings) == (0, 0, ())


def test_record_counts_what_is_as_large_and_leaves_out_what_failed():
    replicates = np.array([1.0, 7.0, np.nan, 3.0, -1.0])
    found = emjax.BootstrapLikelihoodRatio(3.0, replicates, 1)
    assert found.p_value == (1 + 2) / (4 + 1)
    assert (found.num_failed, found.num_negative) == (1, 1)
    np.testing.assert_allclose(found.standard_error, np.sqrt(0.6 * 0.4 / 5), rtol=1e-14)
    assert str(found).splitlines()[:3] == [
        "likelihood ratio 3.0000, p = 0.6000 ± 0.2191, of 4 replicates drawn by the smaller "
        "program",
        "  quantile  likelihood ratio",
        "       50%            2.0000",
    ]
    kinds = [each.kind for each in bootstrap_test.findings_of_replicates(replicates, 1)]
    assert kinds == ["failed replicates", "unconverged replicates", "negative replicates"]


def normals(x, num_classes):
    loc = numpyro.param("loc", jnp.arange(float(num_classes)))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.full(num_classes, 1 / num_classes)))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def factor(x):
    loc = numpyro.param("loc", 0.0)
    with numpyro.plate("rows", len(x)):
        numpyro.factor("density", -((x - loc) ** 2))


def other_site(x):
    loc = numpyro.param("loc", 0.0)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=x)


X = np.array([0.1, 0.4, 2.0, 2.2])
TWO = partial(normals, num_classes=2)


@pytest.mark.parametrize(
    ("program", "data", "settings", "message"),
    [
        (
            weighted(TWO, "rows"),
            (np.ones(4), X),
            {},
            "Site 'z' has weights, and the test is of",
        ),
        (labeled(TWO, "z"), (np.array([0, -1, 1, -1]), X), {}, "Site 'z_label' holds labels"),
        (factor, (X,), {}, "Site 'density' is a numpyro.factor, from which no data can be drawn"),
        (other_site, (X,), {}, "observe different sites, 'y' and 'x'"),
        (TWO, (X[:3],), {}, "The two fits are of different data"),
        (TWO, (X,), {"e_step": "hard"}, "to which only a soft E-step leads: EM(model)"),
    ],
    ids=["weights", "labels", "a factor", "another site", "other data", "a hard E-step"],
)
def test_what_cannot_be_compared_says_so(program, data, settings, message):
    smaller = EM(program, max_steps=1, **settings).run(KEY, *data)
    larger = EM(partial(normals, num_classes=3), max_steps=1).run(KEY, X)
    # the data of the first two are others, too, which is not what is wrong with them
    if len(data) > 1:
        larger = EM(program, max_steps=1).run(KEY, *data)
    with pytest.raises(ValueError, match=re.escape(message)):
        emjax.bootstrap_likelihood_ratio(smaller, larger, KEY)


def test_what_is_no_fit_and_no_number_says_so(fits):
    with pytest.raises(ValueError, match=r"It takes two fits, em\.run.*, and not dict: emjax.boot"):
        emjax.bootstrap_likelihood_ratio(fits[0].params, fits[1], KEY)
    with pytest.raises(ValueError, match="num_replicates must be a whole number of at least 1"):
        emjax.bootstrap_likelihood_ratio(*fits, KEY, num_replicates=0)
    with pytest.raises(ValueError, match="rng_key is a random key"):
        emjax.bootstrap_likelihood_ratio(*fits, 7)


def test_the_larger_program_comes_second(fits):
    message = "first fit has 9 free parameters and the second 4: the smaller program comes first"
    for test in (
        partial(emjax.bootstrap_likelihood_ratio, rng_key=KEY),
        emjax.vuong_lo_mendell_rubin,
    ):
        with pytest.raises(ValueError, match=message):
            test(fits[1], larger=fits[0])


def test_fits_that_are_poor_are_said_to_be(fits):
    found = bootstrap_test.findings_of(fits[1], fits[0])
    assert [each.kind for each in found] == ["negative likelihood ratio"]
