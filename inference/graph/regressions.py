"""Locations that are affine in parameters, with coefficients that are data: rows added up once.

Where y ~ Normal(x @ beta + z @ b[group], sigma) has data for x and z, the residual is

    r = e − X δ + R f,    δ = β − β̂,    e = y − X β̂,

about least squares β̂ of y on X, which data alone say. Its square, −r² / 2σ², is a sum of products
of natural parameters 1 / σ², δ / σ², δ δᵀ / σ² with e², e X, X Xᵀ summed over all rows, and with
R e, R X, R Rᵀ summed over those of each element of f. Data are measured from e, not from 0: nothing
cancels. A step looks at groups, and not at rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.interpreters import partial_eval as pe

from emjax.families.conjugate import COEFFICIENTS
from emjax.graph.by_element import by_element
from emjax.graph.condensed import FEWEST_ROWS
from emjax.graph.data_statistics import masked_data
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.known_coefficients import is_estimated
from emjax.graph.recipes import Statistic, precomputed
from emjax.graph.residuals import Product, is_coefficients, over_events
from emjax.graph.site_input import SiteInput
from emjax.graph.slots import Slot
from emjax.graph.symbols import propagate_program
from emjax.graph.terms import Term, natural_tables, of_shape
from emjax.numerics.matrices import EXACT
from emjax.program.trace import Program
from emjax.tables.affine_values import AffineValue, zero
from emjax.tables.indices import Affine
from emjax.tables.named import Coordinates, MixedElements, Named, constant, without_rows

# of more, the table of all coefficients, a row for each of the data, would be much to hold
MOST_COEFFICIENTS = 64


def regressions_of(graph: FactorGraph) -> dict[str, tuple[str, ...]]:
    """Return {site: parameters} of the sites whose rows add up, the others being of other kinds.

    Their locations are affine in these parameters, and in Gaussian latents that data look up; all
    coefficients are data.
    """
    found: dict[str, tuple[str, ...]] = {}
    names = [site.name for site in graph.program.sites]
    for term in graph.terms:
        read = [other for other in graph.terms if other.site is term.site and other.reads]
        is_plain = not term.reads and term.site.is_observed and not term.site.event
        if not (is_plain and read) or names.count(term.site.name) > 1 or term.latent_axes:
            continue
        parameters = _parameters(graph, term)
        size = sum(math.prod(graph.parameters[name].shape) for name in parameters)
        if 0 < size <= MOST_COEFFICIENTS and all(_adds_up(graph, other) for other in read):
            found[term.site.name] = parameters
    return found


def _parameters(graph: FactorGraph, term: Term) -> tuple[str, ...]:
    """Return the parameters of a location that is affine in them, with a row for each of many data.

    There are none where it is not, or its scale differs among rows.
    """
    location, scale = term.arguments["loc"], term.arguments["scale"]
    rows = math.prod(location.compact)
    is_one_scale = not scale.axes and all(size == 1 for size in scale.compact)
    if location.axes or rows < FEWEST_ROWS or not is_one_scale:
        return ()
    if not isinstance(location.array, Slot):
        return ()
    wire = graph.wires[location.array.number]
    return tuple(sorted(wire.parameters)) if wire.affine else ()


def _adds_up(graph: FactorGraph, term: Term) -> bool:
    """Whether the rows of an interaction add up by element, but for their location."""
    if term.latent_axes or len(term.reads) > 1:
        return False
    # rows that are elements already have nothing to add up
    for axis in term.reads:
        latent = graph.gaussians[str(axis.source)]
        if 2 * math.prod(latent.elements) > math.prod(term.site.elements):
            return False
    tables = [t for name, t in term.arguments.items() if is_coefficients(name)]
    return not any(is_estimated(graph, table) for table in tables)


@dataclass(frozen=True, eq=False)
class LocationView:
    """A location as an affine value of parameters and Gaussian latents; the parameters' values."""

    location: AffineValue
    parameters: Mapping[str, Named]


def location_views(
    program: Program,
    jointly: Mapping[str, MixedElements],
    inputs: Sequence[Named],
    regressions: Mapping[str, Sequence[str]],
) -> dict[str, LocationView]:
    """Return the locations of sites as affine values of their parameters, as of Gaussian latents.

    - `inputs`: the constants of the program, its parameters and data.
    - `regressions`: {site: its parameters}.
    """
    views: dict[str, LocationView] = {}
    first = len(program.jaxpr.consts)
    for site in program.sites:
        if site.name not in regressions:
            continue
        number = site.outputs.args["loc"]
        is_needed = [i == number for i in range(len(program.jaxpr.jaxpr.outvars))]
        jaxpr, _ = pe.dce_jaxpr(program.jaxpr.jaxpr, is_needed, instantiate=True)
        opened: list = list(inputs)
        for place, name in enumerate(program.names):
            if name in regressions[site.name]:
                opened[first + place] = _itself(name, opened[first + place])
        (view,), _ = propagate_program(program, jaxpr, jointly, opened)
        if isinstance(view, AffineValue):
            values = dict(zip(program.names, inputs[first:], strict=False))
            views[site.name] = LocationView(view, values)
    return views


def _itself(name: str, value: Named) -> AffineValue:
    """Return a parameter as an affine value of itself."""
    shape = value.shape
    size, index = math.prod(shape), Affine(0, (0,) * len(shape))
    table = np.eye(size, dtype=value.array.dtype).reshape((size, *shape))
    axis = Coordinates(name, size, index)
    return AffineValue(zero(shape, value.array.dtype), (Named(table, shape, (axis,)),))


# ── terms ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Regression:
    """A site's residual e − X δ + R f, all of it dense, about least squares of its data.

    - `arguments`: the scale, the parameters side by side, and their values that least squares has.
    - `rows`: X, (elements…, coefficients).
    - `left`: e, (elements…).
    - `weight`: how often each element counts, (elements…).
    """

    arguments: Mapping[str, Named]
    rows: Array
    left: Array
    weight: Array

    @classmethod
    def of(cls, read: SiteInput, view: LocationView) -> Regression:
        """Return the regression of a site on what its location is affine in."""
        elements, rank = read.elements, read.rank
        columns, values = [], []
        for part in view.location.coefficients:
            table, axis = over_events(part.padded(rank), 1.0, rank, read.site)
            if axis.source in view.parameters:
                columns.append(_dense(table, elements))
                values.append(jnp.ravel(view.parameters[str(axis.source)].array))
        rows = jnp.concatenate(columns, -1)
        ones = constant(np.ones((1,) * rank))
        weight = _dense(read.weight.applied(ones, elements), elements)
        masks = [] if read.weight.mask is None else [read.weight.mask]
        observed = _dense(masked_data(read.value, masks), elements)
        offset = observed - _dense(view.location.constant, elements)
        reference = _least_squares(rows, offset, weight)
        left = offset - jnp.matmul(rows, reference, precision=EXACT)
        arguments = {
            "weights": _on_all(jnp.concatenate(values), elements),
            "reference": _on_all(reference, elements),
            "scale": read.arguments["scale"],
        }
        return cls(arguments, rows, left, weight)

    def of_all(self, term: Term) -> Term:
        """Return the site's term, summed over all rows. `term`: as it would be otherwise."""
        over = tuple(range(self.left.ndim))
        weighted = self.rows * self.weight[..., None]
        sums = [
            (self.weight * self.left**2).sum(),
            self.weight.sum(),
            (weighted * self.left[..., None]).sum(over),
            jnp.tensordot(weighted, self.rows, (over, over), precision=EXACT),
        ]
        once = (1,) * len(term.elements)
        statistics = [Statistic(_on_all(total, once)) for total in sums]
        return self._with(term, _naturals_of_all, (0, 0, 1, 2), statistics)

    def of_elements(self, term: Term, coefficients: Named, shape: tuple[int, ...]) -> Term:
        """Return the site's interaction with a Gaussian latent, summed by its elements.

        `term`: as it would be otherwise; `coefficients`: R; `shape`: of the latent's elements.
        """
        own = _dense(coefficients, term.elements)
        weighted = own * self.weight[..., None]
        parts = [
            weighted * self.left[..., None],
            self.rows[..., :, None] * weighted[..., None, :],
            own[..., :, None] * weighted[..., None, :],
        ]
        statistics = [Statistic(constant(part)) for part in parts]
        linear = Product((0,), True, (0,))
        products = (linear, linear, Product((0, 0), False, (0, 0)))
        whole = self._with(term, _naturals_of_elements, (0, 1, 0), statistics)
        return by_element(replace(whole, products=products), shape)

    def _with(
        self,
        term: Term,
        naturals: Callable,
        event_dims: tuple[int, ...],
        statistics: Sequence[Statistic],
    ) -> Term:
        assert term.family is not None
        family = replace(
            term.family,
            arguments={
                "weights": COEFFICIENTS,
                "reference": None,
                "scale": term.family.arguments["scale"],
            },
            naturals=naturals,
            event_dims=event_dims,
            centered=None,
        )
        tables = natural_tables(family, self.arguments, None, term.value, term.elements)
        return replace(
            term,
            family=family,
            arguments=self.arguments,
            statistics=precomputed(statistics),
            origin=None,
            naturals=tuple(map(of_shape, tables)),
        )


def _naturals_of_all(weights, reference, scale):
    (log_scale, precision), step = scale, weights[0] - reference
    square = step[..., :, None] * step[..., None, :]
    linear, curved = precision[..., None] * step, precision[..., None, None] * square
    return -0.5 * precision, -log_scale, linear, -0.5 * curved


def _naturals_of_elements(weights, reference, scale):
    precision, step = scale[1], weights[0] - reference
    return -precision, precision[..., None] * step, -0.5 * precision


def _least_squares(rows: Array, data: Array, weight: Array) -> Array:
    """Return where Σ w (y − X β)² is least; of several such places, one."""
    columns = rows.shape[-1]
    flat, weighted = rows.reshape(-1, columns), (rows * weight[..., None]).reshape(-1, columns)
    moments = jnp.matmul(weighted.T, flat, precision=EXACT)
    values, vectors = jnp.linalg.eigh(moments)
    is_seen = values > columns * jnp.finfo(values.dtype).eps * values.max()
    along = vectors.T @ jnp.matmul(weighted.T, data.reshape(-1), precision=EXACT)
    return vectors @ jnp.where(is_seen, along / jnp.where(is_seen, values, 1), 0)


def _dense(value: Named, elements: tuple[int, ...]) -> Array:
    """Return a value at every element, (elements…, event…)."""
    rank = len(elements)
    event = value.shape[rank:] if len(value.shape) > rank else ()
    array = without_rows(value.padded(rank + len(event))).array
    return jnp.broadcast_to(jnp.asarray(array), (*elements, *event))


def _on_all(array: Array, elements: tuple[int, ...]) -> Named:
    """Return what is the same at every element, (event…)."""
    rank = len(elements)
    return Named(array.reshape(*(1,) * rank, *array.shape), (*elements, *array.shape))
