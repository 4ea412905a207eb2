"""A Gaussian latent integrated out of a quadratic form, whitened.

With f = μ + L ε, where μ = Σ_s r_s g_s and ε ~ N(0, I), the exponent h̄ᵀf − ½ fᵀJf, where
h̄ = Σ_s c_s g_s, is quadratic in ε, and so its integral is in the *sources* g: the parents, and 1,
of which r is the mean m and c is h. With the matrices of `posterior`,

    log ∫ = ½ Σ_st g_sᵀ Q_st g_t − ½ log |M|,    Q_st = c_sᵀ a_t + r_sᵀ p_t,
    a_s = V c_s + E r_s,    p_s = Eᵀ c_s − J̃ r_s.

Given the sources, f has the mean Σ_s a_s g_s and the covariance V. The derivative

    dQ_st = dc_sᵀ a_t + dr_sᵀ p_t + a_sᵀ dc_t + p_sᵀ dr_t − a_sᵀ dJ a_t + p_sᵀ dS p_t

is written out, since its reverse makes the moments of f of those of the sources, and nothing else:
E[f] = Σ_s a_s E[g_s], E[f fᵀ] = V + Σ_st a_s E[g_s g_tᵀ] a_tᵀ. Source: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from emjax.elimination.factors import Cells, Factor
from emjax.elimination.gaussian.posterior import Posterior, posterior, product, squared
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
    # what is constant is a source of one coordinate
    sources = [_Source(_as_column(form.linear), _as_column(form.mean))]
    for k in range(len(form.parents)):
        sources.append(_Source(form.cross.get(k), form.coefficients.get(k)))
    log_determinant, pairs = _integral(precision, form.scale, sources)
    factors = [_message(form, -log_determinant / 2, ())]
    for (s, t), array in pairs.items():
        met = [form.parents[k - 1] for k in (s, t) if k > 0]
        # every pair of different ones is there twice
        factors.append(_message(form, array / 2 if s == t else array, met))
    return factors


class _Source(NamedTuple):
    """What one source contributes to h̄ and μ, each (…, q, its coordinates). None: zero."""

    linear: Any
    mean: Any


def _as_column(vector: Any) -> Any:
    return None if vector is None else vector[..., None]


def _images(known: Posterior, source: _Source) -> _Source:
    """Return a_s and p_s."""
    linear, mean = source
    return _Source(
        _plus(
            product(known.covariance, "ij", linear, "jk", "ik"),
            product(known.kept, "ij", mean, "jk", "ik"),
        ),
        _plus(
            product(known.kept, "ji", linear, "jk", "ik"),
            product(-known.precision_left, "ij", mean, "jk", "ik"),
        ),
    )


def _inner(a: Any, b: Any) -> Any:
    """Return aᵀb, (…, columns, columns)."""
    return product(a, "ij", b, "ik", "jk")


@jax.custom_jvp
def _integral(precision: Array, scale: Array, sources: list[_Source]) -> tuple[Array, dict]:
    """Return log |M|, and Q_st for all s ≤ t that are not zero."""
    known = posterior(precision, scale)
    pairs = {}
    for t, right in enumerate(sources):
        images = _images(known, right)
        for s, left in enumerate(sources[: t + 1]):
            pair = _plus(_inner(left.linear, images.linear), _inner(left.mean, images.mean))
            if pair is not None:
                pairs[s, t] = pair
    return known.log_determinant, pairs


def _derivative(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    """Return the integral and its derivative."""
    precision, scale, sources = primals
    found = _integral(precision, scale, sources)
    known = posterior(precision, scale)
    images = [_images(known, source) for source in sources]
    along = _or_none(tangents[0])
    along_scale = _or_none(tangents[1])
    along_covariance = None
    if along_scale is not None:
        one_half = squared(scale, along_scale)
        along_covariance = one_half + one_half.mT
    moved = [_Source(*(_or_none(part) for part in source)) for source in tangents[2]]
    determinant = _plus(
        product(known.covariance, "ij", along, "ij", ""),
        product(known.precision_left, "ij", along_covariance, "ij", ""),
    )
    pairs = {}
    for s, t in found[1]:
        a, b = images[s], images[t]
        change = _plus(_inner(moved[s].linear, b.linear), _inner(moved[s].mean, b.mean))
        if s == t:
            change = None if change is None else change + change.mT
        else:
            change = _plus(change, _inner(a.linear, moved[t].linear))
            change = _plus(change, _inner(a.mean, moved[t].mean))
        if along is not None:
            change = _plus(change, -_inner(a.linear, product(along, "ij", b.linear, "jk", "ik")))
        if along_covariance is not None:
            change = _plus(
                change, _inner(a.mean, product(along_covariance, "ij", b.mean, "jk", "ik"))
            )
        pairs[s, t] = _filled(change, found[1][s, t])
    return found, (_filled(determinant, found[0]), pairs)


_integral.defjvp(_derivative, symbolic_zeros=True)


def _or_none(tangent: Any) -> Any:
    return None if isinstance(tangent, SymbolicZero) else tangent


def _filled(tangent: Any, primal: Array) -> Array:
    return jnp.zeros_like(primal) if tangent is None else jnp.broadcast_to(tangent, primal.shape)


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
