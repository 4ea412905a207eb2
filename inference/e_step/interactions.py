"""Interactions with Gaussian latents as factors: pieces, and what the latents are drawn from.

An observed site's interaction is a sum of *pieces*, factors that are linear in the coordinates of
one element of a Gaussian latent, or bilinear in those of two. A latent's own site says what it is
drawn from, by its mean and its scale: its precision would be infinite where the variance is zero.
Elimination differentiates log Z by natural parameters all the same, around where they are: their
*handles* are zero, and have their derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.e_step.instance import Instance, instance_of
from emjax.elimination.factors import Cells, Factor
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.integrated import Integral, integrated
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.residuals import Product, is_coefficients, spread_argument
from emjax.graph.terms import Term
from emjax.numerics.axes import contracted
from emjax.numerics.matrices import inverse_of_triangular, semidefinite_root
from emjax.program.latents import GaussianLatent
from emjax.tables.lifting import lift
from emjax.tables.named import Axis, Coordinates, Named, without_rows


def without_gaussians(
    instance: Instance,
    more: Sequence[Factor] = (),
    seen: Callable[[Integral], Any] = lambda integral: None,
) -> list[Factor]:
    """Return the factors on discrete latents that interactions leave, all Gaussians integrated out.

    `more`: pieces beside those of the terms; `seen`: is told of each integral.
    """
    pieces, conditionals = [*more], []
    for term, naturals in zip(instance.terms, instance.naturals, strict=True):
        if not term.reads:
            continue
        if term.site.is_integrated:
            latent = instance.gaussians[term.site.name]
            conditionals.append(conditional_of(term, latent))
        pieces += pieces_of(term, handled(term, naturals))
    return integrated(pieces, conditionals, instance.variables, instance.chains, seen)


def integrals_of(graph: FactorGraph, data: Sequence) -> list[Integral]:
    """Return how the Gaussian latents of a program are integrated out; nothing is computed."""
    found: list[Integral] = []

    def messages(params, data):
        arrays = graph.arrays(params, graph.prepare(data))
        # with all of their elements, where few can stand for many
        instance = instance_of(graph, arrays, predicted=True)
        return [factor.array for factor in without_gaussians(instance, seen=found.append)]

    params = {name: jax.ShapeDtypeStruct(p.shape, p.dtype) for name, p in graph.parameters.items()}
    jax.eval_shape(messages, params, list(data))
    return found


def reads_coordinates(factor: Factor) -> bool:
    """Whether a factor is a piece: one that is linear in a Gaussian latent."""
    return any(isinstance(axis, Coordinates) for axis in factor.axes)


def handled(term: Term, naturals: Sequence[Named]) -> Sequence[Named]:
    """Return the tables of a term, of a Gaussian latent's own site their handles."""
    if not term.site.is_integrated:
        return naturals
    # what a latent is drawn from integrates to one: only the derivative is the term's
    return [replace(table, array=handle(jnp.asarray(table.array))) for table in naturals]


@jax.custom_jvp
def handle(table: Array) -> Array:
    """Return zeros, with the derivative of the table."""
    return jnp.zeros_like(table)


@handle.defjvp
def _handle_jvp(primals, tangents):
    (table,), (along,) = primals, tangents
    return handle(table), along


def pieces_of(term: Term, naturals: Sequence[Named]) -> list[Factor]:
    """Return the pieces Σ_i ⟨η_i, t_i⟩ f that the interaction of a site consists of."""
    formed = term.statistics.formed(term.elements)
    pieces = []
    for product, table, statistic in zip(term.products, naturals, formed, strict=True):
        pieces.append(_piece(term, product, table, statistic.value))
    return pieces


def _piece(term: Term, product: Product, table: Named, statistic: Named) -> Factor:
    """Return ⟨η, t⟩ over all elements that neither a latent nor a Gaussian one distinguishes."""
    rank = len(term.elements)
    table, statistic = without_rows(table), without_rows(statistic)
    ends = [("coordinate", place) for place in range(len(product.reads))]
    is_known = [i in product.known for i in product.reads]
    of_table = [end for end, known in zip(ends, is_known, strict=True) if not known]
    of_statistic = [end for end, known in zip(ends, is_known, strict=True) if known]
    num_events = len(statistic.shape) - rank - len(of_statistic)
    events = [("event", d) for d in range(num_events)]
    of_event = events if product.has_data else []
    labels = [*(axis.fitted(rank).key for axis in table.axes), *range(rank), *of_event, *of_table]
    keys = [axis.fitted(rank).key for axis in statistic.axes]
    labels_of_statistic = [*keys, *range(rank), *events, *of_statistic]
    axes = [axis for axis in term.latent_axes if axis.key in {*labels, *keys}]
    order = [*term.kept, *(axis.key for axis in axes), *ends]
    arrays = [jnp.asarray(table.array), jnp.asarray(statistic.array)]
    varying: set = {*order}
    for array, its_labels in zip(arrays, (labels, labels_of_statistic), strict=True):
        varying |= {label for label, n in zip(its_labels, array.shape, strict=True) if n != 1}
    # along elements where nothing varies, the product counts as often as there are
    times = math.prod(statistic.shape[d] for d in range(rank) if d not in varying)
    total = contracted(arrays, [labels, labels_of_statistic], order)
    reads = [term.reads[i] for i in product.reads]
    placed = tuple(axis.placed(term.kept) for axis in (*axes, *reads))
    shape = tuple(term.elements[d] for d in term.kept)
    total = total if times == 1 else times * total
    return Factor(placed, shape, Cells(total), term.without_multiplicity)


# ── what a Gaussian latent is drawn from ──────────────────────────────────────────────────────────


def conditional_of(term: Term, latent: GaussianLatent, is_held: bool = True) -> Conditional:
    """Return what a Gaussian latent is drawn from at the elements of one of its sites.

    - `term`: the interaction of that site with the latent itself, and with others.
    - `is_held`: whether it has no derivatives, since those of log Z are by natural parameters.
    """
    laid = _Laid(term, latent, is_held)
    # the first is what the site draws, and may be read at earlier steps, too
    own, *others = map(laid.placed, term.reads)
    coefficients = []
    for name, axis in zip(laid.names[1:], others, strict=True):
        # f is drawn about what the residual subtracts from it
        table = term.arguments[name]
        coefficients.append(laid.factor(replace(table, array=-table.array), (own, axis)))
    loc = term.arguments["loc"]
    # what is known to be zero stays known, and is left out of sums
    is_zero = loc.is_static and not loc.array.any()
    if term.ones is not None and not is_zero:
        rank = len(term.elements)
        loc = lift(
            lambda a, b: a * b, [loc, term.ones.with_event(len(loc.shape) - rank)], loc.shape
        )
    mean = laid.factor(loc, (own,))
    if is_zero:
        mean = mean.mapped(lambda array: np.zeros(array.shape), mean.axes, mean.shape)
    return Conditional(own, mean, laid.scale(spread_argument(term.family), own), coefficients)


class _Laid:
    """The arguments of a latent's own site, laid out over its elements and their coordinates."""

    def __init__(self, term: Term, latent: GaussianLatent, is_held: bool = True):
        self.term, self.latent, self.is_held = term, latent, is_held
        self.rank = len(term.elements)
        self.names = [name for name in term.arguments if is_coefficients(name)]
        self.along = [d for d in latent.coordinate_axes if d < self.rank]
        self.shape = tuple(term.elements[d] for d in latent.element_axes)

    def placed(self, axis: Axis) -> Axis:
        """Return an axis over the elements of the latent, and not their coordinates."""
        return axis.fitted(self.rank).placed(self.latent.element_axes)

    def array(self, named: Named) -> tuple[Array, tuple[Axis, ...]]:
        """Return (elements…, discrete latents…, coordinates in elements…, event…), and the axes."""
        named = without_rows(named)
        lead, rank = len(named.axes), self.rank
        own = jnp.asarray(named.array)
        own = jax.lax.stop_gradient(own) if self.is_held else own
        shape = list(named.array.shape)
        for d in self.along:
            shape[lead + d] = self.term.elements[d]
        array = jnp.broadcast_to(own, shape)
        order = [lead + d for d in self.latent.element_axes] + list(range(lead))
        order += [lead + d for d in self.along] + list(range(lead + rank, array.ndim))
        return array.transpose(order), tuple(map(self.placed, named.axes))

    def factor(self, named: Named, reads: Sequence[Coordinates]) -> Factor:
        """Return the factor of a table with coordinates of the latent, then of another one."""
        array, axes = self.array(named)
        lead = len(self.shape) + len(axes)
        tail = [axis.size for axis in reads]
        return Factor((*axes, *reads), self.shape, Cells(array.reshape(*array.shape[:lead], *tail)))

    def scale(self, name: str, own: Coordinates) -> Factor:
        """Return the square root of the covariance of an element, a matrix for each."""
        array, axes = self.array(self.term.arguments[name])
        lead = len(self.shape) + len(axes)
        size = self.latent.size
        if name == "scale":
            flat = array.reshape(*array.shape[:lead], size)
            root = flat[..., None] * jnp.eye(size, dtype=flat.dtype)
        else:
            root = ROOTS[name](array)
            # of several events side by side, the covariance is block diagonal
            events = root.reshape(*root.shape[:lead], -1, *root.shape[-2:])
            blocks = events[..., :, :, None, :] * jnp.eye(events.shape[-3])[:, None, :, None]
            root = blocks.reshape(*root.shape[:lead], size, size)
        return Factor((*axes, own), self.shape, Cells(root))


def _root_of_precision(precision: Array) -> Array:
    """Return L of P⁻¹ = L Lᵀ."""
    return inverse_of_triangular(jnp.linalg.cholesky(precision)).mT


ROOTS = {
    "covariance_matrix": semidefinite_root,
    "precision_matrix": _root_of_precision,
    "scale_tril": lambda factor: factor,
}
