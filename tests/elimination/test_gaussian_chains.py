"""Gaussian latents coupled in time, against the joint normal by brute force."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.elimination.algebra import TableAlgebra
from emjax.elimination.factors import Cells, Variable
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.integrated import integrated
from emjax.elimination.log_partition import log_partition
from emjax.elimination.reductions import Tempered
from emjax.tables.indices import Affine
from emjax.tables.named import Axis
from tests.elimination.gaussian_chains import (
    Numbers,
    clustered,
    factor,
    level_and_slope,
    local_level,
    normal,
    reads,
    second_order,
    vector_chain,
    with_intercepts,
)
from tests.oracles.joint_normal import JointNormal


def log_z(tables, pieces, conditionals, variables, chains="sequential"):
    pieces = [factor(p.shape, p.axes, array) for p, array in zip(pieces, tables, strict=True)]
    factors = integrated(pieces, conditionals, variables, chains)
    gaussian = {conditional.own.source for conditional in conditionals}
    discrete = {name: v for name, v in variables.items() if name not in gaussian}
    return log_partition(factors, discrete, TableAlgebra(Tempered()))


IN_SEQUENCE = [vector_chain, second_order, level_and_slope, clustered, with_intercepts]
CASES = [(chain, "sequential") for chain in IN_SEQUENCE]
CASES += [(vector_chain, "checkpointed"), (vector_chain, "parallel"), (with_intercepts, "parallel")]


@pytest.mark.sampled
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


def test_multiplicity_that_varies_in_time_is_an_error():
    pieces, conditionals, variables = vector_chain()
    variables = {"f": replace(variables["f"], multiplicity=jnp.ones((5, 2)))}
    with pytest.raises(ValueError, match="'f' is in a scan, and its multiplicity varies in time"):
        integrated(pieces, conditionals, variables)
