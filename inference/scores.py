"""The independent elements of a plate, and the score of each: the gradient of its own log-likelihood."""

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
from emjax.weighting import plate_sizes, weighted


def independent_plate(compiled: Compiled, plate: str | None) -> str:
    """Return the plate whose elements are independent: the one given, or the only outermost one of latents and observations.

    Errors: `ValueError` where there is none, or several, or where the program counts copies within it.
    """
    terms = [term for term in compiled.graph.terms if term.site.kind != "prior"]
    outermost = sorted({term.site.plates[-1] for term in terms if term.site.plates})
    known = ", ".join(map(repr, sorted({name for term in terms for name in term.site.plates}))) or "none"
    if plate is None and len(outermost) != 1:
        raise ValueError(f"Which elements are independent? Pass plate=..., one of the program's plates: {known}.")
    plate = outermost[0] if plate is None else plate
    within = [term for term in terms if plate in term.site.plates]
    if not within:
        raise ValueError(f"The program has no plate '{plate}' with latents or data in it; its plates are {known}.")
    for term in within:
        if term.site.outputs["scale"] is not None:
            raise ValueError(f"Site '{term.site.name}' counts copies (handlers.scale), and a row of several copies is no independent element of plate '{plate}'. Pass the "
                             "rows one by one, np.repeat(rows, count), or use method='information'.")
    return plate


def scores_of(em: EM, own: Coordinates, plate: str, params, args, kwargs) -> np.ndarray:
    """Return the score of each element of a plate, (coordinate, element): the derivatives of ∂ log p / ∂ weight.

    Errors: `ValueError` where the log-likelihood is not the sum over the elements.
    """
    compiled, data, size = _weighted(em, plate, args, kwargs)
    key = ("scores", own.key)

    def scores(params, data):
        by_element, ones = jax.value_and_grad(_log_likelihood(compiled), 1), jnp.ones(size)
        (total, single), along = jax.linearize(lambda vector: by_element(own.unflatten(vector, params), ones, data), own.flatten(params))
        return total, single.sum(), rows_of_derivative(lambda direction: along(direction)[1], own.size, jnp.result_type(float))

    if key not in compiled.graph.cache:
        compiled.graph.cache[key] = jax.jit(scores)
    total, summed, found = jax.device_get(compiled.graph.cache[key](params, data))
    _check_sum(total, summed, plate)
    return np.asarray(found, float)


def check_independent(em: EM, plate: str, params, args, kwargs) -> None:
    """Raise `ValueError` where the log-likelihood is not the sum over the elements of a plate."""
    compiled, data, size = _weighted(em, plate, args, kwargs)
    if "single" not in compiled.graph.cache:
        compiled.graph.cache["single"] = jax.jit(jax.value_and_grad(_log_likelihood(compiled), 1))
    total, single = jax.device_get(compiled.graph.cache["single"](params, jnp.ones(size), data))
    _check_sum(total, single.sum(), plate)


def _weighted(em: EM, plate: str, args, kwargs) -> tuple[Compiled, list, int]:
    """Return the program with weights for the elements of a plate, compiled, its other data, and how many elements there are."""
    size = plate_sizes(em.model, args, kwargs)[plate]
    return *compiled_with(em, f"weighted {plate}", weighted(em.model, plate), jnp.ones(size), args, kwargs), size


def _log_likelihood(compiled: Compiled):
    graph = compiled.graph
    return lambda params, weights, data: log_partition_of(graph, graph.arrays(params, graph.prepare([weights, *data])), lambda term: term.site.kind != "prior")


def _check_sum(total, summed, plate: str) -> None:
    """A log-likelihood that is a sum over the elements is linear in their weights: at weights of one it is the sum of its derivatives (Euler)."""
    if not np.isclose(total, summed, rtol=np.sqrt(np.finfo(total.dtype).eps), atol=0):
        raise ValueError(f"The log-likelihood ({total:.6g} nats) is not the sum over the elements of plate '{plate}' ({summed:.6g}): data outside it are observed (rows of "
                         "another plate that look up its elements, too), or latents are shared among its elements. Pass the plate that holds all data, write the rows as a "
                         "table of its elements with a mask, or use method='information' or 'parametric bootstrap'.")
