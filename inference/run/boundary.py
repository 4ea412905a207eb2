"""Entries that a run has brought to the boundary of what their constraint allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from emjax.families.conjugate import SIMPLEX_LOGITS, UNIT_INTERVAL_LOGITS, Conjugate
from emjax.families.limits import NEAR, entry_limits, is_simplex, limits_of, near_limits
from emjax.m_step.maximizer import Maximizer
from emjax.program.records import Parameter
from emjax.run import endings
from emjax.run.findings import Finding

# A positive number has no unit but what it was at the start, and what the parameter's other entries
# are. What a closed form sets to zero is zero; a maximizer in logarithms stops where nothing is
# gained, so that an entry which counts for nothing beside the others is as good as zero.
ZERO_BESIDE_START = 1e-12


def boundary_findings(
    parameters: Mapping[str, Parameter],
    maximizers: Sequence[Maximizer],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    explained: Collection[str] = (),
) -> list[Finding]:
    """Return which entries lie on a bound at the end of a run, and did not at its start.

    Whatever the maximizer: one in a bijection's coordinates reaches a bound within rounding.
    `explained`: the parameters of which worse is said already.
    """
    found = []
    for maximizer in maximizers:
        conjugacy = maximizer.uses[0].conjugacy if maximizer.uses else None
        for name in maximizer.names:
            if name in explained or maximizer.is_fixed:
                continue
            old, new = (np.asarray(params[name], float) for params in (before, after))
            found += _of_parameter(parameters[name], conjugacy, old, new)
    return found


def _of_parameter(
    parameter: Parameter, conjugacy: Conjugate | None, old: np.ndarray, new: np.ndarray
) -> list[Finding]:
    # logarithms of probabilities are infinite where these are zero
    if conjugacy in (SIMPLEX_LOGITS, UNIT_INTERVAL_LOGITS):
        has_reached = np.asarray(np.isinf(new) & ~np.isinf(old))
        return [endings.at_boundary(parameter.name, has_reached)] if has_reached.any() else []
    low, high = entry_limits(parameter.constraint, parameter.shape)
    was_low, was_high = near_limits(old, low, high)
    is_low, is_high = near_limits(new, low, high)
    least = ZERO_BESIDE_START * old
    if conjugacy is None and new.size > 1:
        least = np.maximum(least, NEAR * np.minimum(old, new.max()))
    is_low = is_low | ((low == 0) & np.isinf(high) & (new <= least))
    # an entry of a simplex is one where the others are zero, which says it already
    is_high = is_high & ~np.asarray(is_simplex(parameter.constraint))
    low_reached, high_reached = is_low & ~was_low, is_high & ~was_high
    has_reached = np.asarray(low_reached | high_reached)
    if not has_reached.any():
        return []
    if _are_shares(parameter, conjugacy):
        return [endings.at_boundary(parameter.name, has_reached)]
    return [endings.on_bound(parameter.name, has_reached, np.where(low_reached, low, high))]


def _are_shares(parameter: Parameter, conjugacy: Conjugate | None) -> bool:
    """Whether entries on their bounds are probabilities or rates, of what has not been seen."""
    if is_simplex(parameter.constraint) or (conjugacy is not None and conjugacy.may_reach_zero):
        limits = limits_of(parameter.constraint)
        return limits is None or limits.equal(0, 1) or limits.equal(0, np.inf)
    limits = limits_of(parameter.constraint)
    return limits is not None and limits.equal(0, 1)
