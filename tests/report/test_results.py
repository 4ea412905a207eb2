"""Results as a table and for ArviZ: every number where it belongs, under the name that the program
gave it.
"""

import sys
import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM
from emjax.models import dawid_skene, gaussian_mixture, hidden_markov
from emjax.naming.latent_axes import parameter_dimensions

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    arviz = pytest.importorskip("arviz")

KEY = jax.random.key(0)
ANSWERS = np.array([[0, 0, 1], [1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]])
COUNTS = np.array([[1, 5, 0, 7], [0, 6, 2, 3], [4, 1, 2, 8]]).T


def classes(answers):
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=constraints.simplex)
    with numpyro.plate("kinds", 2), numpyro.plate("items", 3):
        probs = numpyro.sample("probs", dist.Beta(2.0, jnp.array([2.0, 3.0])))
    tilt = numpyro.param("tilt", jnp.array(0.1), constraint=constraints.interval(-0.2, 0.2))
    with numpyro.plate("subjects", len(answers)):
        kind = numpyro.sample("kind", dist.DiscreteUniform(1, 2))
        other = numpyro.sample("other", dist.Categorical(weights))
        numpyro.sample(
            "answers",
            dist.Bernoulli(
                jnp.clip(probs.T[kind - 1] + tilt * (other[:, None] - 0.5), 0.01, 0.99)
            ).to_event(1),
            obs=answers,
        )


class StandardErrors(NamedTuple):
    """What `summary` takes: half of the estimate, as it happens."""

    standard_error: dict

    def interval(self, level):
        return {
            name: (-level * value, level * value) for name, value in self.standard_error.items()
        }


@pytest.fixture(scope="module")
def found():
    em = EM(classes, max_steps=3)
    return em, em.run(KEY, ANSWERS)


@pytest.fixture(scope="module")
def chain():
    em, data = (
        EM(partial(hidden_markov.poisson_program, num_states=2), max_steps=3),
        (COUNTS, np.array([4, 4, 2])),
    )
    result = em.run(KEY, *data)
    return em, result, data


# ── dimensions ────────────────────────────────────────────────────────────────────────────────────


def dimensions(program, *args):
    return parameter_dimensions(EM(program).on(*args).compiled.graph)


def test_axes_of_parameters_are_named_by_the_latents_whose_values_they_list():
    x = np.random.default_rng(0).normal(size=(6, 3))  # as many features as components
    assert dimensions(partial(gaussian_mixture.program, num_components=3), x) == {
        "weights": ("component",),
        "loc": ("component", None),
        "covariance": ("component", None, None),
    }
    rows = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1]), 2, 2, 2
    assert dimensions(dawid_skene.program, *rows) == {
        "prevalence": ("truth",),
        "confusion": (None, "truth", None),
    }


def test_a_transition_lists_the_next_state_too(chain):
    graph = chain[0].on(*chain[2]).compiled.graph
    assert parameter_dimensions(graph) == {
        "initial": ("state",),
        "transition": ("state", "next_state"),
        "rate": ("state",),
    }


def test_an_axis_that_is_read_backwards_or_by_two_latents_has_one_name_or_none():
    def program(x):
        backwards, both, plain = (
            numpyro.param(name, jnp.arange(shape).reshape(-1, 2) / 7)
            for name, shape in (("backwards", 2), ("both", 4), ("plain", 2))
        )
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            y = numpyro.sample("y", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(backwards[0, ::-1][z] + both[z, y], 1.0), obs=x)
            numpyro.sample("w", dist.Normal(backwards[0, ::-1][z], 1.0), obs=x)
            numpyro.sample("v", dist.Normal(both[z, y], 1.0), obs=x)
            numpyro.sample("u", dist.Normal(jnp.log(2 + plain[0, z]), 1.0), obs=x)

    assert dimensions(program, np.zeros(3)) == {
        "backwards": (None, None),
        "both": ("z", "y"),
        "plain": (None, None),
    }


# ── the table ─────────────────────────────────────────────────────────────────────────────────────


def test_summary_has_a_line_for_each_number(found):
    em, result = found
    table = emjax.summary(em, result, ANSWERS)
    assert {name: len(rows) for name, rows in table.rows.items()} == {
        name: value.size for name, value in result.params.items()
    }
    for name, rows in table.rows.items():
        np.testing.assert_array_equal([row.estimate for row in rows], np.ravel(result.params[name]))
        assert all(row.method == em.plan(ANSWERS).method(name) for row in rows)
    assert [row.name for row in table.rows["weights"]] == ["weights[other=0]", "weights[other=1]"]
    assert [row.name for row in table.rows["tilt"]] == ["tilt"]
    lines = str(table).splitlines()
    assert (
        lines[0].startswith("stopped at max_steps")
        and lines[1] == f"log-likelihood {float(result.log_likelihood):.6f} nats"
    )
    assert lines[2].split() == ["estimate", "M-step"]
    assert len(lines) == 3 + 2 + 6 + 1


def test_names_are_the_values_of_the_latent(chain):
    em, result, data = chain
    rows = emjax.summary(em, result, *data).rows["transition"]
    assert [row.name for row in rows] == [
        f"transition[state={i}, next_state={j}]" for i in range(2) for j in range(2)
    ]


def test_standard_errors_and_intervals_stand_beside_the_estimates(found):
    em, result = found
    errors = StandardErrors({name: np.asarray(value) / 2 for name, value in result.params.items()})
    table = emjax.summary(em, result, ANSWERS, standard_errors=errors, level=0.9)
    for rows in table.rows.values():
        for row in rows:
            np.testing.assert_allclose(
                [row.standard_error, row.low, row.high],
                np.array([0.5, -0.45, 0.45]) * row.estimate,
                rtol=1e-14,
            )
    assert "standard error" in str(table) and "90 % from" in str(table)


def test_a_parameter_without_standard_errors_has_none(found):
    em, result = found
    table = emjax.summary(
        em, result, ANSWERS, standard_errors=StandardErrors({"tilt": np.array(0.1)})
    )
    assert table.rows["tilt"][0].standard_error == 0.1 and np.isnan(
        table.rows["weights"][0].standard_error
    )


def test_a_long_parameter_is_cut_short_in_print_alone():
    def program(x):
        loc = numpyro.param("loc", jnp.zeros(30))
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    em = EM(program)
    table = emjax.summary(em, em.run(KEY, np.arange(30.0)), np.arange(30.0))
    assert len(table.rows["loc"]) == 30
    assert str(table).splitlines()[-1] == "loc: 10 more entries"


def test_bad_input_of_a_summary_is_an_error(found, chain):
    em, result = found
    with pytest.raises(
        ValueError, match=r"level must be between 0 and 1, such as 0\.95, not 95\.0"
    ):
        emjax.summary(em, result, ANSWERS, level=95.0)
    with pytest.raises(ValueError, match="no parameter 'initial', 'rate', 'transition'"):
        emjax.summary(em, chain[1], ANSWERS)


# ── ArviZ ─────────────────────────────────────────────────────────────────────────────────────────


def dims(group):
    return {str(name): variable.dims for name, variable in group.data_vars.items()}


def test_every_group_has_named_dimensions(found):
    em, result = found
    data = emjax.to_arviz(em, result, ANSWERS)
    assert dims(data.posterior) == {
        "probs": ("chain", "draw", "items", "kinds"),
        "tilt": ("chain", "draw"),
        "weights": ("chain", "draw", "other"),
    }
    assert dims(data.latent_posterior) == {
        "kind_probability": ("subjects", "kind"),
        "other_probability": ("subjects", "other"),
    }
    assert dims(data.log_likelihood) == {"answers": ("chain", "draw", "subjects")}
    assert dims(data.observed_data) == {"answers": ("subjects", "answers_dim_1")}
    assert dims(data.sample_stats) == {"lp": ("chain", "draw")}
    assert data.latent_posterior["kind"].values.tolist() == [1, 2]  # the values of the latent
    assert (
        data.posterior.attrs["inference_library"],
        data.posterior.attrs["status"],
        data.posterior.attrs["num_steps"],
    ) == ("emjax", "max steps", 3)


def test_every_group_has_the_numbers_of_the_result(found):
    em, result = found
    data = emjax.to_arviz(em, result, ANSWERS)
    for name, value in result.params.items():
        np.testing.assert_array_equal(data.posterior[name].values, np.asarray(value)[None, None])
    for name, value in em.posterior(result.params, ANSWERS).items():
        np.testing.assert_array_equal(data.latent_posterior[f"{name}_probability"].values, value)
    np.testing.assert_array_equal(data.observed_data["answers"].values, ANSWERS)
    np.testing.assert_allclose(
        data.log_likelihood["answers"].values.sum(), result.log_likelihood, rtol=1e-12
    )
    np.testing.assert_allclose(data.sample_stats["lp"].values.item(), result.objective[-1], rtol=0)


def test_a_chain_has_time(chain):
    em, result, args = chain
    data = emjax.to_arviz(em, result, *args)
    assert dims(data.posterior)["transition"] == ("chain", "draw", "state", "next_state")
    assert dims(data.latent_posterior) == {"state_probability": ("time", "sequences", "state")}
    assert dims(data.observed_data) == {"data": ("time", "sequences")}
    assert dims(data.log_likelihood) == {"data": ("chain", "draw", "sequences")}
    np.testing.assert_array_equal(data.observed_data["data"].values, COUNTS)


def test_draws_are_the_posterior_and_have_a_log_likelihood_each(found):
    em, result = found
    draws = {
        name: jnp.stack([value, value, 0.9 * value + 0.1 * jnp.mean(value)])
        for name, value in result.params.items()
    }
    data = emjax.to_arviz(em, result, ANSWERS, draws=draws)
    assert data.posterior.sizes["draw"] == 3
    assert "sample_stats" not in data.groups()
    for i in range(3):
        expected = em.log_likelihood({name: value[i] for name, value in draws.items()}, ANSWERS)
        np.testing.assert_allclose(
            data.log_likelihood["answers"].values[0, i].sum(), expected, rtol=1e-12
        )
    table = arviz.summary(data, var_names=["weights"], kind="stats")
    np.testing.assert_allclose(
        table["mean"], np.mean(draws["weights"], axis=0), atol=5e-4
    )  # it rounds


def test_without_a_plate_of_the_samples_there_is_no_log_likelihood():
    rows = (
        np.array([0, 0, 1, 1, 2, 2]),
        np.array([0, 1, 0, 1, 0, 1]),
        np.array([0, 1, 1, 1, 0, 0]),
        3,
        2,
        2,
    )
    em = EM(dawid_skene.program, max_steps=1)
    result = em.run(KEY, *rows)
    assert "log_likelihood" not in emjax.to_arviz(em, result, *rows).groups()
    data = emjax.to_arviz(em, result, *rows, plate="items", rows={"labels": rows[0]})
    np.testing.assert_allclose(
        data.log_likelihood["label"].values.sum(), result.log_likelihood, rtol=1e-12
    )
    with pytest.raises(ValueError, match="not independent"):
        emjax.to_arviz(em, result, *rows, plate="labels")


def test_arviz_of_the_next_version_gets_a_tree(found, monkeypatch):
    em, result = found
    monkeypatch.delattr(arviz, "InferenceData")
    data = emjax.to_arviz(em, result, ANSWERS)
    assert type(data).__name__ == "DataTree"
    np.testing.assert_array_equal(
        data["posterior"]["weights"].values[0, 0], result.params["weights"]
    )
    assert data["posterior"].attrs["inference_library"] == "emjax"


def test_without_arviz_the_error_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r'pip install "emjax\[arviz\]"'):
        emjax.to_arviz(*found, ANSWERS)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"tilt": np.zeros((3, 1))},
        lambda d: d | {"tilt": np.zeros(2)},
        lambda d: {"tilt": d["tilt"]},
        lambda d: 3,
    ],
)
def test_bad_draws_are_an_error(found, change):
    em, result = found
    draws = {name: np.stack([value] * 3) for name, value in result.params.items()}
    with pytest.raises(ValueError, match="draws"):
        emjax.to_arviz(em, result, ANSWERS, draws=change(draws))
