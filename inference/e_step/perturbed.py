"""Draws of Gaussian latents: their means, where everything that is Gaussian is perturbed.

The posterior mean of f is linear in what each latent is drawn about, m, and in the linear part h of
what observations say, hᵀf − ½ fᵀJf. With noise of their own added, m + L ε and h + J^½ ξ, that mean
is an exact draw from the posterior. So draws need no more than means do, whatever integrates the
latents out. Source: Papandreou & Yuille (2010), NIPS 23; Durbin & Koopman (2002), Biometrika 89(3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array

from emjax.e_step.instance import Instance
from emjax.e_step.interactions import ROOTS, pieces_of
from emjax.elimination.factors import Cells, Factor
from emjax.graph.residuals import spread_argument
from emjax.graph.terms import Term
from emjax.numerics.axes import arranged, contracted
from emjax.numerics.matrices import semidefinite_root
from emjax.tables.lifting import lift, lift_events
from emjax.tables.named import Axis, Coordinates, Named

# what is folded into a key for the values of Gaussian latents
GAUSSIAN = 2**32 - 2


@dataclass(frozen=True, eq=False)
class Noise:
    """What an observed site says of Gaussian latents, as the root of its precision.

    - `root`: J^½ over (elements…, values of `axes`…, coordinates of all `reads`, as many again).
    - `axes`, `reads`: the discrete latents, and the elements of Gaussian ones.
    - `shape`: of its elements.
    - `without_multiplicity`: as of a factor.
    """

    root: Array
    axes: tuple[Axis, ...]
    reads: tuple[Coordinates, ...]
    shape: tuple[int, ...]
    without_multiplicity: bool

    def drawn(self, key: Array) -> list[Factor]:
        """Return J^½ ξ as pieces, one for each of the elements that are read."""
        noise = jax.random.normal(key, (*self.shape, self.root.shape[-1]), self.root.dtype)
        lead, values = range(len(self.shape)), [axis.key for axis in self.axes]
        labels = [[*lead, *values, "out", "in"], [*lead, "in"]]
        noise = contracted([self.root, noise], labels, [*lead, *values, "out"])
        pieces, start = [], 0
        for axis in self.reads:
            cells = Cells(noise[..., start : start + axis.size])
            start += axis.size
            piece = Factor((*self.axes, axis), self.shape, cells, self.without_multiplicity)
            pieces.append(piece)
        return pieces


def noises_of(instance: Instance) -> list[Noise]:
    """Return what is added to what observations say, of each site that reads Gaussian latents.

    Errors: `ValueError` for Gaussian latents that meet, of which one counts several times within
    each time that the other does.
    """
    noises = []
    for term, naturals in zip(instance.terms, instance.naturals, strict=True):
        if not term.reads:
            continue
        _check_multiplicities(term, instance)
        if not term.site.is_integrated:
            squares = [each for each in pieces_of(term, naturals) if _is_quadratic(each)]
            noises += [_noise(squares, instance)] if squares else []
    return noises


def perturbed(
    instance: Instance, noises: Sequence[Noise], key: Array
) -> tuple[Instance, list[Factor]]:
    """Return the instance whose Gaussian latents have the mean that is a draw, and more pieces."""
    of_latents, of_observations = jax.random.split(key)
    terms = []
    for number, term in enumerate(instance.terms):
        if term.reads and term.site.is_integrated:
            term = _moved(term, jax.random.fold_in(of_latents, number))
        terms.append(term)
    pieces = []
    for number, noise in enumerate(noises):
        pieces += noise.drawn(jax.random.fold_in(of_observations, number))
    return replace(instance, terms=tuple(terms)), pieces


def at_draws(instance: Instance, key: Array) -> Instance:
    """Return the instance whose Gaussian latents are known: draws of what they are drawn from."""
    terms = []
    for number, term in enumerate(instance.terms):
        if term.reads and term.site.is_integrated:
            term = _moved(term, jax.random.fold_in(key, number))
            name = spread_argument(term.family)
            table = jnp.zeros_like(term.arguments[name].array)
            if name == "precision_matrix":
                # there is no infinity to invert
                table = table + jnp.eye(table.shape[-1]) / jnp.finfo(table.dtype).tiny ** 0.5
            spread = replace(term.arguments[name], array=table)
            term = replace(term, arguments={**term.arguments, name: spread})
        terms.append(term)
    return replace(instance, terms=tuple(terms))


def _is_quadratic(piece: Factor) -> bool:
    return sum(isinstance(axis, Coordinates) for axis in piece.axes) == 2


def _noise(squares: Sequence[Factor], instance: Instance) -> Noise:
    """Return the noise of a site of which these are the pieces of second order."""
    first, rank = squares[0], len(squares[0].shape)
    discrete: dict = {}
    reads: dict = {}
    for piece in squares:
        for axis in piece.axes:
            (reads if isinstance(axis, Coordinates) else discrete)[axis.key] = axis
    blocks: dict = {}
    for piece in squares:
        *_, one, other = piece.axes
        labels = [*(axis.key for axis in piece.axes[:-2]), "row", "column"]
        array = arranged(jnp.asarray(piece.array), labels, [*discrete, "row", "column"], rank)
        # the exponent is −½ fᵀJf − fᵀKg
        if one.key == other.key:
            blocks[one.key, one.key] = -(array + array.mT)
        else:
            blocks[one.key, other.key] = -array
            blocks[other.key, one.key] = -array.mT
    precision = _of_blocks(blocks, list(reads.values()))
    root = semidefinite_root(precision)
    if not first.without_multiplicity:
        root = _root_of_total(root, next(iter(reads.values())), first.shape, instance)
    return Noise(
        root,
        tuple(discrete.values()),
        tuple(reads.values()),
        first.shape,
        first.without_multiplicity,
    )


def _of_blocks(blocks: Mapping, reads: Sequence[Coordinates]) -> Array:
    """Return the matrix of blocks, those that are absent zero."""
    lead = jnp.broadcast_shapes(*(array.shape[:-2] for array in blocks.values()))
    rows = []
    for one in reads:
        row = []
        for other in reads:
            zeros = jnp.zeros((*lead, one.size, other.size))
            block = blocks.get((one.key, other.key), zeros)
            row.append(jnp.broadcast_to(block, zeros.shape))
        rows.append(jnp.concatenate(row, -1))
    return jnp.concatenate(rows, -2)


def _root_of_total(
    root: Array, axis: Coordinates, shape: tuple[int, ...], instance: Instance
) -> Array:
    """Return s (J / s)^½: the total, over s times that a latent counts, of noise of one."""
    variable = instance.gaussian_variables[str(axis.source)]
    if variable.multiplicity is None:
        return root
    times = jnp.broadcast_to(variable.multiplicity, variable.shape).reshape(-1)
    times = jnp.broadcast_to(times[axis.index.dense(shape)], shape)
    return root * jnp.sqrt(times).reshape(*shape, *(1,) * (root.ndim - len(shape)))


def _moved(term: Term, key: Array) -> Term:
    """Return a Gaussian latent's own site with m + L ε in place of m."""
    rank, event = len(term.elements), len(term.site.event)
    name = spread_argument(term.family)
    location, spread = term.arguments["loc"], term.arguments[name]
    shape = (*term.elements, *term.site.event)
    noise = Named(jax.random.normal(key, shape, jnp.result_type(float)), shape)
    if name == "scale":
        moved = lift(lambda m, scale, e: m + scale * e, [location, spread, noise], shape)
    else:
        pairs = [(location, event), (spread, event + 1), (noise, event)]

        def function(m, matrix, e):
            root = ROOTS[name](matrix)
            return (m + jnp.matmul(root, e[..., None], precision="highest")[..., 0],)

        (moved,) = lift_events(function, pairs, rank, (event,))
    return replace(term, arguments={**term.arguments, "loc": moved})


def _check_multiplicities(term: Term, instance: Instance) -> None:
    """Raise `ValueError` for Gaussian latents that do not count equally often, and meet."""
    variables = [instance.gaussian_variables[str(axis.source)] for axis in term.reads]
    for one in variables:
        for other in variables:
            if one.encloses(other):
                raise ValueError(
                    f"The elements of '{other.name}' count several times within each of "
                    f"'{one.name}', and which of their copies is to be drawn is not said. Draw "
                    "from the program without weights, its rows written out."
                )
