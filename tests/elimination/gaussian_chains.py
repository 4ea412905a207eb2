"""Gaussian chains made by hand: pieces, what latents are drawn from, and the latents."""

import itertools

import jax.numpy as jnp
import numpy as np

from emjax.elimination.factors import Cells, Factor, Variable
from emjax.elimination.gaussian.conditional import Conditional
from emjax.tables.indices import Affine, Dense
from emjax.tables.named import Axis, Coordinates


def reads(name, size, batch, first=0, time=True):
    """Return the coordinates of (time, *batch) elements, from step `first` on."""
    strides = Affine.identity((2, *batch)).strides
    return Coordinates(
        name, size, Affine(first * int(np.prod(batch)), (strides[0] * time, *strides[1:]))
    )


def factor(shape, axes, array):
    return Factor(tuple(axes), tuple(shape), Cells(jnp.asarray(array)))


class Numbers:
    """Numbers that look random, of a seed."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def __call__(self, *shape, scale=1.0):
        return self.random.normal(size=shape) * scale

    def negative(self, *shape):
        """Return negative definite quadratic forms."""
        root = self.random.normal(size=shape)
        return -0.5 * root @ np.swapaxes(root, -1, -2)


def vector_chain(series=(0, 1)):
    """A state of two coordinates, one of which has no noise, some steps of it masked."""
    number, T, B = Numbers(0), 5, (len(series),)
    shape, series = (T - 1, *B), list(series)
    at, before = reads("f", 2, B, 1), reads("f", 2, B)
    quadratic = number.negative(T, 2, 2, 2)
    quadratic[2], quadratic[4, 1] = 0, 0
    linear = number(T, 2, 2)
    linear[2], linear[4, 1] = 0, 0
    everywhere = reads("f", 2, B)
    pieces = [
        factor((T, *B), [everywhere], linear[:, series]),
        factor((T, *B), [everywhere, everywhere], quadratic[:, series]),
        factor(shape, [at, before], number(1, 2, 2, 2, scale=0.1)[:, series]),
        factor(shape, [before, before], number.negative(1, 2, 2, 2)[:, series]),
    ]
    scale = np.array([[0.7, 0], [0.4, 0]])
    start = reads("f", 2, B, time=False)
    mean = number(1, 2, 2)[:, series]
    conditionals = [
        Conditional(start, *normal((1, *B), start, mean, np.eye(2)[None, None])),
        Conditional(
            at,
            *normal(shape, at, number(1, 1, 2), scale[None, None]),
            [factor(shape, [at, before], number(1, 1, 2, 2, scale=0.5))],
        ),
    ]
    return pieces, conditionals, {"f": Variable("f", 2, (T, *B))}


def normal(shape, own, mean, scale):
    return factor(shape, [own], mean), factor(shape, [own], scale)


def second_order():
    """An autoregression of second order, of which two steps stand alone."""
    number, T = Numbers(1), 6
    one = np.ones((1, 1, 1))
    lags = [reads("f", 1, (), 2 - lag) for lag in range(3)]
    start, second = reads("f", 1, (), 0, time=False), reads("f", 1, (), 1, time=False)
    pieces = [
        factor((T,), [reads("f", 1, ())], number(T, 1)),
        factor((T,), [reads("f", 1, ())] * 2, -one),
    ]
    for axis, other in itertools.combinations(lags, 2):
        pieces.append(factor((T - 2,), [axis, other], number(1, 1, 1, scale=0.05)))
    conditionals = [
        Conditional(start, *normal((1,), start, number(1, 1), one)),
        Conditional(
            second,
            *normal((1,), second, number(1, 1), 0.5 * one),
            [factor((1,), [second, start], number(1, 1, 1))],
        ),
        Conditional(
            lags[0],
            *normal((T - 2,), lags[0], number(1, 1), 0.5 * one),
            [
                factor((T - 2,), [lags[0], lags[1]], 0.6 * one),
                factor((T - 2,), [lags[0], lags[2]], 0.3 * one),
            ],
        ),
    ]
    return pieces, conditionals, {"f": Variable("f", 1, (T,))}


def level_and_slope():
    """Two latents, of which one reads the other at its own step, and is observed in any order."""
    number, T = Numbers(2), 4
    one = np.ones((1, 1, 1))
    conditionals, pieces = [], []
    for name in ("slope", "level"):
        start = reads(name, 1, (), time=False)
        conditionals.append(Conditional(start, *normal((1,), start, number(1, 1), one)))
    slope, level = reads("slope", 1, (), 1), reads("level", 1, (), 1)
    steps = (T - 1,)
    conditionals += [
        Conditional(
            level,
            *normal(steps, level, number(1, 1), 0.3 * one),
            [
                factor(steps, [level, reads("level", 1, ())], one),
                factor(steps, [level, slope], number(T - 1, 1, 1)),
            ],
        ),
        Conditional(
            slope,
            *normal(steps, slope, number(1, 1), 0.0 * one),
            [factor(steps, [slope, reads("slope", 1, ())], 0.9 * one)],
        ),
    ]
    # observed in no order, one step twice
    axis = Coordinates("level", 1, Dense.of(np.array([3, 0, 2, 0, 1])))
    pieces = [
        factor((5,), [axis], number(5, 1)),
        factor((5,), [axis, axis], -(number(5, 1, 1) ** 2)),
        factor(steps, [slope, level], number(1, 1, 1, scale=0.1)),
    ]
    variables = {"level": Variable("level", 1, (T,)), "slope": Variable("slope", 1, (T,))}
    return pieces, conditionals, variables


def clustered():
    """Series whose transitions and observations a discrete latent of the series chooses."""
    number, T, B = Numbers(3), 4, (3,)
    z = Axis("z", 2, Affine(0, (0, 1)))
    at, before, start = reads("f", 1, B, 1), reads("f", 1, B), reads("f", 1, B, time=False)
    own = Axis("z", 2, Affine(0, (1,)))
    pieces = [
        factor((T, 3), [before, z], number(T, 3, 1, 2)),
        factor((T, 3), [z, before, before], number.negative(1, 1, 2, 1, 1)),
        factor((3,), [own], number(3, 2)),
    ]
    conditionals = [
        Conditional(start, *normal((1, 3), start, number(1, 1, 1), np.ones((1, 1, 1, 1)))),
        Conditional(
            at,
            factor((T - 1, 3), [z, at], number(1, 1, 2, 1)),
            factor((T - 1, 3), [z, at], 0.5 * np.ones((1, 1, 2, 1, 1))),
            [factor((T - 1, 3), [z, at, before], number(1, 1, 2, 1, 1))],
        ),
    ]
    return pieces, conditionals, {"f": Variable("f", 1, (T, 3)), "z": Variable("z", 2, (3,))}


def with_intercepts():
    """A chain of each series, read along with an intercept of it and with one of all series."""
    number, T, B = Numbers(4), 4, (2,)
    one = np.ones((1, 1, 1, 1))
    at, before, start = reads("f", 1, B, 1), reads("f", 1, B), reads("f", 1, B, time=False)
    own, everywhere = Coordinates("b", 2, Affine(0, (1,))), Coordinates("a", 1, Affine(0, ()))
    origin = Coordinates("origin", 1, Affine(0, (1,)))
    before_start = Coordinates("origin", 1, Affine(0, (0, 1)))
    b, a = Coordinates("b", 2, Affine(0, (0, 1))), Coordinates("a", 1, Affine(0, (0, 0)))
    pieces = [
        factor((T, 2), [before], number(T, 2, 1)),
        factor((T, 2), [before, before], -one),
        factor((T, 2), [b, before], number(T, 1, 2, 1, scale=0.3)),
        factor((T, 2), [before, a], number(T, 2, 1, 1, scale=0.3)),
        factor((T, 2), [b, b], number.negative(T, 1, 2, 2)),
        factor((T, 2), [a, b], number(1, 1, 1, 2, scale=0.1)),
        factor((T, 2), [a], number(T, 2, 1)),
        factor((1, 2), [start, before_start], number(1, 2, 1, 1, scale=0.1)),
        factor((2,), [origin, origin], 0 * one[0]),
    ]
    conditionals = [
        Conditional(own, *normal((2,), own, number(1, 2), np.eye(2)[None])),
        Conditional(everywhere, *normal((), everywhere, number(1), np.eye(1))),
        Conditional(origin, *normal((2,), origin, number(2, 1), one[0])),
        Conditional(
            start,
            *normal((1, 2), start, number(1, 1, 1), one),
            [factor((1, 2), [start, before_start], number(1, 1, 1, 1))],
        ),
        Conditional(
            at,
            *normal((T - 1, 2), at, number(1, 1, 1), one),
            [
                factor((T - 1, 2), [at, before], 0.5 * one),
                factor((T - 1, 2), [at, b], number(T - 1, 1, 1, 2)),
            ],
        ),
    ]
    sizes = {"f": (1, (T, 2)), "b": (2, (2,)), "a": (1, ()), "origin": (1, (2,))}
    return pieces, conditionals, {name: Variable(name, *size) for name, size in sizes.items()}


def local_level(y, variance, first_variance, noise):
    """A level that is observed at every step."""
    T, one = len(y), np.ones((1, 1, 1), y.dtype)
    at, before, start = reads("f", 1, (), 1), reads("f", 1, ()), reads("f", 1, (), time=False)
    pieces = [
        factor((T,), [before], y[:, None] / noise),
        factor((T,), [before, before], -one / (2 * noise)),
    ]
    none = np.zeros((1, 1), y.dtype)
    conditionals = [
        Conditional(start, *normal((1,), start, none, np.sqrt(first_variance) * one)),
        Conditional(
            at,
            *normal((T - 1,), at, none, np.sqrt(variance) * one),
            [factor((T - 1,), [at, before], one)],
        ),
    ]
    return pieces, conditionals, {"f": Variable("f", 1, (T,))}
