"""Gaussian latents of variance zero, of variances that are large, in single precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.elimination.factors import Variable
from emjax.elimination.gaussian.posterior import posterior
from emjax.tables.indices import Affine
from tests.elimination.quadratic_pieces import coordinates, drawn, factor, log_z_of

ROTATION = np.array([[0.6, -0.8], [0.8, 0.6]])


@pytest.mark.parametrize(("is_double", "rtol"), [(True, 1e-8), (False, 1e-4)])
def test_groups_of_any_variance_are_right(is_double, rtol):
    """f_i ~ N(g, inner² I), g ~ N(0, outer² I), in coordinates in which J is diagonal."""
    linear = np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]])
    variances = np.array([0.25, 1.0])
    with jax.enable_x64(is_double):
        function = jax.jit(jax.value_and_grad(_log_z_of_groups))
        arrays = [
            jnp.asarray(linear @ ROTATION.T),
            jnp.asarray(-ROTATION @ np.diag(1 / variances) @ ROTATION.T / 2)[None],
        ]
        for inner, outer in [(0.0, 1.0), (1e-8, 1.0), (1.0, 0.0), (1e5, 1e5), (1e-5, 1e5)]:
            log_z, gradients = function(arrays, inner, outer)
            # each coordinate by itself: what f_i tells of g is of precision `left`
            left = 1 / (variances + inner**2)
            told = (linear * variances * left).sum(0)
            total = 1 + outer**2 * 3 * left
            kept = inner**2 * variances * left
            expected = (outer**2 * told**2 / total - np.log(total)).sum() / 2
            expected += ((kept * linear**2).sum() - 3 * np.log(1 + inner**2 / variances).sum()) / 2
            np.testing.assert_allclose(log_z, expected, rtol=rtol)
            mean = variances * left * outer**2 * told / total + kept * linear
            np.testing.assert_allclose(gradients[0] @ ROTATION, mean, rtol=rtol, atol=rtol)


def _log_z_of_groups(arrays, inner, outer):
    f, g = coordinates("f", 2, Affine.identity((3,))), coordinates("g", 2, Affine(0, (0,)))
    pieces = [factor([f], (3,), arrays[0]), factor([f, f], (3,), arrays[1])]
    identity = jnp.eye(2)
    conditionals = [
        drawn(coordinates("g", 2, Affine(0, ())), (), scale=outer * identity),
        drawn(f, (3,), scale=inner * identity[None], coefficients=[(g, identity[None])]),
    ]
    variables = {"g": Variable("g", 2, ()), "f": Variable("f", 2, (3,), order=1)}
    return log_z_of(arrays, pieces, [], conditionals, variables)


def _by_definition(precision, scale):
    """Return a posterior of two blocks of two, in as many words."""
    blocks = jax.vmap(jax.scipy.linalg.block_diag)(scale[:, :2], scale[:, 2:])
    covariance = blocks @ blocks.mT
    matrix = jnp.eye(4) + blocks.mT @ precision @ blocks
    kept = jnp.linalg.inv(jnp.eye(4) + covariance @ precision)
    return jnp.linalg.slogdet(matrix)[1], kept @ covariance, kept, precision @ kept


def test_derivatives_of_a_posterior_are_those_of_its_definition():
    """Of second order, too, of blocks that vary and a precision that does not."""
    root, along, *blocks = np.random.default_rng(0).normal(size=(5, 4, 4))
    scale = jnp.asarray(blocks[0].reshape(2, 4, 2))
    weights = np.random.default_rng(1).normal(size=(2, 4, 4))
    primals = jnp.asarray([root @ root.T]), scale
    tangents = jnp.asarray([along + along.T]), jnp.asarray(blocks[1].reshape(2, 4, 2))

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(function):
        def total(precision, scale):
            determinant, *matrices = function((precision + precision.mT) / 2, scale)
            return jnp.sin(determinant).sum() + sum((weights * m).sum() for m in matrices)

        return jax.jvp(jax.value_and_grad(total, (0, 1)), primals, tangents)

    found, expected = derivatives(posterior), derivatives(_by_definition)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-8), found, expected)
