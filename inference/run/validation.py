"""Bad input, found before the loop: each error names the site and pastes the fix.

What has to be computed is computed by two compiled functions, `violations` and `inspection`; the
rest is reading.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint

from emjax.e_step.instance import instance_of
from emjax.e_step.term_factors import term_factor
from emjax.families.limits import entry_constraint, limits_of
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled
from emjax.graph.terms import Term
from emjax.m_step.wiring_view import WiringView
from emjax.numerics.guards import IMPOSSIBLE
from emjax.program.integrated import INTEGRATED
from emjax.program.records import Parameter
from emjax.run import findings
from emjax.run.compilation import is_traced
from emjax.run.copies import equal_at_start
from emjax.run.findings import Finding
from emjax.tables.named import full, without_rows

# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def violations(graph: FactorGraph, constants: Sequence) -> list[tuple[Array, Array]]:
    """Return, for each check, how many entries fail it and the first one that does."""
    # the checks read data alone: any parameters do
    ones = {name: jnp.ones(p.shape, p.dtype) for name, p in graph.parameters.items()}
    arrays = graph.arrays(ones, constants)
    counts = []
    for check in graph.checks:
        bad = jnp.asarray(full(filled(check.bad, arrays))).ravel()
        counts.append((jnp.sum(bad), jnp.argmax(bad)))
    return counts


DATA_FINDINGS: dict[str, Callable[..., Finding]] = {
    "nan": findings.missing_datum,
    "index": findings.index_out_of_range,
    "support": findings.outside_support,
}


def check_data(graph: FactorGraph, counts: Sequence) -> None:
    """Raise `ValueError` for the first observation that cannot be. `counts`: the `violations`."""
    for check, (count, first) in zip(graph.checks, counts, strict=True):
        if int(count):
            where = tuple(int(i) for i in np.unravel_index(int(first), check.bad.shape))
            finding = DATA_FINDINGS[check.kind](check.site, where, int(count), check.what)
            raise ValueError(str(finding))


def unobserved(graph: FactorGraph) -> list[Finding]:
    """Return that nothing is observed, if so."""
    if any(term.site.is_observed for term in graph.terms):
        return []
    drawn = [term.site.name for term in (*graph.terms, *graph.predicted)]
    return [findings.nothing_observed([*dict.fromkeys(drawn), *graph.unused])]


# ── parameters ────────────────────────────────────────────────────────────────────────────────────


# what a start computed from data is, as a rule, where it is no covariance
SINGULAR = (
    "The covariance of data is singular where columns depend on one another or rows are few: leave "
    "columns out, or add to its diagonal, covariance + 1e-6 * jnp.eye(...)."
)


def check_are_params(given: Any) -> None:
    """Raise `ValueError` for what is no dictionary of parameters: the data, for one."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"Parameters are a dictionary {{site: value}}, such as result.params, not "
            f"{type(given).__name__}. They come first, then the program's own arguments: "
            "em.posterior(result.params, ...)."
        )
    if others := [name for name in given if not isinstance(name, str)]:
        raise ValueError(f"Parameters are given by name, as strings; {others[0]!r} is none.")


def checked_params(graph: FactorGraph, given: Any, *, complete: bool) -> dict[str, Array]:
    """Return the given parameters as arrays, by name.

    `complete`: every parameter that matters must be given; one that nothing depends on, such as
    what an `obs_mask` leaves out, is given a value that its constraint allows, where it has none of
    the program's shape: other data have other rows. Errors: `ValueError` for a name, shape or value
    that is wrong.
    """
    known = ", ".join(map(repr, graph.names)) or "none"
    check_are_params(given)
    unknown, missing = sorted(set(given) - set(graph.names)), sorted(set(graph.names) - set(given))
    if complete:
        in_place = {}
        for name, parameter in graph.parameters.items():
            shape = getattr(given.get(name), "shape", parameter.shape)
            if (name in missing or shape != parameter.shape) and name in graph.unread:
                in_place[name] = feasible_value(parameter)
        given = {**given, **in_place}
        missing = sorted(set(missing) - set(in_place))
    if unknown:
        raise ValueError(
            f"There is no parameter {', '.join(map(repr, unknown))} in the program; it has {known}."
        )
    if missing and complete:
        raise ValueError(
            f"params lacks {', '.join(map(repr, missing))}. Pass result.params, or a dictionary "
            "with every parameter."
        )
    checked = {name: _as_array(graph.parameters[name], value) for name, value in given.items()}
    # under `jit` or `grad` only names and shapes can be checked
    if is_traced(checked):
        return checked
    for name, value in checked.items():
        another = f"Pass another value, e.g. init_params={{'{name}': ...}}"
        remedy = f"{another}, or change the program's start."
        constraint = graph.parameters[name].constraint
        if type(constraint) is type(constraints.positive_definite):
            remedy = f"{remedy} {SINGULAR}"
        what, values = f"Parameter '{name}'", np.asarray(value)
        _check_constraint(what, name, constraint, values, remedy)
        is_vanished = _vanished(graph, name, values)
        if is_vanished.any():
            where = _first(is_vanished)
            finding = findings.outside_constraint(
                what, name, where, values[where], constraint, remedy
            )
            raise ValueError(str(finding))
    return checked


def feasible_value(parameter: Parameter) -> np.ndarray:
    """Return some value of a parameter that its constraint allows, where NumPyro knows of one."""
    try:
        bijection = biject_to(parameter.constraint)
        zeros = jnp.zeros(bijection.inverse_shape(parameter.shape), parameter.dtype)
        return np.asarray(bijection(zeros), parameter.dtype)
    except NotImplementedError:
        return np.zeros(parameter.shape, parameter.dtype)


def _vanished(graph: FactorGraph, name: str, values: np.ndarray) -> np.ndarray:
    """Return which entries of a parameter are scales of zero, which its constraint excludes.

    A rate or a probability of zero is an estimate; a scale of zero makes densities infinite.
    """
    constraint = graph.parameters[name].constraint
    is_zero = values == 0
    # a matrix may have zeros: its constraint is on all of it
    if limits_of(constraint) is None or not is_zero.any() or np.asarray(constraint(values)).all():
        return np.zeros(values.shape, bool)
    uses, _ = WiringView(graph).uses(name)
    is_scale = uses is not None and uses[0].conjugacy.is_scale
    return is_zero & is_scale


def _as_array(parameter: Parameter, value: Any) -> Array:
    """Return a value as an array; raise `ValueError` if it has another shape than the parameter."""
    name, shape = parameter.name, parameter.shape
    try:
        array = jnp.asarray(value, parameter.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Parameter '{name}' must be an array of numbers of shape {shape}, not {value!r}."
        ) from error
    if array.shape != shape:
        raise ValueError(f"Parameter '{name}' has shape {shape} in the program, not {array.shape}.")
    return array


def _check_constraint(
    what: str, site: str, constraint: Constraint, value: np.ndarray, remedy: str
) -> None:
    """Raise `ValueError` for a value that violates a constraint. `what`: which one, in words."""
    violation = _violation(what, site, constraint, value, remedy)
    if violation is not None:
        raise ValueError(str(violation))


def _violation(
    what: str, site: str, constraint: Constraint, value: np.ndarray, remedy: str
) -> Finding | None:
    """Return what is wrong with a value under a constraint."""
    is_nan = np.isnan(value)
    if is_nan.any():
        return findings.nan_value(what, site, _first(is_nan), remedy)
    # two mistakes that the constraint does not tell apart, each with its own remedy
    if type(constraint) is type(constraints.simplex):
        return _improbable(what, site, value)
    is_valid = np.asarray(constraint(value))
    if is_valid.all() or _within_closure(constraint, value):
        return None
    where = _first(~is_valid)
    return findings.outside_constraint(what, site, where, value[where], constraint, remedy)


def _improbable(what: str, site: str, value: np.ndarray) -> Finding | None:
    """Return what is wrong with probabilities."""
    # NumPy, which compiles nothing
    if not np.issubdtype(value.dtype, np.inexact):
        value = value.astype(np.result_type(float))
    if (value < 0).any():
        where = _first(value < 0)
        return findings.negative_probability(what, site, where, float(value[where]))
    excess = np.abs(value.sum(-1) - 1)
    if (excess > np.sqrt(np.finfo(value.dtype).eps)).any():
        worst = tuple(map(int, np.unravel_index(np.argmax(excess), excess.shape)))
        return findings.sum_is_not_one(what, site, worst, float(value.sum(-1)[worst]))
    return None


def _first(bad) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(bad)[0])


def _within_closure(constraint: Constraint, value: np.ndarray) -> bool:
    """Whether values lie in the closure of an open interval, where EM's own estimates may lie.

    A scale of zero is none of them.
    """
    limits = limits_of(constraint)
    if limits is None or limits.is_unbounded:
        return False
    if type(entry_constraint(constraint)) is type(constraints.positive) and (value == 0).any():
        return False
    # a bound is met in the precision of the value
    dtype = value.dtype if np.issubdtype(value.dtype, np.floating) else float
    return bool(((value >= limits.low.astype(dtype)) & (value <= limits.high.astype(dtype))).all())


# ── starts ────────────────────────────────────────────────────────────────────────────────────────


def inspection(graph: FactorGraph, params: Mapping[str, Any], constants: Sequence) -> dict:
    """Return what `check_start` reads: the tables of arguments and natural parameters."""
    arrays = graph.arrays(params, constants)
    arguments = []
    for term in graph.terms:
        tables = term.arguments.items()
        arguments.append({name: filled(table, arrays).array for name, table in tables})
    return {"arguments": arguments, "naturals": graph.tables(params, constants)}


def most_favorable(
    graph: FactorGraph, params: Mapping[str, Any], constants: Sequence
) -> list[tuple]:
    """Return, for each term, the log-density of each element at its best, and its data.

    That is under the most favorable value of its latents, along the axes that it keeps, or all axes
    if it is a table of densities.
    """
    instance = instance_of(graph, graph.arrays(params, constants))
    best: list = [None] * len(graph.terms)
    together: dict = {}  # the components of one `Select` are one site
    for number, (term, tables) in enumerate(zip(instance.terms, instance.naturals, strict=True)):
        if term.family is None and not term.latent_axes and term.site.outputs.gate is None:
            best[number] = full(without_rows(tables[0]))
            continue
        factor = term_factor(term, tables)
        key = term.site.name, term.kept, tuple(axis.key for axis in factor.axes)
        together.setdefault(key, []).append((number, factor.array))
    # a component's log-density counts where the others' gates are closed
    for (_, kept, _), members in together.items():
        first, *others = [array for _, array in members]
        total = sum(others, first)
        over = tuple(range(len(kept), total.ndim))
        for number, _ in members:
            best[number] = total.max(axis=over)
    return [(b, term.value.array) for b, term in zip(best, instance.terms, strict=True)]


def check_start(
    graph: FactorGraph,
    params: Mapping[str, Array],
    objective: float | np.floating,
    tables: Mapping,
    inspected: Callable,
    best: Callable,
    elements: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Raise `ValueError` for a start that cannot be; warn of one that EM cannot leave.

    It cannot be where arguments are bad or its likelihood is zero. `objective`, `tables`: the
    objective and the `inspection` at params; `inspected(params)`, `best(params)`: the compiled
    `inspection` and `most_favorable`; `elements`: {site: the shape of its elements} where it is not
    the graph's.
    """
    # first: a bad argument may be why the likelihood is zero
    for term, arguments in zip(graph.terms, tables["arguments"], strict=True):
        for name, array in arguments.items():
            constraint = term.site.arg_constraints.get(name)
            if constraint is not None:
                _check_argument(term, name, constraint, np.asarray(array))
    if not objective > -np.inf:  # +inf is no fault of a datum: the loop stops there, and says why
        raise ValueError(str(_impossible(graph, best(params))))
    unparted = [*unobserved(graph), *equal_at_start(graph, params, tables, inspected)]
    for finding in [*unparted, *_as_many_values_as_data(graph, elements or {})]:
        warnings.warn(str(finding), stacklevel=_depth_of_user_code())


def _depth_of_user_code() -> int:
    """Return the `stacklevel` of whoever called emjax, by `em.run` or `em.on(…).run`."""
    # counted from the function that asks, which is 1 to `warnings.warn`
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("emjax."):
        frame, depth = frame.f_back, depth + 1
    return depth


class BadArgument(ValueError):
    """An argument of a distribution is not a number; the data that it is computed from may be."""


def _check_argument(term: Term, name: str, constraint: Constraint, array: np.ndarray) -> None:
    if isinstance(constraint, type(constraints.dependent)):
        return
    family = findings.plain(term.site.distribution.__name__)
    what = f"Site '{term.site.name}': the {name} of {family}"
    remedy = "Change the parameters or the data that it is computed from."
    violation = _violation(what, term.site.name, constraint, array, remedy)
    if violation is not None:
        raise (BadArgument if np.isnan(array).any() else ValueError)(str(violation))


def _impossible(graph: FactorGraph, best: Sequence[tuple]) -> Finding:
    """Return the first datum that is impossible. `best`: the `most_favorable`."""
    for term, (density, value) in zip(graph.terms, best, strict=True):
        is_impossible = (np.asarray(density) < IMPOSSIBLE) | np.isnan(density)
        if term.site.is_prior and is_impossible.any():
            return findings.impossible_prior(term.site.name)
        if not term.site.is_observed or not is_impossible.any():
            continue
        first = _first(is_impossible)
        dims = term.kept if len(first) < len(term.elements) else range(len(first))
        where: list = [slice(None)] * len(term.elements)
        for dim, number in zip(dims, first, strict=True):
            where[dim] = number
        index = ", ".join(":" if isinstance(i, slice) else str(i) for i in where)
        datum = _datum(term, np.asarray(value), tuple(where))
        return findings.impossible_datum(term.site.name, index, datum)
    return findings.impossible_jointly()


def _datum(term: Term, array: np.ndarray, where: tuple) -> str:
    """Return a datum in words; empty where latents take part in it."""
    if term.value.axes:
        return ""
    array = np.broadcast_to(array, term.elements + tuple(term.site.event))
    return f", value {np.array2string(array[where], precision=4, threshold=8)},"


def _as_many_values_as_data(graph: FactorGraph, elements: Mapping) -> list[Finding]:
    """Return the continuous latents that have as many values as all that read them have data."""
    view = WiringView(graph)
    many = []
    for name, parameter in graph.parameters.items():
        size = math.prod(parameter.shape)
        # one number is what all data share, and a `param` is not to be integrated out
        if not parameter.is_prior or size <= 1:
            continue
        terms = [graph.terms[number] for number in view.terms_of(name)]
        readers = [term for term in terms if term.site.is_observed]
        shapes = [elements.get(term.site.name, term.elements) for term in readers]
        # a loop over time has a site for each step
        if readers and size >= sum(math.prod(shape) for shape in shapes):
            names = [term.site.name for term in readers]
            many.append(findings.many_values(name, size, names, _are_normal(graph, name, terms)))
    return many


def _are_normal(graph: FactorGraph, parameter: str, readers: Sequence[Term]) -> bool:
    """Whether a continuous latent and all that read it are normal."""
    own = [term for term in graph.terms if term.site.name == parameter]
    return all(term.site.distribution in INTEGRATED for term in [*own, *readers])
