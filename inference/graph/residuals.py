"""What a normal site is that reads Gaussian latents: its residual, x − a + Σ R f.

Its density exp(−½ rᵀP r), r = x − a + Σ_l R_l f_l, has the exponent

    −½ (x − a)ᵀP (x − a) − Σ_l ⟨P R_l, x f_lᵀ⟩ + Σ_l ⟨R_lᵀP a, f_l⟩ − ½ Σ_lm ⟨R_lᵀP R_m, f_l f_mᵀ⟩.

The first part is the term that the site would be without Gaussian latents, and the others are its
*interaction* with them: natural parameters again, which go with statistics that are expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from emjax.families.family import Family
from emjax.graph.outputs import Outputs
from emjax.graph.recipes import StatisticsRecipe
from emjax.program.records import Site
from emjax.tables.affine_values import AffineValue, coordinates_of
from emjax.tables.lifting import lift
from emjax.tables.named import Coordinates, MixedElements, Named

NORMALS = (dist.Normal, dist.MultivariateNormal)


@dataclass(frozen=True, eq=False)
class Residual:
    """How a normal site reads Gaussian latents: r = x − a + Σ_l R_l f_l.

    - `coefficients`: the R_l, over (elements…, event…, coordinates of f_l).
    - `reads`: the f_l: which element of which latent each element of the site reads.
    """

    coefficients: tuple[Named, ...]
    reads: tuple[Coordinates, ...]

    @property
    def arguments(self) -> dict[str, Named]:
        """The coefficients by the names that a family has for them."""
        return {_name(i): table for i, table in enumerate(self.coefficients)}


def residual_of(outputs: Outputs, site: Site, elements: Sequence[int]) -> Residual | None:
    """Return how a site reads Gaussian latents, None if it does not.

    Errors: `ValueError` for a site that is no normal whose value or location does.
    """
    affine = {n for n in outputs.of(site) if isinstance(outputs.values[n], AffineValue)}
    if not affine:
        return None
    location = site.outputs.args.get("loc")
    may_be = {site.outputs.value, location}
    is_normal = site.distribution in NORMALS
    if not is_normal or site.outputs.gate is not None or affine - may_be:
        raise ValueError(_misuse(outputs, site, affine))
    rank, event = len(elements), len(site.event)
    found: dict[Any, tuple[Named, Coordinates]] = {}
    for number, sign in ((site.outputs.value, 1.0), (location, -1.0)):
        value = outputs.values[number]
        for part in value.coefficients if isinstance(value, AffineValue) else ():
            table, axis = _over_events(part.padded(rank + event), sign, rank, site)
            if axis.key in found:
                before = found[axis.key][0]
                shape = np.broadcast_shapes(before.shape, table.shape)
                table = lift(lambda a, b: a + b, [before, table], shape)
            found[axis.key] = table, axis
    tables = tuple(_full(table, rank) for table, _ in found.values())
    return Residual(tables, tuple(axis for _, axis in found.values()))


def _over_events(part: Named, sign: float, rank: int, site: Site) -> tuple[Named, Coordinates]:
    """Return coefficients with the coordinates as their last axis, and which element is read."""
    axis = coordinates_of(part)
    if any(axis.varies[rank:]):
        raise MixedElements(axis.source, site.name)
    place = part.axes.index(axis)
    array = jnp.moveaxis(sign * jnp.asarray(part.array), place, -1)
    shape = (*part.shape, axis.size)
    axes = tuple(other.fitted(len(shape)) for other in part.axes if other is not axis)
    return Named(array, shape, axes), axis.fitted(rank)


def _full(table: Named, rank: int) -> Named:
    """Return a table with its event axes at their full length."""
    lead = len(table.axes) + rank
    shape = (*table.array.shape[:lead], *table.shape[rank:])
    return replace(table, array=jnp.broadcast_to(table.array, shape))


def _misuse(outputs: Outputs, site: Site, affine: set[int]) -> str:
    first = outputs.values[min(affine)]
    name = coordinates_of(first.coefficients[0]).source
    kind = site.distribution.__name__
    arguments = [key for key, number in site.outputs.args.items() if number in affine]
    where = f"the {arguments[0]} of {kind}" if arguments else kind
    return (
        f"Site '{site.name}': {where} depends on '{name}', which integrate={{'{name}'}} asks to "
        "integrate out. That is exact only where it enters the location of a Normal or "
        f"MultivariateNormal, and affinely. Leave '{name}' out of integrate: it is then a MAP "
        "parameter."
    )


# ── the family of an interaction ──────────────────────────────────────────────────────────────────


def _name(number: int) -> str:
    return f"coefficients {number}"


class Product(NamedTuple):
    """One of the products that an interaction is a sum of.

    - `reads`: the numbers of the one or two f_l that it is linear in.
    - `has_data`: whether it is linear in x, too.
    """

    reads: tuple[int, ...]
    has_data: bool = False


def products_of(count: int, has_data: bool) -> tuple[Product, ...]:
    """Return the products x f_l, f_l and f_l f_m of `count` elements; `has_data`: there is an x."""
    singles = [(i,) for i in range(count)]
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    of_data = [Product(reads, True) for reads in singles] if has_data else []
    return (*of_data, *map(Product, [*singles, *pairs]))


def interaction_family(family: Family, event: int, products: Sequence[Product]) -> Family:
    """Return a normal's interaction with elements of Gaussian latents: these products of it.

    `event`: the number of its event axes.
    """
    (matrix,) = (name for name in family.arguments if name != "loc")
    names = [_name(i) for i in sorted({i for product in products for i in product.reads})]

    def naturals(loc, **features):
        location, precision = loc[0], features[matrix][1]
        rows = {name: _only(features[name]) for name in names}
        # a normal of one number is one of a vector of length one
        if not event:
            location, precision = location[..., None], precision[..., None, None]
            rows = {name: row[..., None, :] for name, row in rows.items()}
        tables = []
        for (first, *second), has_data in products:
            row = rows[_name(first)]
            weighted = jnp.matmul(precision, row, precision="highest")
            if has_data:
                tables.append(-weighted if event else -weighted[..., 0, :])
            elif not second:
                tables.append((weighted * location[..., None]).sum(-2))
            else:
                other = rows[_name(second[0])]
                square = jnp.matmul(weighted.mT, other, precision="highest")
                tables.append(-0.5 * square if second == [first] else -square)
        return tuple(tables)

    events = [len(reads) + (event if has_data else 0) for reads, has_data in products]
    return replace(
        family,
        arguments={**family.arguments, **dict.fromkeys(names, COEFFICIENTS)},
        naturals=naturals,
        event_dims=tuple(events),
        squares=(),
        total=None,
    )


def _only(features: Any) -> Any:
    """Return the first of the features of coefficients, which are the coefficients themselves."""
    return features[0] if isinstance(features, tuple) else features


def interaction_statistics(
    recipe: StatisticsRecipe, products: Sequence[Product]
) -> StatisticsRecipe:
    """Return what of the data goes with products of an interaction: x, or one.

    `recipe`: that of the site's own statistics, x, x² and 1.
    """

    def function(inputs, elements):
        x, *_, one = recipe.function(inputs, elements)
        return [x if product.has_data else one for product in products]

    return replace(recipe, function=function)
