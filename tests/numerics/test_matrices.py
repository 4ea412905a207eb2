"""Inverses, roots, solutions and log-determinants of matrices, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emjax import conjugate
from emjax.numerics.matrices import inverse, semidefinite_root


def positive_definite(rng, scale=1.0):
    factors = rng.normal(size=(3, 4, 6)) * np.reshape(scale, (-1, 1))
    return jnp.asarray(factors @ np.swapaxes(factors, -1, -2))


@pytest.mark.parametrize("scale", [1.0, [1.0, 1e-6, 1e5, 1.0]])
def test_a_location_is_the_solution_whatever_the_units_of_its_coordinates(scale):
    rng = np.random.default_rng(0)
    curvature = positive_definite(rng, scale)
    step = rng.normal(size=(3, 4)) / scale
    coefficients = jnp.einsum("kij,kj->ki", curvature, step), -curvature / 2
    found = conjugate.LOCATION_VECTOR.maximize(coefficients, jnp.zeros((3, 4)))
    np.testing.assert_allclose(found, step, rtol=1e-9)


@pytest.mark.parametrize("shape", [conjugate.COVARIANCE, conjugate.SCALE_TRIL])
def test_features_of_matrices_have_first_and_second_derivatives(shape):
    value = positive_definite(np.random.default_rng(1))
    if shape is conjugate.SCALE_TRIL:
        value = jnp.linalg.cholesky(value)
    log_determinant, inverse = shape.features(value)
    matrix = value @ value.mT if shape is conjugate.SCALE_TRIL else value
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(matrix)[1], rtol=1e-12)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-10)
    # along directions within the shape: symmetric, or lower triangular
    change = jnp.tril(jnp.asarray(np.random.default_rng(2).normal(size=value.shape)))
    if shape is conjugate.COVARIANCE:
        change = change + change.mT

    def along(t):
        return shape.features(value + t * change)

    check_grads(along, (0.0,), order=2, modes=["fwd", "rev"], rtol=1e-5)


def test_a_precision_is_the_inverse_of_the_expected_covariance():
    covariance = positive_definite(np.random.default_rng(3))
    counts = jnp.array([5.0, 7.0, 2.0])
    coefficients = -counts / 2, -counts[:, None, None] / 2 * covariance
    found = conjugate.PRECISION.maximize(coefficients, jnp.zeros_like(covariance))
    np.testing.assert_allclose(found, np.linalg.inv(covariance), rtol=1e-10)


def test_inverses_of_any_regular_matrices():
    matrices = np.random.default_rng(3).normal(size=(2, 3, 9, 9))
    # a pivot of zero
    matrices[0, 0, 0, 0] = 0
    np.testing.assert_allclose(inverse(jnp.asarray(matrices)), np.linalg.inv(matrices), rtol=1e-9)
    small = jnp.asarray(matrices[0, :, :4, :4])
    np.testing.assert_allclose(inverse(small), np.linalg.inv(small), rtol=1e-10)
    along = jnp.asarray(matrices[1, :, :4, :4])
    _, moved = jax.jvp(inverse, (small,), (along,))
    expected = -np.linalg.inv(small) @ along @ np.linalg.inv(small)
    np.testing.assert_allclose(moved, expected, rtol=1e-9)


def test_roots_of_singular_covariances_and_of_those_of_many_magnitudes():
    half = np.random.default_rng(4).normal(size=(3, 8, 2))
    singular = half @ half.transpose(0, 2, 1)
    singular[2, 3], singular[2, :, 3] = 0, 0
    root = np.asarray(semidefinite_root(jnp.asarray(singular)))
    np.testing.assert_allclose(root @ root.transpose(0, 2, 1), singular, atol=1e-13)
    regular = jnp.asarray(np.eye(3) + 0.1)
    moved = jax.jvp(semidefinite_root, (regular,), (jnp.ones((3, 3)),))[1]
    expected = jax.jvp(jnp.linalg.cholesky, (regular,), (jnp.ones((3, 3)),))[1]
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    graded = np.array([[1e10, 1e3], [1e3, 1e-3]])
    factor = semidefinite_root(jnp.asarray(graded))
    np.testing.assert_allclose(factor, np.linalg.cholesky(graded), rtol=1e-12)
