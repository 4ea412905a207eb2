"""Inverses, solutions and log-determinants of positive definite matrices, and their derivatives."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emjax import conjugate


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
