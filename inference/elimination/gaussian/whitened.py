"""A Gaussian latent integrated out of a quadratic form, whitened.

With f = μ + L ε, where μ = m + Σ_k R_k g_k and ε ~ N(0, I), the exponent h̄ᵀf − ½ fᵀJf, where
h̄ = h + Σ_k C_k g_k, is quadratic in ε, and

    log ∫ = −½ log |M| + ½ h̄ᵀV h̄ + h̄ᵀE μ − ½ μᵀJ̃ μ,

    M = I + LᵀJL,    V = L M⁻¹ Lᵀ,    E = I − VJ,    J̃ = (I + J L Lᵀ)⁻¹ J = EᵀJE + JL M⁻² LᵀJ.

V is the covariance of f given all g, and V h̄ + E μ its mean. No inverse of L Lᵀ is taken, so that
all is right where that is zero or large. J̃ is a sum of squares, as in the covariance update of
Bucy & Joseph: J − JVJ would cancel where L Lᵀ is large. Source: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax.elimination.factors import Cells, Factor
from emjax.elimination.gaussian.quadratic_form import QuadraticForm
from emjax.numerics.axes import contracted
from emjax.numerics.matrices import log_determinant_and_inverse
from emjax.tables.named import Axis


def integrated_out(form: QuadraticForm) -> list[Factor]:
    """Return what is left when a latent is integrated out of its form: factors on what it met.

    Those are a factor on the discrete latents alone, and pieces on its parents.
    """
    posterior = _posterior(form)
    # what is constant is a source without coordinates
    sources = [_Source((), form.linear, form.mean, ())]
    for k, parent in enumerate(form.parents):
        cross, coefficients = form.cross.get(k), form.coefficients.get(k)
        sources.append(_Source((f"g{k}",), cross, coefficients, (parent,)))
    factors = [_message(form, -posterior.log_determinant / 2, ())]
    for number, right in enumerate(sources):
        images = posterior.images(right)
        for left in sources[: number + 1]:
            array = posterior.paired(left, right, images)
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


@dataclass(frozen=True, eq=False)
class _Posterior:
    """What a latent is, given h̄ and μ.

    - `num_lead`: how many axes all arrays begin with.
    - `log_determinant`: log |M|, (…).
    - `covariance`: V, (…, q, q).
    - `kept`: E, (…, q, q). None: μ is zero.
    - `precision_left`: J̃, (…, q, q). None: μ is zero.
    """

    num_lead: int
    log_determinant: Array
    covariance: Array
    kept: Array | None
    precision_left: Array | None

    def images(self, source: _Source) -> tuple[Any, Any]:
        """Return V h̄ + E μ and Eᵀh̄ − J̃ μ, of the parts of h̄ and μ that are one source's."""
        num_lead, axes = self.num_lead, ("j", *source.coordinates)
        out = ("i", *source.coordinates)
        mean = _plus(
            _product(num_lead, self.covariance, "ij", source.linear, axes, out),
            _product(num_lead, self.kept, "ij", source.mean, axes, out),
        )
        information = _plus(
            _product(num_lead, self.kept, "ji", source.linear, axes, out),
            _product(num_lead, _negative(self.precision_left), "ij", source.mean, axes, out),
        )
        return mean, information

    def paired(self, left: _Source, right: _Source, images: tuple[Any, Any]) -> Any:
        """Return what two sources contribute together, given the images of the second."""
        mean, information = images
        # one source is paired with itself along two axes
        again = tuple(f"{label} again" for label in right.coordinates)
        axes, out = ("i", *left.coordinates), (*left.coordinates, *again)
        return _plus(
            _product(self.num_lead, left.linear, axes, mean, ("i", *again), out),
            _product(self.num_lead, left.mean, axes, information, ("i", *again), out),
        )


def _posterior(form: QuadraticForm) -> _Posterior:
    num_lead, scale = form.num_lead, _Scale(form)

    def product(a, a_axes, b, b_axes):
        return _product(num_lead, a, a_axes, b, b_axes, "ik")

    identity = jnp.eye(form.variable.size, dtype=form.scale.dtype)
    precision = form.precision
    if precision is None:
        # nothing has observed it
        precision = jnp.zeros((1,) * num_lead + identity.shape, form.scale.dtype)
    # the factors of M and V are transposed rather than multiplied from the right
    whitened = scale.transposed_times(precision)
    matrix = identity + scale.transposed_times(whitened.mT)
    log_determinant, inverse = log_determinant_and_inverse(matrix)
    half = scale.times(inverse)
    covariance = scale.times(half.mT)
    if form.mean is None and not form.coefficients:
        return _Posterior(num_lead, log_determinant, covariance, None, None)
    kept = identity - product(covariance, "ij", precision, "jk")
    explained = product(half, "ji", precision, "jk")
    precision_left = product(kept, "ji", product(precision, "ij", kept, "jk"), "jk")
    precision_left = precision_left + product(explained, "ji", explained, "jk")
    return _Posterior(num_lead, log_determinant, covariance, kept, precision_left)


class _Scale:
    """L, of independent blocks: a vector of elements has one for each of them."""

    def __init__(self, form: QuadraticForm):
        self._num_lead = form.num_lead
        *lead, size, width = form.scale.shape
        self._blocks = form.scale.reshape(*lead, size // width, width, width)

    def times(self, matrix: Array) -> Array:
        """Return L A, (…, q, columns)."""
        return self._applied("ij", matrix)

    def transposed_times(self, matrix: Array) -> Array:
        """Return Lᵀ A, (…, q, columns)."""
        return self._applied("ji", matrix)

    def _applied(self, axes: str, matrix: Array) -> Array:
        *lead, rows, columns = matrix.shape
        blocks = matrix.reshape(*lead, *self._blocks.shape[-3:-1], columns)
        product = _product(self._num_lead, self._blocks, f"b{axes}", blocks, "bjk", "bik")
        return product.reshape(*product.shape[:-3], rows, columns)


def _product(
    num_lead: int,
    a: Any,
    a_axes: Sequence[str],
    b: Any,
    b_axes: Sequence[str],
    out: Sequence[str],
) -> Any:
    """Return a contraction over axes behind the leading ones; None, which is zero, of a None."""
    if a is None or b is None:
        return None
    lead = range(num_lead)
    return contracted([a, b], [[*lead, *a_axes], [*lead, *b_axes]], [*lead, *out])


def _plus(a: Any, b: Any) -> Any:
    """Return a sum of arrays, or None, which are zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _negative(a: Any) -> Any:
    return None if a is None else -a


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
