"""The likelihood-ratio statistic of two fits, and what its tests ask of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from emjax.certificates.coordinates import num_free_parameters
from emjax.fit import Fit
from emjax.graph.factor_graph import FactorGraph
from emjax.run import verdicts
from emjax.run.findings import Finding
from emjax.run.runner import is_degenerate
from emjax.run.state import has_settled

if TYPE_CHECKING:
    Fitted = Fit
else:
    # what is none reaches our own error
    Fitted = Any

# a likelihood ratio this much below zero, in nats, is what steps that stop by tol leave open
NEGLIGIBLE = 0.01


def statistic_of(smaller: Fit, larger: Fit) -> float:
    """Return 2 (log p(x | larger) − log p(x | smaller)) of two fits to the same data."""
    return 2 * (float(larger.log_likelihood) - float(smaller.log_likelihood))


def check_fits(call: str, smaller: Any, larger: Any) -> None:
    """Raise `ValueError` for what are no two soft fits to the same data, the smaller one first.

    `call`: how the test is called.
    """
    for fit in (smaller, larger):
        if not isinstance(fit, Fit):
            raise ValueError(
                f"It takes two fits, em.run(rng_key, ...), and not {type(fit).__name__}: {call}."
            )
        if fit.em.settings.temperature != 1:
            raise ValueError(
                "A likelihood ratio is of maxima of log p(x | θ), to which only a soft E-step "
                "leads: EM(model)."
            )
    bounds = smaller.on(), larger.on()
    if not _are_equal(*(bound.data for bound in bounds)):
        raise ValueError("The two fits are of different data: fit both programs to the same.")
    few, many = (num_free_parameters(each.graph, each.compiled.maximizers) for each in bounds)
    if few > many:
        raise ValueError(
            f"The first fit has {few} free parameters and the second {many}: the smaller program "
            f"comes first, {call}."
        )


def _are_equal(first: Sequence, second: Sequence) -> bool:
    """Whether two programs take the same arrays."""
    # one may look at the values of its arguments, which are then no data
    if not first or not second:
        return True
    if len(first) != len(second):
        return False
    pairs = zip(jax.device_get(list(first)), jax.device_get(list(second)), strict=True)
    return all(np.array_equal(one, other, equal_nan=one.dtype.kind == "f") for one, other in pairs)


def check_rows_count_once(graph: FactorGraph) -> None:
    """Raise `ValueError` for rows of which some count more often than others."""
    for term in graph.terms:
        site = term.site
        if site.outputs.multiplicity is not None or site.outputs.sampling is not None:
            raise ValueError(
                f"Site '{site.name}' has weights, and the test is of rows that count once each. "
                "Fit the rows one by one, np.repeat(rows, count)."
            )


def findings_of(smaller: Fit, larger: Fit) -> list[Finding]:
    """Return what is to be known of two fits before their likelihoods are compared."""
    found = []
    for which, fit in (("smaller", smaller), ("larger", larger)):
        if not has_settled(fit.status) or is_degenerate(fit):
            found.append(verdicts.not_at_maximum(which, str(fit.status)))
    if statistic_of(smaller, larger) < -NEGLIGIBLE:
        found.append(verdicts.negative_statistic(statistic_of(smaller, larger)))
    return found
