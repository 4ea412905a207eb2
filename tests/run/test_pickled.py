"""`EM`s, programs bound to data and results are pickled and copied without what is compiled."""

import copy
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import init_to_value
from numpyro.infer.util import log_density

from emjax import EM, labeled, marginalized, weighted
from tests.compilations import compilations

KEY = jax.random.key(0)
X = np.array([0.1, -0.4, 0.6, 3.9, 4.4, 3.6, 4.1])


def clusters(x, num=2):
    loc = numpyro.sample("loc", dist.Normal(0.0, 9.0).expand([num]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(num) / num))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


SETTINGS = {
    "init": init_to_value(values={"loc": jnp.array([0.0, 1.0])}),
    "fixed": set(),
    "acceleration": "squarem",
    "annealing": jnp.array([2.0, 1.5]),
    "max_steps": 5,
}


def test_what_comes_back_of_a_pickle_runs_and_answers_alike():
    em = EM(partial(clusters, num=2), **SETTINGS)
    bound, result = em.on(X), em.run(KEY, X)
    bound.posterior(result)
    again, bound_again, result_again = pickle.loads(pickle.dumps((em, bound, result)))
    assert bound_again.compiler is again.on(X).compiler
    assert result_again.status is result.status
    posterior = bound.posterior(result)["z"]
    np.testing.assert_array_equal(bound_again.posterior(result_again)["z"], posterior)
    np.testing.assert_array_equal(again.run(KEY, X).params["loc"], result.params["loc"])


def test_a_program_that_weighs_or_labels_another_is_pickled():
    em = EM(labeled(weighted(clusters, "rows"), "z"))
    params, labels = {"loc": jnp.array([0.0, 4.0])}, np.array([0, *[-1] * 6])
    again = pickle.loads(pickle.dumps(em))
    args = labels, np.ones(7), X
    assert again.log_likelihood(params, *args) == em.log_likelihood(params, *args)


def test_a_program_whose_latents_are_summed_out_is_pickled():
    model, params = marginalized(clusters, chains="parallel"), {"loc": jnp.array([0.0, 4.0])}
    expected, _ = log_density(model, (X,), {}, params)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert log_density(again, (X,), {}, params)[0] == expected
    with pytest.raises(pickle.PicklingError, match="cannot be pickled"):
        pickle.dumps(marginalized(lambda x: clusters(x)))


def test_a_copy_compiles_nothing_and_shares_nothing_that_may_change():
    settings = SETTINGS | {"fixed": {"loc"}, "m_step": {}}
    em = EM(clusters, **settings)
    bound = em.on(X)
    log_likelihood = bound.log_likelihood({"loc": jnp.array([0.0, 4.0])})
    copied = copy.deepcopy(bound)
    assert copied.args[0] is not X
    assert copied.compiler.settings.fixed is not settings["fixed"]
    assert copied.compiler.settings.m_step is not settings["m_step"]
    with compilations() as count:
        again = copied.log_likelihood({"loc": jnp.array([0.0, 4.0])})
    assert not count.compiled
    assert again == log_likelihood
    assert copy.deepcopy(EM(lambda x: clusters(x))).settings.fixed == ()


@pytest.mark.parametrize(
    ("em", "what"),
    [
        (EM(lambda x: clusters(x)), r"The program '<lambda>' cannot be pickled"),
        (EM(clusters, m_step={"loc": optax.adam(0.1)}), r"m_step=\{'loc': …\} of EM cannot be"),
    ],
    ids=["lambda", "optax"],
)
def test_what_has_no_name_is_said_and_what_to_do(em, what):
    for asked in (em, em.on(X)):
        with pytest.raises(pickle.PicklingError, match=what + r".* functools\.partial\(program"):
            pickle.dumps(asked)
    cloudpickle = pytest.importorskip("cloudpickle")
    again = pickle.loads(cloudpickle.dumps(em))
    params = {"loc": jnp.array([0.0, 4.0])}
    assert again.log_likelihood(params, X) == em.log_likelihood(params, X)
