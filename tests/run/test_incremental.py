"""Online EM a batch at a time is the algorithm on paper, for batches of any sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import emjax

rng = np.random.default_rng(0)
X = np.where(rng.uniform(size=600) < 0.3, -2.0, 2.0) + rng.normal(size=600)


def two_means(x, pull=2.0):
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=constraints.simplex)
    with numpyro.plate("kinds", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, pull))
    with numpyro.plate("rows", len(x)):
        kind = numpyro.sample("kind", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[kind], 1), obs=x)


START = {"weights": np.array([0.4, 0.6]), "loc": np.array([-1.0, 1.0])}
SIZES = (100, 60, 100, 30, 100, 100)
# 40 for each of four numbers
WINDOW = 160


def on_paper(steps=None, pull=2.0):
    """Yield (weights, loc) after each batch, by Cappé & Moulines's equations (NumPy alone)."""
    weights, loc = START["weights"], START["loc"]
    statistics, total, begin = np.zeros((2, 2)), 0, 0
    for number, size in enumerate(SIZES):
        x, begin = X[begin : begin + size], begin + size
        total += size
        log_joint = np.log(weights) - 0.5 * (x[:, None] - loc) ** 2
        r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))
        gamma, moves = size / total, total >= WINDOW
        if steps is not None:
            is_gathered = number < np.ceil(1 / steps)
            gamma, moves = gamma if is_gathered else steps, number + 1 >= np.ceil(1 / steps)
        elif total > WINDOW:
            gamma = max(gamma, min(size / WINDOW, 0.5))
        # a mean for each row: (kind, [counts, sums])
        of_batch = np.stack([r.sum(0), r.T @ x], axis=1) / size
        statistics = (1 - gamma) * statistics + gamma * of_batch
        counts, sums = total * statistics.T
        found = counts / counts.sum(), sums / (counts + 1 / pull**2)
        if moves:
            weights, loc = found
        yield found


@pytest.mark.parametrize("step_size", [None, 0.4])
def test_each_batch_is_a_step_of_the_algorithm_on_paper(step_size):
    em = emjax.EM(two_means)
    state = em.init_online(jax.random.key(0), X[:100], init_params=START)
    np.testing.assert_array_equal(state.params["loc"], START["loc"])
    begin = 0
    for size, (weights, loc) in zip(SIZES, on_paper(step_size), strict=True):
        state = em.update_online(state, X[begin : begin + size], step_size=step_size)
        begin += size
        np.testing.assert_allclose(state.params["weights"], weights, rtol=1e-10)
        np.testing.assert_allclose(state.params["loc"], loc, rtol=1e-10)
    assert (state.num_rows, state.num_batches) == (begin, len(SIZES))
    assert len(em._incremental.programs) == 1


def test_bad_batches_are_refused_and_leave_the_state_as_it_was():
    em = emjax.EM(two_means)
    state = em.init_online(jax.random.key(0), X[:100], init_params=START)
    with pytest.raises(ValueError, match="is NaN"):
        em.update_online(state, np.where(X[:100] > 2, np.nan, X[:100]))
    assert state.num_rows == 0 and np.isfinite(state.params["loc"]).all()
