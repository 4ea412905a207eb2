"""The terms of a factor graph, and their natural parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

from emjax.families.family import Family
from emjax.graph.recipes import StatisticsRecipe
from emjax.graph.residuals import Product
from emjax.numerics.guards import as_float, bounded_below
from emjax.program.records import Site
from emjax.tables.lifting import lift_events
from emjax.tables.lookup import Lookup, look_up
from emjax.tables.named import Axis, Named, constant, spread


@dataclass(frozen=True, eq=False)
class Term:
    """One site's contribution Σ_i ⟨η_i, t_i⟩ to the complete-data log-likelihood.

    - `family`: None where the one natural parameter is the table of log-densities itself.
    - `elements`: the shape of its elements.
    - `arguments`: the named tables that the η_i are functions of.
    - `statistics`: how the t_i are formed of what is kept of the data: weighted by mask and
      multiplicity, summed along whatever no table needs.
    - `base`: Σ log h(x), weighted and summed likewise.
    - `origin`: the point about which locations are measured.
    - `value`: the observed or drawn value, at which a categorical's table is read.
    - `latent_axes`: the latents that it touches.
    - `naturals`: the η_i, of which arrays have shapes alone.
    - `kept`: the axes of its elements along which its latents vary.
    - `prior_arguments`: the arguments of a prior that may be conjugate.
    - `without_multiplicity`: its multiplicity is that of its latents, and theirs to count; its own
      tables and statistics are those of elements that count once.
    - `reads`: of the interaction of a normal with Gaussian latents, which element of which of them
      each of its elements reads.
    - `ones`: of a latent's interaction with itself over condensed rows, what one is in each.
    - `products`: what each of its natural parameters goes with, of data and of `reads`.
    - `gate`: where a component of a `Select` is chosen, if latents choose it.
    - `patterns`: of data that lack coordinates, its elements grouped by which; a term on some of
      its elements has none.
    - `counted`: of an observed density, where the data count, as masks of their rank; what latents
      choose aside.
    """

    site: Site
    family: Family | None
    elements: tuple[int, ...]
    arguments: Mapping[str, Named]
    statistics: StatisticsRecipe
    base: Named
    origin: Named | None
    value: Named
    latent_axes: tuple[Axis, ...]
    naturals: tuple[Named, ...]
    kept: tuple[int, ...]
    prior_arguments: Mapping[str, Named]
    without_multiplicity: bool
    reads: tuple[Axis, ...] = ()
    products: tuple[Product, ...] = ()
    ones: Named | None = None
    gate: Named | None = None
    counted: tuple[Named, ...] = ()
    patterns: Mapping[str, Named] = field(default_factory=dict)

    @property
    def all_axes(self) -> tuple[Axis, ...]:
        """The axes of all latents that it touches, Gaussian ones included."""
        return (*self.latent_axes, *self.reads)

    @property
    def natural_axes(self) -> tuple[tuple[Axis, ...], ...]:
        """The named axes of each η_i."""
        return tuple(table.axes for table in self.naturals)

    @property
    def base_is_constant(self) -> bool:
        """Whether Σ log h(x) is one number, whatever the latents, of a term that has its arrays."""
        return not self.base.axes and self.base.array.size == 1 and math.prod(self.base.shape) == 1


@dataclass(frozen=True, eq=False)
class Features:
    """Features for the cells of one argument's table, in place of the argument's own.

    - `argument`: which one.
    - `rows`: which entry of a parameter each cell reads (−1: none).
    - `replaced`: `replaced(features, rows)` are the features instead.
    """

    argument: str
    rows: np.ndarray
    replaced: Callable


def naturals_of(term: Term, instead: Features | None = None) -> list[Named]:
    """Return the natural-parameter tables η_i of a term that has its arrays."""
    return natural_tables(
        term.family, term.arguments, term.origin, term.value, term.elements, instead
    )


def natural_tables(
    family: Family | None,
    arguments: Mapping[str, Named],
    origin: Named | None,
    value: Named,
    elements: tuple[int, ...],
    instead: Features | None = None,
) -> list[Named]:
    """Return the natural-parameter tables η_i of arguments.

    A categorical's table is read at the observed `value`: the categories that data pick are rows of
    it. `instead` replaces the features of one argument.
    """
    rank = len(elements)
    if family is None:
        (table,) = arguments.values()
        return [replace(table, array=bounded_below(jnp.asarray(table.array)))]
    names = list(family.arguments)
    pairs = [(arguments[name], len(arguments[name].shape) - rank) for name in names]
    if family.centered:
        event = len(arguments[family.centered].shape) - rank
        # without data to center on, locations are measured from 0
        if origin is None:
            origin = constant(np.zeros((1,) * (rank + event)))
        pairs.append((origin, event))
    # tables have the same shapes, whether features are replaced or not
    num_deciding = len(pairs)
    if instead is not None:
        table = arguments[instead.argument]
        pairs.append((Named(instead.rows, table.shape[:rank], table.fitted(rank).axes), 0))

    def naturals(*arrays):
        features = {}
        for name, array in zip(names, arrays, strict=False):
            form, array = family.arguments[name], as_float(array)
            # the origin comes after the arguments, and the rows come last
            reference = arrays[len(names)] if name == family.centered else None
            features[name] = array if form is None else form.features(array, reference)
            if instead is not None and name == instead.argument:
                features[name] = instead.replaced(features[name], arrays[-1])
        return family.naturals(**features)

    tables = lift_events(naturals, pairs, rank, family.event_dims, num_deciding)
    return [read_at(tables[0], value, elements)] if family.lookup else tables


def read_at(table: Named, value: Named, elements: tuple[int, ...]) -> Named:
    """Return table[…, value], the log-probability of a category at every element.

    Rows that data pick are its first axes, before those of latents.
    """
    rank = len(elements)
    table = replace(table.padded(rank + 1), shape=elements + table.shape[-1:])
    lookup = Lookup({d: d for d in range(rank)}, range(rank), rank)
    read = look_up(table, {rank: value.padded(rank)}, lookup, elements)
    # products of statistics and tables take rows and latents apart
    axes = read.row_axes + read.latent_axes
    return Named(spread(read, axes), read.shape, axes)


def of_shape(table: Named) -> Named:
    """Return a table without its numbers."""
    array = jax.ShapeDtypeStruct(table.array.shape, table.array.dtype)
    return replace(table, array=array, root=None)
