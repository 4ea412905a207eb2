"""The factor graph of a traced program: terms ⟨η(θ), t(x)⟩ over named tables, and what is computed once.

`factor_graph` propagates the program's jaxpr, turns each site into a `Term`, and splits all arrays in two: those that
depend on data alone, computed once before the loop, and the tables of arguments, which depend on the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from jax.interpreters import partial_eval as pe

from emjax.families import PRIORS, Family, family_of
from emjax.jaxprs import rearranged, split_jaxpr
from emjax.named import Affine, Axis, Dense, Named, Root, constant, evaluate, full, spread, union, without_rows
from emjax.numerics import bounded_below
from emjax.program import Latent, Parameter, Program, Site, UnboundedLatent, latent_p
from emjax.wiring import Wire, wires
from emjax.propagate import MixedElements, _fit, _lookup, _without, lift, propagate, rank_padded, settle_rows


@dataclass(frozen=True)
class Slot:
    """Stands for an array that is known only when the program runs."""

    number: int
    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class Term:
    """One site's contribution Σ_i ⟨η_i, t_i⟩ to the complete-data log-likelihood.

    `arguments`: the named tables that the η_i are functions of (for a family None: the table of log-densities
    itself); `statistics`: the t_i, weighted by mask and multiplicity, summed along whatever no table needs;
    `base`: Σ log h(x), weighted likewise; `latent_axes`: the latents that it touches; `kept`: the axes of its
    elements along which they vary.
    """

    site: Site
    family: Family | None
    arguments: Mapping[str, Named]
    statistics: tuple[Named, ...]
    base: Named
    origin: Named | None
    value: Named
    latent_axes: tuple[Axis, ...]
    kept: tuple[int, ...]
    prior_arguments: Mapping[str, Named]


@dataclass(frozen=True, eq=False)
class FactorGraph:
    """Terms whose arrays are slots; `prepare(data)` and `arrays(params, constants)` fill them."""

    terms: tuple[Term, ...]
    latents: Mapping[str, Latent]
    scales: Mapping[str, Named]
    parameters: Mapping[str, Parameter]
    checks: tuple[tuple[str, Named], ...]
    joint: ClosedJaxpr
    known: ClosedJaxpr
    unknown: ClosedJaxpr
    names: tuple[str, ...]
    unused: tuple[str, ...]

    def prepare(self, data: Sequence, floor=0.0) -> list:
        """Return everything that depends on data alone. `floor`: the least multiplicity (see `posterior`)."""
        return jax.core.eval_jaxpr(self.known.jaxpr, self.known.consts, jnp.asarray(floor, jnp.result_type(float)), *data)

    def wires(self) -> dict[int, Wire]:
        """Return what each slot depends on; entries of all parameters are numbered in the order of `names`."""
        shapes = {name: self.parameters[name].shape for name in self.names}
        return dict(enumerate(wires(self.joint, self.offsets(), self.names, shapes)))

    def offsets(self) -> dict[str, int]:
        """Return the number of each parameter's first entry."""
        sizes = [math.prod(self.parameters[name].shape) for name in self.names]
        return dict(zip(self.names, np.cumsum([0, *sizes[:-1]]).tolist() if sizes else [], strict=True))

    def arrays(self, params: Mapping[str, Any], constants: Sequence) -> list:
        """Return the array of every slot."""
        values = [params[name] for name in self.names]
        return jax.core.eval_jaxpr(self.unknown.jaxpr, self.unknown.consts, *values, *constants)


def factor_graph(program: Program) -> FactorGraph:
    """Return the factor graph of a traced program, with tables over single latent elements where they suffice."""
    split: set[str] = set()
    while True:
        try:
            return _factor_graph(program, frozenset(split))
        except MixedElements as error:
            if error.latent in split:
                raise
            split.add(error.latent)


def _factor_graph(program: Program, split: frozenset[str]) -> FactorGraph:
    state: dict = {}
    names = sorted(program.parameters)
    depends = _depends_on_parameters(program)

    def describe(params, floor, data):
        inputs = [Named(p, tuple(p.shape)) for p in params] + [Named(d, tuple(d.shape)) for d in data]
        jaxpr = program.jaxpr.jaxpr
        needed = _needed_outputs(program, depends)
        jaxpr, used = pe.dce_jaxpr(jaxpr, [i in needed for i in range(len(jaxpr.outvars))], instantiate=True)
        consts = [constant(c) if np.size(c) <= 4096 else Named(jnp.asarray(c), tuple(np.shape(c))) for c in program.jaxpr.consts]
        found = iter(_Latents(program, split).propagate(jaxpr, consts, inputs))
        values = [next(found) if i in needed else None for i in range(len(depends))]
        builder = _Builder(program, values, depends, floor)
        state["graph"] = builder.graph()
        return builder.outputs

    abstract = [jax.ShapeDtypeStruct(program.parameters[name].shape, program.parameters[name].dtype) for name in names]
    data = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in program.jaxpr.jaxpr.invars[len(names):]]
    closed = jax.make_jaxpr(describe)(abstract, jax.ShapeDtypeStruct((), jnp.result_type(float)), data)
    known, unknown = split_jaxpr(closed, len(names))
    graph = state["graph"]
    return FactorGraph(joint=closed, known=known, unknown=unknown, names=tuple(names), parameters=program.parameters, **graph)


def chosen_family(site: Site, depends) -> Family | None:
    """Return the exponential family that a site is read as; None if its log-density is evaluated instead."""
    family = family_of(site.family, site.outputs["args"])
    if family is None or site.kind == "prior" or depends[site.outputs["value"]]:
        return None
    return None if any(depends[site.outputs["args"][name]] for name in family.given) else family


def _needed_outputs(program: Program, depends) -> set[int]:
    """Return which outputs of the traced program the factor graph reads."""
    needed: set[int] = set()
    for site in program.sites:
        family, args = chosen_family(site, depends), site.outputs["args"]
        names = (*family.arguments, *family.given) if family is not None else PRIORS[site.family].arguments if site.family in PRIORS and site.kind == "prior" else ()
        needed |= {args[name] for name in names if name in args}
        needed |= {site.outputs["value"], *site.outputs["masks"], site.outputs["scale"], site.outputs["gate"], site.outputs["valid"]}
        needed |= {site.outputs["log_prob"]} if family is None else set()
    return needed - {None}


class _Latents:
    """Propagation with the latents' named values in place of their symbols."""

    def __init__(self, program: Program, split: frozenset[str]):
        self.program, self.split = program, split

    def propagate(self, jaxpr, consts, inputs):
        """Run a jaxpr whose `latent` equations are turned into inputs."""
        eqns = [eqn for eqn in jaxpr.eqns if eqn.primitive is not latent_p]
        symbols = [eqn for eqn in jaxpr.eqns if eqn.primitive is latent_p]
        values = [self.value(self.program.latents[eqn.params["name"]]) for eqn in symbols]
        invars = [*jaxpr.constvars, *jaxpr.invars, *(eqn.outvars[0] for eqn in symbols)]
        opened = rearranged(jaxpr, constvars=[], invars=invars, eqns=eqns)
        return propagate(opened, [*consts, *inputs, *values])

    def value(self, latent: Latent) -> Named:
        rank, event = len(latent.shape), latent.support.shape[1:]
        size = latent.support.shape[0]
        if latent.name in self.split:
            return self.elements(latent)
        index = identity(latent.shape)
        index = Affine(0, index.strides + (0,) * len(event))
        array = latent.support.reshape((size,) + (1,) * rank + event)
        return Named(array, latent.shape + event, (Axis(latent.name, size, index),))

    def elements(self, latent: Latent) -> Named:
        """Return the latent's value with one axis for each element: where a primitive mixes them."""
        size, count = latent.support.shape[0], math.prod(latent.shape)
        total = size**count * count
        if total > 2**26:
            raise MemoryError(
                f"The program mixes the {count} elements of latent '{latent.name}', so that all {size}^{count} joint values must be "
                "enumerated, and that table would not fit in memory. Write the dependence element by element, or with fewer elements.")
        event = latent.support.shape[1:]
        grids = np.meshgrid(*[np.arange(size)] * count, indexing="ij") if count else []
        values = np.stack([latent.support[grid] for grid in grids], axis=count)
        values = values.reshape((size,) * count + latent.shape + event)
        rank = len(latent.shape) + len(event)
        axes = tuple(Axis(latent.name, size, Affine(i, (0,) * rank)) for i in range(count))
        return Named(values, latent.shape + event, axes)


def identity(shape: Sequence[int]) -> Affine:
    """Return the index that numbers the elements of an array in order."""
    strides = [math.prod(shape[d + 1:]) if size > 1 else 0 for d, size in enumerate(shape)]
    return Affine(0, tuple(strides))


def _depends_on_parameters(program: Program) -> list[frozenset[str]]:
    """Return, for each output of the traced program, the parameters that it depends on."""
    jaxpr = program.jaxpr.jaxpr
    names = sorted(program.parameters)
    found: dict = {var: frozenset({name}) for var, name in zip(jaxpr.invars, names, strict=False)}
    for eqn in jaxpr.eqns:
        sets = [found.get(v, frozenset()) for v in eqn.invars if not isinstance(v, Literal)]
        joint = frozenset().union(*sets)
        for var in eqn.outvars:
            found[var] = joint
    return [frozenset() if isinstance(v, Literal) else found.get(v, frozenset()) for v in jaxpr.outvars]


class _Builder:
    """Turn a program's named outputs into terms whose arrays are slots."""

    def __init__(self, program: Program, values: Sequence[Named | None], depends, floor):
        self.program, self.values, self.depends, self.floor = program, values, depends, floor
        self.outputs: list = []
        self.checks: list[tuple[str, Named]] = []
        self.scales: dict[str, Named] = {}

    def graph(self) -> dict:
        sites, unused = _relevant(self.program, self.values, self.depends)
        terms = []
        for site in sites:
            _check_support(site, self.program, self.values)
            terms.append(self.term(site))
            if site.kind == "latent":
                scale = self.scale(site)
                self.scales[site.name] = self.stored(scale)
        latents = {name: latent for name, latent in self.program.latents.items() if name in self.scales}
        return {"terms": tuple(terms), "latents": latents, "scales": self.scales, "checks": tuple(self.checks), "unused": unused}

    def output(self, number) -> Named | None:
        return None if number is None else self.values[number]

    def scale(self, site: Site) -> Named:
        scale = self.output(site.outputs["scale"])
        if scale is None:
            return constant(np.ones((1,) * len(site.elements)))
        scale = rank_padded(without_rows(scale), len(site.elements))
        return lift(lambda s: jnp.maximum(jnp.asarray(s, jnp.result_type(float)), self.floor), [scale], scale.shape)

    def weight(self, site: Site, rank_shape) -> tuple[Named, Named | None]:
        """Return the multiplicity of each element, and the mask (None: everything counts)."""
        masks = [self.output(number) for number in site.outputs["masks"]]
        gate = self.output(site.outputs["gate"])
        masks += [gate] if gate is not None else []
        mask = None
        for one in masks:
            one = rank_padded(one, len(rank_shape))
            mask = one if mask is None else lift(lambda a, b: jnp.logical_and(a, b), [mask, one], np.broadcast_shapes(mask.shape, one.shape))
        return self.scale(site), mask

    def term(self, site: Site) -> Term:
        value = self.output(site.outputs["value"])
        elements = np.broadcast_shapes(site.elements, value.shape[: len(value.shape) - len(site.event)])
        self.check_plates(site, value, elements)
        scale, mask = self.weight(site, elements)
        arguments = {name: self.values[number] for name, number in site.outputs["args"].items() if self.values[number] is not None}
        family = chosen_family(site, self.depends)
        if family is None:
            return self.generic_term(site, value, elements, scale, mask, arguments)
        given = {name: arguments[name] for name in family.given}
        used = {name: self.event_padded(site, name, arguments[name], len(elements)) for name in family.arguments}
        value = rank_padded(value, len(elements) + len(site.event))
        for argument in (*used.values(), *given.values(), value):
            for axis in argument.latent_axes:
                if any(axis.varies[len(elements):]):
                    raise MixedElements(axis.source, site.name)
        self.check_observed(site, value, mask)
        if family.lookup:
            statistics, base, origin = [constant(np.ones((1,) * len(elements)))], constant(np.zeros((1,) * len(elements))), None
        else:
            statistics, base, origin = self.statistics(site, family, value, given, used, elements, mask)
        statistics = [self.weighted(s, scale, mask, 0, len(elements), elements) for s in statistics]
        base = self.weighted(base, scale, mask, self.masked_base(site), len(elements), elements)
        return self.finished(site, family, used, statistics, base, origin, value, elements, arguments)

    def masked_base(self, site: Site) -> float:
        """A masked latent changes nothing: uniform over its support, it sums to one."""
        return -math.log(self.program.latents[site.name].support.shape[0]) if site.kind == "latent" else 0.0

    def event_padded(self, site: Site, name: str, argument: Named, rank: int) -> Named:
        event = site.arg_constraints[name].event_dim
        padded = rank_padded(argument, rank + event)
        return replace(padded, array=full(padded, range(rank, rank + event)))

    def statistics(self, site, family, value, given, used, elements, mask):
        """Return the sufficient statistics, log h(x) and the origin that locations are measured from."""
        event = len(site.event)
        origin = None
        kinds = jnp.result_type(float)

        def as_float(x):
            x = jnp.asarray(x)
            return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(kinds)

        def safe(x, m):
            m = jnp.reshape(m, m.shape + (1,) * event)
            return jnp.where(m, x, jnp.ones_like(x))

        if mask is not None and not value.latent_axes and not mask.latent_axes:
            widened = _event_unit(mask, event)
            value = lift(lambda x, m: jnp.where(m, x, jnp.ones_like(x)), [value, widened], np.broadcast_shapes(value.shape, widened.shape))
        value = lift_events(lambda x: (family.transform(as_float(x)),), [(value, event)], len(elements), (event,))[0]
        if family.centered and not value.latent_axes:
            origin = self.origin(value, used[family.centered], mask, elements, event)
        if origin is not None:
            centered = lift_events(lambda x, o: (x - o,), [(value, event), (origin, event)], len(elements), (event,))[0]
        else:
            centered = value
        pairs = [(given[name], site.arg_constraints[name].event_dim) for name in family.given]

        def statistics(x, *g):
            return tuple(jnp.asarray(t, kinds) for t in family.statistics(x, **dict(zip(family.given, g, strict=True))))

        def base(x, *g):
            return (jnp.asarray(family.base(x, **dict(zip(family.given, g, strict=True))), kinds),)

        shapes = [elements + self.stat_event(site, e) for e in family.event_dims]
        results = lift_events(statistics, [(centered, event), *pairs], len(elements), family.event_dims)
        results = [replace(r, shape=s) if len(r.shape) == len(s) else rank_padded(r, len(s)) for r, s in zip(results, shapes, strict=True)]
        results = [Named(r.array, s, _fit_axes(r.axes, len(s))) for r, s in zip(results, shapes, strict=True)]
        log_h = lift_events(base, [(value, event), *pairs], len(elements))[0]
        return results, Named(log_h.array, elements, log_h.axes), origin

    def stat_event(self, site: Site, event_dim: int) -> tuple[int, ...]:
        return site.event * event_dim if event_dim else ()

    def origin(self, value: Named, location: Named, mask, elements, event) -> Named:
        """Return the mean of the data along the axes that the location does not vary along."""
        rank = len(elements)
        dims = [d for d in range(rank) if location.compact[d] == 1]
        array = value.array
        if mask is None or mask.latent_axes:
            mean = array.mean(axis=tuple(dims), keepdims=True)
        else:
            weight = jnp.broadcast_to(jnp.asarray(_event_unit(mask, event).array, array.dtype), array.shape)
            mean = (array * weight).sum(tuple(dims), keepdims=True) / jnp.maximum(weight.sum(tuple(dims), keepdims=True), 1)
        mean = jnp.where(jnp.isfinite(mean), mean, 0)
        return Named(mean, value.shape)

    def weighted(self, statistic: Named, scale: Named, mask: Named | None, otherwise: float | int, rank: int, elements) -> Named:
        """Return mask · scale · statistic, with `otherwise` · scale where masked."""
        event = len(statistic.shape) - rank
        values = [statistic, _event_unit(scale, event)] + ([_event_unit(mask, event)] if mask is not None else [])
        shape = elements + statistic.shape[rank:]
        if len(values) == 2 and scale.is_static and (scale.array == 1).all():
            return replace(rank_padded(statistic, len(shape)), shape=shape)

        def combine(t, s, m=None):
            return (t if m is None else jnp.where(m, t, otherwise)) * s

        return lift(combine, values, shape)

    def generic_term(self, site, value, elements, scale, mask, arguments) -> Term:
        """A site whose log-density is its own natural parameter."""
        number = site.outputs["log_prob"]
        if number is None:
            raise ValueError(f"Site '{site.name}': {site.family.__name__} has no log-density that JAX can trace. Observe a distribution "
                             "that has a `log_prob`.")
        self.check_observed(site, rank_padded(value, len(elements) + len(site.event)), mask)
        table = rank_padded(self.values[number], len(elements))
        table = Named(table.array, elements, table.axes)
        ones = constant(np.ones((1,) * len(elements)))
        weight = self.weighted(replace(ones, shape=(1,) * len(elements)), scale, mask, 0, len(elements), elements)
        if mask is not None:
            table = lift(lambda t, m: jnp.where(m, t, 0), [table, mask], elements)
        zero = self.weighted(constant(np.zeros((1,) * len(elements))), scale, mask, self.masked_base(site), len(elements), elements)
        return self.finished(site, None, {"log_prob": table}, [weight], zero, None, value, elements, arguments)

    def finished(self, site, family, used, statistics, base, origin, value, elements, arguments) -> Term:
        rank = len(elements)
        naturals = natural_tables(family, used, origin, rank)
        if family is not None and family.lookup:
            naturals = [looked_up(naturals[0], value)]
        axes = union([*naturals, *statistics, base])
        latent_axes = tuple(axis for axis in axes if axis.is_latent)
        kept = tuple(d for d in range(rank) if any(axis.varies[d] for axis in latent_axes))
        latent_axes = tuple(replace(axis, index=_fit([axis], rank)[0].index) for axis in latent_axes)
        unique = tuple({axis.key: axis for axis in latent_axes}.values())
        reduced = tuple(self.stored(summed(s, n, kept, rank)) for s, n in zip(statistics, naturals, strict=True))
        zero = constant(np.zeros((1,) * rank))
        base = self.stored(summed(base, replace(zero, shape=elements), kept, rank))
        prior = PRIORS.get(site.family) if site.kind == "prior" else None
        return Term(site, family, {name: self.stored(a) for name, a in used.items()}, reduced, base,
                    None if origin is None else self.stored(origin), self.stored(value), self.stored_axes(unique), kept,
                    {name: self.stored(arguments[name]) for name in prior.arguments if name in arguments} if prior else {})

    def stored(self, value: Named) -> Named:
        """Return the value with slots in place of its traced arrays."""
        def slot(array):
            if isinstance(array, np.ndarray | np.generic | Slot):
                return array
            self.outputs.append(array)
            return Slot(len(self.outputs) - 1, tuple(array.shape), array.dtype)

        def index(index):
            return index if isinstance(index, Affine) else Dense(slot(index.array), index.root, index.taken)

        return Named(slot(value.array), value.shape, tuple(replace(a, index=index(a.index)) for a in value.axes), value.content)

    def stored_axes(self, axes: Sequence[Axis]) -> tuple[Axis, ...]:
        return self.stored(Named(np.zeros(()), (), tuple(axes))).axes

    # ── checks ──

    def check_plates(self, site: Site, value: Named, elements) -> None:
        latents = [axis.source for number in _read_by(site, self.values) for axis in self.values[number].latent_axes]
        if latents and tuple(elements) != tuple(site.elements) and site.kind == "observed":
            missing = elements[: len(elements) - len(site.elements)] or elements
            raise ValueError(
                f"Site '{site.name}': the observed value has shape {value.shape}, its distribution {tuple(site.elements) + tuple(site.event)}, so that one "
                f"latent '{latents[0]}' would serve every row. A plate is missing: put '{latents[0]}' and '{site.name}' inside\n"
                f"    with numpyro.plate('rows', {missing[0]}):")

    def check_observed(self, site: Site, value: Named, mask) -> None:
        if site.kind != "observed" or self.depends[site.outputs["value"]] or value.latent_axes:
            return
        event = len(site.event)

        def report(name, bad):
            if mask is not None and not mask.latent_axes:
                m = without_rows(mask)
                bad = lift(lambda b, k: jnp.logical_and(b, k), [bad, m], np.broadcast_shapes(bad.shape, m.shape))
            self.checks.append((name, self.stored(without_rows(bad))))

        number = site.outputs["valid"]
        if jnp.issubdtype(value.array.dtype, jnp.inexact):
            nan = lift(lambda x: jnp.isnan(x), [value], value.shape)
            if event:
                nan = Named(evaluate(lambda a: a.any(axis=tuple(range(-event, 0))), without_rows(nan).array), value.shape[: len(value.shape) - event])
            report(f"nan:{site.name}", nan)
        if number is not None and not self.depends[number] and not self.values[number].latent_axes:
            valid = self.values[number]
            if len(valid.shape) <= len(value.shape):
                report(f"support:{site.name}:{site.family.__name__}", lift(lambda v: jnp.logical_not(v), [valid], valid.shape))


def _event_unit(value: Named, event: int) -> Named:
    """Return the value with unit axes on the right, for event axes."""
    if event == 0:
        return value
    array = value.array.reshape(value.array.shape + (1,) * event)
    return Named(array, value.shape + (1,) * event, _fit_axes(value.axes, len(value.shape) + event))


def _fit_axes(axes, rank):
    return _fit(axes, rank)


def lift_events(function, pairs, rank: int, out_events: Sequence[int] = (0,)) -> list[Named]:
    """Apply a function elementwise over elements, with each value's last event axes visible to it.

    `pairs`: (value, number of event axes), whose other axes broadcast to `rank`; the function returns one array
    for each of `out_events`, of leading axes that broadcast with the rest.
    """
    values = [rank_padded(value, rank + event) for value, event in pairs]
    values = [replace(value, array=full(value, range(rank, rank + event))) for value, (_, event) in zip(values, pairs, strict=True)]
    elements = np.broadcast_shapes(*(value.shape[:rank] for value in values))
    heads = [Named(value.array.reshape(value.array.shape[: value.array.ndim - event] + (-1,))[..., 0] if event else value.array, value.shape[:rank],
                   _fit(value.axes, rank)) for value, (_, event) in zip(values, pairs, strict=True)]
    settled = settle_rows(heads, elements)
    if any(a is not b for a, b in zip(heads, settled, strict=True)) and any(h.row_axes for h in heads):
        values = [without_rows(value) for value in values]
    values = [Named(value.array, value.shape, _fit(value.axes, rank)) for value in values]
    axes = union(values)
    arrays = [spread(value, axes) for value in values]
    results = evaluate(function, *arrays)
    return [_trimmed(result, axes, elements, event) for result, event in zip(results, out_events, strict=True)]


def _trimmed(array, axes, elements, event: int) -> Named:
    """Name an array's leading axes, leaving out those along which it does not vary."""
    rank = len(axes) + len(elements) + event
    array = array.reshape((1,) * (rank - array.ndim) + tuple(array.shape))
    kept = [i for i, axis in enumerate(axes) if array.shape[i] == axis.size]
    array = array.reshape([array.shape[i] for i in kept] + list(array.shape[len(axes):]))
    kept_axes = tuple(replace(axes[i], index=_fit([axes[i]], len(elements) + event)[0].index) for i in kept)
    shape = tuple(elements) + tuple(array.shape[array.ndim - event:] if event else ())
    return Named(array, shape, kept_axes)


def natural_tables(family: Family | None, arguments: Mapping[str, Named], origin: Named | None, rank: int,
                   instead: Features | None = None) -> list[Named]:
    """Return the natural-parameter tables η_i of a term; `instead` replaces the features of one argument."""
    if family is None:
        (table,) = arguments.values()
        return [Named(evaluate(bounded_below, table.array), table.shape, table.axes)]
    names = list(family.arguments)
    pairs = [(arguments[name], len(arguments[name].shape) - rank) for name in names]
    if family.centered:
        event = len(arguments[family.centered].shape) - rank
        pairs.append((origin if origin is not None else constant(np.zeros((1,) * (rank + event))), event))
    if instead is not None:
        table = arguments[instead.argument]
        pairs.append((Named(instead.rows, table.shape[:rank], _fit(table.axes, rank)), 0))

    def naturals(*arrays):
        inputs = {}
        for name, array in zip(names, arrays, strict=False):
            form = family.arguments[name]
            reference = arrays[len(names)] if name == family.centered else None
            inputs[name] = array if form is None else form.features(array, reference)
            if instead is not None and name == instead.argument:
                inputs[name] = instead.replaced(inputs[name], arrays[-1])
        return family.naturals(**inputs)

    return lift_events(naturals, pairs, rank, family.event_dims)


@dataclass(frozen=True, eq=False)
class Features:
    """Features for the cells of one argument's table: `replaced(features, rows)`, where `rows` says which entry of a
    parameter each cell reads (−1: none)."""

    argument: str
    rows: np.ndarray
    replaced: Callable


def looked_up(table: Named, value: Named) -> Named:
    """Return table[…, value]: the log-probability of a category at every element."""
    rank = len(table.shape) - 1
    elements = np.broadcast_shapes(table.shape[:-1], value.shape)
    table = Named(table.array, elements + table.shape[-1:], table.axes)
    numbers = _Numbers(tuple(range(rank)), rank)
    return _lookup(table, {rank: rank_padded(value, rank)}, numbers, elements)


@dataclass(frozen=True)
class _Numbers:
    """The dimension numbers of a lookup along the last axis."""

    operand_batching_dims: tuple[int, ...]
    rank: int
    offset_dims: tuple[int, ...] = ()

    @property
    def collapsed_slice_dims(self):
        return (self.rank,)

    @property
    def start_indices_batching_dims(self):
        return self.operand_batching_dims


def summed(statistic: Named, natural: Named, kept: Sequence[int], rank: int) -> Named:
    """Sum a statistic along the axes that neither the latents nor its natural parameter vary along."""
    rows = [axis.varies for axis in (*natural.row_axes, *statistic.row_axes)]
    dims = [d for d in range(rank) if d not in kept and natural.compact[d] == 1 and not any(varies[d] for varies in rows)]
    lead = len(statistic.axes)
    times = math.prod(statistic.shape[d] for d in dims if statistic.compact[d] == 1)
    over = tuple(lead + d for d in dims if statistic.compact[d] > 1)
    array = evaluate(lambda a: a.sum(axis=over, keepdims=True) * times, statistic.array) if over or times != 1 else statistic.array
    shape = tuple(1 if d in dims else s for d, s in enumerate(statistic.shape))
    return Named(array, shape, statistic.axes)


def filled(value: Named, arrays: Sequence) -> Named:
    """Return the value with the arrays of its slots."""
    def fill(array):
        return arrays[array.number] if isinstance(array, Slot) else array

    def index(index):
        return index if isinstance(index, Affine) else Dense(fill(index.array), index.root, index.taken)

    return Named(fill(value.array), value.shape, tuple(replace(axis, index=index(axis.index)) for axis in value.axes), value.root)


def filled_axis(axis: Axis, arrays) -> Axis:
    index = axis.index
    if isinstance(index, Dense) and isinstance(index.array, Slot):
        return replace(axis, index=Dense(arrays[index.array.number], index.root, index.taken))
    return axis


def _read_by(site: Site, values) -> list[int]:
    """Return the outputs that a site's log-density reads: its arguments, or the log-density itself."""
    numbers = [*site.outputs["args"].values(), site.outputs["log_prob"]]
    return [number for number in numbers if number is not None and values[number] is not None]


def _relevant(program: Program, values, depends) -> tuple[list[Site], tuple[str, ...]]:
    """Return the sites that matter, and the continuous latents that nothing depends on (they integrate to one)."""
    used_latents: set[str] = set()
    used_params: set[str] = set()
    for site in program.sites:
        numbers = _read_by(site, values)
        reads = frozenset().union(*(depends[n] for n in numbers)) if numbers else frozenset()
        used_params |= reads - ({site.name} if site.kind == "prior" else set())
        touched = {axis.source for n in [*numbers, site.outputs["value"]] for axis in values[n].latent_axes}
        used_latents |= touched - ({site.name} if site.kind == "latent" else set())
    unused = tuple(sorted(name for name, p in program.parameters.items() if p.is_prior and name not in used_params))
    sites = []
    for site in program.sites:
        if site.kind == "prior" and site.name in unused:
            continue
        latent = program.latents.get(site.name)
        if isinstance(latent, UnboundedLatent):
            if site.name in used_latents:
                raise ValueError(latent.message)
            continue
        sites.append(site)
    return sites, unused


def _check_support(site: Site, program: Program, values) -> None:
    for number in _read_by(site, values):
        for axis in values[number].latent_axes:
            if isinstance(program.latents.get(axis.source), UnboundedLatent):
                raise ValueError(program.latents[axis.source].message)


__all__ = ["FactorGraph", "Term", "factor_graph", "filled", "natural_tables", "looked_up", "full", "Root", "_without", "filled_axis"]
