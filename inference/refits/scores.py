"""The independent units of a program, and the score of each: the gradient of its own
log-likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.coordinates import Coordinates
from emjax.certificates.curvature import rows_of_derivative
from emjax.program.handlers.plates import Units, units_of
from emjax.refits.bootstrap import for_refits
from emjax.refits.reweighted import plates_of
from emjax.run.bound import Bound


def independent_units(bound: Bound, plate: str | None, rows: Mapping | None) -> Units:
    """Return the independent units: the elements of the plate given, or of the only outermost one,
    with their `rows` of other plates (see `units_of`).

    Errors: `ValueError` where there is no such plate, or several, or where the program counts
    copies within it.
    """
    units = units_of(plates_of(bound).plates, plate, rows)
    for term in bound.compiled.graph.terms:
        if {units.plate, *units.rows} & set(term.site.plates) and term.site.is_prior:
            raise ValueError(
                f"Continuous latent '{term.site.name}' has a value for each element of plate "
                f"'{units.plate}', which no other element says anything of. Use "
                "method='information', or a plate outside which it stands."
            )
        if {units.plate, *units.rows} & set(term.site.plates) and (
            term.site.outputs.multiplicity is not None
        ):
            raise ValueError(
                f"Site '{term.site.name}' counts copies (handlers.scale), and a row of several "
                f"copies is no independent element of plate '{units.plate}'. Pass "
                "the rows one by one, np.repeat(rows, count), or use method='information'."
            )
    return units


def scores_of(bound: Bound, chart: Coordinates, units: Units, params) -> np.ndarray:
    """Return the score of each unit, (coordinate, unit): the derivatives of ∂ log p / ∂ weight.

    Errors: `ValueError` where the log-likelihood is not the sum over the units.
    """
    weighted = _weighted(bound, units)
    likelihood = _log_likelihood(weighted)

    def scores(params, data):
        by_weight, ones = jax.value_and_grad(likelihood, 1), jnp.ones(units.size)
        (total, contributions), along = jax.linearize(
            lambda vector: by_weight(chart.unflatten(vector, params), ones, data),
            chart.flatten(params),
        )
        rows = rows_of_derivative(
            lambda direction: along(direction)[1], chart.size, jnp.result_type(float)
        )
        return total, contributions.sum(), rows

    function = weighted.compiled.function(("scores", chart.key), lambda: scores)
    total, summed, rows = jax.device_get(function(params, weighted.data[1:]))
    _check_sum(total, summed, units)
    return np.asarray(rows, float)


def check_independent(bound: Bound, units: Units, params) -> None:
    """Raise `ValueError` where the log-likelihood is not the sum over the units."""
    weighted = _weighted(bound, units)
    by_weight = weighted.compiled.function(
        "contributions", lambda: jax.value_and_grad(_log_likelihood(weighted), 1)
    )
    total, contributions = jax.device_get(
        by_weight(params, jnp.ones(units.size), weighted.data[1:])
    )
    _check_sum(total, contributions.sum(), units)


def _weighted(bound: Bound, units: Units) -> Bound:
    model = units.weighted(bound.compiler.model)
    return for_refits(bound, units.key, model, jnp.ones(units.size))


def _log_likelihood(weighted: Bound):
    """Return log p as a function of (params, weights, data)."""
    pure, graph = weighted.compiled.pure, weighted.compiled.graph
    return lambda params, weights, data: pure.log_likelihood(
        params, graph.prepare([weights, *data])
    )


def _check_sum(total, summed, units: Units) -> None:
    """A log-likelihood that is a sum over the units is linear in their weights: at weights of one
    it is the sum of its derivatives (Euler).
    """
    if not np.isclose(total, summed, rtol=np.sqrt(np.finfo(total.dtype).eps), atol=0):
        raise ValueError(
            f"The log-likelihood ({total:.6g} nats) is not the sum over the elements of {units} "
            f"({summed:.6g}): data outside it are observed, or latents are shared "
            f"among its elements. Pass the plate that holds all data; for each plate of rows that "
            "look up its elements, say which one each row belongs to: "
            f"plate='{units.plate}', rows={{'labels': item}}; or use method='information' or "
            "'parametric bootstrap'."
        )
