"""Gaussian latents coupled in time, against the joint normal by brute force."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.elimination.algebra import TableAlgebra
from emjax.elimination.factors import Cells, Factor, Variable
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.integrated import integrated
from emjax.elimination.log_partition import log_partition
from emjax.elimination.reductions import Tempered
from emjax.tables.indices import Affine, Dense
from emjax.tables.named import Axis, Coordinates

# ── the oracle ────────────────────────────────────────────────────────────────────────────────────


class JointNormal:
    """All Gaussian latents as one vector, for each configuration of the discrete ones."""

    def __init__(self, pieces, conditionals, variables):
        self.pieces, self.conditionals, self.variables = pieces, conditionals, variables
        gaussian = [name for name in variables if self._conditionals(name)]
        self.start, self.size = {}, 0
        for name in gaussian:
            self.start[name] = self.size
            self.size += variables[name].count * variables[name].size
        cells = []
        for name, variable in variables.items():
            if name not in gaussian:
                for element in range(variable.count):
                    cells.append([(name, element, value) for value in range(variable.size)])
        self.configurations = []
        for values in itertools.product(*cells):
            self.configurations.append({(name, element): v for name, element, v in values})
        found = [self._integral(configuration) for configuration in self.configurations]
        self.values = np.array([value for value, _, _ in found])
        self.moments = [(mean, second) for _, mean, second in found]

    @property
    def log_partition(self):
        return np.logaddexp.reduce(self.values)

    def gradient(self):
        """Return the expected value of what each piece is a table of."""
        weights = np.exp(self.values - self.log_partition)
        gradients = [np.zeros(piece.array.shape) for piece in self.pieces]
        for weight, configuration, (mean, second) in zip(
            weights, self.configurations, self.moments, strict=True
        ):
            for piece, gradient in zip(self.pieces, gradients, strict=True):
                for cell, places in self._cells(piece, configuration):
                    moments = [1.0, mean, second][len(places)]
                    gradient[cell] += weight * (moments[np.ix_(*places)] if places else 1.0)
        return gradients

    def _conditionals(self, name):
        return [c for c in self.conditionals if c.own.source == name]

    def _cells(self, factor, configuration, unnamed=0):
        """Yield where each element's entries are, and the coordinates that they belong to."""
        for element in np.ndindex(*factor.shape):
            places, values = [], []
            for axis in factor.axes:
                index = np.broadcast_to(axis.index.dense(factor.shape), factor.shape)[element]
                if isinstance(axis, Coordinates):
                    first = self.start[axis.source] + index * axis.size
                    places.append(np.arange(first, first + axis.size))
                    values.append(slice(None))
                else:
                    values.append(configuration[axis.source, index])
            lengths = factor.array.shape[: len(factor.shape)]
            row = tuple(0 if n == 1 else i for i, n in zip(element, lengths, strict=True))
            yield (*row, *values), places

    def _integral(self, configuration):
        mean, gain = np.zeros(self.size), np.zeros((self.size, self.size))
        scale = np.zeros((self.size, self.size))
        for conditional in self.conditionals:
            for cell, (own,) in self._cells(conditional.mean, configuration):
                mean[own] += np.asarray(conditional.mean.array)[cell]
            for cell, (own,) in self._cells(conditional.scale, configuration):
                scale[np.ix_(own, own)] += np.asarray(conditional.scale.array)[cell]
            for factor in conditional.coefficients:
                for cell, (own, other) in self._cells(factor, configuration):
                    gain[np.ix_(own, other)] += np.asarray(factor.array)[cell]
        total, linear, quadratic = 0.0, np.zeros(self.size), np.zeros((self.size, self.size))
        for piece in self.pieces:
            for cell, places in self._cells(piece, configuration):
                table = np.asarray(piece.array)[cell]
                if not places:
                    total += table
                elif len(places) == 1:
                    linear[places[0]] += table
                else:
                    quadratic[np.ix_(*places)] -= table
                    quadratic[np.ix_(*places[::-1])] -= table.T
        solved = np.linalg.inv(np.eye(self.size) - gain)
        mean, scale = solved @ mean, solved @ scale
        precision = np.eye(self.size) + scale.T @ quadratic @ scale
        covariance = scale @ np.linalg.solve(precision, scale.T)
        slope = linear - quadratic @ mean
        total += (linear + slope) @ mean / 2 + slope @ covariance @ slope / 2
        total -= np.linalg.slogdet(precision)[1] / 2
        mean = mean + covariance @ slope
        return total, mean, covariance + np.outer(mean, mean)


# ── chains ────────────────────────────────────────────────────────────────────────────────────────


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


def log_z(tables, pieces, conditionals, variables, chains="sequential"):
    pieces = [factor(p.shape, p.axes, array) for p, array in zip(pieces, tables, strict=True)]
    factors = integrated(pieces, conditionals, variables, chains)
    gaussian = {conditional.own.source for conditional in conditionals}
    discrete = {name: v for name, v in variables.items() if name not in gaussian}
    return log_partition(factors, discrete, TableAlgebra(Tempered()))


IN_SEQUENCE = [vector_chain, second_order, level_and_slope, clustered, with_intercepts]
CASES = [(chain, "sequential") for chain in IN_SEQUENCE]
CASES += [(vector_chain, "checkpointed"), (vector_chain, "parallel"), (with_intercepts, "parallel")]


@pytest.mark.parametrize(("chain", "chains"), CASES)
def test_chain_is_the_joint_normal(chain, chains):
    case = chain()
    exact = JointNormal(*case)
    tables = [piece.array for piece in case[0]]
    value, gradient = jax.jit(jax.value_and_grad(lambda tables: log_z(tables, *case, chains)))(
        tables
    )
    np.testing.assert_allclose(value, exact.log_partition, rtol=1e-12)
    for ours, theirs in zip(gradient, exact.gradient(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_series_with_a_multiplicity_counts_as_often():
    pieces, conditionals, variables = vector_chain((0, 1))
    multiplicity = jnp.array([[3.0, 1.0]])
    variables = {"f": replace(variables["f"], multiplicity=multiplicity)}
    totals = []
    for piece in pieces:
        times = multiplicity.reshape((1, 2) + (1,) * len(piece.axes))
        totals.append(piece.array * times)
    value = jax.jit(lambda totals: log_z(totals, pieces, conditionals, variables))(totals)
    exact = JointNormal(*vector_chain((0, 0, 0, 1))).log_partition
    np.testing.assert_allclose(value, exact, rtol=1e-12)


def test_derivatives_of_a_chain_are_differences():
    """By all that it is made of, and of second order, too."""
    y = np.array([0.3, 1.0, -0.5])
    pieces, conditionals, variables = local_level(y, 0.5, 2.0, 0.7)
    pieces.append(factor((2,), [reads("f", 1, (), 1), reads("f", 1, ())], np.full((1, 1, 1), 0.1)))
    start = [[piece.array for piece in pieces]]
    start += [[c.mean.array, c.scale.array, *_arrays(c.coefficients)] for c in conditionals]
    number = Numbers(5)
    along = jax.tree.map(lambda array: jnp.asarray(number(*array.shape)), start)

    def of(arrays):
        own = [replaced(c, *values) for c, values in zip(conditionals, arrays[1:], strict=True)]
        return arrays[0], pieces, own, variables

    def moved(step):
        return jax.tree.map(lambda array, direction: array + step * direction, start, along)

    def exact(step):
        tables, _, own, _ = of(moved(step))
        filled = [factor(p.shape, p.axes, t) for p, t in zip(pieces, tables, strict=True)]
        return JointNormal(filled, own, variables).log_partition

    gradient = jax.grad(lambda arrays: log_z(*of(arrays)))
    first, second = jax.jit(lambda arrays: jax.jvp(gradient, (arrays,), (along,)))(start)
    slope = sum(map(jnp.vdot, jax.tree.leaves(first), jax.tree.leaves(along)))
    np.testing.assert_allclose(slope, (exact(1e-5) - exact(-1e-5)) / 2e-5, rtol=1e-7)
    curvature = sum(map(jnp.vdot, jax.tree.leaves(second), jax.tree.leaves(along)))
    difference = (exact(1e-3) + exact(-1e-3) - 2 * exact(0)) / 1e-6
    np.testing.assert_allclose(curvature, difference, rtol=1e-4)


def _arrays(factors):
    return [factor.array for factor in factors]


def replaced(conditional, mean, scale, *coefficients):
    """Return a conditional of other arrays."""
    factors = [conditional.mean, conditional.scale, *conditional.coefficients]
    arrays = [mean, scale, *coefficients]
    mean, scale, *rest = [replace(f, cells=Cells(a)) for f, a in zip(factors, arrays, strict=True)]
    return Conditional(conditional.own, mean, scale, rest)


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_level_that_does_not_move_is_the_mean(dtype, tolerance):
    """A process variance of 0, under a start of variance 10¹⁰."""
    y = np.array([1.0, 2.0, 4.0, -1.0], dtype)
    case = local_level(y, dtype(0), dtype(1e10), dtype(1))
    tables = [piece.array for piece in case[0]]
    value, gradient = jax.jit(jax.value_and_grad(lambda tables: log_z(tables, *case)))(tables)
    assert gradient[0].dtype == dtype
    np.testing.assert_allclose(gradient[0], np.full((4, 1), 6 / (4 + 1e-10)), rtol=tolerance)
    # log ∫ N(f; 0, S) exp(f Σ y − 2 f²) df
    exact = 6.0**2 / (2 * (4 + 1e-10)) - np.log(1 + 4e10) / 2
    np.testing.assert_allclose(value, exact, rtol=tolerance)


def test_chain_is_what_dynamax_finds():
    """Numbers of dynamax 1.0.3, `lgssm_smoother`, which adds 10⁻⁹ to variances."""
    time = np.arange(8.0)
    y = np.stack([np.sin(time), np.cos(2 * time)], 1)
    emission, noise = np.array([[1.0, 0.5], [0.0, 1.0]]), np.array([0.3, 0.6])
    seen = emission.T / noise
    at, before, start = reads("f", 2, (), 1), reads("f", 2, ()), reads("f", 2, (), time=False)
    pieces = [
        factor((8,), [before], y @ seen.T),
        factor((8,), [before, before], -seen[None] @ emission / 2),
        # E[f fᵀ] at each step
        factor((8,), [before, before], np.zeros((8, 2, 2))),
    ]
    first_scale = np.sqrt(2) * np.eye(2)[None]
    scale = np.linalg.cholesky([[0.5, 0.2], [0.2, 0.4]])[None]
    transition = np.array([[[0.9, 0.2], [-0.1, 0.8]]])
    conditionals = [
        Conditional(start, *normal((1,), start, np.array([[0.5, -0.5]]), first_scale)),
        Conditional(
            at,
            *normal((7,), at, np.zeros((1, 2)), scale),
            [factor((7,), [at, before], transition)],
        ),
    ]
    case = pieces, conditionals, {"f": Variable("f", 2, (8,))}
    tables = [piece.array for piece in pieces]
    value, gradient = jax.jit(jax.value_and_grad(lambda tables: log_z(tables, *case)))(tables)
    constant = -(y**2 / noise).sum() / 2 - 4 * np.log(2 * np.pi * noise).sum()
    np.testing.assert_allclose(value + constant, -20.99587404902613, rtol=1e-8)
    np.testing.assert_allclose(gradient[0][3], [0.151830651848, 0.099455374565], rtol=1e-7)
    expected = [[0.174135825607, -0.040840035349], [-0.040840035349, 0.200030907366]]
    covariance = gradient[2][3] - np.outer(gradient[0][3], gradient[0][3])
    np.testing.assert_allclose(
        covariance,
        [[0.174135825607, -0.040840035349], [-0.040840035349, 0.200030907366]],
        rtol=1e-7,
    )


def test_switching_chain_is_an_error_that_names_both():
    z = Axis("z", 2, Affine(0, (1,)))
    axis = reads("f", 1, ())
    pieces, conditionals, variables = second_order()
    pieces = [*pieces, factor((6,), [z, axis], np.zeros((1, 2, 1)))]
    variables |= {"z": Variable("z", 2, (6,))}
    with pytest.raises(ValueError, match="'z' varies in time along with the Gaussian latent 'f'"):
        integrated(pieces, conditionals, variables)
