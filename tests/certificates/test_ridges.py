"""A ridge is no saddle: curvature is judged against its own error, and a step has to gain."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.certificates import evaluation
from emjax.certificates.verdict import Directions, _judged

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")
RNG = np.random.default_rng(1)
X = RNG.normal(size=50)
# of two components of variance one, these data need one alone
X = (X - X.mean()) / X.std() * 0.8


def mixture(x):
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([0.1, -0.1]))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


@pytest.fixture(scope="module")
def em():
    return EM(mixture)


@pytest.mark.sampled
# at 0.001, the Hessian has an eigenvalue of 1.1e-6 along the weights
@pytest.mark.parametrize("apart", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("is_dense", [True, False])
def test_weights_of_equal_components_are_a_ridge_and_no_saddle(em, apart, is_dense, monkeypatch):
    if not is_dense:
        monkeypatch.setattr(evaluation, "LARGEST_DENSE", 1)
    params = {"weights": [0.4, 0.6], "loc": [0.6 * apart, -0.4 * apart]}
    found = em.diagnose(params, X)
    assert found.verdict == "ridge" and found.is_dense is is_dense
    assert list(found.undetermined) == ["weights"]
    assert found.undetermined["weights"] == ("log weights[z=0]/weights[z=1]",)
    assert "the data do not determine 'weights'. Hold it, EM(model, fixed={'weights'})" in str(
        found
    )


def test_a_step_from_a_saddle_gains(em):
    # of data on two sides, one component is no maximum
    far = np.concatenate([X - 3, X + 3])
    found = em.diagnose({"weights": [0.4, 0.6], "loc": [0.0, 0.0]}, far)
    assert found.verdict == "saddle" and "loc[z=0]" in found.reason and not found.undetermined
    better = {"weights": jnp.array([0.4, 0.6]), "loc": jnp.array([0.1, -0.07])}
    assert em.log_likelihood(better, far) > found.objective


def test_transitions_between_states_of_one_emission_are_left_open():
    def chain(x):
        transition = numpyro.param(
            "transition", jnp.array([[0.7, 0.3], [0.4, 0.6]]), constraint=constraints.simplex
        )
        emission = numpyro.param("emission", jnp.full(3, 1 / 3), constraint=constraints.simplex)

        def step(state, x):
            state = numpyro.sample("state", dist.Categorical(transition[state]))
            both = jnp.stack([emission, emission])
            numpyro.sample("x", dist.Categorical(both[state]), obs=x)
            return state, None

        scan(step, 0, x)

    x = jnp.asarray(RNG.integers(0, 3, 40))
    em = EM(chain)
    found = em.diagnose(em.run(jax.random.key(0), x), x)
    assert found.verdict == "ridge" and "flat along 2 directions, such as " in found.reason
    assert "the data do not determine 'transition'." in found.reason
    assert len(found.undetermined["transition"]) == 2


class FallingLine:
    """A line along which no step gains."""

    def rises(self, direction):
        return False


def test_curvature_that_no_step_confirms_is_flat():
    directions = Directions(np.array([-1.0, -1e-9, 1e-7]), np.eye(3), np.ones(3))
    judged = _judged(FallingLine(), directions, rounding=1e-8)
    assert judged.rising is None and sorted(judged.flat) == [1, 2]
