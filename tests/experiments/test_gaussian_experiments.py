"""The numbers that the experiments with Gaussian latents print."""

import jax
import numpy as np
import pytest

from experiments import factors, river, schools


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def test_wines_have_the_likelihood_of_scikit_learn_however_rotated():
    em = factors.factor_em()
    found = factors.fit(em, 3)
    np.testing.assert_allclose(found.log_likelihood, factors.SCIKIT_LEARN, atol=1e-4)
    assert found.num_free == 13 * 5 - 3
    data, _ = factors.wines()
    correlation = np.corrcoef(data, rowvar=False)
    implied = found.loadings @ found.loadings.T + np.diag(found.noise)
    np.testing.assert_allclose(np.diagonal(implied), 1, atol=1e-4)
    assert np.abs(implied - correlation).max() < 0.25


def test_varimax_is_a_rotation_that_finds_a_simple_structure():
    simple = np.kron(np.eye(2), np.array([[0.9], [0.7], [0.6]])) + 0.02
    angle = 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rotation = factors.varimax(simple @ turn)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-12)
    rotated = simple @ turn @ rotation
    assert np.sort(np.abs(rotated), axis=1)[:, 0].max() < 0.06
    assert (rotated.max(axis=0) > 0.8).all()


def test_the_nile_fell_in_1899_and_then_hardly_moved():
    moving, broken = river.local_level_em(), river.broken_level_em()
    smooth = river.fit_without_jump(moving)
    variances = [float(smooth.params[name]) ** 2 for name in ("scale", "level_scale")]
    np.testing.assert_allclose(
        variances, [river.BOOK["scale"], river.BOOK["level_scale"]], rtol=2e-3
    )
    np.testing.assert_allclose(river.diffuse(smooth.log_likelihood), -632.5457, atol=2e-4)
    in_1899, later = (river.fit_with_jump(broken, year) for year in (river.DAM, 1930))
    assert in_1899.log_likelihood > smooth.log_likelihood + 9
    assert later.log_likelihood < smooth.log_likelihood + 1
    np.testing.assert_allclose(in_1899.params["jump"], -248, atol=1)
    assert in_1899.params["level_scale"] < 2


def test_children_and_batches_have_the_likelihood_that_is_published():
    em = schools.mixed_em()
    children = schools.fit(em, *schools.growth())
    np.testing.assert_allclose(-2 * children.log_likelihood, schools.JENNRICH, atol=5e-4)
    batches = schools.fit(em, *schools.dyestuff())
    np.testing.assert_allclose(-2 * batches.log_likelihood, schools.LME4[0], atol=5e-5)
    own, shrunk = (
        schools.own_lines(children.params["fixed"]),
        schools.effects(em, children, *schools.growth()),
    )
    assert np.linalg.norm(shrunk) < 0.9 * np.linalg.norm(own)


def test_eight_schools_are_likeliest_without_any_spread():
    spreads = np.linspace(0, 30, 61)
    assert (np.diff(schools.height_of(spreads)) < 0).all()
