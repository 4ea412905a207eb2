"""Blocks of the outermost plate, each small enough to stay in the cache: how an instance is cut.

Terms whose latents all run along one axis with the data are cut along it. A block is an instance
with fewer rows, so that everything else in the package is unaware of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.e_step.cutting import Plate, can_be_cut, cut, cut_term
from emjax.e_step.instance import Instance
from emjax.e_step.products import features
from emjax.elimination.factors import Variable
from emjax.families.family import lacks_coordinates
from emjax.graph.terms import Term
from emjax.tables.indices import Affine
from emjax.tables.named import Named

# What one block works on: about what a core's share of the last cache holds (measured: 4 to 16 MB
# are within 10 %, one pass over everything takes up to 3 times as long). An accelerator has no such
# cache: there a block only bounds memory.
BLOCK_BYTES = {"cpu": 8 * 2**20}
BLOCK_BYTES_ELSEWHERE = 2**29
# Every block adds its gradient to that of the tables: it should take many times as long itself.
# (Tables with a row for each position are counted in vain; they are seldom large.)
BLOCK_TABLES = 32
# Tables of the size of the latents' joint table: itself, its exponential and its derivative.
JOINT_TABLES = 3
# Matrices for each row with missing coordinates and each value of its latents: the precision among
# what is missing, its inverse, the second moment.
MATRICES = 3
# A chain is a loop over its steps in each block, of many small operations: a block is a smaller
# part of the cache, and a message, of all its sequences and states, has so many entries at least
# (measured on a CPU, 4 states: blocks of 1,000 sequences of symbols take 0.7 to 0.9 times as long
# as of 4,000, of points as long).
PART_OF_CHAINS = {"cpu": 4}
FEWEST_ENTRIES = 2**12
# Data of fewer blocks than this are taken in one piece: a loop costs small work more than it saves.
FEWEST_BLOCKS = 2


@dataclass(frozen=True, eq=False)
class Blocks:
    """How an instance is cut along a plate.

    - `instance`: all of it.
    - `axes`: by number of the term, the axis of its elements that runs along the plate, for terms
      that are cut.
    - `plate`: where it runs through latents.
    - `rows`: a block's.
    """

    instance: Instance
    axes: Mapping[int, int]
    plate: Plate
    rows: int

    @property
    def size(self) -> int:
        """The plate's length."""
        return self.plate.size

    @property
    def rest(self) -> Instance:
        """The terms that are not cut."""
        instance = self.instance
        numbers = [i for i in range(len(instance.terms)) if i not in self.axes]
        cut_names = {axis.source for i in self.axes for axis in instance.terms[i].all_axes}

        def left(variables: Mapping[str, Variable]) -> dict[str, Variable]:
            return {name: v for name, v in variables.items() if name not in cut_names}

        return replace(
            instance,
            terms=tuple(instance.terms[i] for i in numbers),
            naturals=tuple(instance.naturals[i] for i in numbers),
            latents=left(instance.latents),
            gaussian_variables=left(instance.gaussian_variables),
        )

    def part(self, start: Any, rows: int) -> Instance:
        """Return the instance on `rows` positions of the plate from `start`."""
        terms, naturals = [], []
        cut_names: set[str] = set()
        for i, axis in self.axes.items():
            term = self.instance.terms[i]
            terms.append(cut_term(term, axis, start, rows, self.plate))
            tables = self.instance.naturals[i]
            naturals.append([cut(table, axis, start, rows, self.plate) for table in tables])
            cut_names.update(str(read.source) for read in term.all_axes)

        def cut_of(variables: Mapping[str, Variable]) -> dict[str, Variable]:
            names = [name for name in variables if name in cut_names]
            return {name: self.plate.cut(name, variables[name], start, rows) for name in names}

        # the constant belongs to no block: it is in `rest`
        return replace(
            self.instance,
            terms=tuple(terms),
            naturals=tuple(naturals),
            latents=cut_of(self.instance.latents),
            gaussian_variables=cut_of(self.instance.gaussian_variables),
            constant=0.0,
        )


def blocks_of(instance: Instance) -> Blocks | None:
    """Return how to cut an instance; None where nothing is gained, or its terms run apart."""
    bytes_per_block = BLOCK_BYTES.get(jax.default_backend(), BLOCK_BYTES_ELSEWHERE)
    for plate in _plates(instance):
        axes = _axes_along(instance, plate)
        if not axes:
            continue
        bytes_of_tables, bytes_per_row, fewest = 0, 0, 1
        for i, axis in axes.items():
            term = instance.terms[i]
            # to a table that data look up, a block adds what it has read, and no more
            adds = [table for table in instance.naturals[i] if not _is_looked_up(table)]
            bytes_of_tables += sum(_bytes(table.array) for table in adds)
            bytes_per_row += _bytes_per_row(term, axis)
            if _is_of_a_chain(term):
                pairs = math.prod(each.size for each in term.latent_axes)
                states = pairs // max(each.size for each in term.latent_axes)
                fewest = max(fewest, -(-FEWEST_ENTRIES // states))
        if any(_is_of_a_chain(instance.terms[i]) for i in axes):
            bytes_per_block //= PART_OF_CHAINS.get(jax.default_backend(), 1)
        rows = max(bytes_per_block, BLOCK_TABLES * bytes_of_tables) // max(1, bytes_per_row)
        rows = max(rows, fewest)
        if plate.size < FEWEST_BLOCKS * rows:
            return None
        return Blocks(instance, axes, plate, _rows_of_equal_blocks(plate.size, rows))
    return None


def _plates(instance: Instance) -> list[Plate]:
    """Return the plates that there may be, by length: the longest first, where most is to gain.

    An axis of one length is one plate, and of several of one latent's it is the first, or the last.
    """
    shapes = {name: variable.shape for name, variable in instance.variables.items()}
    found = []
    for size in sorted({size for shape in shapes.values() for size in shape}, reverse=True):
        if size == 1:
            continue
        firsts, lasts = {}, {}
        for name, shape in shapes.items():
            along = [d for d, length in enumerate(shape) if length == size]
            # Gaussian latents are cut along their first axis alone
            if name in instance.gaussian_variables:
                along = [d for d in along if d == 0]
            if along:
                firsts[name], lasts[name] = along[0], along[-1]
        found.append(Plate(size, shapes, firsts))
        if lasts != firsts:
            found.append(Plate(size, shapes, lasts))
    return found


def _rows_of_equal_blocks(size: int, most: int) -> int:
    """Return the rows of a block, `most` or fewer.

    Blocks are equal, if a few more of them than are needed leave no remainder.
    """
    fewest = -(-size // most)
    for number in range(fewest, 2 * fewest):
        if size % number == 0:
            return size // number
    return -(-size // fewest)


def _axes_along(instance: Instance, plate: Plate) -> dict[int, int]:
    """Return the axis of each term that runs along a plate, as its latents do.

    By number of the term, for the terms that read these latents; {} if one of them has none.
    """
    axes = {}
    for i, term in enumerate(instance.terms):
        sources = {axis.source for axis in term.all_axes}
        if not sources & set(plate.dims):
            continue
        # a term that couples them with other latents would be in several blocks
        if not sources <= set(plate.dims):
            return {}
        axis = _axis_along(term, plate)
        if axis is None or not can_be_cut(term, instance.naturals[i], axis):
            return {}
        axes[i] = axis
    for name, dim in plate.dims.items():
        multiplicity = instance.variables[name].multiplicity
        if multiplicity is not None and multiplicity.shape[dim] not in (1, plate.size):
            return {}
    return axes


def _axis_along(term: Term, plate: Plate) -> int | None:
    """Return the axis of a term's elements at whose position i its latents are read at row i.

    And at no other row; None if there is none.
    """
    dims = set()
    for axis in term.all_axes:
        index = axis.index
        if not isinstance(axis.source, str) or not isinstance(index, Affine):
            return None
        row, all_rows = plate.strides(axis.source)
        if index.offset % all_rows:
            return None
        along = []
        within_row = 0
        for d, (stride, length) in enumerate(zip(index.strides, term.elements, strict=True)):
            # what is outside of the plate, such as time, is no matter of blocks
            if stride % all_rows == 0:
                continue
            if not 0 <= stride < all_rows:
                return None
            if stride == row and length == plate.size:
                along.append(d)
            if d not in along[:1]:
                within_row += stride * (length - 1)
        # an index that goes beyond one row would read several at one position
        if not along or within_row >= row:
            return None
        dims.add(along[0])
    return dims.pop() if len(dims) == 1 else None


def _is_of_a_chain(term: Term) -> bool:
    """Whether a term couples several elements of one latent."""
    sources = [axis.source for axis in term.latent_axes]
    return len(set(sources)) < len(sources)


def _is_looked_up(table: Named) -> bool:
    """Whether data say which rows of a table are read."""
    return any(not isinstance(axis.index, Affine) for axis in table.row_axes)


def _bytes(array) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _bytes_per_row(term: Term, axis: int) -> int:
    """Return what a term works on for one position of an axis, in bytes.

    Its statistics, and some tables of the size of its latents' joint one; where coordinates are
    missing, also some matrices for each entry of that.
    """
    size = term.elements[axis]
    width = np.dtype(jnp.result_type(float)).itemsize
    # of a pair that `canonical` makes one of, only the first is a column
    formed = jax.eval_shape(
        lambda: [features(s) for s in term.statistics.formed(term.elements) if s.total is None]
    )
    columns = sum(math.prod(s.shape) // size for s in formed if s.size >= size)
    kept = [n for d, n in enumerate(term.elements) if d in term.kept and d != axis]
    sizes = [each.size for each in term.latent_axes]
    entries = math.prod(kept) * math.prod(sizes)
    # messages of a chain: its steps are never tables of a state and the next
    if _is_of_a_chain(term):
        entries //= max(sizes)
    # vectors and matrices of the coordinates of Gaussian latents
    coordinates = sum(a.size for a in term.reads)
    entries *= 1 + coordinates + coordinates**2
    numbers_per_entry = JOINT_TABLES
    if lacks_coordinates(term.family):
        numbers_per_entry += MATRICES * term.site.event[-1] ** 2
    return width * (columns + numbers_per_entry * entries)
