"""The independent units of a program, and the score of each: the gradient of its log-likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.answers.reweighted import (
    Reweighted,
    check_no_local_latents,
    from_one_start,
    reweighted,
    sites_within,
    units_in,
)
from emjax.certificates.derivatives import rows_of_derivative
from emjax.certificates.estimate import Estimate
from emjax.certificates.tangent_space import TangentSpace
from emjax.run.batches import batch_size
from emjax.run.bound import Bound


def independent(
    bound: Bound, plate: str | None, rows: Mapping[str, Any] | None, **changes: Any
) -> Reweighted:
    """Return a program whose independent units have weights, to be fitted again from one start.

    They are the elements of the plate given, or of the only outermost one, with their `rows` of
    other plates. `changes`: the settings that differ. Errors: `ValueError` where there is no such
    plate, or several, or where the program counts copies within it.
    """
    units = units_in(bound, plate, rows)
    check_no_local_latents(
        bound,
        units,
        ", which no other element says anything of. Use method='information', or a plate outside "
        "which it stands.",
    )
    for site in sites_within(bound, units):
        if site.counts_copies:
            raise ValueError(
                f"Site '{site.name}' counts copies (handlers.scale), and a row of several "
                f"copies is no independent element of plate '{units.plate}'. Pass "
                "the rows one by one, np.repeat(rows, count), or use method='information'."
            )
    return reweighted(bound, units, **from_one_start(bound.compiler.settings), **changes)


def scores_of(weighted: Reweighted, estimate: Estimate) -> np.ndarray:
    """Return the score of each unit, (coordinate, unit): the derivatives of ∂ log p / ∂ weight.

    Errors: `ValueError` where the log-likelihood is not the sum over the units.
    """
    chart = estimate.chart
    weighted.check_sum(estimate.params)

    def scores(weighted: Reweighted, params, directions):
        # linearized once for all coordinates: a row is then one linear pass over the data
        ones = jnp.ones(weighted.units.size)

        def contributions(estimated):
            return jax.grad(weighted.log_likelihood, argnums=1)({**params, **estimated}, ones)

        estimated = {name: params[name] for name in chart.charts}
        _, along = jax.linearize(contributions, estimated)
        return rows_of_derivative(along, directions, chart.size, batch_size(estimate.graph))

    directions = TangentSpace.of(estimate).directions(estimate.params)
    scores_along = weighted.function(("scores", chart.key), scores)
    return np.asarray(scores_along(estimate.params, directions), float)
