"""Names of axes and entries: latents, plates, columns, rows and categories of data frames."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM
from emjax.naming.axes import program_axes
from emjax.naming.entries import entries_of

FLOWERS = pd.DataFrame(
    np.random.default_rng(0).normal(size=(6, 2)), columns=["width", "length"], index=list("abcdef")
)


def names(program, *args):
    """What the entries of each parameter that tables list are called, without the parameter."""
    entries = entries_of(EM(program).on(*args))
    return {name: [n[len(name) + 1 : -1] for n in each.names] for name, each in entries.items()}


def mixture(x):
    weights = numpyro.param("weights", jnp.ones(2) / 2, constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([[0.0, 0.3], [1.0, 2.0]]))
    covariance = numpyro.param(
        "covariance", jnp.tile(jnp.eye(2), (2, 1, 1)), constraint=constraints.positive_definite
    )
    with numpyro.plate("flowers", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[z], covariance[z]), obs=x)


def test_columns_name_the_axes_that_run_along_them_and_a_symmetric_entry_is_listed_once():
    of_each = ["width, width", "width, length", "length, length"]
    found = names(mixture, FLOWERS)
    assert found["weights"] == ["z=0", "z=1"]
    assert found["loc"] == ["z=0, width", "z=0, length", "z=1, width", "z=1, length"]
    assert found["covariance"] == [f"z={z}, {of}" for z in (0, 1) for of in of_each]
    # of an array, positions
    assert names(mixture, FLOWERS.to_numpy())["loc"] == ["z=0, 0", "z=0, 1", "z=1, 0", "z=1, 1"]
    (rows,) = program_axes(EM(mixture).on(FLOWERS)).of_elements("z")
    assert (rows.name, rows.labels) == ("flowers", tuple("abcdef"))


def test_coefficients_have_the_columns_that_they_multiply_moved_cut_and_joined():
    def regression(x, y):
        coefficient = numpyro.param("coefficient", jnp.zeros((2, 5)))
        slope = numpyro.param("slope", jnp.zeros(2))
        design = jnp.concatenate([jnp.ones((len(x), 1)), (x - x.mean(0)) / 2], axis=1)
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            mean = jnp.sum(coefficient[z] * jnp.pad(design, ((0, 0), (0, 1))), -1)
            numpyro.sample("y", dist.Normal(mean + x[:, 1:] @ slope, 1.0), obs=y)

    # a padded design has columns that no data have
    three = FLOWERS.assign(height=1.0)
    found = names(regression, three, FLOWERS["width"])
    assert found["coefficient"][:2] == ["z=0, 0", "z=0, 1"]
    assert found["slope"] == ["length", "height"]

    def joined(x, y):
        coefficient = numpyro.param("coefficient", jnp.zeros((2, 3)))
        design = jnp.concatenate([jnp.ones((len(x), 1)), (x - x.mean(0)) / 2], axis=1)
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            each = (design @ coefficient.T)[jnp.arange(len(y)), z]
            numpyro.sample("y", dist.Normal(each, 1.0), obs=y)

    assert names(joined, FLOWERS, FLOWERS["width"])["coefficient"][3:] == [
        "z=1, 0",
        "z=1, width",
        "z=1, length",
    ]


def test_a_program_that_looks_at_its_data_has_names_too():
    def program(x, group):
        loc = numpyro.param("loc", jnp.arange(2.0 * (int(group.max()) + 1)).reshape(-1, 2))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc[group], 1.0).to_event(1), obs=x)

    group = np.array([0, 1, 0, 1, 1, 0])
    assert names(program, FLOWERS, group)["loc"][:2] == ["0, width", "0, length"]


def test_plates_and_categories_name_axes_too():
    answers = pd.DataFrame(
        {"tea": ["no", "yes", "no", "yes"], "milk": ["yes", "yes", "no", "no"]}, dtype="category"
    )
    group = pd.Series(["south", "north", "south", "north"], dtype="category")

    def classes(answers, group):
        shift = numpyro.param("shift", jnp.zeros(2))
        probs = numpyro.param(
            "probs", jnp.array([[[0.2, 0.8], [0.4, 0.6]]] * 2), constraint=constraints.simplex
        )
        with numpyro.plate("people", len(answers), dim=-2):
            z = numpyro.sample("z", dist.Bernoulli(logits=shift[group][:, None]))
            with numpyro.plate("items", 2, dim=-1):
                numpyro.sample("answer", dist.Categorical(probs[z, jnp.arange(2)]), obs=answers)

    found = names(classes, answers, group)
    assert found["shift"] == ["north", "south"]
    assert found["probs"][:3] == ["z=0, tea, no", "z=0, tea, yes", "z=0, milk, no"]
    axes = program_axes(EM(classes).on(answers, group)).of_parameters["probs"]
    assert [axis.name for axis in axes] == ["z", "items", "category"]
    with pytest.raises(
        ValueError, match=r"categories are missing.*\n.*add_categories\('missing'\)"
    ):
        EM(classes).run(jax.random.key(0), answers, group.where([True, True, True, False]))


def test_every_table_names_an_entry_alike():
    em = EM(mixture, max_steps=3)
    fit = em.run(jax.random.key(1), FLOWERS)
    entry = "covariance[z=1, width, length]"
    assert entry in str(emjax.summary(fit))
    frame = emjax.summary(fit).to_frame()
    one = frame[frame["entry"] == entry].iloc[0]
    assert (one["parameter"], one["z"], one["column"], one["other_column"]) == (
        "covariance",
        1,
        "width",
        "length",
    )
    assert "loc[z, column]  " in str(fit.plan()) and fit.plan().to_frame()["method"].size == 3
    posterior = emjax.to_arviz(fit).posterior
    assert posterior["loc"].dims == ("chain", "draw", "z", "column")
    assert list(posterior["other_column"].values) == ["width", "length"]


def three_columns(x, kind):
    loc = numpyro.param("loc", jnp.array([[-1.0, -1.0], [1.0, 1.0]]))
    q = jnp.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    with numpyro.plate("rows", len(kind)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Normal(loc[z], 1.0).to_event(1), obs=x)
        numpyro.sample("kind", dist.Categorical(q[z]), obs=kind)


def test_other_data_of_a_fit_have_its_columns_and_its_categories():
    """Both are read by their places: in another order, the posterior would be a wrong one."""
    x = pd.DataFrame({"a": [-1.0, 0.5, 1.2], "b": [-0.7, 1.4, 0.3]})
    kind = pd.Series(pd.Categorical(["no", "yes", "maybe"], ["no", "maybe", "yes"]))
    fit = EM(three_columns, max_steps=2).run(jax.random.key(0), x, kind)
    with pytest.raises(ValueError, match=r"\['b', 'a'\], and those .* Pass x\[\['a', 'b'\]\]"):
        fit.posterior(x[["b", "a"]], kind)
    others = kind[1:].cat.remove_unused_categories()
    with pytest.raises(ValueError, match=r"'kind' has the categories \['maybe', 'yes'\], and "):
        emjax.standard_errors(fit, x[1:], others)
    again = others.cat.set_categories(["no", "maybe", "yes"])
    rows = fit.posterior(x[["a", "b"]][1:], again)["z"]
    np.testing.assert_allclose(rows, fit.posterior()["z"][1:])
    # where nothing is known, nothing is checked
    unnamed = pd.DataFrame(x.to_numpy())
    np.testing.assert_allclose(fit.posterior(unnamed, np.array([0, 2, 1]))["z"][1:], rows)
