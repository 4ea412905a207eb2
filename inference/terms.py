"""Turn a traced program into a factor graph: each site into a term, each array into a slot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Var
from jax.interpreters import partial_eval as pe

from emjax.families import PRIORS, Family, Prior, family_of
from emjax.graph import (
    Check,
    FactorGraph,
    Slot,
    Term,
    natural_tables,
    read_at,
)
from emjax.jaxprs import dependencies, split_jaxpr
from emjax.lifting import lift, lift_events
from emjax.lookup import MixedElements, Reach
from emjax.named import (
    Dense,
    Named,
    constant,
    evaluate,
    full,
    union,
    without_rows,
)
from emjax.numerics import LOG_ZERO
from emjax.program import Program, Site, UnboundedLatent
from emjax.symbols import propagated

# constants of the program up to this size take part in propagation as known values, larger ones as data
LARGEST_KNOWN = 4096


def factor_graph(program: Program) -> FactorGraph:
    """Return the factor graph of a traced program: tables over single elements of the latents wherever they suffice.

    Errors: `ValueError` for an unbounded latent or a missing plate, `MemoryError` for elements that the program mixes
    and that are too many to enumerate jointly, `IndexError` for a lookup that is out of range.
    """
    split: set[str] = set()
    while True:
        try:
            return _factor_graph(program, split)
        except MixedElements as error:
            if error.latent in split:
                raise
            split.add(error.latent)


def _factor_graph(program: Program, split: set[str]) -> FactorGraph:
    state: dict = {}
    names = sorted(program.parameters)
    depends = _depends_on_parameters(program)
    needed = _needed_outputs(program, depends)

    def describe(params, floor, data):
        jaxpr = program.jaxpr.jaxpr
        jaxpr, _ = pe.dce_jaxpr(jaxpr, [i in needed for i in range(len(jaxpr.outvars))], instantiate=True)
        consts = [constant(c) if np.size(c) <= LARGEST_KNOWN else Named(jnp.asarray(c), tuple(np.shape(c))) for c in program.jaxpr.consts]
        inputs = [Named(x, tuple(x.shape)) for x in (*params, *data)]
        values, reached = propagated(program, jaxpr, split, [*consts, *inputs])
        found = iter(values)
        builder = _Builder(program, [next(found) if i in needed else None for i in range(len(depends))], depends, reached, floor)
        state["graph"] = builder.graph()
        return builder.outputs

    abstract = [jax.ShapeDtypeStruct(program.parameters[name].shape, program.parameters[name].dtype) for name in names]
    data = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in program.jaxpr.jaxpr.invars[len(names):]]
    joint = jax.make_jaxpr(describe)(abstract, jax.ShapeDtypeStruct((), jnp.result_type(float)), data)
    known, unknown = split_jaxpr(joint, len(names))
    return FactorGraph(parameters=program.parameters, joint=joint, known=known, unknown=unknown, **state["graph"])


def _depends_on_parameters(program: Program) -> list[frozenset[str]]:
    """Return, for each output of the traced program, the parameters that it depends on."""
    jaxpr = program.jaxpr.jaxpr
    found = dependencies(jaxpr, dict(zip(jaxpr.invars, sorted(program.parameters), strict=False)))
    return [frozenset() if isinstance(v, Literal) else found.get(v, frozenset()) for v in jaxpr.outvars]


def chosen_family(site: Site, depends) -> Family | None:
    """Return the exponential family that a site is read as; None if its log-density is evaluated instead."""
    family = family_of(site.family, site.outputs["args"])
    if family is None or site.kind == "prior":
        return None
    # what statistics are computed of must not move with the parameters
    fixed = [site.outputs["value"], *site.outputs["masks"], site.outputs["gate"], *(site.outputs["args"][name] for name in family.given)]
    return None if any(depends[number] for number in fixed if number is not None) else family


def written_prior(site: Site) -> Prior | None:
    """Return the prior whose density emjax writes itself: 0 · log 0 is 0 in it, and NaN in NumPyro's."""
    prior = PRIORS.get(site.family) if site.kind == "prior" else None
    return prior if prior is not None and prior.log_constant is not None and set(prior.arguments) <= set(site.outputs["args"]) else None


def _needed_outputs(program: Program, depends) -> set[int]:
    """Return which outputs of the traced program the factor graph reads."""
    needed: set = set()
    for site in program.sites:
        family, outputs = chosen_family(site, depends), site.outputs
        prior = PRIORS.get(site.family) if site.kind == "prior" else None
        names = (*family.arguments, *family.given) if family is not None else prior.arguments if prior is not None else ()
        needed |= {outputs["args"][name] for name in names if name in outputs["args"]}
        needed |= {outputs["value"], *outputs["masks"], outputs["scale"], outputs["gate"], outputs["unchosen"], outputs["valid"]}
        needed |= {outputs["log_prob"]} if family is None else set()
    return needed - {None}


# ── sites ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _Weight:
    """How often each element of a site counts: its multiplicity, and a mask (None: all of them)."""

    scale: Named
    mask: Named | None

    def applied(self, statistic: Named, elements: tuple[int, ...], otherwise: float | int = 0) -> Named:
        """Return mask · scale · statistic, with `otherwise` · scale where masked."""
        rank = len(elements)
        event = len(statistic.shape) - rank
        shape = elements + statistic.shape[rank:]
        if self.mask is None and self.scale.is_static and (self.scale.array == 1).all():
            return replace(statistic, shape=shape)
        masks = [] if self.mask is None else [self.mask.with_event(event)]
        return lift(lambda t, s, *m: (jnp.where(m[0], t, otherwise) if m else t) * s, [statistic, self.scale.with_event(event), *masks], shape)

    @property
    def data_mask(self) -> Named | None:
        """The mask, if no latent takes part in it."""
        return None if self.mask is None or self.mask.latent_axes else self.mask


class _Builder:
    """Builds the terms of a program from its named outputs (None where nothing reads them)."""

    def __init__(self, program: Program, values: Sequence[Named | None], depends, reached: Mapping[Var, Sequence[Reach]], floor):
        self.program, self.values, self.depends, self.reached, self.floor = program, values, depends, reached, floor
        self.outputs: list = []
        self.checks: list[Check] = []
        self.multiplicities: dict = {}

    def graph(self) -> dict:
        """Return the fields of the factor graph that the program's sites determine."""
        sites, unused = self.relevant_sites()
        self.check_indices(sites)
        terms = tuple(self.term(site) for site in sites)
        latents = {site.name: self.program.latents[site.name] for site in sites if site.kind == "latent"}
        scales = {site.name: self.stored(self.scale(site)) for site in sites if site.kind == "latent"}
        return {"terms": terms, "latents": latents, "scales": scales, "checks": tuple(self.checks), "unused": unused}

    def relevant_sites(self) -> tuple[list[Site], tuple[str, ...]]:
        """Return the sites that matter, and the continuous latents that no observation depends on: these integrate to one."""
        read: dict[str, set[str]] = {}
        for site in self.program.sites:
            read.setdefault(site.name, set()).update(self.reads(site))
        needed, new = set(), {site.name for site in self.program.sites if site.kind == "observed"}
        while new:
            needed |= new
            new = set().union(*(read[name] for name in new if name in read)) - needed
        unused = {name for name, p in self.program.parameters.items() if p.is_prior and name not in needed}
        unbounded = {name: latent for name, latent in self.program.latents.items() if isinstance(latent, UnboundedLatent)}
        sites = [site for site in self.program.sites if site.name not in unused and site.name not in unbounded]
        for name in sorted(set(unbounded) & set().union(*(read[site.name] for site in sites))):
            raise ValueError(unbounded[name].message)
        return sites, tuple(sorted(unused))

    def reads(self, site: Site) -> set[str]:
        """Return the latents and parameters that a site's contribution depends on, itself aside."""
        numbers = self.outputs_of(site)
        latents = {axis.source for number in numbers for axis in self.values[number].latent_axes}
        return latents.union(*(self.depends[number] for number in numbers)) - {site.name}

    def outputs_of(self, site: Site) -> list[int]:
        """Return all outputs that a site's contribution depends on."""
        return [*self.read_by(site), site.outputs["value"], *([] if site.outputs["scale"] is None else [site.outputs["scale"]])]

    def read_by(self, site: Site) -> list[int]:
        """Return the outputs that a site's distribution consists of: its arguments or its log-density, its masks, its gate."""
        numbers = [*site.outputs["args"].values(), site.outputs["log_prob"], *site.outputs["masks"], site.outputs["gate"]]
        return [number for number in numbers if number is not None and self.values[number] is not None]

    def scale(self, site: Site) -> Named:
        number = site.outputs["scale"]
        if number is None:
            return constant(np.ones((1,) * len(site.elements)))
        if self.depends[number] or self.values[number].latent_axes:
            raise ValueError(f"Site '{site.name}': its multiplicity depends on a parameter or a latent. Give `handlers.scale` numbers or data.")
        scale = without_rows(self.values[number]).padded(len(site.elements))
        key = (scale.content, scale.compact)
        if key not in self.multiplicities:  # equal multiplicities are one value, so that they are known to be equal
            self.multiplicities[key] = lift(lambda s: jnp.maximum(jnp.asarray(s, jnp.result_type(float)), self.floor), [scale], scale.shape)
        return self.multiplicities[key]

    def weight(self, site: Site, rank: int) -> _Weight:
        numbers = [*site.outputs["masks"], *([site.outputs["gate"]] if site.outputs["gate"] is not None else [])]
        mask = self.all_of(numbers, rank)
        return _Weight(self.scale(site).padded(rank), mask)

    def all_of(self, numbers: Sequence[int], rank: int) -> Named | None:
        """Return where all of some outputs are true; None if there are none of them."""
        joint = None
        for one in (self.values[number].padded(rank) for number in numbers):
            joint = one if joint is None else lift(jnp.logical_and, [joint, one], np.broadcast_shapes(joint.shape, one.shape))
        return joint

    def term(self, site: Site) -> Term:
        event = len(site.event)
        value = self.values[site.outputs["value"]]
        try:
            elements = tuple(np.broadcast_shapes(site.elements, value.shape[: len(value.shape) - event]))
        except ValueError as error:
            raise ValueError(f"Site '{site.name}': the value has shape {value.shape}, its distribution {site.elements + site.event}. Give the plate the "
                             "size of the data, or reshape the data.") from error
        rank = len(elements)
        value, weight = value.padded(rank + event), self.weight(site, rank)
        self.check_plates(site, value, elements)
        self.check_observed(site, value, weight.data_mask)
        self.check_choice(site, rank)
        family, origin = chosen_family(site, self.depends), None
        ones, zeros = (constant(x((1,) * rank)) for x in (np.ones, np.zeros))
        possible = self.possible(site, rank)
        if family is None:
            arguments, statistics, base = {"log_prob": self.log_density(site, elements, weight, possible)}, [ones], zeros
            weight = weight if site.kind == "latent" else _Weight(weight.scale, None)  # masked cells are zeros already
        else:
            arguments = {name: self.argument(site, name, rank) for name in family.arguments}
            self.check_elements(site, rank, [*arguments.values(), *(self.argument(site, name, rank) for name in family.given), value])
            statistics, base = [ones], zeros
            if not family.lookup:
                statistics, base, origin = self.sufficient(site, family, value, arguments, elements, weight, possible)
            elif site.kind == "observed":
                value, statistics, base = _categories(value, weight.data_mask, possible, elements)
        # a masked latent changes nothing: uniform over its support, it sums to one
        absent = -math.log(self.program.latents[site.name].support.shape[0]) if site.kind == "latent" else 0
        statistics = [weight.applied(s, elements) for s in statistics]
        return self.finished(site, family, arguments, statistics, weight.applied(base, elements, absent), origin, value, elements)

    def argument(self, site: Site, name: str, rank: int) -> Named:
        """Return an argument with its event axes at their full length."""
        event = site.arg_constraints[name].event_dim
        padded = self.values[site.outputs["args"][name]].padded(rank + event)
        return replace(padded, array=full(padded, range(rank, rank + event)))

    def possible(self, site: Site, rank: int) -> Named | None:
        """Return where an observation is in the support, if that depends on parameters or on latents (None: everywhere).

        NumPyro's distributions evaluate their formula outside the support, too.
        """
        number = site.outputs["valid"]
        if number is None or not (self.depends[number] or self.values[number].latent_axes or site.outputs["gate"] is not None):
            return None
        return self.values[number].padded(rank)

    def log_density(self, site: Site, elements, weight: _Weight, possible: Named | None) -> Named:
        """Return a site's log-density as the program's distribution computes it, zero where masked."""
        number = site.outputs["log_prob"]
        if number is None:
            raise ValueError(f"Site '{site.name}': {site.family.__name__} has no `log_prob` that JAX can trace. Use a distribution that has one.")
        table = replace(self.values[number].padded(len(elements)), shape=elements)
        if (prior := written_prior(site)) is not None:
            table = self.prior_density(site, prior, elements)
        if possible is not None:
            table = lift(lambda t, p: jnp.where(p, t, LOG_ZERO), [table, possible], elements)
        return table if weight.mask is None else lift(lambda t, m: jnp.where(m, t, 0), [table, weight.mask], elements)

    def prior_density(self, site: Site, prior: Prior, elements) -> Named:
        """Return log p(θ) from the features of θ in which it is linear."""
        rank, event = len(elements), len(site.event)
        pairs = [(self.argument(site, name, rank), site.arg_constraints[name].event_dim) for name in prior.arguments]

        def density(value, *arrays):
            arguments = dict(zip(prior.arguments, arrays, strict=True))
            return (prior.log_density(prior.form.features(value), **arguments) + prior.log_constant(**arguments),)

        (table,) = lift_events(density, [(self.values[site.outputs["value"]].padded(rank + event), event), *pairs], rank)
        return replace(table, shape=elements)

    def sufficient(self, site: Site, family: Family, value: Named, arguments, elements, weight: _Weight, possible: Named | None):
        """Return the sufficient statistics, log h(x) and the origin that locations are measured from."""
        event, rank, number = len(site.event), len(elements), jnp.result_type(float)
        given = [(self.argument(site, name, rank), site.arg_constraints[name].event_dim) for name in family.given]
        mask = weight.data_mask
        if mask is not None and not value.latent_axes:  # what is masked may be anything, NaN included
            wide = mask.with_event(event)
            value = lift(lambda x, m: jnp.where(m, x, jnp.ones_like(x)), [value, wide], np.broadcast_shapes(value.shape, wide.shape))

        def transformed(x):
            x = jnp.asarray(x)
            return (family.transform(x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(number)),)

        (value,) = lift_events(transformed, [(value, event)], rank, (event,))
        origin = self.origin(value, arguments[family.centered], mask, rank, event) if family.centered and not value.latent_axes else None
        centered = value
        if origin is not None:
            (centered,) = lift_events(lambda x, o: (x - o,), [(value, event), (origin, event)], rank, (event,))

        def arrays(function):
            return lambda x, *g: tuple(jnp.asarray(t, number) for t in function(x, **dict(zip(family.given, g, strict=True))))

        def log_base(x, **g):
            return (family.base(x, **g),)

        statistics = lift_events(arrays(family.statistics), [(centered, event), *given], rank, family.event_dims)
        (base,) = lift_events(arrays(log_base), [(value, event), *given], rank)
        if possible is not None:
            statistics = [lift(lambda t, p: jnp.where(p, t, 0), [s, possible.with_event(e)], elements + s.shape[rank:])
                          for s, e in zip(statistics, family.event_dims, strict=True)]
            base = lift(lambda b, p: jnp.where(p, b, LOG_ZERO), [base, possible], elements)
        statistics = [replace(s, shape=elements + site.event * (1 if e else 0) * e) for s, e in zip(statistics, family.event_dims, strict=True)]
        return statistics, replace(base, shape=elements), origin

    def origin(self, value: Named, location: Named, mask: Named | None, rank: int, event: int) -> Named:
        """Return the mean of the data along the axes that the location does not vary along."""
        dims = tuple(d for d in range(rank) if location.compact[d] == 1)
        weight = jnp.ones((1,) * (rank + event)) if mask is None else jnp.asarray(without_rows(mask).with_event(event).array, value.array.dtype)
        weight = jnp.broadcast_to(weight, value.array.shape)
        mean = (value.array * weight).sum(dims, keepdims=True) / jnp.maximum(weight.sum(dims, keepdims=True), 1)
        return Named(jnp.where(jnp.isfinite(mean), mean, 0), value.shape)

    def finished(self, site: Site, family, arguments, statistics, base, origin, value, elements) -> Term:
        """Sum what no table needs, and put slots in place of arrays."""
        rank = len(elements)
        naturals = natural_tables(family, arguments, origin, rank)
        own_axes = tuple(table.axes for table in naturals)
        if family is not None and family.lookup:
            naturals = [read_at(naturals[0], value, elements)]
        touched = tuple(axis.fitted(rank) for axis in union([*naturals, *statistics, base]) if axis.is_latent)
        latent_axes = tuple({axis.key: axis for axis in touched}.values())
        kept = tuple(d for d in range(rank) if any(axis.varies[d] for axis in latent_axes))
        reduced = [_summed(s, n, kept, rank) for s, n in zip(statistics, naturals, strict=True)]
        base = _summed(base, replace(constant(np.zeros((1,) * rank)), shape=elements), kept, rank)
        prior = PRIORS.get(site.family) if site.kind == "prior" else None
        priors = {name: self.values[site.outputs["args"][name]] for name in (prior.arguments if prior else ()) if name in site.outputs["args"]}
        return Term(site, family, elements, self.stored_all(arguments), tuple(map(self.stored, reduced)), self.stored(base),
                    None if origin is None else self.stored(origin), self.stored(value), self.stored(Named(np.zeros(()), (), latent_axes)).axes, own_axes, kept,
                    self.stored_all(priors))

    def stored_all(self, values) -> dict[str, Named]:
        return {name: self.stored(value) for name, value in values.items()}

    def stored(self, value: Named) -> Named:
        """Return the value with slots in place of its traced arrays."""
        def slot(array):
            if isinstance(array, np.ndarray | np.generic):
                return array
            self.outputs.append(array)
            return Slot(len(self.outputs) - 1, tuple(array.shape), array.dtype)

        axes = tuple(replace(a, index=a.index.with_arrays(slot) if isinstance(a.index, Dense) else a.index) for a in value.axes)
        return Named(slot(value.array), value.shape, axes, value.content)

    # ── checks ──

    def record(self, kind: str, site: Site, what: str, bad: Named) -> None:
        """Record what must not be true of any element (`numpyro.factor` has none)."""
        if math.prod(bad.shape):
            self.checks.append(Check(kind, site.name, what, self.stored(bad)))

    def check_plates(self, site: Site, value: Named, elements) -> None:
        """Raise `ValueError` where an observation has more rows than the latents that its distribution reads."""
        latents = [axis.source for number in self.read_by(site) for axis in self.values[number].latent_axes]
        if site.kind == "observed" and latents and elements != site.elements:
            missing = elements[: len(elements) - len(site.elements)] or elements
            raise ValueError(
                f"Site '{site.name}': the observed value has shape {value.shape}, its distribution {site.elements + site.event}, so that one latent "
                f"'{latents[0]}' would serve every row. A plate is missing: put '{latents[0]}' and '{site.name}' inside\n"
                f"    with numpyro.plate('rows', {missing[0]}):")

    def check_elements(self, site: Site, rank: int, values) -> None:
        """Raise `MixedElements` where one event reads several elements of a latent."""
        for axis in (axis for value in values for axis in value.latent_axes):
            if any(axis.varies[rank:]):
                raise MixedElements(axis.source, site.name)

    def check_indices(self, sites: Sequence[Site]) -> None:
        """Record where indices that data give are out of range, under the first site that reads what they look up."""
        jaxpr = self.program.jaxpr.jaxpr
        parameters = dependencies(jaxpr, dict(zip(jaxpr.invars, sorted(self.program.parameters), strict=False)))
        lookups = dependencies(jaxpr, {var: var for var in self.reached})
        recorded: set = set()
        for site in sites:
            atoms = [jaxpr.outvars[number] for number in self.outputs_of(site)]
            read = set().union(*(lookups.get(atom, ()) for atom in atoms if not isinstance(atom, Literal)))
            for found in [found for var, several in self.reached.items() if var in read for found in several if found not in recorded]:
                recorded.add(found)
                if not any(parameters.get(index) for index in found.indices if not isinstance(index, Literal)):
                    self.record("index", site, found.what, found.bad)

    def check_observed(self, site: Site, value: Named, mask: Named | None) -> None:
        """Record where an observation is NaN or outside the support, to be looked at before the loop."""
        number = site.outputs["valid"]
        if site.kind != "observed" or self.depends[site.outputs["value"]] or value.latent_axes:
            return
        found = []
        if jnp.issubdtype(value.array.dtype, jnp.inexact):
            nan = evaluate(lambda a: jnp.isnan(a).any(axis=tuple(range(a.ndim - len(site.event), a.ndim))), without_rows(value).array)
            found.append(("nan", Named(nan, value.shape[: len(value.shape) - len(site.event)])))
        if number is not None and self.possible(site, len(self.values[number].shape)) is None:
            valid = without_rows(self.values[number])
            found.append(("support", replace(valid, array=evaluate(jnp.logical_not, valid.array))))
        for kind, bad in found:
            self.record(kind, site, site.family.__name__, _counted(bad, mask))

    def check_choice(self, site: Site, rank: int) -> None:
        """Raise `ValueError`, or record it where data decide, where the index of a `Select` chooses none of its components."""
        number = site.outputs["unchosen"]
        if number is None or self.depends[number]:
            return
        bad = without_rows(self.values[number])
        latents = ", ".join(f"'{axis.source}'" for axis in bad.axes)
        mask = self.all_of(site.outputs["masks"], rank)
        bad = Named(bad.array.any(axis=tuple(range(len(bad.axes)))), bad.shape)
        bad = _counted(bad, mask if mask is None or not mask.latent_axes else None)
        if not bad.is_static:
            self.record("index", site, "it chooses none of the components of Select", bad)
        elif bad.array.any():
            raise ValueError(f"Site '{site.name}': the index of Select{f', latent {latents},' if latents else ''} takes values that choose none of its components. "
                             "Indices run from 0: give Select a component for every value.")


def _categories(value: Named, mask: Named | None, possible: Named | None, elements):
    """Return categories that exist (0 where one is masked or does not), how often each counts, and log h: whether it exists."""
    rank = len(elements)
    for exists in (mask, possible):
        if exists is not None:
            value = lift(lambda x, e: jnp.where(e, x, 0), [value, exists], elements)
    if possible is None:
        return value, [constant(np.ones((1,) * rank))], constant(np.zeros((1,) * rank))
    return value, [lift(lambda p: jnp.where(p, 1.0, 0.0), [possible], elements)], lift(lambda p: jnp.where(p, 0.0, LOG_ZERO), [possible], elements)


def _counted(bad: Named, mask: Named | None) -> Named:
    """Return what is bad and not masked."""
    if mask is None:
        return bad
    rank = max(len(bad.shape), len(mask.shape))
    bad, own = bad.padded(rank), without_rows(mask).padded(rank)
    return lift(jnp.logical_and, [bad, own], np.broadcast_shapes(bad.shape, own.shape))


def _summed(statistic: Named, natural: Named, kept: Sequence[int], rank: int) -> Named:
    """Sum a statistic along the axes that neither the latents nor its natural parameter vary along."""
    rows = [axis.varies for axis in (*natural.row_axes, *statistic.row_axes)]
    dims = [d for d in range(rank) if d not in kept and natural.compact[d] == 1 and not any(varies[d] for varies in rows)]
    times = math.prod(statistic.shape[d] for d in dims if statistic.compact[d] == 1)
    over = tuple(len(statistic.axes) + d for d in dims if statistic.compact[d] > 1)
    array = evaluate(lambda a: a.sum(axis=over, keepdims=True) * times, statistic.array) if over or times != 1 else statistic.array
    return Named(array, tuple(1 if d in dims else s for d, s in enumerate(statistic.shape)), statistic.axes)
