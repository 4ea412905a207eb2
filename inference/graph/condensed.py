"""Rows that enter by their second moments alone, condensed into as few rows as there are columns.

Where each row x of data has a Gaussian latent f of its own, and all rows are alike, log Z is a
quadratic form in the rows (x, 1), summed over them: it depends on Y = [x 1] by YᵀY alone. With
Y = Q R, the rows of R serve as well, and a step of EM does not look at the data. Of N rows, each of
the r rows of R counts N / r times in what is quadratic in f, and √(N / r) times in what is linear,
so that the former adds up to N and the products of two of the latter to YᵀY.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax.graph.recipes import Statistic, precomputed
from emjax.graph.terms import Term
from emjax.program.latents import GaussianLatent
from emjax.tables.indices import Affine
from emjax.tables.named import Axis, Named

# below this, a step is all overhead, and another form of the data is more to compile
FEWEST_ROWS = 1000


@dataclass(frozen=True, eq=False)
class Condensed:
    """What stands for terms, and for the latents whose rows are condensed.

    - `terms`: by number of the term.
    - `shapes`: {latent: the shape of its elements}.
    - `counts`: {latent: how many rows each of its elements stands for}.
    """

    terms: dict[int, Term] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def stands_for_all(self, terms: Sequence[Term]) -> bool:
        """Whether a step reads no statistics of other rows: they are summed up before."""
        read = {i for i, term in enumerate(terms) if term.site.is_observed and term.kept}
        return bool(self.terms) and read <= set(self.terms)


def condensed(
    terms: Sequence[Term],
    gaussians: Mapping[str, GaussianLatent],
    multiplicities: Mapping[str, Named],
) -> Condensed:
    """Return what stands for the rows of Gaussian latents that enter by second moments alone."""
    found = Condensed()
    for name, latent in gaussians.items():
        read = [i for i, term in enumerate(terms) if name in map(_source, term.reads)]
        counts_once = multiplicities[name].is_static and (multiplicities[name].array == 1).all()
        size = math.prod(latent.elements)
        alike = len(latent.elements) == 1 and counts_once
        if size < FEWEST_ROWS or not alike or not all(_is_alike(terms[i], size) for i in read):
            continue
        rows = [_rows(terms[i], terms[i].statistics.formed(terms[i].elements)) for i in read]
        columns = sum(part.shape[1] for parts in rows for part in parts) + 1
        if size < 2 * columns:
            continue
        ones = jnp.ones((size, 1), jnp.result_type(float))
        matrix = jnp.concatenate([*(part for parts in rows for part in parts), ones], axis=1)
        triangle = jnp.linalg.qr(matrix, mode="r")
        place = 0
        for i, parts in zip(read, rows, strict=True):
            width = sum(part.shape[1] for part in parts)
            of_term = triangle[:, place : place + width]
            found.terms[i] = _condensed(terms[i], of_term, triangle[:, -1], size / columns)
            place += width
        found.shapes[name], found.counts[name] = (columns,), size / columns
    return found


def _source(axis: Axis) -> Any:
    return axis.source


def _is_alike(term: Term, size: int) -> bool:
    """Whether all rows of an interaction are alike but for their data."""
    if term.latent_axes or len(term.reads) != 1 or len(term.kept) != 1:
        return False
    ((index,), (dim,)) = (tuple(axis.index for axis in term.reads), term.kept)
    is_in_order = isinstance(index, Affine) and index.offset == 0 and index.strides[dim] == 1
    if not is_in_order or term.elements[dim] != size:
        return False
    if any(table.axes or table.compact[dim] != 1 for table in term.naturals):
        return False
    formed = term.statistics.formed(term.elements)
    for product, statistic in zip(term.products, formed, strict=True):
        is_row = statistic.value.compact[dim] != 1
        if statistic.value.axes or product.known or is_row != product.has_data:
            return False
    return True


def _rows(term: Term, formed: Sequence[Statistic]) -> list[Array]:
    """Return the statistics that are linear in the data as matrices (row, column)."""
    (dim,) = term.kept
    matrices = []
    for product, statistic in zip(term.products, formed, strict=True):
        if product.has_data:
            rows = jnp.moveaxis(jnp.asarray(statistic.value.array), dim, 0)
            matrices.append(rows.reshape(rows.shape[0], -1))
    return matrices


def _condensed(term: Term, data: Array, ones: Array, count: float) -> Term:
    """Return an interaction over condensed rows.

    `data`: its rows (row, column); `ones`: what stands for one in them; `count`: how many rows each
    of them stands for.
    """
    (dim,), rank, number = term.kept, len(term.elements), ones.size
    root = math.sqrt(count)

    def over_rows(value: Named) -> Named:
        shape = list(value.shape)
        shape[dim] = number
        return replace(value, shape=tuple(shape))

    def along(rows: Array, value: Named) -> Array:
        """Return rows in the place of those of a value."""
        inner = [size for d, size in enumerate(value.array.shape) if d != dim]
        return jnp.moveaxis(rows.reshape(number, *inner), 0, dim)

    one = root * ones.reshape([-1 if d == dim else 1 for d in range(rank)])
    statistics = []
    for product, statistic in zip(
        term.products, term.statistics.formed(term.elements), strict=True
    ):
        value = statistic.value
        if product.has_data:
            array = root * along(data, value)
        else:
            array = value.array * (one if len(product.reads) == 1 else count)
        statistics.append(Statistic(replace(over_rows(value), array=array, root=None)))
    elements = tuple(number if d == dim else size for d, size in enumerate(term.elements))
    per_row = Named(one / count, elements)
    return replace(
        term,
        elements=elements,
        arguments={name: over_rows(table) for name, table in term.arguments.items()},
        statistics=precomputed(statistics),
        naturals=tuple(map(over_rows, term.naturals)),
        base=over_rows(term.base),
        value=over_rows(term.base),
        origin=None if term.origin is None else over_rows(term.origin),
        ones=per_row if term.site.is_integrated else None,
    )
