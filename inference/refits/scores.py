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
from emjax.e_step.e_step import log_partition_of
from emjax.em import EM
from emjax.program.handlers.weights import Units, units_of
from emjax.refits.bootstrap import compiled_with
from emjax.refits.reweighted import plates_of
from emjax.run.compiled import Compiled


def independent_units(
    em: EM, compiled: Compiled, plate: str | None, rows: Mapping | None, args, kwargs
) -> Units:
    """Return the independent units: the elements of the plate given, or of the only outermost one,
    with their `rows` of other plates (see `units_of`).

    Errors: `ValueError` where there is no such plate, or several, or where the program counts
    copies within it.
    """
    units = units_of(plates_of(em, args, kwargs).plates, plate, rows)
    for term in compiled.graph.terms:
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


def scores_of(em: EM, own: Coordinates, units: Units, params, args, kwargs) -> np.ndarray:
    """Return the score of each unit, (coordinate, unit): the derivatives of ∂ log p / ∂ weight.

    Errors: `ValueError` where the log-likelihood is not the sum over the units.
    """
    compiled, data = compiled_with(
        em, units.key, units.weighted(em.model), jnp.ones(units.size), args, kwargs
    )
    key = ("scores", own.key)

    def scores(params, data):
        by_element, ones = jax.value_and_grad(_log_likelihood(compiled), 1), jnp.ones(units.size)
        (total, single), along = jax.linearize(
            lambda vector: by_element(own.unflatten(vector, params), ones, data),
            own.flatten(params),
        )
        return (
            total,
            single.sum(),
            rows_of_derivative(
                lambda direction: along(direction)[1], own.size, jnp.result_type(float)
            ),
        )

    if key not in compiled.graph.cache:
        compiled.graph.cache[key] = jax.jit(scores)
    total, summed, found = jax.device_get(compiled.graph.cache[key](params, data))
    _check_sum(total, summed, units)
    return np.asarray(found, float)


def check_independent(em: EM, units: Units, params, args, kwargs) -> None:
    """Raise `ValueError` where the log-likelihood is not the sum over the units."""
    compiled, data = compiled_with(
        em, units.key, units.weighted(em.model), jnp.ones(units.size), args, kwargs
    )
    if "single" not in compiled.graph.cache:
        compiled.graph.cache["single"] = jax.jit(jax.value_and_grad(_log_likelihood(compiled), 1))
    total, single = jax.device_get(
        compiled.graph.cache["single"](params, jnp.ones(units.size), data)
    )
    _check_sum(total, single.sum(), units)


def _log_likelihood(compiled: Compiled):
    graph = compiled.graph
    return lambda params, weights, data: log_partition_of(
        graph,
        graph.arrays(params, graph.prepare([weights, *data])),
        lambda term: not term.site.is_prior,
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
