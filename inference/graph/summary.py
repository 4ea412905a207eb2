"""What parts of the data have to know of all of them: the origins of their statistics.

Statistics add up over parts of the data if all are taken about the same origin, a mean. It is made
of a total and a count, which add up in turn: that is the summary of the data.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Var

from emjax.graph.data_statistics import mean_of_sums
from emjax.numerics.jaxprs import output_dependencies, pruned, rearranged
from emjax.numerics.primitives import Equation

# of the calls whose arguments add up
NAME = inspect.unwrap(mean_of_sums).__name__


class Summarized(NamedTuple):
    """What depends on data alone, in two halves.

    - `sums`: (floor, *data) → what adds up over parts: of each mean, its total and its count.
    - `constants`: (floor, *data, *sums) → the constants.
    - `pairs`: which of the sums are the total and the count of each mean.
    """

    sums: ClosedJaxpr
    constants: ClosedJaxpr
    pairs: tuple[tuple[int, int], ...]

    def means(self, sums: Sequence, dtype: Any) -> list[np.ndarray]:
        """Return sums of the same means, of which every count is one, in some precision.

        So programs in single and in double precision have the very same origins.
        """
        means = list(sums)
        for total, count in self.pairs:
            mean = np.asarray(sums[total]) / np.maximum(np.asarray(sums[count]), 1)
            means[total] = np.where(np.isfinite(mean), mean, 0).astype(dtype)
            means[count] = np.ones(np.shape(sums[count]), dtype)
        return means

    def reads(self, is_of_part: tuple[bool, ...]) -> list[bool]:
        """Return whether each constant depends on some of the data other than by the sums.

        `is_of_part`: which arrays of the data these are.
        """
        jaxpr = self.constants.jaxpr
        data = jaxpr.invars[1 : 1 + len(is_of_part)]
        sources = {var: "part" for var, own in zip(data, is_of_part, strict=True) if own}
        return [bool(labels) for labels in output_dependencies(jaxpr, sources)]


def summarized(once: ClosedJaxpr) -> Summarized:
    """Return the halves of (floor, *data) → constants: what adds up over parts, and the rest."""
    jaxpr = once.jaxpr
    equations: list[Equation] = []
    given: dict[Var, Var] = {}
    pairs: list[tuple[int, ...]] = []
    for eqn in jaxpr.eqns:
        if eqn.params.get("name") == NAME:
            inputs = []
            for var in eqn.invars:
                inputs.append(given.setdefault(var, Var(var.aval)))
            pairs.append(tuple(list(given).index(var) for var in eqn.invars))
            eqn = eqn.replace(invars=inputs)
        equations.append(eqn)
    before = rearranged(jaxpr, outvars=list(given))
    after = rearranged(
        jaxpr, invars=[*jaxpr.invars, *given.values()], outvars=jaxpr.outvars, eqns=equations
    )
    sums = pruned(ClosedJaxpr(before, once.consts))
    return Summarized(sums, pruned(ClosedJaxpr(after, once.consts)), tuple(pairs))
