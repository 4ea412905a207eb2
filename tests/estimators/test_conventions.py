"""scikit-learn's own checks of what an estimator is."""

import importlib.util
import sys
import warnings

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from sklearn.utils.estimator_checks import check_estimator

import emjax.sklearn
from emjax.sklearn import EMEstimator, GaussianMixture


def two_clouds(X):
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([[-1.0], [1.0]]) + jnp.zeros(X.shape[1]))
    scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
    with numpyro.plate("samples", len(X)):
        cloud = numpyro.sample("cloud", dist.Categorical(weights))
        numpyro.sample("X", dist.Normal(loc[cloud], scale).to_event(1), obs=X)


@pytest.mark.parametrize(
    "estimator",
    [GaussianMixture(), EMEstimator(two_clouds)],
    ids=["GaussianMixture", "EMEstimator"],
)
def test_scikit_learns_checks_pass(estimator):
    # whatever they warn of, such as data that EM does not converge on, they do so on purpose
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, on_skip=None)
    assert len(found) > 45 and all(check["status"] in ("passed", "skipped") for check in found)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    spec = importlib.util.spec_from_file_location("absent", emjax.sklearn.__file__)
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(ImportError, match=r'pip install "emjax\[sklearn\]"'):
        spec.loader.exec_module(module)
