"""Priors without a finite mode: their density is infinite at a bound to which EM has gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.families.limits import NEAR, entry_limits, near_limits
from emjax.graph.slots import filled
from emjax.program.records import Parameter
from emjax.run import endings
from emjax.run.compiled import CompiledProgram
from emjax.run.findings import Finding
from emjax.run.pure import PureProgram
from emjax.tables.named import full, without_rows


def unbounded_priors(
    compiled: CompiledProgram, before: Mapping[str, Any], last: Mapping[str, Any], data: Sequence
) -> list[Finding]:
    """Return the priors whose density is infinite at a bound to which EM went.

    `before`, `last`: the parameters at the start, and those at which the objective was evaluated
    last.
    """
    at_bounds, has_moved = dict(last), False
    for name, parameter in compiled.graph.parameters.items():
        if parameter.is_prior:
            start, end = np.asarray(before[name]), np.asarray(last[name])
            is_near, bound = _near_bounds(parameter, start, end)
            at_bounds[name] = np.where(is_near, bound, end).astype(end.dtype)
            has_moved |= bool(is_near.any())
    # most estimates lie inside: no density need be computed
    if not has_moved:
        return []
    function = compiled.function("infinite priors", lambda: _on(compiled.pure), True)
    likelihood, infinite = jax.device_get(function(at_bounds, data))
    # where data are impossible at the bound, they hold the estimate inside
    if likelihood == -np.inf:
        return []
    found = []
    for term in compiled.graph.terms:
        is_infinite = infinite.get(term.site.name)
        if term.site.is_prior and is_infinite is not None and is_infinite.any():
            has_concentration = any("concentration" in name for name in term.site.arg_constraints)
            found.append(
                endings.unbounded_prior(
                    term.site.name, term.site.distribution.__name__, is_infinite, has_concentration
                )
            )
    return found


def _near_bounds(
    parameter: Parameter, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries have gone to a bound, and that bound."""
    low, high = entry_limits(parameter.constraint, parameter.shape)
    is_low, is_high = near_limits(end, low, high)
    # a number with one bound has no unit but its distance from it at the start
    is_low = is_low | (np.isfinite(low) & np.isinf(high) & (end - low <= NEAR * (start - low)))
    is_high = is_high | (np.isfinite(high) & np.isinf(low) & (high - end <= NEAR * (high - start)))
    return is_low | is_high, np.where(is_low, low, high)


def _on(pure: PureProgram):
    """Return (params, data) → the log-likelihood, and {prior: where its density is infinite}."""

    def infinite_priors(params, data) -> tuple[Array, dict[str, Array]]:
        constants = pure.graph.prepare(data)
        arrays, infinite = pure.graph.arrays(params, constants), {}
        for term in pure.graph.terms:
            if term.site.is_prior:
                density = filled(term.arguments["log_prob"], arrays)
                infinite[term.site.name] = jnp.asarray(full(without_rows(density))) == jnp.inf
        return pure.log_likelihood(params, constants), infinite

    return infinite_priors
