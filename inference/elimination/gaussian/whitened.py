"""A Gaussian latent integrated out of a quadratic form, whitened.

With f = μ + L ε, where μ = m + Σ_k R_k g_k and ε ~ N(0, I), the exponent h̄ᵀf − ½ fᵀJf, where
h̄ = h + Σ_k C_k g_k, is quadratic in ε, and with the matrices of `posterior`

    log ∫ = −½ log |M| + ½ h̄ᵀV h̄ + h̄ᵀE μ − ½ μᵀJ̃ μ,

which is quadratic in the parents g.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from emjax.elimination.factors import Cells, Factor
from emjax.elimination.gaussian.posterior import Posterior, posterior, product
from emjax.elimination.gaussian.quadratic_form import QuadraticForm
from emjax.tables.named import Axis


def integrated_out(form: QuadraticForm) -> list[Factor]:
    """Return what is left when a latent is integrated out of its form: factors on what it met.

    Those are a factor on the discrete latents alone, and pieces on its parents.
    """
    precision = form.precision
    if precision is None:
        # nothing has observed it
        size = form.variable.size
        precision = jnp.zeros((1,) * form.num_lead + (size, size), form.scale.dtype)
    known = posterior(precision, form.scale)
    # what is constant is a source without coordinates
    sources = [_Source((), form.linear, form.mean, ())]
    for k, parent in enumerate(form.parents):
        cross, coefficients = form.cross.get(k), form.coefficients.get(k)
        sources.append(_Source((f"g{k}",), cross, coefficients, (parent,)))
    factors = [_message(form, -known.log_determinant / 2, ())]
    for number, right in enumerate(sources):
        images = _images(known, right)
        for left in sources[: number + 1]:
            array = _paired(left, right, images)
            if array is not None:
                # every pair of different ones is there twice
                array = array / 2 if left is right else array
                factors.append(_message(form, array, left.parents + right.parents))
    return factors


@dataclass(frozen=True, eq=False)
class _Source:
    """What is constant, or a parent, as a part of h̄ and μ.

    - `coordinates`: the label of the axis over the parent's coordinates, if there is one.
    - `linear`: h or C_k, (…, q, coordinates of the parent). None: zero.
    - `mean`: m or R_k, likewise.
    - `parents`: itself.
    """

    coordinates: tuple[str, ...]
    linear: Any
    mean: Any
    parents: tuple[Axis, ...]


def _images(known: Posterior, source: _Source) -> tuple[Any, Any]:
    """Return V h̄ + E μ and Eᵀh̄ − J̃ μ, of the parts of h̄ and μ that are one source's."""
    axes, out = ("j", *source.coordinates), ("i", *source.coordinates)
    mean = _plus(
        product(known.covariance, "ij", source.linear, axes, out),
        product(known.kept, "ij", source.mean, axes, out),
    )
    information = _plus(
        product(known.kept, "ji", source.linear, axes, out),
        product(-known.precision_left, "ij", source.mean, axes, out),
    )
    return mean, information


def _paired(left: _Source, right: _Source, images: tuple[Any, Any]) -> Any:
    """Return what two sources contribute together, given the images of the second."""
    mean, information = images
    # one source is paired with itself along two axes
    again = tuple(f"{label} again" for label in right.coordinates)
    axes, out = ("i", *left.coordinates), (*left.coordinates, *again)
    return _plus(
        product(left.linear, axes, mean, ("i", *again), out),
        product(left.mean, axes, information, ("i", *again), out),
    )


def _plus(a: Any, b: Any) -> Any:
    """Return a sum of arrays, or None, which are zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _message(form: QuadraticForm, array: Any, parents: Sequence[Axis]) -> Factor:
    """Return an array (…, coordinates of some parents) as a factor on what it varies with."""
    variable, rank = form.variable, len(form.variable.shape)
    axes, shape = [], list(array.shape[:rank])
    for axis, size in zip(form.others, array.shape[rank:], strict=False):
        # what is the same for all values of a latent tells nothing of it
        if size > 1:
            axes.append(axis)
            shape.append(size)
    array = array.reshape(shape + [axis.size for axis in parents])
    if variable.multiplicity is not None:
        multiplicity = variable.multiplicity
        array = multiplicity.reshape(multiplicity.shape + (1,) * (array.ndim - rank)) * array
    return Factor((*axes, *parents), variable.shape, Cells(array))
