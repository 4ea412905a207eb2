"""Least squares: parameters in which Q is quadratic, to its maximum in one step.

They are unbounded, and enter the locations of normals affinely, or coefficients of Gaussian latents
there. Such a Q usually falls into many small parts, a location and the coefficients of one
coordinate each, so that any number of unknowns is solved for at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from jax.flatten_util import ravel_pytree

from emjax.families.limits import limits_of
from emjax.m_step.computed import LARGEST_NEWTON, smooth_in_tables, terms_of_any
from emjax.m_step.coupling import coupled_entries
from emjax.m_step.maximizer import Maximizer, Request, Turn
from emjax.m_step.objective import expected_log_likelihood
from emjax.m_step.quadratic import batches_of, quadratic_maximum
from emjax.m_step.wiring_view import WiringView

# one group is a dense system of equations
LARGEST_GROUP = 1000


def by_least_squares(
    request: Request, left: dict[str, str]
) -> tuple[list[Maximizer], dict[str, str]]:
    """Return least squares for all parameters in which Q is quadratic, and what is left."""
    view, parameters = request.view, request.graph.parameters
    smooth, _ = smooth_in_tables(request, left)
    is_linear = {name: is_linear_in(view, name) for name in smooth}
    names = sorted(set(filter(is_linear.get, smooth)) - _with_newton(view, smooth, is_linear))
    if not names:
        return [], left
    group_of = coupled_entries(view, names, terms_of_any(view, names))
    size_of_group = np.bincount(group_of)[group_of]
    sizes = [math.prod(parameters[name].shape) for name in names]
    largest = {}
    for name, its_sizes in zip(names, np.split(size_of_group, np.cumsum(sizes)[:-1]), strict=True):
        largest[name] = its_sizes.max(initial=0)
    served = [name for name in names if largest[name] <= LARGEST_GROUP]
    is_served = np.repeat([name in served for name in names], sizes)
    _, group_of = np.unique(group_of[is_served], return_inverse=True)
    rest = {}
    for name, reason in left.items():
        if name in largest and name not in served:
            reason += f"; {largest[name]} unknowns that meet are too many for least squares"
        if name not in served:
            rest[name] = reason
    why = {name: left[name] for name in served}
    return [_least_squares(view, why, batches_of(group_of))] if served else [], rest


def _least_squares(
    view: WiringView, reasons: Mapping[str, str], batches: list[np.ndarray]
) -> Maximizer:
    """Return the maximizer of parameters in which Q is quadratic; names are in order."""
    graph, names, terms = view.graph, tuple(reasons), terms_of_any(view, reasons)

    def update(params, state, constants, statistics):
        start, restored = ravel_pytree({name: params[name] for name in names})

        def objective(vector):
            there = {**params, **restored(vector)}
            return expected_log_likelihood(graph, there, constants, statistics, terms)

        sizes_of_tables = [table.size for number in terms for table in statistics[number]]
        end = quadratic_maximum(objective, start, batches, sizes_of_tables)
        return restored(end), state

    # before the scales that are measured from it
    return Maximizer(names, "least squares", tuple(reasons.values()), update, turn=Turn.LOCATION)


def is_linear_in(view: WiringView, name: str) -> bool:
    """Whether a parameter is unbounded, and enters locations and coefficients alone, affinely."""
    limits = limits_of(view.graph.parameters[name].constraint)
    if limits is None or not limits.is_unbounded:
        return False
    for number in view.terms_of(name):
        for table, shape in view.arguments(view.graph.terms[number]):
            is_quadratic = shape is not None and shape.is_quadratic
            if view.reads(table, name) and not (view.wire(table).affine and is_quadratic):
                return False
    return True


def _with_newton(
    view: WiringView, smooth: Collection[str], is_linear: Mapping[str, bool]
) -> set[str]:
    """Return the parameters that are maximized with others, in which Q is not quadratic.

    They share terms, and are few enough for Newton's method to go to their joint maximum.
    """
    together = {name for name in smooth if not is_linear[name]}
    readers: dict[int, set[str]] = {}
    for name in smooth:
        for number in view.terms_of(name):
            readers.setdefault(number, set()).add(name)
    before = None
    while before != together:
        before = set(together)
        for names in readers.values():
            together |= names if names & together else set()
    size = sum(math.prod(view.graph.parameters[name].shape) for name in together)
    return together if size <= LARGEST_NEWTON else set()
