"""A program states its start, `infer={"start": …}`; what is given, fixed or known goes before."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM
from emjax.models import gaussian_mixture, hidden_markov

KEY = jax.random.key(7)
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(0, 1, 14), RNG.normal(9, 1, 9)])
OWN = {"weights": [0.5, 0.5], "loc": [-1.0, 1.0], "scale": [1.0, 1.0]}


def mixture(x, start="k-means"):
    weights = numpyro.param("weights", jnp.array(OWN["weights"]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array(OWN["loc"]))
    scale = numpyro.param("scale", jnp.array(OWN["scale"]), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"start": start})
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


def start_of(program, *args, init_params=None, **settings):
    """Where a run starts."""
    result = EM(program, max_steps=0, **settings).run(KEY, *args, init_params=init_params)
    return {name: np.asarray(value) for name, value in result.params.items()}


def is_own(start):
    return all(np.allclose(start[name], value) for name, value in OWN.items())


def test_the_start_that_a_program_states_is_that_of_the_name():
    stated, named = start_of(mixture, X), start_of(partial(mixture, start=None), X, init="k-means")
    for name, value in named.items():
        np.testing.assert_allclose(stated[name], value, rtol=1e-12)
    assert np.allclose(np.sort(stated["weights"]), [9 / 23, 14 / 23], rtol=1e-10)
    # weighted data state what the data do
    weighted = start_of(emjax.weighted(mixture, "rows"), np.ones(23), X)
    np.testing.assert_allclose(weighted["loc"], stated["loc"], rtol=1e-12)


def test_what_is_asked_given_fixed_or_known_goes_before_what_is_stated():
    assert is_own(start_of(mixture, X, init="program"))
    assert is_own(start_of(mixture, X, fixed={"scale"}))
    assert is_own(start_of(mixture, X, init_params={"weights": np.array([0.5, 0.5])}))
    labels = np.where(np.arange(23) == 3, 1, -1)
    assert is_own(start_of(emjax.labeled(mixture, "z"), labels, X))


def test_a_start_that_does_not_serve_the_program_is_its_own():
    # fewer rows than values: the name alone is an error
    assert is_own(start_of(mixture, X[:1]))
    with pytest.raises(ValueError, match="'kmeans'}, which must be one of"):
        start_of(partial(mixture, start="kmeans"), X)


@pytest.mark.parametrize("stated", ["k-means", None])
def test_the_first_of_several_starts_is_stated_or_the_programs_own_and_others_differ(stated):
    program = partial(mixture, start=stated)
    points = np.concatenate([X, X + 40.0])
    found = EM(program, num_restarts=7, max_steps=0).run(KEY, points).restarts.params["loc"]
    if stated is None:
        np.testing.assert_allclose(found[0], OWN["loc"])
    else:
        assert not np.isclose(found[0], OWN["loc"]).any()
    # k-means has one answer here, its seeds have many
    assert len(np.unique(np.round(np.sort(found[1:]), 6), axis=0)) > 1


def test_iris_comes_to_its_best_optimum_by_default():
    from sklearn.datasets import load_iris

    em = EM(gaussian_mixture.program)
    for seed in range(5):
        result = em.run(jax.random.key(seed), load_iris().data, 3)
        np.testing.assert_allclose(result.objective[-1], -180.185, atol=1e-3)


def test_a_model_that_states_its_start_is_padded_and_starts_as_it_does_at_its_own_length():
    points = RNG.normal(size=(23, 2)) + 4 * (np.arange(23) % 2)[:, None]
    assert EM(gaussian_mixture.program).on(points, 2)._padded.own_start(False).is_padded
    # the best of several short runs is not what `init` has
    em = EM(gaussian_mixture.program, init="k-means", max_steps=0)
    found = em.run(KEY, points, 2)
    # all that is given is at its own length
    expected = jax.jit(lambda x: em.init(KEY, x, 2).params)(jnp.asarray(points))
    for name, value in expected.items():
        np.testing.assert_allclose(found.params[name], value, rtol=1e-10)


def test_the_states_of_a_chain_start_at_clusters():
    x = np.repeat([0.0, 9.0, 0.0], 8)[:, None, None] + RNG.normal(size=(24, 1, 1))
    start = start_of(hidden_markov.gaussian_program, x, np.array([24]), 2)
    order = np.argsort(start["loc"][:, 0])
    np.testing.assert_allclose(start["loc"][order, 0], [0, 9], atol=0.7)
    np.testing.assert_allclose(np.diag(start["transition"]), [0.9, 0.9], atol=0.1)


def test_a_start_whose_m_step_is_at_a_bound_is_next_to_it():
    em = EM(gaussian_mixture.program, max_steps=0)
    found = em.run(KEY, X[:, None], 2, "diagonal", 4.0)
    np.testing.assert_allclose(found.params["scale"], 4.0, rtol=1e-6)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "settings", [{"polish": "newton"}, {"progress_bar": True}, {"num_restarts": 2}]
)
def test_short_runs_lead_to_the_same_place_whatever_is_shown_or_follows(settings):
    points = np.stack([X, np.sin(X)], axis=1)
    expected = EM(gaussian_mixture.program).run(KEY, points, 2).objective[-1]
    em = EM(gaussian_mixture.program, **settings)
    # keys of the old style are keys, too
    for key in (KEY, jax.random.PRNGKey(7)):
        np.testing.assert_allclose(em.run(key, points, 2).objective[-1], expected, rtol=1e-9)
