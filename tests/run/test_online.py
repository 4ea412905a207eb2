"""Online EM: the recursion, what it becomes with one batch, and where a run that begins so ends."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

from emjax import EM, Stream
from emjax.run import online
from emjax.run.online import OnlineSteps
from emjax.run.stream_programs import StreamPrograms
from emjax.sources.batches import InMemory, batches
from emjax.sources.part import Part

START = {"weights": np.array([0.4, 0.6]), "loc": np.array([-1.0, 2.0]), "scale": np.array(1.5)}


def program(x):
    """Return nothing: two normals of one scale, under a prior for their weights."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(2, 3.0)))
    loc = numpyro.param("loc", jnp.array([-1.0, 2.0]))
    scale = numpyro.param("scale", 1.5, constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale), obs=x)


def data(number):
    """Return draws of two normals, in order."""
    x = np.random.default_rng(0).normal(0, 1, number)
    x[: number // 3] += 4
    return np.sort(x)


def hand_derived_average(params, x):
    """Return mean expected statistics: of each component its share, Σ x / n and Σ x² / n."""
    scale = params["scale"]
    log_r = np.log(params["weights"]) - 0.5 * ((x[:, None] - params["loc"]) / scale) ** 2
    r = np.exp(log_r - log_r.max(1, keepdims=True))
    r /= r.sum(1, keepdims=True)
    return np.stack([r.mean(0), (r * x[:, None]).mean(0), (r * x[:, None] ** 2).mean(0)])


def hand_derived_maximum(s, number):
    """Return the M-step at mean statistics of `number` rows: the prior counts 2 of each."""
    share, first, second = s
    return {
        "weights": (number * share + 2) / (number + 4),
        "loc": first / share,
        "scale": np.sqrt((second - first**2 / share).sum() / share.sum()),
    }


def test_the_recursion_is_that_of_cappe_and_moulines():
    """Two batches of unequal length, iterate by iterate, about the origin of all data."""
    x = data(7)
    source = InMemory(Part((x,)))
    programs = StreamPrograms(EM(program)._compiler, source, (), {})
    parts = [x[:4], x[4:]]
    traced = programs.of_batches(Part((parts[0],)), 4)
    steps = OnlineSteps(traced, programs.sums)
    at = steps.start(START, traced.data(Part((parts[0],))))
    params, s = START, 0.0
    for gamma, part in zip([1.0, 0.3], parts, strict=True):
        at = steps.step(at, traced.data(Part((part,))), gamma, 7 / len(part), True)
        s = (1 - gamma) * s + gamma * hand_derived_average(params, part)
        params = hand_derived_maximum(s, 7)
        for name, value in params.items():
            np.testing.assert_allclose(at.state.params[name], value, rtol=1e-12)


def test_one_batch_of_step_size_one_is_a_step_of_em():
    """And each pass is one more."""
    x = data(40)
    em = EM(program, batch_size=40, step_size=1.0, max_steps=0)
    result = em.run(jax.random.key(0), x, init_params=START)
    num_passes = result.online.num_passes
    plain = EM(program, max_steps=num_passes).run(jax.random.key(0), x, init_params=START)
    for name, value in plain.params.items():
        np.testing.assert_allclose(result.params[name], value, rtol=1e-11)
    passes = result.online.log_likelihood
    assert np.all(np.diff(passes) > 0)


def test_a_run_that_begins_online_ends_where_em_does():
    """On data in memory and on a stream of them, sorted: rows are taken in random order."""
    x = data(3000)
    plain = EM(program).run(jax.random.key(0), x, init_params=START)
    for batched in (x, Stream.of(x, rows=3000)):
        em = EM(program, batch_size=100)
        result = em.run(jax.random.key(0), batched, init_params=START)
        assert result.status.name == "CONVERGED"
        np.testing.assert_allclose(result.objective[-1], plain.objective[-1], rtol=1e-7)
        # so near after a few passes that few steps are left
        assert result.online.num_passes <= 5
        assert result.objective[0] > plain.objective[-1] - 0.01 * len(x)


def test_batches_are_all_rows_once():
    """In random order, the rest being a batch of its own."""
    part = Part((np.arange(7), np.arange(14).reshape(2, 7)), {"shared": np.arange(3)})
    found = list(batches(part, [0, 1, None], 3, np.random.default_rng(0)))
    assert [length for _, length in found] == [3, 3, 1]
    rows = np.concatenate([batch.args[0] for batch, _ in found])
    assert sorted(rows) == list(range(7)) and list(rows) != list(range(7))
    columns = np.concatenate([batch.args[1] for batch, _ in found], 1)
    np.testing.assert_array_equal(columns, part.args[1][:, rows])


def test_step_sizes_are_those_of_a_schedule():
    """The last one is in the record."""
    em = EM(program, batch_size=50, step_size=optax.constant_schedule(0.25), max_steps=1)
    result = em.run(jax.random.key(0), data(200), init_params=START)
    assert result.online.step_size == 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"step_size": 0.1}, "say how large they are, batch_size="),
        ({"batch_size": 10, "step_size": 2}, "step_size must be a number of more than 0"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    """Each says what to write."""
    with pytest.raises(ValueError, match=message):
        EM(program, **settings)


def test_a_latent_on_which_all_data_depend_is_an_error():
    """A minibatch says little of it."""

    def coupled(x):
        coin = numpyro.sample("coin", dist.Bernoulli(0.3))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0) + coin, 1), obs=x)

    with pytest.raises(ValueError, match="All data depend on 'coin'"):
        EM(coupled, batch_size=10).run(jax.random.key(0), data(30))


def test_a_component_that_collapses_on_few_batches_begins_again_with_a_longer_memory(monkeypatch):
    """At a step size of a half a component is as narrow as the rows of two batches are near."""

    def two_scales(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 2.0]))
        scale = numpyro.param("scale", jnp.full(2, 1.5), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.05))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    monkeypatch.setattr(online, "ROWS_FOR_EACH_PARAMETER", 1)
    x = np.random.default_rng(1).normal(0, 1, 600)
    x[:30] += 6
    start = {"loc": np.array([-1.0, 6.0]), "scale": np.full(2, 1.5)}
    plain = EM(two_scales).run(jax.random.key(0), x, init_params=start)
    result = EM(two_scales, batch_size=2).run(jax.random.key(0), x, init_params=start)
    assert result.online.num_failed > 0 and result.online.num_passes > 0
    assert result.online.step_size == 0.5 / 4**result.online.num_failed
    np.testing.assert_allclose(result.objective[-1], plain.objective[-1], rtol=1e-8)
