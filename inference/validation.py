"""Bad input, found before the loop: each error names the site and pastes the fix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from emjax.e_step import log_partition_of, naturals, term_factor
from emjax.graph import FactorGraph, filled, term_naturals
from emjax.named import Named, full
from emjax.numerics import IMPOSSIBLE


def is_traced(values) -> bool:
    return any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(values))


def check_data(graph: FactorGraph, constants) -> None:
    """Raise `ValueError` for the first observation that is NaN or outside its distribution's support."""
    if is_traced(constants):
        return
    arrays = known_arrays(graph, constants)
    for check in graph.checks:
        bad, site = np.asarray(full(filled(check.bad, arrays))), check.site
        if not bad.any():
            continue
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        if check.kind == "nan":
            raise ValueError(
                f"Site '{site}': the observed value is NaN at index {where} ({int(bad.sum())} in all). Missing values are declared with a mask:\n"
                f"    numpyro.sample('{site}', ..., obs=jnp.nan_to_num(value), obs_mask=~jnp.isnan(value))")
        if check.kind == "index":
            raise ValueError(f"Site '{site}': an index that it reads is out of range at position {where} ({int(bad.sum())} such in all): {check.what}. "
                             "Indices run from 0; correct the index array, or give the plate or table that it indexes more rows.")
        raise ValueError(
            f"Site '{site}': the observed value at index {where} lies outside the support of {check.what} ({int(bad.sum())} such in all). "
            f"Correct the data, or exclude it: with numpyro.handlers.mask(mask=valid): numpyro.sample('{site}', ...).")


def known_arrays(graph: FactorGraph, constants):
    """Return the arrays of all slots with parameters of ones: those that depend on data alone are as they should be."""
    return graph.arrays({name: jnp.ones(p.shape, p.dtype) for name, p in graph.parameters.items()}, constants)


def checked_params(graph: FactorGraph, given: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> dict:
    """Return the given parameters as arrays of the right shape, and raise `ValueError` for a name or shape that is wrong."""
    unknown = sorted(set(given) - set(graph.names))
    if unknown:
        raise ValueError(f"There is no parameter {', '.join(map(repr, unknown))} in the program; it has {', '.join(map(repr, graph.names)) or 'none'}.")
    missing = sorted(set(graph.names) - set(given)) if defaults is None else []
    if missing:
        raise ValueError(f"params lacks {', '.join(map(repr, missing))}. Pass result.params, or a dictionary with every parameter.")
    checked = {}
    for name, value in given.items():
        parameter = graph.parameters[name]
        value = jnp.asarray(value, parameter.dtype)
        if value.shape != parameter.shape:
            raise ValueError(f"Parameter '{name}' has shape {parameter.shape} in the program, not {value.shape}.")
        checked[name] = value
    return checked


def check_start(graph: FactorGraph, params, constants) -> None:
    """Raise `ValueError` for a start that breaks a constraint or has zero likelihood; warn of one that EM cannot leave."""
    if is_traced((params, constants)):
        return
    for name, parameter in graph.parameters.items():
        _check_constraint(f"Parameter '{name}'", parameter.constraint, params[name], name)
    arrays = graph.arrays(params, constants)
    for term in graph.terms:
        for argument, table in term.arguments.items():
            constraint = term.site.arg_constraints.get(argument)
            if constraint is not None and not isinstance(constraint, constraints._Dependent):
                _check_constraint(f"Site '{term.site.name}': the {argument} of {term.site.family.__name__}", constraint,
                                  filled(table, arrays).array, None)
    _check_likelihood(graph, arrays)
    _warn_of_symmetry(graph, arrays)
    _warn_of_many_values(graph)


def _check_constraint(what: str, constraint, value, name: str | None) -> None:
    valid = np.asarray(constraint(jnp.asarray(value)))
    if constraints.simplex is constraint or type(constraint) is type(constraints.simplex):
        total = np.asarray(value).sum(-1)
        valid = (np.abs(total - 1) < 1e-4) & (np.asarray(value) >= 0).all(-1)
        if not valid.all():
            worst = float(total.ravel()[np.argmax(np.abs(total.ravel() - 1))])
            raise ValueError(f"{what} must be probabilities that sum to one; at the start they sum to {worst:g}. Divide by the sum, "
                             "e.g. probs / probs.sum(-1, keepdims=True).")
    closed = ~valid & np.isfinite(np.asarray(value)) if valid.shape == np.shape(value) else ~valid
    if np.any(closed) and not _on_the_boundary(constraint, value):
        first = tuple(int(i) for i in np.argwhere(closed)[0])
        raise ValueError(f"{what} must satisfy {constraint}; at the start it does not (index {first}: {np.asarray(value)[first]}). "
                         + (f"Pass another start: em.run(..., init_params={{'{name}': ...}})." if name else "Change the start of the parameters it is computed from."))


def _on_the_boundary(constraint, value) -> bool:
    """Whether values lie on the edge of an open interval, where EM's own estimates may lie."""
    low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
    value = np.asarray(value)
    if low is None and high is None:
        return False
    return bool((value >= (-np.inf if low is None else np.asarray(low))).all() and (value <= (np.inf if high is None else np.asarray(high))).all()
                and not (low is not None and (value == 0).any()))


def _check_likelihood(graph: FactorGraph, arrays) -> None:
    templates = [term_naturals(term, arrays) for term in graph.terms]
    total = log_partition_of(graph, templates, naturals(graph, arrays), arrays, 1.0)
    if np.isfinite(total):
        return
    for term, tables in zip(graph.terms, templates, strict=True):
        if term.site.kind != "observed":
            continue
        factor = term_factor(term, tables, arrays)
        best = np.asarray(factor.array).max(axis=tuple(range(len(factor.shape), factor.array.ndim)))
        impossible = (best < IMPOSSIBLE) | np.isnan(best)
        if impossible.any():
            kept = dict(zip(term.kept, np.argwhere(impossible)[0], strict=True))
            where = tuple(int(kept[d]) if d in kept else slice(None) for d in range(len(term.elements)))
            index = ", ".join(":" if isinstance(w, slice) else str(w) for w in where)
            raise ValueError(
                f"The start has zero likelihood: site '{term.site.name}' at index ({index}){_datum(term, arrays, where)} is impossible under every value of "
                "its latents. Start elsewhere, em.run(..., init_params={...}), or check that datum.")
    raise ValueError("The start has zero likelihood: some datum is impossible under every joint value of its latents (each site alone is "
                     "possible). Start elsewhere: em.run(..., init_params={...}).")


def _datum(term, arrays, where) -> str:
    value = filled(term.value, arrays)
    if value.axes:
        return ""
    array = np.asarray(full(value))
    array = np.broadcast_to(array, term.elements + tuple(term.site.event))
    return f", value {np.array2string(array[where], precision=4, threshold=8)},"


def _warn_of_symmetry(graph: FactorGraph, arrays) -> None:
    """Warn where two values of a latent give the data the same distribution through parameters: EM cannot part them."""
    wires = graph.wires()
    for name in graph.latents:
        rows, parametrized = [], False
        for term in graph.terms:
            if term.site.kind == "latent" and term.site.name == name:
                continue
            for table in term_naturals(term, arrays):
                rows += _rows_along(table, name)
            parametrized |= any(wires[a.array.number].parameters for a in term.arguments.values() if _is_slot(a) and any(x.source == name for x in a.axes))
        if not rows or not parametrized:
            continue
        stacked = np.concatenate(rows, axis=1)
        distinct = len(np.unique(stacked, axis=0))
        if distinct < len(stacked):
            warnings.warn(
                f"Latent '{name}': at the start only {distinct} of its {len(stacked)} values give the data different distributions, and EM can never part equal "
                "ones. Start from different values: em.run(..., init_params={...}), or numpyro.param(name, lambda key: ...).", stacklevel=4)


def _is_slot(value: Named) -> bool:
    return hasattr(value.array, "number")


def _rows_along(table: Named, name: str) -> list[np.ndarray]:
    """Return the table as one row for each value of a latent, for each of its axes."""
    found = []
    for i, axis in enumerate(table.axes):
        if axis.source == name and axis.size > 1:
            array = np.moveaxis(np.asarray(table.array), i, 0)
            found.append(array.reshape(axis.size, -1))
    return found


def _warn_of_many_values(graph: FactorGraph) -> None:
    wires = graph.wires()
    for name, parameter in graph.parameters.items():
        if not parameter.is_prior or name in graph.unused:
            continue
        users = [t for t in graph.terms if t.site.kind == "observed" and any(_is_slot(a) and name in wires[a.array.number].parameters for a in t.arguments.values())]
        size = int(np.prod(parameter.shape, dtype=int))
        if users and size > 1 and all(size >= np.prod(t.elements, dtype=int) for t in users):
            warnings.warn(
                f"Continuous latent '{name}' has as many values ({size}) as site '{users[0].site.name}' has data. EM estimates each by MAP, not by "
                "integrating it out: estimates of other parameters may be biased.", stacklevel=4)
