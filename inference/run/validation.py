"""Bad input, found before the loop: each error names the site and pastes the fix.

What has to be computed is computed by two compiled functions, `violations` and `inspection`; the
rest is reading.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from emjax.e_step.e_step import instance_of, term_factor
from emjax.graph.factor_graph import FactorGraph, Slot, Term, filled, term_naturals
from emjax.numerics.guards import IMPOSSIBLE, as_float
from emjax.tables.named import full, without_rows


def is_traced(values) -> bool:
    """Whether values are being traced, so that nothing can be said of them."""
    return any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(values))


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def violations(graph: FactorGraph, constants) -> list:
    """Return, for each check, how many entries fail it and the first one that does."""
    arrays = graph.arrays(
        {name: jnp.ones(p.shape, p.dtype) for name, p in graph.parameters.items()}, constants
    )
    bad = [jnp.asarray(full(filled(check.bad, arrays))).ravel() for check in graph.checks]
    return [(jnp.sum(b), jnp.argmax(b)) for b in bad]


def check_data(graph: FactorGraph, found) -> None:
    """Raise `ValueError` for the first observation that is NaN, out of range or outside its
    support.
    """
    for check, (count, first) in zip(graph.checks, found, strict=True):
        if int(count) == 0:
            continue
        where = tuple(int(i) for i in np.unravel_index(int(first), check.bad.shape))
        site, others = check.site, f"{int(count)} in all"
        raise ValueError(
            {
                "nan": f"Site '{site}': the observed value is NaN at index {where} ({others}). "
                f"{_declared_missing(site, check.what)}",
                "index": f"Site '{site}': an index that it reads is out of range at position "
                f"{where} ({others}): {check.what}. Indices run from 0; "
                "correct the index array, or give the plate or table that it indexes more rows.",
                "support": f"Site '{site}': the observed value at index {where} lies outside the "
                f"support of {plain(check.what)} ({others}). Correct the "
                f"data, or exclude it: with numpyro.handlers.mask(mask=valid): "
                f"numpyro.sample('{site}', ...).",
            }[check.kind]
        )


def _declared_missing(site: str, family: str) -> str:
    """Return how a program says that values of a site are missing."""
    if family == "PartiallyObserved":
        return "Its `observed` says that this coordinate is observed: pass observed=~jnp.isnan(x)."
    if family == "MultivariateNormal":
        return (
            "Missing coordinates are declared where the normal is:\n"
            f"    numpyro.sample('{site}', "
            "emjax.distributions.PartiallyObserved(dist.MultivariateNormal(...), "
            "observed=~jnp.isnan(x)), obs=x)"
        )
    return (
        f"Missing values are declared with a mask:\n    numpyro.sample('{site}', ..., "
        "obs=jnp.nan_to_num(value), obs_mask=~jnp.isnan(value))"
    )


def plain(family: str) -> str:
    """Return a distribution's name as users write it."""
    return family.removesuffix("Probs").removesuffix("Logits")


# ── parameters ────────────────────────────────────────────────────────────────────────────────────


def checked_params(graph: FactorGraph, given, *, complete: bool) -> dict:
    """Return the given parameters as arrays, and raise `ValueError` for a name, shape or value that
    is wrong.

    `complete`: every parameter must be given.
    """
    known = ", ".join(map(repr, graph.names)) or "none"
    if not isinstance(given, Mapping):
        raise ValueError(
            f"Parameters are a dictionary {{site: value}}, such as result.params, not "
            f"{type(given).__name__}."
        )
    unknown, missing = sorted(set(given) - set(graph.names)), sorted(set(graph.names) - set(given))
    if unknown:
        raise ValueError(
            f"There is no parameter {', '.join(map(repr, unknown))} in the program; it has {known}."
        )
    if missing and complete:
        raise ValueError(
            f"params lacks {', '.join(map(repr, missing))}. Pass result.params, or a dictionary "
            "with every parameter."
        )
    checked = {}
    for name, value in given.items():
        parameter = graph.parameters[name]
        try:
            value = jnp.asarray(value, parameter.dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Parameter '{name}' must be an array of numbers of shape {parameter.shape}, "
                f"not {value!r}."
            ) from error
        if value.shape != parameter.shape:
            raise ValueError(
                f"Parameter '{name}' has shape {parameter.shape} in the program, not {value.shape}."
            )
        checked[name] = value
    if not is_traced(checked):
        for name, value in checked.items():
            _check_constraint(
                f"Parameter '{name}'",
                graph.parameters[name].constraint,
                np.asarray(value),
                f"Pass another value, e.g. init_params={{'{name}': ...}}, or change the "
                "program's start.",
            )
    return checked


def _check_constraint(what: str, constraint, value: np.ndarray, remedy: str) -> None:
    if np.isnan(value).any():
        raise ValueError(f"{what} is NaN at index {_first(np.isnan(value))}. {remedy}")
    if type(constraint) is type(constraints.simplex):
        _check_probabilities(what, np.asarray(as_float(value)))
        return
    valid = np.asarray(constraint(value))
    if valid.all() or _within_closure(constraint, value):
        return
    where = _first(~valid)
    raise ValueError(
        f"{what} must satisfy {constraint}, and does not at index {where} (value "
        f"{np.array2string(value[where], threshold=8)}). {remedy}"
    )


def _check_probabilities(what: str, value: np.ndarray) -> None:
    if (value < 0).any():
        raise ValueError(
            f"{what} must be probabilities; at index {_first(value < 0)} it is "
            f"{value[_first(value < 0)]:g}. Make it non-negative."
        )
    excess = np.abs(value.sum(-1) - 1)
    if (excess > np.sqrt(np.finfo(value.dtype).eps)).any():
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        raise ValueError(
            f"{what} must be probabilities that sum to one; they sum to {value.sum(-1)[worst]:g}. "
            "Divide by the sum: "
            "probs / probs.sum(-1, keepdims=True)."
        )


def _first(bad) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(bad)[0])


def _within_closure(constraint, value: np.ndarray) -> bool:
    """Whether values lie in the closure of an open interval, where EM's own estimates may lie (not
    a scale of zero).
    """
    low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
    if low is None and high is None:
        return False
    low, high = (None if bound is None else np.asarray(bound, value.dtype) for bound in (low, high))
    inside = (value >= (-np.inf if low is None else low)) & (
        value <= (np.inf if high is None else high)
    )
    return bool(inside.all()) and not (
        type(constraint) is type(constraints.positive) and (value == 0).any()
    )


# ── starts ────────────────────────────────────────────────────────────────────────────────────────


def inspection(graph: FactorGraph, params, constants) -> dict:
    """Return what `check_start` reads: the tables of arguments and natural parameters."""
    arrays = graph.arrays(params, constants)
    naturals = [
        [jnp.asarray(table.array) for table in term_naturals(term, arrays)] for term in graph.terms
    ]
    arguments = [
        {name: filled(value, arrays).array for name, value in term.arguments.items()}
        for term in graph.terms
    ]
    return {"arguments": arguments, "naturals": naturals}


def most_favorable(graph: FactorGraph, params, constants) -> list:
    """Return, for each term, the log-density of every element under the most favorable value of its
    latents (along the axes that it keeps, or all axes if it is a table of densities), and its data.
    """
    whole = instance_of(graph, graph.arrays(params, constants))
    together: dict = {}  # the components of one `Select` are one site
    best: list = [None] * len(graph.terms)
    for i, (term, tables) in enumerate(zip(whole.terms, whole.naturals, strict=True)):
        if term.family is None and not term.latent_axes and term.site.outputs.gate is None:
            best[i] = full(without_rows(tables[0]))
            continue
        factor = term_factor(term, tables)
        together.setdefault(
            (term.site.name, term.kept, tuple(axis.key for axis in factor.axes)), []
        ).append((i, factor.array))
    for (_, kept, _), members in together.items():
        total = sum(array for _, array in members)
        for i, _ in members:
            best[i] = total.max(axis=tuple(range(len(kept), total.ndim)))
    return [(b, term.value.array) for b, term in zip(best, whole.terms, strict=True)]


def check_start(
    graph: FactorGraph, params, objective, seen: dict, inspected: Callable, best: Callable
) -> None:
    """Raise `ValueError` for a start with bad arguments or zero likelihood; warn of one that EM
    cannot leave.

    `objective`, `seen`: the objective and the `inspection` at params; `inspected(params)`,
    `best(params)`: the compiled `inspection` and `most_favorable`.
    """
    for term, arguments in zip(graph.terms, seen["arguments"], strict=True):
        for name, array in arguments.items():
            constraint = term.site.arg_constraints.get(name)
            if constraint is not None:
                _check_argument(term, name, constraint, np.asarray(array))
    if not objective > -np.inf:  # +inf is no fault of a datum: the driver stops there, and says why
        _raise_impossible(graph, best(params))
    equal = _equal_values(graph, seen)
    if equal:
        noise = np.random.default_rng(0)
        elsewhere = {
            name: value * (1 + 0.1 * noise.random(value.shape)) + noise.random(value.shape)
            for name, value in params.items()
        }
        always = _equal_values(
            graph,
            inspected({name: jnp.asarray(v, params[name].dtype) for name, v in elsewhere.items()}),
        )
        for name in sorted(set(equal) - set(always)):
            warnings.warn(
                f"Latent '{name}': at the start only {equal[name]} of its "
                f"{graph.latents[name].support.shape[0]} values give the data different "
                "distributions, and EM can never part equal ones. Start from different values: "
                "em.run(..., init_params={...}), or "
                "numpyro.param(name, lambda key: ...).",
                stacklevel=6,
            )
    _warn_of_many_values(graph)


def _check_argument(term: Term, name: str, constraint, array: np.ndarray) -> None:
    if isinstance(constraint, type(constraints.dependent)):
        return
    _check_constraint(
        f"Site '{term.site.name}': the {name} of {plain(term.site.family.__name__)}",
        constraint,
        array,
        "Change the parameters or the data that it is computed from.",
    )


def _raise_impossible(graph: FactorGraph, found) -> None:
    for term, (best, value) in zip(graph.terms, found, strict=True):
        impossible = (np.asarray(best) < IMPOSSIBLE) | np.isnan(best)
        if term.site.is_observed and impossible.any():
            kept = dict(
                zip(
                    term.kept if impossible.ndim < len(term.elements) else range(impossible.ndim),
                    _first(impossible),
                    strict=True,
                )
            )
            where = tuple(kept.get(d, slice(None)) for d in range(len(term.elements)))
            index = ", ".join(":" if isinstance(w, slice) else str(w) for w in where)
            raise ValueError(
                f"The start has zero likelihood: site '{term.site.name}' at index "
                f"({index}){_datum(term, np.asarray(value), where)} is impossible under every "
                "value of its latents. Start elsewhere, em.run(..., init_params={...}), or check "
                "that datum."
            )
    raise ValueError(
        "The start has zero likelihood: some datum is impossible under every joint value of its "
        "latents, though each site alone is "
        "possible. Start elsewhere: em.run(..., init_params={...})."
    )


def _datum(term: Term, array: np.ndarray, where) -> str:
    if term.value.axes:
        return ""
    array = np.broadcast_to(array, term.elements + tuple(term.site.event))
    return f", value {np.array2string(array[where], precision=4, threshold=8)},"


def _equal_values(graph: FactorGraph, seen) -> dict[str, int]:
    """Return the latents of which some values give the data the same distribution: {name: how many
    distributions}.
    """
    found = {}
    for name in graph.latents:
        rows = []
        for term, arrays in zip(graph.terms, seen["naturals"], strict=True):
            if not (term.site.is_latent and term.site.name == name):
                for axes, array in zip(term.natural_axes, arrays, strict=True):
                    rows += [
                        np.moveaxis(np.asarray(array), i, 0).reshape(axis.size, -1)
                        for i, axis in enumerate(axes)
                        if axis.source == name
                    ]
        if rows:
            stacked = np.concatenate(rows, axis=1)
            distinct = len(np.unique(stacked, axis=0))
            if distinct < len(stacked):
                found[name] = distinct
    return found


def _warn_of_many_values(graph: FactorGraph) -> None:
    found = graph.wires()

    def reads(term: Term, name: str) -> bool:
        return any(
            isinstance(a.array, Slot) and name in found[a.array.number].parameters
            for a in term.arguments.values()
        )

    for name, parameter in graph.parameters.items():
        users = [term for term in graph.terms if term.site.is_observed and reads(term, name)]
        size = int(np.prod(parameter.shape, dtype=int))
        if (
            parameter.is_prior
            and users
            and size > 1
            and all(size >= np.prod(term.elements, dtype=int) for term in users)
        ):
            warnings.warn(
                f"Continuous latent '{name}' has as many values ({size}) as site "
                f"'{users[0].site.name}' has data. EM estimates each by MAP, not by "
                "integrating it out: estimates of other parameters may be biased.",
                stacklevel=6,
            )
