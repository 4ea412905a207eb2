"""What a normal site is that reads Gaussian latents: its residual, x − a + Σ R f.

Its density exp(−½ rᵀP r), r = x − a + Σ_l R_l f_l, has the exponent

    −½ (x − a)ᵀP (x − a) − Σ_l ⟨P R_l, x f_lᵀ⟩ + Σ_l ⟨R_lᵀP a, f_l⟩ − ½ Σ_lm ⟨R_lᵀP R_m, f_l f_mᵀ⟩.

The first part is the term that the site would be without Gaussian latents, and the others are its
*interaction* with them: natural parameters again, which go with statistics that are expected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from emjax.families.conjugate import COEFFICIENTS
from emjax.families.family import Family
from emjax.graph.outputs import Outputs
from emjax.graph.recipes import Statistic, StatisticsRecipe
from emjax.program.records import Site
from emjax.tables.affine_values import AffineValue, coordinates_of
from emjax.tables.lifting import lift, lift_events
from emjax.tables.named import Axis, Named, full, mixed


@dataclass(frozen=True, eq=False)
class Residual:
    """How a normal site reads Gaussian latents: r = x − a + Σ_l R_l f_l.

    - `coefficients`: the R_l, over (elements…, event…, coordinates of f_l).
    - `reads`: the f_l: which element of which latent each element of the site reads. Of a latent's
      own site, the first is what it draws.
    """

    coefficients: tuple[Named, ...]
    reads: tuple[Axis, ...]


def residual_of(outputs: Outputs, site: Site, elements: Sequence[int]) -> Residual | None:
    """Return how a site reads Gaussian latents, None if it does not."""
    if not any(isinstance(outputs.values[number], AffineValue) for number in outputs.of(site)):
        return None
    location = site.outputs.args["loc"]
    rank, event = len(elements), len(site.event)
    found: dict[Any, tuple[Named, Axis]] = {}
    for number, sign in ((site.outputs.value, 1.0), (location, -1.0)):
        value = outputs.values[number]
        for part in value.coefficients if isinstance(value, AffineValue) else ():
            table, axis = over_events(part.padded(rank + event), sign, rank, site)
            if axis.key in found:
                before = found[axis.key][0]
                shape = np.broadcast_shapes(before.shape, table.shape)
                table = lift(lambda a, b: a + b, [before, table], shape)
            found[axis.key] = table, axis
    tables = []
    for table, _ in found.values():
        events = range(rank, len(table.shape))
        tables.append(replace(table, array=full(table, events)))
    return Residual(tuple(tables), tuple(axis for _, axis in found.values()))


def over_events(part: Named, sign: float, rank: int, site: Site) -> tuple[Named, Axis]:
    """Return coefficients with the coordinates as their last axis, and which element is read."""
    axis = coordinates_of(part)
    if any(axis.varies[rank:]):
        raise mixed(axis, part, site.name, range(rank, len(part.shape)))
    place = part.axes.index(axis)
    array = jnp.moveaxis(sign * jnp.asarray(part.array), place, -1)
    shape = (*part.shape, axis.size)
    axes = tuple(other.fitted(len(shape)) for other in part.axes if other is not axis)
    return Named(array, shape, axes), axis.fitted(rank)


# ── the family of an interaction ──────────────────────────────────────────────────────────────────


_COEFFICIENTS = "coefficients"


def coefficients_name(number: int) -> str:
    """Return what a family calls the coefficients of f_l."""
    return f"{_COEFFICIENTS} {number}"


def is_coefficients(argument: str) -> bool:
    """Whether an argument of a family is the coefficients of some f_l."""
    return argument.startswith(_COEFFICIENTS)


def spread_argument(family: Family) -> str:
    """Return which argument of a normal, or of its interaction, is its scale or its covariance."""
    (name,) = (name for name in family.arguments if name != "loc" and not is_coefficients(name))
    return name


class Product(NamedTuple):
    """One of the products that an interaction is a sum of.

    - `reads`: the numbers of the one or two f_l that it is linear in.
    - `has_data`: whether it is linear in x, too.
    - `known`: of these, the numbers of those whose coefficients are data: they belong to the
      statistics, those of the others to the natural parameters.
    """

    reads: tuple[int, ...]
    has_data: bool = False
    known: tuple[int, ...] = ()

    @property
    def estimated(self) -> tuple[int, ...]:
        """The numbers of the f_l whose coefficients are part of the natural parameters."""
        return tuple(i for i in self.reads if i not in self.known)


def products_of(count: int, has_data: bool, known: Collection[int] = ()) -> tuple[Product, ...]:
    """Return the products x f_l, f_l and f_l f_m of `count` elements.

    `has_data`: there is an x; `known`: the numbers of those whose coefficients are data.
    """
    singles = [(i,) for i in range(count)]
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    products = [(reads, True) for reads in singles] if has_data else []
    products += [(reads, False) for reads in (*singles, *pairs)]
    found = []
    for reads, of_data in products:
        found.append(Product(reads, of_data, tuple(i for i in reads if i in known)))
    return tuple(found)


def interaction_family(family: Family, event: int, products: Sequence[Product]) -> Family:
    """Return a normal's interaction with elements of Gaussian latents: these products of it.

    `event`: the number of its event axes.
    """
    matrix = spread_argument(family)
    numbers = sorted({i for product in products for i in product.estimated})
    table = _table_of_vector if event else _table_of_number

    has_location = any(len(each.reads) == 1 and not each.has_data for each in products)

    def naturals(**features):
        rows = {i: features[coefficients_name(i)][0] for i in numbers}
        location = features["loc"][0] if has_location else None
        return tuple(table(each, location, features[matrix][1], rows) for each in products)

    events = [len(each.estimated) + (event if each.has_data else 0) for each in products]
    return replace(
        family,
        arguments={
            **({"loc": family.arguments["loc"]} if has_location else {}),
            matrix: family.arguments[matrix],
            **{coefficients_name(i): COEFFICIENTS for i in numbers},
        },
        centered=family.centered if has_location else None,
        naturals=naturals,
        event_dims=tuple(events),
        squares=(),
        total=None,
    )


def _table_of_vector(product: Product, location, precision, rows: Mapping[int, Any]):
    """Return −P R_l, R_lᵀP a, −R_lᵀP R_m or half of it: the natural parameter of a product."""
    first, *second = product.reads
    weighted = jnp.matmul(precision, rows[first], precision="highest")
    if product.has_data:
        return -weighted
    if not second:
        return (weighted * location[..., None]).sum(-2)
    square = jnp.matmul(weighted.mT, rows[second[0]], precision="highest")
    return -0.5 * square if second == [first] else -square


def _table_of_number(product: Product, location, precision, rows: Mapping[int, Any]):
    """Return the same of a normal of one number, without the coefficients that are known."""
    is_linear = len(product.reads) == 1
    table = precision * location if is_linear and not product.has_data else -precision
    if not is_linear and product.reads[0] == product.reads[1]:
        table = 0.5 * table
    for depth, i in enumerate(product.estimated):
        row = rows[i].reshape(*rows[i].shape[:-1], *(1,) * depth, rows[i].shape[-1])
        table = table[..., None] * row
    return table


def interaction_statistics(
    recipe: StatisticsRecipe, products: Sequence[Product], known: Mapping[int, Named]
) -> StatisticsRecipe:
    """Return what of the data goes with products of an interaction: x or one, times coefficients.

    - `recipe`: that of the site's own statistics, x, x² and 1.
    - `known`: the coefficients that are data, by their numbers.
    """
    inputs = {**recipe.inputs, **{coefficients_name(i): table for i, table in known.items()}}

    def function(inputs, elements):
        x, *_, one = recipe.function(inputs, elements)
        statistics = []
        for product in products:
            value = (x if product.has_data else one).value
            for i in product.known:
                value = _times(value, inputs[coefficients_name(i)], elements)
            statistics.append(Statistic(value))
        return statistics

    return StatisticsRecipe(inputs, function)


def _times(value: Named, row: Named, elements: tuple[int, ...]) -> Named:
    """Return the outer product of values (elements…, event…) and rows (elements…, coordinates)."""
    rank = len(elements)
    event = len(value.shape) - rank

    def outer(array, row):
        lead = row.shape[:-1]
        return (array[..., None] * row.reshape(*lead, *(1,) * event, row.shape[-1]),)

    (product,) = lift_events(outer, [(value, event), (row, 1)], rank, (event + 1,))
    return product
