"""Each term as a factor on its latents, and log Z as a function of the natural-parameter tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from emjax.e_step.cutting import can_be_cut, cut, cut_term
from emjax.e_step.incomplete import marginal_density
from emjax.e_step.instance import Instance
from emjax.e_step.interactions import handled, reads_coordinates, without_gaussians
from emjax.e_step.lookups import cells, weighted_rows
from emjax.e_step.products import inner_product
from emjax.elimination.algebra import TableAlgebra
from emjax.elimination.factors import Cells, Deferred, Factor, WeightedRows
from emjax.elimination.log_partition import log_partition
from emjax.elimination.reductions import Drawn, Tempered
from emjax.families.family import lacks_coordinates
from emjax.graph.recipes import Statistic
from emjax.graph.terms import Term
from emjax.numerics.fast_forms import FastForms
from emjax.tables.indices import Affine
from emjax.tables.named import Named


def log_z(
    instance: Instance,
    tables: Sequence,
    temperature: ArrayLike = 1.0,
    more: Sequence[Factor] = (),
    fast: FastForms | None = None,
    drawn: Drawn | None = None,
) -> Array:
    """Return log Z in nats as a function of the natural-parameter tables, plain arrays.

    `more`: factors beside those of the terms; `fast`: leave to take fast forms; `drawn`:
    in place of a temperature, the reduction whose gradient draws.
    """
    factors = [*more]
    instance = instance.at(tables)
    for term, naturals in zip(instance.terms, instance.naturals, strict=True):
        if term.reads:
            continue
        naturals = handled(term, naturals)
        defer = None
        # a stretch of time computes the densities of its steps alone, twice, and none are kept
        if instance.chains == "checkpointed":
            defer = _time_axis(term, naturals, instance)
        factors.append(term_factor(term, naturals, fast, defer))
    if instance.gaussians:
        on_gaussians = [factor for factor in factors if reads_coordinates(factor)]
        factors = [factor for factor in factors if not reads_coordinates(factor)]
        factors += without_gaussians(instance, on_gaussians)
    algebra = TableAlgebra(drawn or Tempered(temperature), fast, instance.chains)
    return instance.constant + log_partition(factors, instance.latents, algebra)


def _time_axis(term: Term, naturals: Sequence[Named], instance: Instance) -> int | None:
    """Return the axis of a term's elements along which its latents step on in time, if it is one.

    That is, by one row of their elements. None also where the term cannot be cut there.
    """
    dims = set()
    for axis in term.latent_axes:
        if not isinstance(axis.index, Affine) or axis.source not in instance.latents:
            return None
        inner = math.prod(instance.latents[str(axis.source)].shape[1:])
        along = []
        for d, stride in enumerate(axis.index.strides):
            if abs(stride) == inner and term.elements[d] > 1:
                along.append(d)
        dims |= set(along or [None])
    if len(dims) != 1 or dims == {None}:
        return None
    (dim,) = dims
    if any(table.compact[dim] != 1 for table in naturals) or not can_be_cut(term, naturals, dim):
        return None
    return dim


def term_factor(
    term: Term, tables: Sequence[Named], fast: FastForms | None = None, defer: int | None = None
) -> Factor:
    """Return the factor that a term is on its latents: Σ_i ⟨η_i, t_i⟩, and log h if that varies.

    `fast`: leave to take fast forms; `defer`: the axis of its elements along which it is to be
    computed a stretch at a time, if it is no lookup.
    """
    # along the other elements all is summed already: no latent distinguishes them
    axes = tuple(axis.placed(term.kept) for axis in term.latent_axes)
    shape = tuple(term.elements[d] for d in term.kept)
    values = _values(term, tables, fast, defer)
    rows = None if fast is None else _rows(term, tables)
    return Factor(axes, shape, values, term.without_multiplicity, rows)


def _rows(term: Term, tables: Sequence[Named]) -> WeightedRows | None:
    """Return a term's factor as rows that will be added up by what their latents read, if it is.

    That is, in a form that has no forward derivative.
    """
    is_added_up = any(not isinstance(axis.index, Affine) for axis in term.latent_axes)
    pairs = _pairs(term, tables) if is_added_up and term.base_is_constant else []
    if len(pairs) != 1:
        return None
    return weighted_rows(*pairs[0], term.latent_axes, term.kept, term.elements)


def _values(
    term: Term, tables: Sequence[Named], fast: FastForms | None, defer: int | None
) -> Cells:
    rank, pairs = len(term.elements), _pairs(term, tables)
    # log h that does not vary is in the instance's constant
    if not term.base_is_constant:
        ones = Named(np.ones((1,) * rank), term.base.shape)
        pairs.append((ones, Statistic(term.base)))
    if len(pairs) == 1:
        lookup = cells(*pairs[0], term.latent_axes, term.kept, term.elements)
        if lookup is not None:
            return lookup
    if defer is None:
        return Cells(inner_product(pairs, term.latent_axes, term.kept, rank, fast))

    def part(start, rows: int):
        part_tables = [cut(table, defer, start, rows) for table in tables]
        return term_factor(cut_term(term, defer, start, rows), part_tables).array

    return Cells(Deferred(part, term.kept.index(defer), term.elements[defer]))


def _pairs(term: Term, tables: Sequence[Named]) -> list[tuple[Named, Statistic]]:
    """Return pairs η_i, t_i whose inner products add up to a term.

    Where events lack coordinates, that is log ∫ exp(Σ ⟨η_i, t_i(x)⟩) dx_missing, and how often it
    counts.
    """
    if not lacks_coordinates(term.family):
        return list(zip(tables, term.statistics.formed(term.elements), strict=True))
    return [marginal_density(term, tables)]
