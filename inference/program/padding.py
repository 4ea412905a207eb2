"""Whether a program may run on more rows than its data have, those added with multiplicity zero.

A program is traced at two lengths. It may be padded if both traces are the same program but for
the length of the *row axes* (the axes that are as long as the data in either trace), if what it
computes for a row is computed of that row and of what has no rows, and if every site with rows is
multiplied, row by row, by the weights that `weighted` gives a plate. What is computed for a row
that was added then counts nothing.

A row that is added is a copy of the first one in all that the program knows of it: no rows are
numbered, no known array tells them apart. So whatever is computed for it is finite where the first
row's is. It is bad data where that is, and whoever pads looks for these at their own length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from emjax.program.latents import GaussianLatent, Latent
from emjax.program.lengths import Comparison, Value, require
from emjax.program.records import Parameter, Site
from emjax.program.row_axes import RowsMeet
from emjax.program.trace import Program


class Padding(NamedTuple):
    """Whether a program may be padded.

    - `reason`: why not; None: it may.
    """

    reason: str | None

    @property
    def is_sound(self) -> bool:
        return self.reason is None


def padding(
    program: Program, padded: Program, num_weights: int = 1, are_in_front: bool = True
) -> Padding:
    """Return whether a program may run on the rows of `padded`, as many as it has counting.

    - `program`, `padded`: one program within `weighted`, traced at its own length and at another.
    - `num_weights`: how many weights there are, one for each call of `weighted`; they are the first
      of the data. Each is a group of rows, of a length of its own.
    - `are_in_front`: whether the rows of all data are to lie along the first axis.

    Source: ours.
    """
    try:
        _check_padding(program, padded, num_weights, are_in_front)
    except RowsMeet as error:
        return Padding(str(error))
    return Padding(None)


def start_reads_rows(start: ClosedJaxpr, padded: ClosedJaxpr, lengths: Mapping[int, int]) -> bool:
    """Return whether the start of a program may depend on its rows, or on how many there are.

    - `start`, `padded`: (key, data) → the values of the parameters, at two lengths.
    - `lengths`: {how many rows there are: how many in the other}.
    """
    try:
        for rows in lengths.items():
            comparison = Comparison(rows, frozenset(lengths.items()))
            outputs = comparison.outputs(start, padded, [False] * len(start.jaxpr.invars))
            require(all(output.axis is None for output in outputs), "a parameter has rows")
    except RowsMeet:
        return True
    return False


def _check_padding(program: Program, padded: Program, num_weights: int, are_in_front: bool) -> None:
    """Raise `RowsMeet` for a program that may not be padded."""
    require(program.names == padded.names, "the parameters differ")
    require(program.num_data == padded.num_data, "the numbers of arrays differ")
    first = len(program.names)
    shapes = [tuple(var.aval.shape) for var in program.jaxpr.jaxpr.invars]
    others = [tuple(var.aval.shape) for var in padded.jaxpr.jaxpr.invars]
    pairs = list(zip(shapes, others, strict=True))
    groups = [(a[0], b[0]) for a, b in pairs[first : first + num_weights]]
    lengths = frozenset(group for group in groups if group[0] != group[1])
    # groups of one length and one padded length cannot be told apart, and need not be
    for rows in lengths or (None,):
        comparison = Comparison(rows, lengths)
        axes = [comparison.axis(*pair) for pair in pairs]
        require(all(axis is None for axis in axes[:first]), "a parameter has rows")
        if are_in_front:
            require(all(axis in (None, 0) for axis in axes[first:]), "rows are not in front")
        weights = range(first, first + num_weights)
        vanishes = [number in weights and axes[number] == 0 for number in range(len(pairs))]
        outputs = comparison.outputs(program.jaxpr, padded.jaxpr, vanishes)
        _check_records(comparison, program, padded)
        for site, other in zip(program.sites, padded.sites, strict=True):
            _check_site(comparison, site, other, outputs)


def _check_records(comparison: Comparison, program: Program, padded: Program) -> None:
    """Raise `RowsMeet` for parameters, latents or numbers of sites that differ."""
    for name, parameter in program.parameters.items():
        require(_same_parameter(parameter, padded.parameters[name]), f"'{name}' differs")
    latents = {**program.latents, **program.gaussians}
    others = {**padded.latents, **padded.gaussians}
    require(list(latents) == list(others), "the latents differ")
    for name, latent in latents.items():
        other = others[name]
        comparison.axis(latent.shape, other.shape)
        require(_same_latent(latent, other), f"'{name}' differs")
    require(len(program.sites) == len(padded.sites), "the numbers of sites differ")


def _check_site(comparison: Comparison, site: Site, padded: Site, outputs: Sequence[Value]) -> None:
    """Raise `RowsMeet` for a site that differs, or has rows that are not weighted."""
    require(_same_site(site, padded), f"'{site.name}' differs")
    rank, ranks = len(site.elements), site.ranks(len(site.elements))
    over = comparison.axis(site.elements, padded.elements)
    # counted from the right among the elements: arrays may have fewer axes, or more
    places = set() if over is None else {rank - over}
    for number in site.arrays:
        value = outputs[number]
        if value.axis is not None:
            events = ranks[number] - rank
            places.add(len(value.padded.aval.shape) - events - value.axis)
    if not places:
        return
    require(len(places) == 1 and min(places) > 0, f"'{site.name}' has rows in several places")
    number = site.outputs.multiplicity
    # what vanishes has rows, and those of a site are all in one place
    is_weighted = number is not None and outputs[number].vanishes
    require(is_weighted, f"'{site.name}' is not weighted")


def _same_parts(one: Any, other: Any) -> bool:
    """Return whether two constraints are the same, array by array."""
    if one is other:
        return True
    leaves, tree = jax.tree.flatten(one)
    others, other_tree = jax.tree.flatten(other)
    return tree == other_tree and all(map(_same_part, leaves, others))


def _same_part(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | jax.Array | float | int):
        return np.array_equal(one, other)
    return one is other


def _same_parameter(one: Parameter, other: Parameter) -> bool:
    described = (one.name, one.shape, one.dtype, one.is_prior)
    if described != (other.name, other.shape, other.dtype, other.is_prior):
        return False
    return _same_parts(one.constraint, other.constraint)


def _same_latent(one: Latent | GaussianLatent, other: Latent | GaussianLatent) -> bool:
    described = (type(one), one.name, one.plates, one.is_series, one.dtype)
    if described != (type(other), other.name, other.plates, other.is_series, other.dtype):
        return False
    if isinstance(one, GaussianLatent) or isinstance(other, GaussianLatent):
        return True
    return np.array_equal(one.support, other.support)


def _same_site(one: Site, other: Site) -> bool:
    described = (one.name, one.kind, one.distribution, one.event, one.plates)
    if described != (other.name, other.kind, other.distribution, other.event, other.plates):
        return False
    if jax.tree.flatten(one.outputs) != jax.tree.flatten(other.outputs):
        return False
    constraints, others = one.arg_constraints, other.arg_constraints
    if constraints.keys() != others.keys():
        return False
    return all(_same_parts(constraints[name], others[name]) for name in constraints)
