"""What counts as a sample: nothing that is masked, missing, or of weight zero.

Held to counts by hand, to programs without what is masked, and to rows that are there twice.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import mask

import emjax
from emjax import EM
from emjax.distributions import PartiallyObserved
from emjax.models import hidden_markov

KEY = jax.random.key(0)
X = np.array([-2.1, 1.9, -1.6, 2.7, -2.9, 1.2, -2.3, 2.2, -1.1, 3.1, -1.8, 1.6])
IS_SEEN = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1], bool)
PAIRS = np.array([[1.0, 2.0], [np.nan, 1.0], [np.nan, np.nan]])
LOC = {"loc": np.array([-1.0, 1.5])}
PAIR_LOC = {"loc": np.array([[0.0, 1.0], [2.0, 3.0]])}


def two_normals(x, is_seen=True, how="observation"):
    """A mixture whose data are masked: at the observation alone, by obs_mask, or altogether."""
    loc = numpyro.param("loc", jnp.array([-1.0, 1.5]))
    with numpyro.plate("samples", len(x)), mask(mask=is_seen if how == "all" else True):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        if how == "obs_mask":
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x, obs_mask=is_seen)
        else:
            with mask(mask=is_seen if how == "observation" else True):
                numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def partly_observed(x):
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        normal = dist.MultivariateNormal(loc[z], jnp.eye(2))
        numpyro.sample("x", PartiallyObserved(normal, observed=~jnp.isnan(x)), obs=x)


def masked_by_coordinate(x):
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        normal = dist.Normal(loc[z], 1.0).mask(~jnp.isnan(x)).to_event(1)
        numpyro.sample("x", normal, obs=jnp.nan_to_num(x))


def raters(item, label, is_seen, num_items):
    """Items of a class that depends on their group; a label looks up its item."""
    probs = numpyro.param("probs", jnp.array([0.2, 0.7]))
    with numpyro.plate("items", num_items):
        group = numpyro.sample("group", dist.Bernoulli(0.4))
        truth = numpyro.sample("truth", dist.Bernoulli(jnp.array([0.3, 0.6])[group]))
    with numpyro.plate("labels", len(label)), mask(mask=is_seen):
        numpyro.sample("label", dist.Bernoulli(probs[truth[item]]), obs=label)


def criteria(program, params, *args, **kwargs):
    return emjax.criteria(EM(program), params, *args, **kwargs)


COUNTED = {
    "by obs_mask": (partial(two_normals, how="obs_mask"), LOC, (X, IS_SEEN), 9),
    "all coordinates missing": (partly_observed, PAIR_LOC, (PAIRS,), 2),
    "all coordinates masked": (masked_by_coordinate, PAIR_LOC, (PAIRS,), 2),
    "no label and no datum": (
        emjax.labeled(two_normals, "z"),
        LOC,
        (np.array([-1, 1, -1, -1]), X[:4], np.array([0, 0, 1, 0], bool)),
        2,
    ),
    "weights and a mask": (
        emjax.weighted(two_normals, "samples"),
        LOC,
        (np.array([2.0, 0.0, 1.0, 3.0]), X[:4], np.array([1, 1, 0, 1], bool)),
        5,
    ),
}


@pytest.mark.parametrize("what", COUNTED)
def test_an_element_counts_if_anything_of_it_is_observed(what):
    program, params, args, number = COUNTED[what]
    assert criteria(program, params, *args).num_samples == number


def test_an_element_counts_if_data_elsewhere_look_up_its_latents():
    item, label = np.array([0, 0, 1, 1, 3]), np.array([0, 1, 1, 1, 0])
    args = (item, label, np.array([1, 1, 1, 1, 0], bool), 6)
    params = {"probs": np.array([0.2, 0.7])}
    assert criteria(raters, params, *args, plate="items").num_samples == 2
    assert criteria(raters, params, *args, plate="labels").num_samples == 4


@pytest.mark.parametrize("how", ["observation", "all"])
def test_criteria_are_those_of_the_program_without_what_is_masked(how):
    masked = criteria(two_normals, LOC, X, IS_SEEN, how=how)
    without = criteria(two_normals, LOC, X[IS_SEEN])
    for name in ("num_samples", "log_likelihood", "aic", "bic", "icl"):
        np.testing.assert_allclose(getattr(masked, name), getattr(without, name), rtol=1e-12)


def test_a_weight_of_two_is_the_row_twice():
    weight = np.array([2.0, 1.0, 3.0, 1.0] * 3)
    weighted = criteria(emjax.weighted(two_normals, "samples"), LOC, weight, X)
    twice = criteria(two_normals, LOC, np.repeat(X, weight.astype(int)))
    for name in ("num_samples", "log_likelihood", "aic", "bic", "icl"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(twice, name), rtol=1e-12)


def test_a_chain_of_no_steps_is_no_sample():
    counts = np.array([[1, 5, 0, 7], [0, 6, 2, 3], [4, 1, 2, 8]]).T
    params = {
        "initial": np.array([0.3, 0.7]),
        "transition": np.array([[0.8, 0.2], [0.4, 0.6]]),
        "rate": np.array([1.0, 5.0]),
    }
    program = partial(hidden_markov.poisson_program, num_states=2)
    padded = criteria(program, params, counts, np.array([4, 0, 2]))
    without = criteria(program, params, counts[:, [0, 2]], np.array([4, 2]))
    for name in ("num_samples", "bic", "icl"):
        np.testing.assert_allclose(getattr(padded, name), getattr(without, name), rtol=1e-12)


# ── refits ────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_masked_is_in_no_fold():
    masked = emjax.cross_validate(EM(two_normals, tol=1e-12), KEY, X, IS_SEEN, num_folds=3)
    without = emjax.cross_validate(EM(two_normals, tol=1e-12), KEY, X[IS_SEEN], num_folds=3)
    np.testing.assert_array_equal(masked.fold[IS_SEEN], without.fold)
    assert (masked.fold[~IS_SEEN] == -1).all()
    for name in ("num_samples", "log_likelihood", "mean", "standard_error"):
        np.testing.assert_allclose(getattr(masked, name), getattr(without, name), rtol=1e-9)
    with pytest.raises(ValueError, match=r"from 2 to 9, the number .* of which anything is obs"):
        emjax.cross_validate(EM(two_normals), KEY, X, IS_SEEN, num_folds=10)


def test_the_mean_and_standard_error_of_held_out_samples_count_copies():
    """A row of weight two that is held out counts as two rows that are held out together."""
    weight = np.array([2.0, 1.0, 3.0, 1.0] * 3)
    program = emjax.weighted(two_normals, "samples")
    found = emjax.cross_validate(EM(program), KEY, weight, X, num_folds=3)
    each = np.repeat(np.asarray(found.pointwise) / weight, weight.astype(int))
    assert found.num_samples == 21
    np.testing.assert_allclose(found.mean, each.mean(), rtol=1e-12)
    expected = np.sqrt(21) * each.std(ddof=1)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-12)


def test_a_bootstrap_draws_nothing_that_is_masked():
    em, options = EM(two_normals, tol=1e-12), {"method": "bootstrap", "num_draws": 4}
    errors = []
    for args in ((X, IS_SEEN), (X[IS_SEEN],)):
        result = em.run(KEY, *args)
        found = emjax.standard_errors(em, result, *args, rng_key=KEY, **options)
        errors.append(found.standard_error["loc"])
    np.testing.assert_allclose(*errors, rtol=1e-6)
