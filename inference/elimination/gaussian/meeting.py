"""Which elements of other latents the elements of one latent meet, put together from its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emjax.elimination.factors import Variable
from emjax.numerics.arrays import broadcast
from emjax.tables.indices import Index, index_of
from emjax.tables.named import Axis


@dataclass(frozen=True, eq=False)
class Covered:
    """Which elements of a latent some factor is about.

    - `where`: (elements…) of truth values; None: that is not known beforehand.
    """

    where: np.ndarray | None

    @staticmethod
    def by(axis: Axis, shape: Sequence[int], variable: Variable) -> Covered:
        """Return the elements that an axis of a factor with elements of this shape reads."""
        if not axis.index.is_static:
            return Covered(None)
        where = np.zeros(variable.count, bool)
        where[np.asarray(axis.index.dense(shape)).reshape(-1)] = True
        return Covered(where.reshape(variable.shape))


def met_together(meetings: Sequence[tuple[Axis, Covered]]) -> dict[Any, Axis]:
    """Return the axis to take in place of each, by its key.

    Axes that read one latent are one axis where no element reads two elements along them: a latent
    of which `z[0]` is met by the first element and `z[1:]` by the others is met once.
    """
    one: dict = {}
    by_source: dict = {}
    for axis, covered in meetings:
        by_source.setdefault(axis.source, []).append((axis, covered))
    for group in by_source.values():
        keys = {axis.key for axis, _ in group}
        if len(keys) == 1 or any(_is_unknown(axis, covered) for axis, covered in group):
            one |= {axis.key: axis for axis, _ in group}
        else:
            one |= _merged(group)
    return one


def _is_unknown(axis: Axis, covered: Covered) -> bool:
    return covered.where is None or not axis.index.is_static


@dataclass(eq=False)
class _Met:
    """One element that is met: its number for each element, and where that is known."""

    number: np.ndarray
    covered: np.ndarray
    keys: list


def _merged(group: Sequence[tuple[Axis, Covered]]) -> dict[Any, Axis]:
    """Return the axis to take in place of each of one latent, all known, by its key."""
    reads: dict = {}
    for axis, covered in group:
        # one key is met by all factors together
        before = reads.get(axis.key)
        where = covered.where if before is None else before[1] | covered.where
        reads[axis.key] = axis, where
    met_apart: list[_Met] = []
    for axis, where in reads.values():
        number = broadcast(axis.index.dense(where.shape), where.shape)
        for met in met_apart:
            both = met.covered & where
            if (met.number == number)[both].all():
                met.number = np.where(where, number, met.number)
                met.covered = met.covered | where
                met.keys.append(axis.key)
                break
        else:
            met_apart.append(_Met(number, where, [axis.key]))
    one = {}
    for met in met_apart:
        for key in met.keys:
            axis = reads[key][0]
            one[key] = axis if len(met.keys) == 1 else replace(axis, index=_index(met))
    return one


def _index(met: _Met) -> Index:
    return index_of(met.number.astype(np.int32))
