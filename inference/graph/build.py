"""Turn a traced program into a factor graph: each site into a term, each array into a slot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jax.interpreters import partial_eval as pe

from emjax.graph.checks import index_checks
from emjax.graph.condensed import condensed
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.gaussian_uses import check_gaussian_uses
from emjax.graph.interaction_builder import InteractionBuilder
from emjax.graph.known_coefficients import known_coefficients
from emjax.graph.outputs import Outputs, needed_outputs, present_sites, relevant_sites
from emjax.graph.regressions import location_views, regressions_of
from emjax.graph.symbols import jointly_integrated, propagate_program
from emjax.graph.term_builder import TermBuilder
from emjax.numerics.arrays import LARGEST_KNOWN_CONSTANT
from emjax.numerics.jaxprs import split_jaxpr
from emjax.program.records import Site
from emjax.program.trace import Program, depends_on_parameters
from emjax.tables.affine_values import AffineValue
from emjax.tables.named import MixedElements, Named, constant, without_rows
from emjax.tables.reach import Reach


def factor_graph(
    program: Program, is_unconstrained: bool = False, is_of_part: bool = False
) -> FactorGraph:
    """Return the factor graph of a traced program.

    `is_unconstrained`: whether densities of priors are those of unconstrained coordinates;
    `is_of_part`: whether its data are a part, whose statistics are to add up with others'. Its
    tables are over single elements of the latents wherever these suffice. Errors: `ValueError` for
    an unbounded latent or a missing plate, `MemoryError` for elements that the program mixes and
    that are too many to enumerate jointly, `IndexError` for a lookup that is out of range.
    """
    jointly: dict[str, MixedElements] = {}
    while True:
        try:
            graph = _factor_graph(program, jointly, is_unconstrained)
            # coefficients that are data belong to statistics: which are is seen in the graph
            known = known_coefficients(graph)
            # rows about least squares of their own are those of no other part
            regressions = {} if is_of_part else regressions_of(graph)
            if not (known or regressions):
                return graph
            return _factor_graph(program, jointly, is_unconstrained, known, regressions)
        # enumerate jointly what the program mixes, one latent after another, and only those
        except MixedElements as error:
            if error.latent in program.gaussians:
                program = jointly_integrated(program, error)
                continue
            # jointly enumerated already: nothing more can be done for it
            if error.latent in jointly:
                raise
            jointly[error.latent] = error


def _factor_graph(
    program: Program,
    jointly: Mapping[str, MixedElements],
    is_unconstrained: bool,
    known: Collection[tuple[int, int]] = (),
    regressions: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> FactorGraph:
    """Return the factor graph with the elements of some latents enumerated `jointly`.

    `known`: see `InteractionBuilder`; `regressions`: {site: parameters that its rows are added up
    for}.
    """
    fields: dict[str, Any] = {}
    depends = depends_on_parameters(program)
    needed = needed_outputs(program, depends)
    num_params = len(program.names)

    # The terms hold slots and no tracers, so that they outlive the trace: `fields` takes them out
    # of the function that JAX traces, whose result can be arrays alone.
    def described(params, floor, data):
        is_needed = [number in needed for number in range(len(depends))]
        # `instantiate`: inputs stay where they were, since values are given to them by position
        jaxpr, _ = pe.dce_jaxpr(program.jaxpr.jaxpr, is_needed, instantiate=True)
        consts = [_program_constant(value) for value in program.jaxpr.consts]
        inputs = [Named(array, tuple(array.shape)) for array in (*params, *data)]
        values, reached = propagate_program(program, jaxpr, jointly, [*consts, *inputs])
        remaining = iter(values)
        outputs = [next(remaining) if is_read else None for is_read in is_needed]
        named = Outputs(program, outputs, depends, is_unconstrained)
        views = location_views(program, jointly, [*consts, *inputs], regressions)
        builder = InteractionBuilder(named, floor, known, views)
        fields.update(_fields(builder, reached))
        means = _means_of_unused(builder.outputs, fields["unused"], jointly, [*consts, *inputs])
        fields["means"] = {name: _stored(builder, parts) for name, parts in means.items()}
        return builder.slots.arrays

    inputs = [var.aval for var in program.jaxpr.jaxpr.invars]
    abstract = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in inputs]
    floor = jax.ShapeDtypeStruct((), jnp.result_type(float))
    jaxpr = jax.make_jaxpr(described)(abstract[:num_params], floor, abstract[num_params:])
    # the floor counts as data: it is no parameter
    once, each_step = split_jaxpr(jaxpr, num_params)
    return FactorGraph(
        parameters=program.parameters,
        full_jaxpr=jaxpr,
        once_jaxpr=once,
        step_jaxpr=each_step,
        program=program,
        is_unconstrained=is_unconstrained,
        **fields,
    )


def _means_of_unused(
    outputs: Outputs,
    unused: Collection[str],
    jointly: Mapping[str, MixedElements],
    inputs: Sequence[Named],
) -> dict[str, list[list[Named]]]:
    """Return the means of the continuous latents that no observation depends on.

    Of a site of a scan, one for each stretch of it. Each is a sum: what is free of Gaussian latents
    comes first, and then a table linear in each of those that it reads. `inputs`: the constants of
    the program, its parameters and data.
    """
    sites = [site for site in present_sites(outputs) if site.name in unused]
    # one that depends on another of them has no mean but a mean of means; a component of a `Select`
    # is a part of its site
    partial = {site.name for site in sites if not _has_mean(outputs, site, unused)}
    numbers = {site.outputs.mean: site for site in sites if site.name not in partial}
    if not numbers:
        return {}
    # apart from all else: what matters is not to fail, or be enumerated jointly, for their sake
    is_needed = [number in numbers for number in range(len(outputs.depends))]
    jaxpr, _ = pe.dce_jaxpr(outputs.program.jaxpr.jaxpr, is_needed, instantiate=True)
    try:
        values, _ = propagate_program(outputs.program, jaxpr, jointly, inputs)
    except (MixedElements, MemoryError):
        return {}
    means: dict[str, list[list[Named]]] = {}
    for number, value in zip(sorted(numbers), values, strict=True):
        # of what is neither linear in a Gaussian latent nor free of it, no mean is known
        if not isinstance(value, Named | AffineValue):
            continue
        is_affine = isinstance(value, AffineValue)
        parts = [value.constant, *value.coefficients] if is_affine else [value]
        site = numbers[number]
        shape = site.elements + site.event
        mean = [replace(without_rows(part.padded(len(shape))), shape=shape) for part in parts]
        means.setdefault(site.name, []).append(mean)
    return means


def _stored(builder: TermBuilder, means: Sequence[Sequence[Named]]) -> list[list[Named]]:
    """Return sums with slots in place of arrays."""
    return [list(map(builder.slots.stored, mean)) for mean in means]


def _has_mean(outputs: Outputs, site: Site, unused: Collection[str]) -> bool:
    number = site.outputs.mean
    if number is None or site.outputs.gate is not None:
        return False
    return not any(name in unused for name in outputs.depends[number])


def _program_constant(value: Any) -> Named:
    """Return a constant of the program, known where it is small enough to be looked at."""
    if np.size(value) <= LARGEST_KNOWN_CONSTANT:
        return constant(value)
    return Named(jnp.asarray(value), tuple(np.shape(value)))


def _fields(builder: TermBuilder, reached: Mapping[Var, Sequence[Reach]]) -> dict[str, Any]:
    """Return the fields of the factor graph that the program's sites determine."""
    outputs = builder.affine
    relevant, predicted, unused = relevant_sites(outputs)
    sites = [*relevant, *predicted]
    check_gaussian_uses(outputs, sites)
    builder.record(index_checks(outputs, sites, reached))
    terms = [term for site in relevant for term in builder.terms(site)]
    predicted_terms = [term for site in predicted for term in builder.terms(site)]
    drawn = {site.name: site for site in sites if site.is_drawn}
    program = outputs.program
    latents = {name: latent for name, latent in program.latents.items() if name in drawn}
    gaussians = {name: latent for name, latent in program.gaussians.items() if name in drawn}
    multiplicities = {}
    for name, site in drawn.items():
        if name in latents or name in gaussians:
            multiplicities[name] = builder.multiplicities.of_elements(site)
    stored, stored_term = builder.slots.stored, builder.slots.stored_term
    alike = condensed(terms, gaussians, multiplicities)
    return {
        "terms": tuple(map(stored_term, terms)),
        "predicted": tuple(map(stored_term, predicted_terms)),
        "condensed": replace(alike, terms={i: stored_term(t) for i, t in alike.terms.items()}),
        "latents": latents,
        "gaussians": gaussians,
        "multiplicities": {name: stored(value) for name, value in multiplicities.items()},
        "checks": tuple(builder.checks),
        "unused": unused,
    }
