"""Data padded to another length, with multiplicity zero: every answer is what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM
from emjax.models import gaussian_mixture, latent_class
from emjax.run import padded
from emjax.run.bound import Bound
from emjax.run.padded import padded_length
from tests.compilations import compilations
from tests.oracles.row_programs import ALLOWED

KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
LENGTH = 21
TOLERANCE = 1e-12


@pytest.fixture
def unpadded(monkeypatch):
    """Return what a function returns where nothing is padded."""

    def at_own_length(function):
        with monkeypatch.context() as context:
            context.setattr(padded, "LARGEST", 0)
            return function()

    return at_own_length


def data_of(length):
    return RNG.normal(size=(length, 2)), RNG.integers(0, 3, length), RNG.integers(0, 4, length)


def is_padded(em, *args, **kwargs):
    return em.on(*args, **kwargs)._padded is not None


def assert_close(first, second):
    compared = jax.tree.map(np.asarray, (first, second))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, TOLERANCE, TOLERANCE), *compared)


def test_no_more_than_a_quarter_is_wasted():
    for length in range(1, 5000):
        size = padded_length(length)
        assert length <= size <= max(padded.FEWEST_ROWS, 1.25 * length)
        assert padded_length(size) == size
    assert len({padded_length(length) for length in range(129, 257)}) == 4


@pytest.mark.sampled
@pytest.mark.parametrize("name", ALLOWED)
def test_a_padded_fit_and_its_answers_are_those_of_the_data(name, unpadded):
    program = ALLOWED[name]

    def all_answers(data):
        em = EM(program, max_steps=3)
        result = em.run(KEY, *data)
        asked = em.posterior(result, *data), em.decode(result, *data)
        return result.params, result.objective, result.log_likelihood, asked

    data = data_of(LENGTH)
    assert is_padded(EM(program, max_steps=3), *data)
    assert_close(all_answers(data), unpadded(lambda: all_answers(data)))


def clusters(x):
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    loc = numpyro.param("loc", lambda rng_key: jnp.array([x[:, 0].min(), x[:, 0].max()]))
    scale = numpyro.param("scale", lambda rng_key: x.std(0)[:2], constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x[:, 0])


@pytest.mark.sampled
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"init": "k-means++"},
        {"init": "data"},
        {"init": "responsibilities"},
        {"init": "splitting"},
        {"e_step": "hard"},
        {"e_step": 1.5, "annealing": [3.0, 2.0]},
        {"acceleration": "squarem"},
        {"polish": "newton"},
        {"num_restarts": 3, "init": "k-means++"},
    ],
    ids=str,
)
def test_every_setting_gives_what_it_gave(settings, unpadded):
    x = np.concatenate([RNG.normal(0, 1, (12, 2)), RNG.normal(4, 1, (11, 2))])
    # as many steps as rounding does not tell apart where a leap or a stop depends on it
    fit = lambda: EM(clusters, max_steps=6, **settings).run(KEY, x)  # noqa: E731
    first, second = fit(), unpadded(fit)
    assert_close((first.params, first.objective), (second.params, second.objective))
    assert first.status == second.status


def test_standard_errors_and_criteria_count_the_rows_that_there_are(unpadded):
    y = (RNG.random((27, 3)) < 0.4).astype(int)
    em = EM(latent_class.program, max_steps=20)
    assert is_padded(em, y, 2)
    result = em.run(KEY, y, 2)
    at_own = unpadded(lambda: EM(latent_class.program, max_steps=20).run(KEY, y, 2))
    first, second = (emjax.criteria(em, fit, y, 2) for fit in (result, at_own))
    assert first.num_samples == second.num_samples == 27
    assert_close((first.aic, first.bic, first.icl), (second.aic, second.bic, second.icl))


def test_a_prediction_evaluates_no_start():
    x = np.concatenate([RNG.normal(0, 1, 20), RNG.normal(5, 1, 20)])[:, None]
    em = EM(gaussian_mixture.program)
    result = em.run(KEY, x, 2)
    em.posterior(result, x[:10], 2)
    # two starting points cannot be drawn from one row
    (probabilities,) = em.posterior(result, x[:1], 2)["component"]
    np.testing.assert_allclose(
        probabilities, em.posterior(result, x, 2)["component"][0], rtol=1e-12
    )


def test_an_error_counts_and_numbers_the_rows_that_there_are(unpadded):
    x = RNG.normal(size=(20, 2))
    x[0, 0] = np.nan

    def message():
        with pytest.raises(ValueError) as error:
            EM(clusters).run(KEY, x)
        return str(error.value)

    assert message() == unpadded(message)


def test_a_row_that_is_added_may_not_exist_and_then_nothing_is_padded():
    table = np.arange(20.0)

    def program(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", len(x)):
            mean = jnp.asarray(table)[jnp.arange(len(x))]
            numpyro.sample("x", dist.Normal(loc + mean, 1.0), obs=x)

    em, x = EM(program), table + RNG.normal(size=20)
    np.testing.assert_allclose(em.run(KEY, x).params["loc"], (x - table).mean(), rtol=1e-12)


def test_lengths_of_one_bucket_compile_once_and_others_again():
    em = EM(ALLOWED["mixture"], max_steps=2)
    numbers = []
    for length in (33, 40, 37, 41):
        data = data_of(length)
        with compilations() as count:
            result = em.run(KEY, *data)
            em.posterior(result, *data)
        numbers.append(len(count.compiled))
    assert numbers == [2, 0, 0, 2]


def test_large_data_run_at_their_own_length():
    x = RNG.normal(size=(padded.LARGEST // 2 + 1, 2))
    assert Bound(EM(clusters)._compiler, (x,), {})._padded is None
