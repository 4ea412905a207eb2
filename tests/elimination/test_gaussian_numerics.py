"""Gaussian latents of variance zero, of variances that are large, in single precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.elimination.factors import Variable
from emjax.tables.indices import Affine
from tests.elimination.quadratic_pieces import coordinates, drawn, factor, log_z_of

ROTATION = np.array([[0.6, -0.8], [0.8, 0.6]])


@pytest.mark.parametrize(("is_double", "rtol"), [(True, 1e-8), (False, 1e-4)])
def test_groups_of_any_variance_are_right(is_double, rtol):
    """f_i ~ N(shift + g, inner² I), g ~ N(0, outer² I), in coordinates in which J is diagonal."""
    linear = np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]])
    variances = np.array([0.25, 1.0])
    with jax.enable_x64(is_double):
        function = jax.jit(jax.value_and_grad(_log_z_of_groups))
        arrays = [
            jnp.asarray(linear @ ROTATION.T),
            jnp.asarray(-ROTATION @ np.diag(1 / variances) @ ROTATION.T / 2)[None],
        ]
        # inner, outer, shift
        cases = [(0, 1, 0), (1e-8, 1, 0), (1, 0, 0), (1e5, 1e5, 1e4), (1e-5, 1e5, 0)]
        for inner, outer, shift in np.asarray(cases, float):
            log_z, gradients = function(arrays, inner, outer, shift)
            # each coordinate by itself: what f_i tells of g is of precision `left`
            left = 1 / (variances + inner**2)
            told = ((linear * variances - shift) * left).sum(0)
            total = 1 + outer**2 * 3 * left
            kept = inner**2 * variances * left
            expected = outer**2 * told**2 / total - np.log(total)
            expected += (kept * linear**2 - np.log(1 + inner**2 / variances)).sum(0)
            expected += (left * shift * (2 * variances * linear - shift)).sum(0)
            np.testing.assert_allclose(log_z, expected.sum() / 2, rtol=rtol)
            mean = variances * left * (shift + outer**2 * told / total) + kept * linear
            np.testing.assert_allclose(gradients[0] @ ROTATION, mean, rtol=rtol, atol=rtol)


def _log_z_of_groups(arrays, inner, outer, shift):
    f, g = coordinates("f", 2, Affine.identity((3,))), coordinates("g", 2, Affine(0, (0,)))
    pieces = [factor([f], (3,), arrays[0]), factor([f, f], (3,), arrays[1])]
    # all of it in the coordinates of J
    rotation, identity = jnp.asarray(ROTATION), jnp.eye(2)
    mean = shift * rotation.sum(1)[None]
    through = [(g, rotation[None])]
    conditionals = [
        drawn(coordinates("g", 2, Affine(0, ())), (), scale=outer * identity),
        drawn(f, (3,), mean=mean, scale=inner * identity[None], coefficients=through),
    ]
    variables = {"g": Variable("g", 2, ()), "f": Variable("f", 2, (3,), order=1)}
    return log_z_of(arrays, pieces, [], conditionals, variables)


def _log_z_of_crossed(arrays):
    """f_i ~ N(m + R g, L Lᵀ) for i < 3, crossed with b_j for j < 2, in six rows."""
    f_of, b_of = [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1]
    f, b = coordinates("f", 2, f_of), coordinates("b", 1, b_of)
    own, own_b = (coordinates(axis.source, axis.size, range(n)) for axis, n in ((f, 3), (b, 2)))
    g = coordinates("g", 1, Affine(0, (0,)))
    pieces = [
        factor([f], (6,), arrays["linear"]),
        factor([f, f], (6,), arrays["square"]),
        factor([f, b], (6,), arrays["cross"]),
    ]
    drawn_from_g = [(g, arrays["coefficients"][None])]
    conditionals = [
        drawn(coordinates("g", 1, Affine(0, ())), (), scale=arrays["scale of g"]),
        drawn(own, (3,), (), arrays["mean"][None], arrays["scale"][None], drawn_from_g),
        drawn(own_b, (2,), scale=arrays["scale of b"]),
    ]
    variables = {
        "g": Variable("g", 1, ()),
        "f": Variable("f", 2, (3,), order=1),
        "b": Variable("b", 1, (2,), order=2),
    }
    inputs = [piece.array for piece in pieces]
    return log_z_of(inputs, pieces, [], conditionals, variables)


def _log_z_of_crossed_by_definition(arrays):
    """The same as one vector of the f and b, the density of which is written down."""
    among, ones = jnp.eye(3), jnp.ones((3, 3))
    through = arrays["coefficients"] @ arrays["scale of g"]
    own = arrays["scale"] @ arrays["scale"].T
    covariance = jax.scipy.linalg.block_diag(
        jnp.kron(ones, through @ through.T) + jnp.kron(among, own),
        jnp.diag(arrays["scale of b"].ravel() ** 2),
    )
    mean = jnp.concatenate([jnp.tile(arrays["mean"], 3), jnp.zeros(2)])
    linear = jnp.concatenate([arrays["linear"].reshape(2, 6).sum(0), jnp.zeros(2)])
    cross = arrays["cross"].reshape(2, 6).T
    square = arrays["square"].reshape(2, 3, 2, 2).sum(0)
    blocks = -square - square.mT
    precision = jax.scipy.linalg.block_diag(*blocks, jnp.zeros((2, 2)))
    precision = precision.at[:6, 6:].set(-cross).at[6:, :6].set(-cross.T)
    matrix = jnp.eye(8) + precision @ covariance
    rest = linear - precision @ mean
    total = linear @ mean + rest @ mean + rest @ covariance @ jnp.linalg.solve(matrix, rest)
    return (total - jnp.linalg.slogdet(matrix)[1]) / 2


def test_derivatives_of_second_order_are_those_of_the_definition():
    """Of pieces, and of means, scales and coefficients."""
    rng = np.random.default_rng(0)
    shapes = {
        "linear": (6, 2),
        "square": (6, 2, 2),
        "cross": (6, 2, 1),
        "coefficients": (2, 1),
        "mean": (2,),
        "scale": (2, 2),
        "scale of g": (1, 1),
        "scale of b": (2, 1, 1),
    }
    primals, tangents = ({n: rng.normal(size=shape) for n, shape in shapes.items()} for _ in "pt")
    for array in (primals, tangents):
        array["square"] = -array["square"] @ array["square"].swapaxes(-1, -2)
        array["cross"] *= 0.1

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(function):
        return jax.jvp(jax.value_and_grad(function), (primals,), (tangents,))

    found = derivatives(_log_z_of_crossed)
    expected = derivatives(_log_z_of_crossed_by_definition)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-8), found, expected)
