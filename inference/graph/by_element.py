"""Interactions of rows of data summed, once, by the element of a Gaussian latent that rows read.

A row of `y ~ Normal(x @ beta + z @ b[group], sigma)` enters the posterior of `b[group]` by what is
the same for all rows, 1 / σ², times z y and z zᵀ. These are added up by group when data are
prepared, so that a step looks at groups, not at rows.
"""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp

from emjax.graph.recipes import Statistic, precomputed
from emjax.graph.residuals import Product
from emjax.graph.terms import Term
from emjax.tables.indices import Affine, Dense
from emjax.tables.named import Coordinates, Named


def addable(term: Term) -> list[Product]:
    """Return the products of an interaction that add up by element.

    None do where rows are elements already, or several latents meet; and those do not of which the
    natural parameter differs among rows.
    """
    indices = [axis.index for axis in term.reads]
    if len(indices) > 1 or term.latent_axes or not isinstance(indices[0], Dense):
        return []
    rank = len(term.elements)
    products = []
    formed = term.statistics.formed(term.elements)
    for product, table, statistic in zip(term.products, term.naturals, formed, strict=True):
        is_one = all(size == 1 for size in table.compact[:rank])
        if is_one and not table.axes and not statistic.value.axes:
            products.append(product)
    return products


def by_element(term: Term, shape: tuple[int, ...]) -> Term:
    """Return an interaction over the elements of the latent that it reads, of this shape.

    All its products add up.
    """
    (axis,), rank = term.reads, len(term.elements)
    own = axis.index.dense(term.elements)

    def summed(value: Named) -> Named:
        # along axes where one element is read, rows may have been added up: they are one row then
        elements, event = value.shape[:rank], value.shape[rank:]
        index = jnp.broadcast_to(own, elements).reshape(-1)
        rows = jnp.broadcast_to(value.array, value.shape).reshape(-1, *event)
        total = jnp.zeros((math.prod(shape), *event), rows.dtype).at[index].add(rows)
        return Named(total.reshape(*shape, *event), (*shape, *event))

    def on_elements(value: Named) -> Named:
        event = value.shape[rank:]
        sizes = (*(1,) * len(shape), *value.array.shape[rank:])
        # of natural parameters, the shape is all that is known
        if isinstance(value.array, jax.ShapeDtypeStruct):
            return Named(jax.ShapeDtypeStruct(sizes, value.array.dtype), (*shape, *event))
        return Named(value.array.reshape(sizes), (*shape, *event))

    formed = term.statistics.formed(term.elements)
    origin = None if term.origin is None else on_elements(term.origin)
    return replace(
        term,
        elements=shape,
        arguments={name: on_elements(table) for name, table in term.arguments.items()},
        statistics=precomputed([Statistic(summed(each.value)) for each in formed]),
        base=on_elements(term.base),
        origin=origin,
        value=on_elements(term.base),
        naturals=tuple(map(on_elements, term.naturals)),
        kept=tuple(d for d, size in enumerate(shape) if size > 1),
        reads=(Coordinates(axis.source, axis.size, Affine.identity(shape)),),
    )
