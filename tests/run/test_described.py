"""What `repr` says of an EM, a program on data, and a fit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.contrib.control_flow import scan

import emjax
from emjax import EM

FRAME = pd.DataFrame(
    {"x": [-1.2, -0.9, 1.1, 0.7, 1.0]}, index=pd.Index([3, 5, 7, 8, 9], name="day")
)


def mixture(x, apart):
    loc = numpyro.param("loc", jnp.array([-apart, apart]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def test_repr_says_what_it_is_in_three_lines():
    em = EM(mixture, max_steps=2, annealing=[2.0, 1.5], m_step={"loc": lambda loc, q: loc})
    data = FRAME["x"], 1.5
    assert repr(em) == "EM(mixture, m_step={'loc'}, max_steps=2, annealing=[2.0, 1.5])"
    assert repr(EM(partial(mixture, apart=1.5))) == "EM(partial(mixture, apart=1.5))"
    assert repr(em.on(*data)) == "Bound(mixture, x=Series[5], apart=1.5)"
    fit = EM(mixture, max_steps=2).run(jax.random.key(0), *data)
    first, second, third = repr(fit).splitlines()
    assert first == "Fit(mixture, x=Series[5], apart=1.5)" and third == "  loc 2"
    assert f"after {fit.num_steps} steps, log-likelihood {float(fit.log_likelihood):.6f}" in second


def test_programs_with_labels_and_weights_are_written_as_they_were():
    program = emjax.labeled(emjax.weighted(mixture, "rows"), "z")
    em = EM(program, max_steps=2)
    assert repr(em) == "EM(labeled(weighted(mixture, 'rows', 'frequency'), 'z'), max_steps=2)"
    data = np.zeros(2, int), np.ones(2), np.ones(2)
    words = "labels=int64[2], weights=float64[2], x=float64[2], apart=1.5"
    assert repr(em.on(*data, 1.5)).endswith(f"'z'), {words})")
    assert repr(em.on(*data, apart=1.5)).endswith(f"'z'), {words})")


def test_the_em_of_a_loaded_fit_has_the_defaults_that_it_had(tmp_path):
    fit = EM(mixture, max_steps=2).run(jax.random.key(0), FRAME["x"], 1.5)
    fit.save(tmp_path / "fit")
    assert repr(emjax.load(tmp_path / "fit", mixture).em) == "EM(mixture, max_steps=2)"


def test_a_posterior_is_a_frame_with_the_rows_of_the_data_and_the_values_of_the_latent():
    fit = EM(mixture, max_steps=2).run(jax.random.key(0), FRAME["x"], 1.5)
    frame = fit.posterior_frame()
    assert list(frame.index) == [3, 5, 7, 8, 9] and list(frame.columns) == [0, 1]
    np.testing.assert_array_equal(frame, fit.posterior()["z"])
    assert FRAME.join(frame).shape == (5, 3)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_posterior_of_a_chain_has_the_times_of_what_was_observed(is_reversed):
    def chain(x):
        rows = jnp.array([[0.9, 0.1], [0.2, 0.8]])

        def step(before, now):
            z = numpyro.sample("z", dist.Categorical(rows[before]))
            numpyro.sample("x", dist.Normal(2.0 * z, 0.1), obs=now)
            return z, None

        scan(step, 0, jnp.asarray(x), reverse=is_reversed)

    x = pd.Series([2.0, 2.0, 0.0, 0.0, 0.0], pd.date_range("2020-01-01", periods=5))
    frame = EM(chain).run(jax.random.key(0), x).posterior_frame()
    assert frame.index.equals(x.index) and frame.index.name == "time"
    np.testing.assert_allclose(frame[1], x / 2, atol=1e-9)


def by_name(frame):
    mixture(jnp.asarray(frame["x"].to_numpy()), 1.5)


def test_rows_of_a_frame_that_is_read_by_names_keep_their_labels():
    fit = EM(by_name, max_steps=2).run(jax.random.key(0), FRAME)
    frame = fit.posterior_frame()
    assert frame.index.equals(FRAME.index) and frame.index.name == "day"
    others = FRAME[FRAME["x"] > 0]
    assert list(fit.posterior_frame(others).index) == [7, 8, 9]
