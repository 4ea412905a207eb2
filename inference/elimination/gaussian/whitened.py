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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from emjax.elimination.factors import Cells, Factor
from emjax.elimination.gaussian.posterior import Posterior, contraction, posterior, squared
from emjax.elimination.gaussian.quadratic_form import QuadraticForm
from emjax.numerics.axes import contracted
from emjax.tables.named import Axis, varying_dims


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
    elements = _Elements.of(form)
    log_determinant, pairs = _integral(elements, precision, form.scale, sources)
    factors = [_message(form, -log_determinant / 2, (), ())]
    for (s, t), array in pairs.items():
        met = [form.parents[k - 1] for k in (s, t) if k > 0]
        # every pair of different ones is there twice
        array = array / 2 if s == t else array
        factors.append(_message(form, array, met, elements.gone(s, t)))
    return factors


@dataclass(frozen=True)
class _Elements:
    """Along which axes of a latent's elements nothing tells them apart that two sources meet.

    What they contribute together is summed there: a vector that all elements meet has one matrix,
    not one for each of them.

    - `shape`: of the elements.
    - `varying`: along which of their axes each source, or a discrete latent, varies.
    """

    shape: tuple[int, ...]
    varying: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(form: QuadraticForm) -> _Elements:
        """Return those of a form."""
        shape = form.variable.shape
        # each counts as often as its multiplicity says, which comes later
        if form.variable.multiplicity is not None:
            return _Elements(shape, (tuple(range(len(shape))),) * (1 + len(form.parents)))
        constant = varying_dims(form.discrete, len(shape))
        parents = [varying_dims((*form.discrete, parent), len(shape)) for parent in form.parents]
        return _Elements(shape, (constant, *parents))

    def gone(self, s: int, t: int) -> tuple[int, ...]:
        """Return the axes along which what two sources contribute is summed."""
        varying = self.varying[s] + self.varying[t]
        return tuple(d for d, size in enumerate(self.shape) if size > 1 and d not in varying)

    def inner(self, a: Any, b: Any, s: int, t: int) -> Any:
        """Return aᵀb of what two sources contribute, (…, columns, columns), summed where it is."""
        if a is None or b is None:
            return None
        lead, gone = range(a.ndim - 2), self.gone(s, t)
        labels = [[*lead, "i", "j"], [*lead, "i", "k"]]
        total = contracted([a, b], labels, [*(d for d in lead if d not in gone), "j", "k"])
        # where neither varies, it is the same so many times
        same = [self.shape[d] for d in gone if a.shape[d] == b.shape[d] == 1]
        return total * math.prod(same) if same else total


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
            contraction(known.covariance, "ij", linear, "jk", "ik"),
            contraction(known.kept, "ij", mean, "jk", "ik"),
        ),
        _plus(
            contraction(known.kept, "ji", linear, "jk", "ik"),
            contraction(-known.precision_left, "ij", mean, "jk", "ik"),
        ),
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _integral(
    elements: _Elements, precision: Array, scale: Array, sources: list[_Source]
) -> tuple[Array, dict]:
    """Return log |M|, (…), and Q_st, summed over some elements, for all s ≤ t if not zero."""
    return _summed(elements, posterior(precision, scale), sources)


def _summed(elements: _Elements, known: Posterior, sources: list[_Source]) -> tuple[Array, dict]:
    """Return the integral, of what is known of each element."""
    pairs = {}
    for t, right in enumerate(sources):
        images = _images(known, right)
        for s, left in enumerate(sources[: t + 1]):
            pair = _plus(
                elements.inner(left.linear, images.linear, s, t),
                elements.inner(left.mean, images.mean, s, t),
            )
            if pair is not None:
                pairs[s, t] = pair
    return known.log_determinant, pairs


def _derivative(elements: _Elements, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    """Return the integral and its derivative."""
    precision, scale, sources = primals
    # once: XLA does not see that two factorizations of one matrix are the same
    known = posterior(precision, scale)
    found = _summed(elements, known, sources)
    images = [_images(known, source) for source in sources]
    along, along_covariance = _or_none(tangents[0]), None
    if not isinstance(tangents[1], SymbolicZero):
        along_covariance = squared(scale, tangents[1])
        along_covariance = along_covariance + along_covariance.mT
    determinant = _plus(
        contraction(known.covariance, "ij", along, "ij", ""),
        contraction(known.precision_left, "ij", along_covariance, "ij", ""),
    )
    moved = [_Source(*map(_or_none, source)) for source in tangents[2]]
    pairs = {}
    for s, t in found[1]:
        inner = partial(elements.inner, s=s, t=t)
        a, b = images[s], images[t]
        change = _plus(inner(moved[s].linear, b.linear), inner(moved[s].mean, b.mean))
        if s == t:
            change = None if change is None else change + change.mT
        else:
            change = _plus(change, inner(a.linear, moved[t].linear))
            change = _plus(change, inner(a.mean, moved[t].mean))
        if along is not None:
            change = _plus(change, inner(a.linear, contraction(-along, "ij", b.linear, "jk", "ik")))
        through = contraction(along_covariance, "ij", b.mean, "jk", "ik")
        change = _plus(change, inner(a.mean, through))
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


def _message(
    form: QuadraticForm, array: Any, parents: Sequence[Axis], gone: Sequence[int]
) -> Factor:
    """Return an array (…, coordinates of some parents) as a factor on what it varies with.

    `gone`: the axes of the elements along which it is summed already.
    """
    variable = form.variable
    kept = [d for d in range(len(variable.shape)) if d not in gone]
    axes, shape = [], list(array.shape[: len(kept)])
    for axis, size in zip(form.discrete, array.shape[len(kept) :], strict=False):
        # what is the same for all values of a latent tells nothing of it
        if size > 1:
            axes.append(axis)
            shape.append(size)
    array = array.reshape(shape + [axis.size for axis in parents])
    if variable.multiplicity is not None:
        multiplicity = variable.multiplicity
        array = array * multiplicity.reshape(multiplicity.shape + (1,) * (array.ndim - len(kept)))
    axes = tuple(axis.placed(kept) for axis in (*axes, *parents))
    return Factor(axes, tuple(variable.shape[d] for d in kept), Cells(array))
