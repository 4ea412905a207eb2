"""Weights of evidence: what a level, a value, a pair of records say, in bits."""

import jax
import numpy as np
import pytest

from emjax import EM
from emjax.models import record_linkage
from tests.models.registry import FIELDS, MODELS, compared_records

LEVELS, VALUES, COUNT = compared_records()
START = {name: np.asarray(value) for name, value in MODELS["record linkage"].start.items()}
NAMES = {"name": np.array([5, 1, 2, 8])}


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def log2_odds(posterior):
    return np.log2(posterior[:, 1]) - np.log2(posterior[:, 0])


def test_weights_add_up_to_the_posterior_odds():
    em = EM(record_linkage.program)
    odds = log2_odds(em.posterior(START, LEVELS, FIELDS, COUNT)["match"])
    weight = record_linkage.total_weight(START, LEVELS)
    np.testing.assert_allclose(odds, weight, rtol=1e-10)
    # the comparison that lacks every field
    assert weight[4] == record_linkage.prior_weight(START)


def test_agreement_on_a_value_weighs_as_in_splink_where_u_is_that_of_two_draws():
    share = NAMES["name"] / 16
    by_chance = (share**2).sum()
    params = START | {"u_name": np.array([0.7, 0.3, 0]) * (1 - by_chance)}
    params["u_name"][2] = by_chance
    em = EM(record_linkage.frequency_program)
    odds = log2_odds(em.posterior(params, LEVELS, VALUES, FIELDS, NAMES, COUNT)["match"])
    weight = record_linkage.total_weight(params, LEVELS)
    known = VALUES["name"] >= 0
    assert 2 <= known.sum() < (LEVELS["name"] == 2).sum()
    value = VALUES["name"][known]
    of_level = record_linkage.match_weights(params)["name"][2]
    splink = weight[known] - of_level + np.log2(params["m_name"][2] / share[value])
    np.testing.assert_allclose(odds[known], splink, rtol=1e-10)
    np.testing.assert_allclose(odds[~known], weight[~known], rtol=1e-10)
    of_values = record_linkage.value_weights(NAMES)["name"][value]
    np.testing.assert_allclose(odds[known], weight[known] + of_values, rtol=1e-10)


def test_known_u_is_held_and_levels_that_one_side_excludes_weigh_infinitely():
    u = {"u_name": np.array([0.9, 0.1, 0.0]), "u_city": np.array([0.8, 0.2])}
    em = EM(record_linkage.program, fixed=set(u), max_steps=5)
    result = em.run(jax.random.key(0), LEVELS, FIELDS, COUNT, init_params=START | u)
    for name, value in u.items():
        np.testing.assert_array_equal(result.params[name], value)
    weights = record_linkage.match_weights(result.params)
    assert list(weights) == sorted(FIELDS) and np.isposinf(weights["name"][2])
    assert np.all(np.isfinite(weights["city"]))
