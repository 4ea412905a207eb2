"""A fit with its classes in another order is the same fit: likelihood, posterior, what it says."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, labeled
from emjax.answers.relabeled import Names
from emjax.answers.relabeling import Symmetry
from emjax.models import gaussian_mixture, hidden_markov
from emjax.program.latents import Latent
from emjax.run import endings

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")
KEY = jax.random.key(0)
X = np.array([0.1, 0.4, 3.0, 3.3, 2.9, 3.1, 9.0, 9.4, 8.9, 0.2, 3.2, 8.8])
MIXTURE = {
    "weights": np.array([0.25, 0.25, 0.5]),
    "loc": np.array([9.0, 0.0, 3.0]),
    "scale": np.array([1.0, 0.5, 0.7]),
}
COUNTS = np.array([[0, 1, 4, 6, 5, 0, 1, 0, 12, 11]]).T
CHAIN = {
    "initial": np.array([0.5, 0.3, 0.2]),
    "transition": np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.4, 0.5]]),
    "rate": np.array([5.0, 0.5, 11.0]),
}


@pytest.fixture(scope="module")
def mixture():
    em = EM(partial(gaussian_mixture.program, num_components=3), max_steps=3)
    return em.run(KEY, X, init_params=MIXTURE)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("order", "permutation"),
    [
        ("loc", [1, 2, 0]),
        ("size", [2, 0, 1]),
        (lambda params: -params["scale"], [0, 2, 1]),
        ([2, 1, 0], [2, 1, 0]),
    ],
    ids=["by a parameter", "by size", "by a function", "as asked"],
)
def test_relabeled_fit_is_the_same_with_its_classes_in_another_order(mixture, order, permutation):
    found = mixture.relabel(order)
    for name, value in mixture.params.items():
        np.testing.assert_array_equal(found.params[name], np.asarray(value)[permutation])
    after = found.em.log_likelihood(found.params, X)
    np.testing.assert_allclose(after, mixture.log_likelihood, rtol=1e-12)
    expected = np.asarray(mixture.posterior()["component"])[:, permutation]
    np.testing.assert_allclose(found.posterior()["component"], expected, rtol=1e-10)


def test_states_of_a_chain_are_exchanged_along_both_axes_of_its_transitions():
    em = EM(partial(hidden_markov.poisson_program, num_states=3), max_steps=1)
    fit = em.run(KEY, COUNTS, np.array([10]), init_params=CHAIN)
    found, order = fit.relabel("rate"), [1, 0, 2]
    np.testing.assert_array_equal(
        found.params["transition"], np.asarray(fit.params["transition"])[order][:, order]
    )
    np.testing.assert_allclose(
        em.log_likelihood(found.params, COUNTS, np.array([10])), fit.log_likelihood, rtol=1e-12
    )
    for name in ("posterior", "pairwise_posterior"):
        before, after = (np.asarray(getattr(one, name)()["state"]) for one in (fit, found))
        before = np.take(before, order, -1)
        if name == "pairwise_posterior":
            before = np.take(before, order, -2)
        np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-14)
    with pytest.raises(ValueError, match="order='transition' has not one axis"):
        fit.relabel("transition")


def test_other_starts_are_relabeled_with_the_best(mixture):
    em = EM(partial(gaussian_mixture.program, num_components=3), max_steps=3, num_restarts=2)
    fit = em.run(KEY, X)
    found = fit.relabel("loc")
    best = found.restarts.best
    np.testing.assert_array_equal(found.restarts.params["loc"][best], found.params["loc"])
    assert (np.diff(found.params["loc"]) > 0).all()


# ── what cannot be exchanged ──────────────────────────────────────────────────────────────────────


def unlabeled(x):
    loc = numpyro.param("loc", jnp.array([0.0, 1.0]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def labels(x):
    labeled(unlabeled, "z")(np.arange(12) % 3 - 1, x)


def ordered(x):
    loc = numpyro.param("loc", jnp.array([0.0, 1.0]), constraint=constraints.ordered_vector)
    step = numpyro.param("step", 1.0)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.Normal(loc[0] + step * z, 1.0), obs=x)


def two_latents(x):
    first, second = (numpyro.param(name, jnp.array([0.1, 1.0])) for name in ("first", "second"))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        u = numpyro.sample("u", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.Normal(first[z] + second[u], 1.0), obs=x)


@pytest.mark.parametrize(
    ("program", "data", "order", "message"),
    [
        (labels, (X,), "size", "No exchange of parameters exchanges .* 'z'"),
        (ordered, (X,), "size", "No exchange of parameters exchanges the values of 'z'"),
        (two_latents, (X,), "size", "Name one, latent='z'"),
    ],
    ids=["labels", "an order", "two latents"],
)
def test_what_cannot_be_exchanged_says_so(program, data, order, message):
    fit = EM(program, max_steps=1).run(KEY, *data)
    with pytest.raises(ValueError, match=message):
        fit.relabel(order)


def test_what_is_no_order_says_so(mixture):
    for order, message in (
        ([0, 0, 1], "order must be a permutation of 0 … 2"),
        ("lok", r"order='lok' has not one axis .* 'weights', 'loc', 'scale'"),
        (lambda params: params["loc"][:2], r"must return 3 numbers, one for each; .* \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            mixture.relabel(order)
    with pytest.raises(ValueError, match="latent='z' is no discrete latent of the program"):
        mixture.relabel("size", latent="z")


# ── what findings say ─────────────────────────────────────────────────────────────────────────────


def reached(*indices):
    where = np.zeros((3, 3), bool)
    where[tuple(np.transpose(indices))] = True
    return where


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("dead", ("z", 0, ["p"], 1e-9), ("z", 1, ["p"], 1e-9)),
        ("without_elements", ("z", 2, 0.1), ("z", 0, 0.1)),
        ("copies_of", ("z", [(0, 1), (1, 2)]), ("z", [(1, 2), (2, 0)])),
        ("copies_of", ("z", [(0, 1)] * 5), ("z", [(1, 2)] * 5)),
        ("at_saddle", ({"z": (0, 2)}, 3.0, 9), ({"z": (1, 0)}, 3.0, 9)),
        ("at_saddle", ({"u": (0, 2)}, 3.0, 9), ({"u": (0, 2)}, 3.0, 9)),
        (
            "collapsed",
            ("p", "[0, 2]", "component 2 of 'z'", 0.1, "x"),
            ("p", "[0, 0]", "component 0 of 'z'", 0.1, "x"),
        ),
        (
            "collapsed_argument",
            ("scale", "x", ["p"], "component 2 of 'z'", 0.1),
            ("scale", "x", ["p"], "component 0 of 'z'", 0.1),
        ),
        (
            "collapsed_density",
            ("component 1 of 'z' and component 1 of 'u'", "x", (4,), ["p"], 3.0),
            ("component 2 of 'z' and component 1 of 'u'", "x", (4,), ["p"], 3.0),
        ),
        ("at_boundary", ("p", reached((1, 0))), ("p", reached((1, 1)))),
        ("at_boundary", ("q", reached((1, 0))), ("q", reached((1, 0)))),
        (
            "on_bound",
            ("p", reached((0, 2)), np.ones((3, 3))),
            ("p", reached((0, 0)), np.ones((3, 3))),
        ),
        ("better_start", (3.0, 9), (3.0, 9)),
    ],
)
def test_findings_name_values_and_entries_as_they_are_now(kind, before, after):
    latents = {name: Latent(name, np.arange(3), (12,), ("rows",)) for name in ("z", "u")}
    names = Names(Symmetry(("z",), 3, {"p": (1,)}), latents, np.array([2, 0, 1]))
    finding = getattr(endings, kind)
    assert names.renamed(finding(*before)) == finding(*after)


def test_findings_of_a_fit_are_renamed(mixture):
    fit = replace(mixture, findings=(endings.dead("component", 0, ["weights"], 1e-9),))
    (finding,) = fit.relabel("loc").findings
    assert finding == endings.dead("component", 2, ["weights"], 1e-9)
