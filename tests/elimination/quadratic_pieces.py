"""Hand-made pieces and conditionals, and log Z of them."""

import jax
import jax.numpy as jnp
import numpy as np

from emjax.elimination.algebra import TableAlgebra
from emjax.elimination.factors import Cells, Factor
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.integrated import integrated
from emjax.elimination.log_partition import log_partition
from emjax.elimination.reductions import Tempered
from emjax.tables.indices import Affine, index_of
from emjax.tables.named import Axis, Coordinates
from tests.oracles.joint_normal import JointNormal

RNG = np.random.default_rng(16)


def latent(name, size, index):
    return Axis(name, size, _index(index))


def coordinates(name, size, index):
    return Coordinates(name, size, _index(index))


def _index(index):
    return index if isinstance(index, Affine) else index_of(np.asarray(index, np.int32))


def numbers(*shape):
    return RNG.normal(size=shape)


def precisions(*shape):
    """Return −½ J of random J, (*lead, q, q), some of them singular."""
    roots = RNG.normal(size=shape)[..., : max(shape[-1] - 1, 1)]
    return -roots @ roots.swapaxes(-1, -2) / 2


def factor(axes, shape, array, **options):
    return Factor(tuple(axes), tuple(shape), Cells(jnp.asarray(array)), **options)


def drawn(own, shape, others=(), mean=None, scale=None, coefficients=()):
    """Return a conditional; `coefficients`: pairs of a parent's axis and an array."""
    q = own.size
    lead = (1,) * (len(shape) + len(others))
    # what is known to be zero is not computed with
    known = Factor((*others, own), tuple(shape), Cells(np.zeros((*lead, q))))
    scale = np.tril(numbers(*lead, q, q)) if scale is None else scale
    return Conditional(
        own,
        known if mean is None else factor([*others, own], shape, mean),
        factor([*others, own], shape, scale),
        [factor([*others, own, parent], shape, array) for parent, array in coefficients],
    )


def log_z_of(arrays, pieces, factors, conditionals, variables, chains="sequential"):
    pieces = [
        Factor(piece.axes, piece.shape, Cells(array), piece.without_multiplicity)
        for piece, array in zip(pieces, arrays, strict=True)
    ]
    messages = integrated(pieces, conditionals, variables, chains)
    gaussians = {conditional.own.source for conditional in conditionals}
    rest = {name: v for name, v in variables.items() if name not in gaussians}
    return log_partition([*factors, *messages], rest, TableAlgebra(Tempered()))


def integrals_of(pieces, conditionals, variables):
    """Return how Gaussian latents are integrated out, in order; nothing is computed."""
    found = []

    def messages():
        factors = integrated(pieces, conditionals, variables, seen=found.append)
        return [factor.array for factor in factors]

    jax.eval_shape(messages)
    return found


def assert_is_joint_normal(pieces, factors, conditionals, variables, chains="sequential"):
    """Assert that log Z and its derivatives are those of the joint normal distribution."""
    arrays = [piece.array for piece in pieces]
    log_z, gradients = jax.jit(
        jax.value_and_grad(
            lambda arrays: log_z_of(arrays, pieces, factors, conditionals, variables, chains)
        )
    )(arrays)
    exact = JointNormal([*pieces, *factors], conditionals, variables)
    np.testing.assert_allclose(log_z, exact.log_partition, rtol=1e-10)
    for gradient, expected in zip(gradients, exact.gradient(), strict=False):
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-10)
