"""The best known optima of the data sets of `experiments.starts`, and what reaches them."""

import numpy as np
import pytest

from emjax import EM
from experiments.starts import tables
from experiments.starts.best_known import best_known
from experiments.starts.data_sets import data_sets
from experiments.starts.ends import DEFAULT_TEN, Ends, ends_of, resolved
from experiments.starts.equivariance import MOVES, moved, unit_scales

KNOWN = best_known()
# of twelve, those that take the least time
FAST = ("iris, full", "iris, tied")


def estimate(name):
    return {site: np.array(value) for site, value in KNOWN[name]["params"].items()}


def test_every_data_set_has_a_best_known_optimum():
    assert list(KNOWN) == list(data_sets())
    assert len(KNOWN) == 12


@pytest.mark.parametrize("name", KNOWN)
def test_best_known_optimum_is_regular_and_apart_from_the_next(name):
    assert data_sets()[name].is_regular(estimate(name))
    gap = KNOWN[name]["log_likelihood"] - KNOWN[name]["next_optimum"]
    assert gap > 3 * resolved(KNOWN[name]["log_likelihood"])


@pytest.mark.parametrize("name", ("iris, full", "lines", "earthquakes"))
def test_best_known_optimum_has_its_height_on_the_data_as_they_are_drawn_here(name):
    data_set = data_sets()[name]
    height = EM(data_set.program).log_likelihood(estimate(name), *data_set.data)
    np.testing.assert_allclose(float(height), KNOWN[name]["log_likelihood"], rtol=1e-9)


@pytest.mark.parametrize("name", FAST)
def test_ten_starts_by_default_reach_the_best_known_optimum_and_none_better(name):
    best = KNOWN[name]["log_likelihood"]
    ends = ends_of(data_sets()[name], DEFAULT_TEN, range(1))
    assert not ends.better(best).any(), "python -m experiments.starts.search finds it, too"
    assert ends.at(best).all()


def test_a_higher_regular_end_is_better_and_a_spurious_one_is_not():
    height, is_regular = np.array([-180.185, -179.0, -179.0]), np.array([True, True, False])
    ends = Ends(height, is_regular, seconds=np.ones(3), num_steps=np.ones(3))
    assert ends.at(-180.1854).tolist() == [True, False, False]
    assert ends.better(-180.1854).tolist() == [False, True, False]
    (line,) = tables.better_optima({"iris, full": {"default": ends}}, {"iris, full": -180.1854})
    assert line == "iris, full, default: -179.000000 is above -180.185400"


def test_gaussians_of_few_points_or_without_extent_are_spurious():
    data_set, params = data_sets()["iris, full"], estimate("iris, full")
    few = params | {"weights": np.array([0.38, 0.6, 0.02])}
    assert not data_set.is_regular(few)
    flat = params | {"covariance": params["covariance"] * np.array([1.0, 1.0, 1e-4])[:, None, None]}
    assert not data_set.is_regular(flat)


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_a_change_of_unit_moves_the_log_likelihood_by_its_jacobian(move):
    data_set = unit_scales()
    data, gain = moved(data_set, move)
    spread = data_set.data[0].std()
    params = {"weights": np.array([0.4, 0.6]), "loc": np.array([1.0, 2.0]), "scale": np.ones(2)}
    there = params | {
        "loc": move.factor * params["loc"] + move.shift * spread,
        "scale": move.factor * params["scale"],
    }
    em = EM(data_set.program)
    here = float(em.log_likelihood(params, *data_set.data))
    np.testing.assert_allclose(float(em.log_likelihood(there, *data)) - gain, here, rtol=1e-8)
