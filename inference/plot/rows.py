"""What is observed at a site, as rows: which of its axes number them, and what they hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax.core
import numpy as np
from jax.extend.core import ClosedJaxpr

from emjax.families.family import lacks_coordinates
from emjax.graph.terms import Term
from emjax.naming.axes import program_axes
from emjax.numerics.jaxprs import pruned, rearranged
from emjax.program.latents import latent_p
from emjax.program.records import Site
from emjax.run.bound import Bound
from emjax.tables.named import Axis


class CannotShow(Exception):
    """Why the distribution of a site is none that could be drawn, in words."""


def row_axes(term: Term) -> list[int]:
    """Return which axes of its elements number the rows of data: each has values of its own."""
    rank, axes = len(term.elements), term.latent_axes
    return [d for d in range(rank) if any(axis.fitted(rank).varies[d] for axis in axes)]


def computed(bound: Bound, number: int) -> np.ndarray | None:
    """Return an output of the program that depends on data alone; None for what latents choose."""
    program = bound.compiled.graph.program
    jaxpr = program.jaxpr.jaxpr
    asked = rearranged(jaxpr, outvars=[jaxpr.outvars[number]])
    closed = pruned(ClosedJaxpr(asked, program.jaxpr.consts))
    if any(eqn.primitive is latent_p for eqn in closed.jaxpr.eqns):
        return None
    # parameters do not matter
    unread = [np.zeros(p.shape, p.dtype) for p in map(program.parameters.get, program.names)]
    (array,) = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *unread, *bound.data)
    return np.asarray(array)


def one_for_all(array: np.ndarray | None, term: Term, rows: Sequence[int], name: str) -> np.ndarray:
    """Return a given argument without the axes of rows, along which it is to be the same."""
    if array is None:
        raise CannotShow(f"the {name} of '{term.site.name}' depends on a latent")
    array = array.reshape((1,) * (len(term.elements) - array.ndim) + array.shape)
    first = array[tuple(slice(0, 1) if d in rows else slice(None) for d in range(array.ndim))]
    if not (array == first).all():
        raise CannotShow(f"the {name} of '{term.site.name}' differs from row to row")
    return np.squeeze(first, axis=tuple(rows))


def observed_at(bound: Bound, site: Site) -> np.ndarray:
    """Return what is observed at a site, (*elements, *event); NaN where it does not count."""
    rank, event = len(site.elements), len(site.event)
    shape = (*site.elements, *site.event)
    value = computed(bound, site.outputs.value)
    if value is None:
        raise CannotShow(f"what is observed at '{site.name}' depends on a latent")
    value = np.broadcast_to(value.astype(float), shape)
    for number in site.outputs.masks:
        mask = computed(bound, number)
        if mask is not None:
            mask = mask.reshape((1,) * (rank - mask.ndim) + mask.shape + (1,) * event)
            value = np.where(mask, value, np.nan)
    return value


def data_of(bound: Bound, term: Term, rows: Sequence[int]) -> np.ndarray:
    """Return what is observed at a term's site as (row, feature); NaN where it does not count."""
    site, value = term.site, observed_at(bound, term.site)
    if lacks_coordinates(term.family):
        observed = computed(bound, site.outputs.args[term.family.given[0]])
        value = value if observed is None else np.where(observed, value, np.nan)
    others = [d for d in range(value.ndim) if d not in rows]
    number = math.prod(site.elements[d] for d in rows)
    return value.transpose([*rows, *others]).reshape(number, -1)


def elements_of(axis: Axis, elements: tuple[int, ...], rows: Sequence[int]) -> np.ndarray:
    """Return which element of a latent each row reads."""
    index = np.asarray(axis.index.dense(elements))
    index = np.squeeze(index, axis=tuple(d for d in range(len(elements)) if d not in rows))
    return np.broadcast_to(index, [elements[d] for d in rows]).reshape(-1)


def features_of(bound: Bound, site: Site, rows: Sequence[int], size: int) -> tuple[str, ...]:
    """Return what the features of a site are called: its columns, or its name and numbers."""
    if size == 1:
        return (site.name,)
    axes = program_axes(bound).of_site(site)
    along = [axis for d, axis in enumerate(axes) if d not in rows]
    labels = [list(map(str, axis.labels)) for axis in along]
    is_named = any(axis.are_words for axis in along)
    names = []
    for words in itertools.product(*labels):
        joined = ", ".join(words)
        names.append(joined if is_named else f"{site.name}[{joined}]")
    return tuple(names)
