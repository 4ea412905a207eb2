"""A fit's answers as artifacts that JAX serves without emjax."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import export
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SERVER = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
folder = sys.argv[1]
with open(folder + "/posterior.bin", "rb") as file:
    artifact = jax.export.deserialize(file.read())
for number in (7, 1000):
    data = np.load(f"{folder}/{number}.npz")
    served = artifact.call(data["x"], count=data["count"])
    np.savez(f"{folder}/served_{number}.npz", **served)
assert "emjax" not in sys.modules and "numpyro" not in sys.modules
"""


def visits(x, num, count):
    weights = numpyro.param("weights", jnp.ones(num) / num, constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.linspace(0.0, 3.0, num)[:, None] * jnp.ones(2))
    rate = numpyro.param("rate", jnp.arange(1.0, num + 1), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[z], jnp.eye(2)), obs=x)
        numpyro.sample("count", dist.Poisson(rate[z]), obs=count)


def visits_of(number):
    return RNG.normal(1.5, 2, (number, 2)), RNG.poisson(2, number)


def test_a_posterior_is_served_without_emjax_for_any_number_of_rows(tmp_path):
    pytest.importorskip("flatbuffers")
    x, count = visits_of(40)
    fit = EM(visits, max_steps=3).run(KEY, x, 2, count=count)
    (tmp_path / "posterior.bin").write_bytes(bytes(fit.export().serialize()))
    others = {number: visits_of(number) for number in (7, 1000)}
    for number, (x, count) in others.items():
        np.savez(tmp_path / f"{number}.npz", x=x, count=count)
    subprocess.run([sys.executable, "-c", SERVER, str(tmp_path)], check=True, timeout=120)
    for number, (x, count) in others.items():
        posterior = fit.posterior(x, 2, count=count)
        with np.load(tmp_path / f"served_{number}.npz") as served:
            assert served.keys() == posterior.keys()
            np.testing.assert_allclose(served["z"], posterior["z"], rtol=1e-12, atol=1e-12)


def sequences(x):
    """A chain for each row of x, (row, time)."""
    stay = numpyro.param("stay", 0.8, constraint=constraints.unit_interval)
    loc = numpyro.param("loc", jnp.array([0.0, 2.0]))
    transition = jnp.array([[1.0, 0.0], [0.0, 1.0]]) * stay + (1 - stay) / 2

    def step(previous, now):
        with numpyro.plate("rows", len(now)):
            z = numpyro.sample("z", dist.Categorical(transition[previous]))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=now)
        return z, None

    scan(step, jnp.zeros(len(x), int), x.T)


def test_rows_may_be_sequences_and_other_questions_are_exported():
    fit = EM(sequences, max_steps=3).run(KEY, RNG.normal(1, 1, (20, 6)))
    x = RNG.normal(1, 1, (33, 6))
    posterior, decoded = fit.export().call(x)["z"], fit.export("decode").call(x)["z"]
    np.testing.assert_allclose(posterior, fit.posterior(x)["z"], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(decoded, fit.decode(x)["z"])
    each = fit.export("log_likelihood").call(x)
    np.testing.assert_allclose(each, fit.pointwise_log_likelihood(x), rtol=1e-12)


def test_in_single_precision_what_is_served_is_computed_in_double():
    with jax.enable_x64(False):
        x = np.asarray(RNG.normal(1, 1, (20, 6)), np.float32)
        fit = EM(sequences, max_steps=3).run(KEY, x)
        artifact = fit.export()
        assert artifact.in_avals[0].dtype == np.float32
        served = artifact.call(jnp.asarray(x))["z"]
        assert served.dtype == np.float32
        # rounded once, and not at each operation
        np.testing.assert_allclose(served, fit.posterior()["z"], rtol=2e-7, atol=2e-7)


def observed(loc, x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def centered(x):
    observed(numpyro.param("loc", jnp.array([0.0, 2.0])) + x.mean(), x)


def shared(x):
    loc = numpyro.param("loc", jnp.array([0.0, 2.0]))
    group = numpyro.sample("group", dist.Categorical(jnp.array([0.3, 0.7])))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(loc[group], 1.0), obs=x)


def one_sequence(x):
    loc = numpyro.param("loc", jnp.array([0.0, 2.0]))

    def step(previous, now):
        z = numpyro.sample("z", dist.Categorical(jnp.array([[0.8, 0.2], [0.2, 0.8]])[previous]))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=now)
        return z, None

    scan(step, 0, x)


def looking(x):
    observed(numpyro.param("loc", jnp.array([0.0, float(x.max())])), x)


def with_rows_of_its_own(x):
    with numpyro.plate("rows", len(x)):
        offset = numpyro.sample("offset", dist.Normal(0.0, 0.1))
        numpyro.sample("x", dist.Normal(offset, 1.0), obs=x)
        numpyro.sample("twice", dist.Normal(2 * offset, 1.0), obs=2 * x)


OTHERS = np.zeros(20)


def with_others(x):
    observed(numpyro.param("loc", jnp.array([0.0, 2.0])), x + OTHERS)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (centered, "what it computes for a row depends on other rows"),
        (shared, "latent 'group' belongs to no row of plate 'rows'"),
        (one_sequence, r"its rows are in no plate: with numpyro\.plate"),
        (looking, "it looks at the values of its data in Python"),
        (with_rows_of_its_own, "'offset' has a value for each row, and new rows have none"),
        (with_others, "of 16 rows of its arguments, Shapes do not go together"),
    ],
)
def test_a_program_without_independent_rows_is_refused(program, reason):
    fit = EM(program, max_steps=1).run(KEY, RNG.normal(1, 1, 20))
    with pytest.raises(ValueError, match=f"cannot be exported.*{reason}"):
        fit.export()


def two_kinds_of_data(x):
    """Rows in two plates, and a factor."""
    loc = numpyro.param("loc", jnp.array([0.0, 2.0]))
    observed(loc, x)
    with numpyro.plate("again", len(x)):
        k = numpyro.sample("k", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.factor("evidence", -jnp.square(loc[k] - x))


def test_the_log_likelihood_of_a_row_is_that_of_all_its_plates():
    x = RNG.normal(1, 1, 20)
    fit = EM(two_kinds_of_data, max_steps=1).run(KEY, x)
    each = fit.export("log_likelihood").call(x[:5])
    np.testing.assert_allclose(each.sum(), fit.log_likelihood_of(x[:5]), rtol=1e-12)
    served, posterior = fit.export().call(x[:5]), fit.posterior(x[:5])
    for name in ("z", "k"):
        np.testing.assert_allclose(served[name], posterior[name], rtol=1e-12)


def test_what_is_no_question_is_refused():
    fit = EM(centered, max_steps=1).run(KEY, RNG.normal(1, 1, 20))
    with pytest.raises(ValueError, match="'posterior', 'decode', 'log_likelihood', not 'probs'"):
        fit.export("probs")


def test_a_platform_is_named():
    fit = EM(sequences, max_steps=1).run(KEY, RNG.normal(1, 1, (20, 6)))
    artifact = fit.export(platforms=("cpu", "cuda"))
    assert artifact.platforms == ("cpu", "cuda")
    assert isinstance(artifact, export.Exported)
