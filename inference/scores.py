"""The independent units of a program, and the score of each: the gradient of its own log-likelihood."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from emjax.bootstrap import compiled_with
from emjax.coordinates import Coordinates
from emjax.curvature import rows_of_derivative
from emjax.driver import Compiled
from emjax.e_step import log_partition_of
from emjax.em import EM
from emjax.weighting import Units, plate_sizes


def independent_units(em: EM, compiled: Compiled, plate, args, kwargs) -> Units:
    """Return the independent units: the elements of the plate given, or of the only outermost one of latents and observations.

    `plate`: a name, or {name: None, other: index}, where index says to which element of the first each row of the other belongs. Errors: `ValueError` where there is
    no such plate, or several, or where the program counts copies within it.
    """
    terms = [term for term in compiled.graph.terms if term.site.kind != "prior"]
    outermost = sorted({term.site.plates[-1] for term in terms if term.site.plates})
    known = ", ".join(map(repr, sorted({name for term in terms for name in term.site.plates}))) or "none"
    if plate is None and len(outermost) != 1:
        raise ValueError(f"Which elements are independent? Pass plate=..., one of the program's plates: {known}. Rows of another plate go with them by an index: "
                         "plate={'items': None, 'rows': item}.")
    chosen = {outermost[0]: None} if plate is None else {plate: None} if isinstance(plate, str) else dict(plate)
    units = [name for name, index in chosen.items() if index is None]
    if len(units) != 1:
        raise ValueError(f"plate must be a plate's name, or {{name: None, other: index}} with one plate whose elements are the units, not {plate!r}.")
    for name in chosen:
        within = [term for term in terms if name in term.site.plates]
        if not within:
            raise ValueError(f"The program has no plate '{name}' with latents or data in it; its plates are {known}.")
        for term in within:
            if term.site.outputs["scale"] is not None:
                raise ValueError(f"Site '{term.site.name}' counts copies (handlers.scale), and a row of several copies is no independent element of plate '{name}'. Pass "
                                 "the rows one by one, np.repeat(rows, count), or use method='information'.")
    sizes = plate_sizes(em.model, args, kwargs)
    rows = {name: np.asarray(index) for name, index in chosen.items() if index is not None}
    for name, index in rows.items():
        if index.shape != (sizes[name],) or not np.issubdtype(index.dtype, np.integer) or (index < 0).any() or (index >= sizes[units[0]]).any():
            raise ValueError(f"plate['{name}'] must say to which of the {sizes[units[0]]} elements of '{units[0]}' each of its {sizes[name]} rows belongs: whole numbers from 0.")
    return Units(units[0], sizes[units[0]], rows)


def scores_of(em: EM, own: Coordinates, units: Units, params, args, kwargs) -> np.ndarray:
    """Return the score of each unit, (coordinate, unit): the derivatives of ∂ log p / ∂ weight.

    Errors: `ValueError` where the log-likelihood is not the sum over the units.
    """
    compiled, data = compiled_with(em, units.key, units.weighted(em.model), jnp.ones(units.size), args, kwargs)
    key = ("scores", own.key)

    def scores(params, data):
        by_element, ones = jax.value_and_grad(_log_likelihood(compiled), 1), jnp.ones(units.size)
        (total, single), along = jax.linearize(lambda vector: by_element(own.unflatten(vector, params), ones, data), own.flatten(params))
        return total, single.sum(), rows_of_derivative(lambda direction: along(direction)[1], own.size, jnp.result_type(float))

    if key not in compiled.graph.cache:
        compiled.graph.cache[key] = jax.jit(scores)
    total, summed, found = jax.device_get(compiled.graph.cache[key](params, data))
    _check_sum(total, summed, units)
    return np.asarray(found, float)


def check_independent(em: EM, units: Units, params, args, kwargs) -> None:
    """Raise `ValueError` where the log-likelihood is not the sum over the units."""
    compiled, data = compiled_with(em, units.key, units.weighted(em.model), jnp.ones(units.size), args, kwargs)
    if "single" not in compiled.graph.cache:
        compiled.graph.cache["single"] = jax.jit(jax.value_and_grad(_log_likelihood(compiled), 1))
    total, single = jax.device_get(compiled.graph.cache["single"](params, jnp.ones(units.size), data))
    _check_sum(total, single.sum(), units)


def _log_likelihood(compiled: Compiled):
    graph = compiled.graph
    return lambda params, weights, data: log_partition_of(graph, graph.arrays(params, graph.prepare([weights, *data])), lambda term: term.site.kind != "prior")


def _check_sum(total, summed, units: Units) -> None:
    """A log-likelihood that is a sum over the units is linear in their weights: at weights of one it is the sum of its derivatives (Euler)."""
    if not np.isclose(total, summed, rtol=np.sqrt(np.finfo(total.dtype).eps), atol=0):
        raise ValueError(f"The log-likelihood ({total:.6g} nats) is not the sum over the elements of {units} ({summed:.6g}): data outside it are observed, or latents are shared "
                         f"among its elements. Pass the plate that holds all data; rows of another that look up its elements go with them by an index: plate={{'{units.plate}': None, "
                         "'rows': index}; or use method='information' or 'parametric bootstrap'.")
