"""Values that are affine in Gaussian latents: what a program computes with them, at random values.

A program's value is rebuilt from its constant and its tables of coefficients, and compared with the
program itself run on numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import solve_triangular

from emjax.graph.symbols import jointly_integrated, propagate_program
from emjax.numerics.jaxprs import inlined
from emjax.program.latents import GaussianLatent, Latent, latent_p
from emjax.program.trace import Program
from emjax.tables.affine_values import AffineValue, coordinates_of
from emjax.tables.named import Coordinates, MixedElements, Named, without_rows

GROUP = np.array([2, 0, 1, 1, 2, 0, 2])
X = np.linspace(-1.0, 1.5, 14).reshape(7, 2)
W = np.linspace(0.3, 2.0, 6).reshape(3, 2)
CHOLESKY = np.array([[1.4, 0.0], [0.3, 0.9]])
MATRIX = np.array([[2.0, 0.3], [0.3, 1.0]])
# by name: the latents of all programs here, and their values
GAUSSIANS = {
    # three elements of two coordinates
    "b": GaussianLatent("b", (3, 2), 1, ("groups",)),
    # seven elements of one
    "u": GaussianLatent("u", (7,), 1, ("rows",)),
    # a plate of rows, and one of factors
    "f": GaussianLatent("f", (7, 2), 2, ("factors", "rows")),
    "g": GaussianLatent("g", (), 0, ()),
}
DISCRETE = {"z": Latent("z", np.arange(3), (7,), ("rows",))}
RNG = np.random.default_rng(0)
VALUES = {name: RNG.normal(size=latent.shape) for name, latent in GAUSSIANS.items()}
VALUES["z"] = np.array([0, 2, 1, 0, 2, 2, 1])


def symbol(name):
    latent = (GAUSSIANS | DISCRETE)[name]
    dtype = jnp.result_type(float) if name in GAUSSIANS else latent.dtype
    return latent_p.bind(name=name, shape=latent.value_shape, dtype=dtype)


def propagated(function, names, *data):
    """Return the value of a program of data and latents, and the latents as they were taken."""

    def on_symbols(*data):
        return function(*map(symbol, names), *data)

    closed = inlined(jax.make_jaxpr(on_symbols)(*data), keep_derivatives=True)
    program = Program(closed, (), DISCRETE, {}, len(data), GAUSSIANS)
    consts = [Named(np.asarray(const), np.shape(const)) for const in closed.consts]
    inputs = [Named(jnp.asarray(array), np.shape(array)) for array in data]
    while True:
        try:
            (value,), _ = propagate_program(program, closed.jaxpr, {}, [*consts, *inputs])
            return value, program.gaussians
        except MixedElements as error:
            program = jointly_integrated(program, error)


def at_values(value, gaussians):
    """Return an affine value at the values of the latents."""
    if isinstance(value, Named):
        return entries(value, gaussians)
    total = entries(value.constant, gaussians)
    for part in value.coefficients:
        total = total + entries(part, gaussians)
    return total


def entries(value, gaussians):
    """Return a table at each position, times the element of a Gaussian latent that it reads."""
    value = without_rows(value)
    own = tuple(np.indices(value.shape, sparse=True))
    own = [np.minimum(i, size - 1) for i, size in zip(own, value.compact, strict=True)]
    table, where, vectors = np.asarray(value.array), [], None
    for number, axis in enumerate(value.axes):
        index = np.asarray(axis.index.dense(value.shape))
        if isinstance(axis, Coordinates):
            latent = gaussians[axis.source]
            order = (*latent.element_axes, *latent.coordinate_axes)
            elements = VALUES[axis.source].transpose(order).reshape(-1, latent.size)
            vectors = np.broadcast_to(elements[index], (*value.shape, latent.size))
            table = np.moveaxis(table, number, -1)
        else:
            where.append(VALUES[axis.source].ravel()[index])
    found = table[(*where, *own)]
    if vectors is None:
        return np.broadcast_to(found, value.shape)
    return (np.broadcast_to(found, vectors.shape) * vectors).sum(-1)


LINEAR = {
    "long form": ("b", lambda b: b[GROUP]),
    "random intercepts": ("b", lambda b: 1.5 + b[GROUP, 0]),
    "random slopes": ("b", lambda b: (X * b[GROUP]).sum(-1)),
    "random slopes by einsum": ("b", lambda b: jnp.einsum("nk,nk->n", X, b[GROUP])),
    "factors": ("b", lambda b: 0.5 + b @ W.T),
    "factors in reverse": ("b", lambda b: b[:, ::-1] @ W.T),
    "factors, by jnp.dot": ("b", lambda b: jnp.dot(W, b.T).T),
    "factors in a plate": ("f", lambda f: f @ W.T),
    "a product and a sum": ("b", lambda b: (W * b[:, None]).sum(-1)),
    "mixtures of factors": ("zf", lambda z, f: jnp.einsum("ndk,nk->nd", jnp.stack([W] * 3)[z], f)),
    "a slope by cluster": ("zu", lambda z, u: jnp.array([0.5, 1.0, -2.0])[z] * u),
    "a choice by cluster": ("zu", lambda z, u: jnp.where(z == 1, u, 2.0)),
    "two latents": ("bu", lambda b, u: b[GROUP, 1] - 3 * u / 2),
    "one of two": ("bu", lambda b, u: jnp.where(jnp.arange(7) < 3, b[GROUP, 1], u)),
    "side by side": ("bu", lambda b, u: jnp.concatenate([u, b[:, 0], jnp.zeros(2)])),
    "stacked": ("u", lambda u: jnp.stack([u, jnp.ones(7), 2 * u], axis=1)),
    "put": ("u", lambda u: jnp.zeros(9).at[1:8].set(u).at[0].set(3.0)),
    "put by rows": ("bu", lambda b, u: u.at[np.array([1, 5, 3])].set(b[:, 0])),
    "shifted": ("u", lambda u: u[1:] - 0.5 * u[:-1]),
    "padded": ("u", lambda u: jnp.pad(u, (1, 2))),
    "rolled": ("u", lambda u: jnp.roll(u, 2)),
    "moved": ("b", lambda b: jnp.flip(b.T.reshape(1, 2, 3), 0)[0, :, ::2]),
    "split": ("b", lambda b: jnp.split(b, 2, axis=1)[1] - b[:, :1]),
    "added up by coordinates": ("b", lambda b: b.sum(-1)),
    "in turn by coordinates": ("b", lambda b: jnp.cumsum(b, axis=1)),
    "solved": ("b", lambda b: solve_triangular(CHOLESKY, b.T, lower=True)),
    "solved by LU": ("b", lambda b: jnp.linalg.solve(MATRIX, b[..., None])[..., 0]),
    "a loop": ("b", lambda b: jax.lax.scan(lambda c, w: (0.5 * c + w, c), b, jnp.ones(3))[1]),
    "a branch": ("u", lambda u: jax.lax.cond(jnp.sum(X) > 0, lambda v: 2 * v, lambda v: v - 1, u)),
    "a mean of all": ("u", lambda u: u - u.mean()),
    "sums by group": ("u", lambda u: jax.ops.segment_sum(u, GROUP, 3)),
    "differences": ("u", lambda u: jnp.diff(u) + np.eye(6, 7) @ u),
    "rows of a joint latent": ("b", lambda b: (b - b.mean(0))[GROUP, 0]),
    "factors mixed by data": ("f", lambda f, x: f[jnp.argsort(x[:, 0])] @ W.T),
    "read at a cluster": ("zb", lambda z, b: b[z, 0]),
    "convolved": ("u", lambda u: jnp.convolve(u, jnp.array([1.0, 2.0, 0.5]), mode="same")),
    "one for all": ("gu", lambda g, u: g * jnp.arange(7.0) + u),
    "outer product": ("g", lambda g: jnp.outer(jnp.arange(3.0), g * jnp.ones(2))),
    "in another precision": ("u", lambda u: u.astype(jnp.float32).astype(float)),
    "of data": ("b", lambda b, x: jnp.einsum("nk,nk->n", x, b[jnp.argsort(x[:, 0])[:3][GROUP]])),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", LINEAR)
def test_affine_value_is_that_of_the_program(name):
    latents, function = LINEAR[name]
    data = [X] if "data" in name else []
    value, gaussians = propagated(function, latents, *data)
    assert isinstance(value, AffineValue)
    keys = [coordinates_of(part).key for part in value.coefficients]
    assert len(set(keys)) == len(keys)
    expected = function(*(jnp.asarray(VALUES[each]) for each in latents), *data)
    # one of them goes through single precision
    tolerance = 1e-6 if name == "in another precision" else 1e-12
    np.testing.assert_allclose(at_values(value, gaussians), expected, rtol=tolerance)


@pytest.mark.parametrize("name", ["factors in a plate", "factors mixed by data"])
def test_only_axes_that_are_mixed_number_coordinates(name):
    latents, function = LINEAR[name]
    _, gaussians = propagated(function, latents, *([X] if "data" in name else []))
    assert gaussians["f"].joint == (1,)


# each of two values (7, 2), linear in both
STEPS = [
    lambda v, w: v * X - w,
    lambda v, w: v @ MATRIX,
    lambda v, w: w[np.array([3, 0, 0, 6, 2, 1, 5])] + v,
    lambda v, w: jnp.where(X > 0.2, v, w),
    lambda v, w: jnp.concatenate([v[:3], w[3:]]),
    lambda v, w: v.at[:, 0].set(w[:, 1]),
    lambda v, w: v.at[np.array([5, 1])].add(w[:2]),
    lambda v, w: jnp.cumsum(v, axis=1) + w[:1],
    lambda v, w: v.reshape(2, 7).T,
    lambda v, w: jnp.pad(v[1:], ((0, 1), (0, 0))) + X,
    lambda v, w: jax.lax.dynamic_update_slice(v, w[:2], (4, 0)),
    lambda v, w: jnp.where((X > 0).all(1)[:, None], jnp.stack([v[:, 1], w[:, 0]], 1), 0.5),
]


@pytest.mark.parametrize("seed", range(6))
def test_steps_in_any_order_are_affine(seed):
    chosen = np.random.default_rng(seed).integers(len(STEPS), size=6)

    def function(b, u, f):
        values = [b[GROUP], jnp.stack([u, 2 * u], 1), f]
        for number in chosen:
            values.append(STEPS[number](values[-1], values[number % 3]))
        return values[-1] + values[-2]

    value, gaussians = propagated(function, "buf")
    expected = function(*(jnp.asarray(VALUES[name]) for name in "buf"))
    np.testing.assert_allclose(at_values(value, gaussians), expected, rtol=1e-12, atol=1e-12)
