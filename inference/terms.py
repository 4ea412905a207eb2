"""Turn a traced program into a factor graph: each site into a term, each array into a slot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

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
    identity,
    natural_tables,
)
from emjax.jaxprs import dependencies, split_jaxpr
from emjax.lifting import lift, lift_events
from emjax.lookup import MixedElements, Reach
from emjax.named import (
    Affine,
    Axis,
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
from emjax.statistics import (
    Statistic,
    Statistics,
    Weight,
    computed_once,
    is_cheap,
    masked_data,
    mean_of,
    sufficient,
    summed,
    summed_dims,
    transformed,
)
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

    def weight(self, site: Site, rank: int) -> Weight:
        numbers = [*site.outputs["masks"], *([site.outputs["gate"]] if site.outputs["gate"] is not None else [])]
        return Weight(self.scale(site).padded(rank), self.all_of(numbers, rank))

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
        family, possible = chosen_family(site, self.depends), self.possible(site, rank)
        origin, base, counts = None, constant(np.zeros((1,) * rank)), constant(np.ones((1,) * rank))
        if family is None:
            arguments = {"log_prob": self.log_density(site, elements, weight, possible)}
            weight = weight if site.kind == "latent" else Weight(weight.scale, None)  # masked cells are zeros already
        else:
            arguments = {name: self.argument(site, name, rank) for name in family.arguments}
            self.check_elements(site, rank, [*arguments.values(), *(self.argument(site, name, rank) for name in family.given), value])
        masks = [part for part in (weight.mask, possible) if part is not None]
        if family is not None and family.lookup and site.kind == "observed":
            value, counts, base = _categories(value, weight.data_mask, possible, elements)
        elif family is not None and not family.lookup:
            data = transformed(family, masked_data(value, weight.data_mask, event), rank, event)
            if family.centered and not value.latent_axes:
                origin = mean_of(data, arguments[family.centered], weight.data_mask, rank, event)
            base = self.log_base(site, family, data, possible, elements)
        naturals = natural_tables(family, arguments, origin, value, elements)
        given = [] if family is None else [v for v, _ in self.given(site, family, rank).values()]
        read = [*naturals, *masks, *given, *([] if family is None or family.lookup else [value])]
        per_copy = self.counts_copies(weight.scale, [axis.fitted(rank) for axis in union(read) if axis.is_latent])
        in_copy = replace(weight, scale=constant(np.ones((1,) * rank))) if per_copy else weight
        if family is None or family.lookup:
            statistics = computed_once([in_copy.weighted(Statistic(counts), elements)])
        else:
            statistics = self.statistics(site, family, value, origin, in_copy, possible, rank)
        # a masked latent changes nothing: uniform over its support, it sums to one
        absent = -math.log(self.program.latents[site.name].support.shape[0]) if site.kind == "latent" else 0
        is_constant = possible is None and not any(v.latent_axes for v in (base, *masks))
        base = (weight if is_constant else in_copy).applied(base, elements, absent)
        return self.finished(site, family, arguments, naturals, statistics, per_copy, base, is_constant, origin, value, elements)

    def counts_copies(self, scale: Named, axes: Sequence[Axis]) -> bool:
        """Whether a multiplicity is that of every latent that its site reads, element by element: it then counts within one copy."""
        varying = [d for d, size in enumerate(scale.compact) if size != 1]
        for axis in axes:
            latent = self.program.latents[axis.source] if isinstance(axis.source, str) else None
            if latent is None or not isinstance(axis.index, Affine) or axis.index.offset:
                return False
            own = self.scale(next(site for site in self.program.sites if site.name == axis.source)).padded(len(latent.shape))
            strides = [stride for stride, size in zip(identity(latent.shape).strides, own.compact, strict=True) if size != 1]
            if own.content != scale.content or [axis.index.strides[d] for d in varying] != strides:
                return False
        return bool(axes) and bool(varying)

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

    def log_density(self, site: Site, elements, weight: Weight, possible: Named | None) -> Named:
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

    def given(self, site: Site, family: Family, rank: int) -> dict[str, tuple[Named, int]]:
        """Return the arguments that a family's statistics take, and the number of their event axes."""
        return {name: (self.argument(site, name, rank), site.arg_constraints[name].event_dim) for name in family.given}

    def statistics(self, site: Site, family: Family, value: Named, origin: Named | None, weight: Weight, possible: Named | None, rank: int) -> Statistics:
        """Return the weighted sufficient statistics of a site as a function of its data."""
        event, given = len(site.event), self.given(site, family, rank)
        events = {name: number for name, (_, number) in given.items()}
        kept = {"value": value, "origin": origin, "scale": weight.scale, "mask": weight.mask, "possible": possible}
        inputs = {name: v for name, v in kept.items() if v is not None} | {name: v for name, (v, _) in given.items()}

        def function(inputs, elements):
            own = Weight(inputs["scale"], inputs.get("mask"))
            data = transformed(family, masked_data(inputs["value"], own.data_mask, event), rank, event)
            found = sufficient(family, data, inputs.get("origin"), [(inputs[name], number) for name, number in events.items()], rank, event)
            return [own.weighted(_where_possible(s, inputs.get("possible"), elements), elements) for s in found]

        return Statistics(inputs, function)

    def log_base(self, site: Site, family: Family, data: Named, possible: Named | None, elements) -> Named:
        """Return log h(x)."""
        rank, given = len(elements), self.given(site, family, len(elements))

        def function(x, *g):
            return (jnp.asarray(family.base(x, **dict(zip(given, g, strict=True))), jnp.result_type(float)),)

        (base,) = lift_events(function, [(data, len(site.event)), *given.values()], rank)
        return base if possible is None else lift(lambda b, p: jnp.where(p, b, LOG_ZERO), [base, possible], elements)

    def finished(self, site: Site, family, arguments, naturals, statistics: Statistics, per_copy: bool, base, is_constant: bool, origin, value, elements) -> Term:
        """Sum what no table needs, and put slots in place of arrays."""
        rank = len(elements)
        own_axes = tuple(table.axes for table in naturals)
        formed = statistics.formed(elements)
        touched = tuple(axis.fitted(rank) for axis in union([*naturals, *(s.value for s in formed), base]) if axis.is_latent)
        latent_axes = tuple({axis.key: axis for axis in touched}.values())
        kept = tuple(d for d in range(rank) if any(axis.varies[d] for axis in latent_axes))
        dims = [summed_dims(s, n, kept, rank) for s, n in zip(formed, naturals, strict=True)]
        reduced = [summed(s, d) for s, d in zip(formed, dims, strict=True)]
        if self.is_formed_in_step(site, statistics, reduced, elements):
            statistics = replace(statistics, function=lambda i, e, form=statistics.function: [summed(s, d) for s, d in zip(form(i, e), dims, strict=True)])
        else:
            statistics = computed_once(reduced)
        base = summed(Statistic(without_rows(base)), [d for d in range(rank) if is_constant or d not in kept]).value
        prior = PRIORS.get(site.family) if site.kind == "prior" else None
        priors = {name: self.values[site.outputs["args"][name]] for name in (prior.arguments if prior else ()) if name in site.outputs["args"]}
        return Term(site, family, elements, self.stored_all(arguments), replace(statistics, inputs=self.stored_all(statistics.inputs)), self.stored(base),
                    None if origin is None else self.stored(origin), self.stored(value), self.stored(Named(np.zeros(()), (), latent_axes)).axes, own_axes, kept,
                    self.stored_all(priors), per_copy)

    def is_formed_in_step(self, site: Site, statistics: Statistics, reduced: Sequence[Statistic], elements) -> bool:
        """Whether statistics are larger than the data that they are formed from, and nothing but sums and products of them."""
        args = site.outputs["args"]
        numbers = [site.outputs["value"], *site.outputs["masks"], site.outputs["scale"], site.outputs["gate"],
                   *(args[name] for name in statistics.inputs if name in args)]
        if any(number is not None and self.depends[number] for number in numbers) or "possible" in statistics.inputs:
            return False
        kept = sum(math.prod(value.array.shape) for value in statistics.inputs.values())
        return sum(s.size for s in reduced) > kept and is_cheap(statistics, elements)

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
        return value, constant(np.ones((1,) * rank)), constant(np.zeros((1,) * rank))
    return value, lift(lambda p: jnp.where(p, 1.0, 0.0), [possible], elements), lift(lambda p: jnp.where(p, 0.0, LOG_ZERO), [possible], elements)


def _counted(bad: Named, mask: Named | None) -> Named:
    """Return what is bad and not masked."""
    if mask is None:
        return bad
    rank = max(len(bad.shape), len(mask.shape))
    bad, own = bad.padded(rank), without_rows(mask).padded(rank)
    return lift(jnp.logical_and, [bad, own], np.broadcast_shapes(bad.shape, own.shape))


def _where_possible(statistic: Statistic, possible: Named | None, elements) -> Statistic:
    """Return the statistic, zero where the observation is outside the support."""
    if possible is None:
        return statistic
    event = statistic.value.shape[len(elements):]
    return replace(statistic, value=lift(lambda t, p: jnp.where(p, t, 0), [statistic.value, possible.with_event(len(event))], elements + event))
