"""Posterior moments of Gaussian latents: derivatives of log Z by pieces that are zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from emjax.e_step.fallback import value_and_gradient
from emjax.e_step.instance import Instance, instance_of
from emjax.e_step.interactions import pieces_of
from emjax.e_step.marginals import with_arrays
from emjax.e_step.term_factors import log_z
from emjax.elimination.alignment import laid_out
from emjax.elimination.factors import Cells, Factor
from emjax.graph.factor_graph import FactorGraph
from emjax.program.latents import GaussianLatent
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Coordinates


def gaussian_posterior(graph: FactorGraph, arrays: Sequence) -> dict[str, dict[str, Array]]:
    """Return {"mean", "covariance"} of every Gaussian latent, given the data.

    Where discrete latents choose among its distributions, they are those given each value of these:
    the mean is over (its elements…, values of these…, the shape of an element), the covariance over
    (…, the shape of an element twice); NaN given what is impossible.
    """
    # nothing is traced for programs without any
    if not graph.gaussians:
        return {}
    instance = instance_of(graph, arrays, predicted=True)
    blanks = {}
    for name in instance.gaussian_variables:
        for degree, factor in enumerate(_blanks(instance, name)):
            blanks[name, degree] = factor
    found = _derivatives(instance, blanks, 1.0)
    posterior = {}
    for name in instance.gaussian_variables:
        weight, first, second = (found[name, degree] for degree in range(3))
        posterior[name] = _moments(instance.gaussians[name], weight, first, second)
    return posterior


def gaussian_means(
    graph: FactorGraph, arrays: Sequence, temperature: ArrayLike = 1.0
) -> dict[str, Array]:
    """Return E[f | x, θ] of Gaussian latents, in their shapes.

    At temperature 0, given the most probable values of the discrete ones.
    """
    # as above
    if not graph.gaussians:
        return {}
    instance = instance_of(graph, arrays, predicted=True)
    means = _derivatives(instance, blank_coordinates(instance), temperature)
    return {name: in_shape(graph.gaussians[name], mean) for name, mean in means.items()}


def _derivatives(
    instance: Instance, blanks: Mapping[Any, Factor], temperature: ArrayLike
) -> dict[Any, Array]:
    """Return the derivative of log Z by each of some factors that are zero."""

    def function(arrays, fast):
        return log_z(instance, instance.tables, temperature, with_arrays(blanks, arrays), fast)

    zeros = {name: factor.array for name, factor in blanks.items()}
    return value_and_gradient(function, zeros)[1]


def blank_coordinates(instance: Instance) -> dict[str, Factor]:
    """Return a piece of every Gaussian latent that is zero, linear in its elements."""
    blanks = {}
    for name, variable in instance.gaussian_variables.items():
        own = Coordinates(name, variable.size, Affine.identity(variable.shape))
        zeros = jnp.zeros((*variable.shape, variable.size), jnp.result_type(float))
        blanks[name] = Factor((own,), variable.shape, Cells(zeros))
    return blanks


def in_shape(latent: GaussianLatent, values: Array) -> Array:
    """Return values (elements…, coordinates) in the shape of a latent's statement."""
    order = (*latent.element_axes, *latent.coordinate_axes)
    values = values.reshape([latent.shape[d] for d in order])
    return values.transpose([order.index(d) for d in range(len(order))])


def _blanks(instance: Instance, name: str) -> tuple[Factor, Factor, Factor]:
    """Return factors that are zero: on what a latent meets, on its elements, on pairs of them."""
    variable = instance.gaussian_variables[name]
    own = Coordinates(name, variable.size, Affine.identity(variable.shape))
    axes = tuple(_chosen_by(instance, name).values())
    lead = (*variable.shape, *(axis.size for axis in axes))
    factors = []
    for reads in ((), (own,), (own, own)):
        zeros = jnp.zeros((*lead, *(axis.size for axis in reads)), jnp.result_type(float))
        factors.append(Factor((*axes, *reads), variable.shape, Cells(zeros)))
    return tuple(factors)


def _chosen_by(instance: Instance, name: str) -> Mapping[tuple, Axis]:
    """Return the axes of the discrete latents that each element of a Gaussian one meets."""
    variable, met = instance.gaussian_variables[name], {}
    for term, naturals in zip(instance.terms, instance.naturals, strict=True):
        if all(axis.source != name for axis in term.reads):
            continue
        for piece in pieces_of(term, naturals):
            laid = None
            if len(piece.axes_of(name)) == 1:
                laid = laid_out(piece, variable, instance.variables)
            for axis in () if laid is None else laid.axes:
                if not isinstance(axis, Coordinates):
                    met[axis.key] = axis
    # an index that is laid out from some of the elements, those of moves, says nothing of others
    whole = {axis.source for axis in met.values() if isinstance(axis.index, Affine)}
    kept = [a for a in met.values() if a.source not in whole or isinstance(a.index, Affine)]
    # in the order of the program
    order = list(instance.variables)
    return {axis.key: axis for axis in sorted(kept, key=lambda axis: order.index(axis.source))}


def _moments(latent: GaussianLatent, weight: Array, first: Array, second: Array) -> dict:
    """Return the mean and the covariance of an element, from its moments times how often it counts.

    All have the elements first, then the values of discrete latents, then coordinates.
    """
    shape = tuple(latent.shape[d] for d in latent.coordinate_axes)
    mean = first / weight[..., None]
    covariance = second / weight[..., None, None] - mean[..., :, None] * mean[..., None, :]
    return {
        "mean": mean.reshape(*weight.shape, *shape),
        "covariance": covariance.reshape(*weight.shape, *shape, *shape),
    }
