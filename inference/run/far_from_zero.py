"""Gaussian latents whose mean is far from zero, in units of their spread: digits are lost there.

Their moments are raw ones, E[f] and E[f fᵀ], about zero: at r standard deviations from it, a
variance is what is left of numbers r² times as large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emjax.graph.factor_graph import FactorGraph
from emjax.graph.residuals import Product
from emjax.run import endings
from emjax.run.findings import Finding

# the moments of a latent that a site draws, the first that it reads
FIRST, SECOND = Product((0,)), Product((0, 0))


def far_from_zero(graph: FactorGraph, statistics: Sequence) -> list[Finding]:
    """Return which Gaussian latents are so far from zero that half of the digits are lost.

    `statistics`: the expected ones of each term, None where they are not at hand.
    """
    furthest: dict[str, float] = {}
    for number, term in enumerate(graph.terms):
        # that of the latent's own site comes after what is free of latents, which counts elements
        if not (term.reads and term.site.is_integrated) or statistics[number] is None:
            continue
        own, count = statistics[number], statistics[number - 1]
        if count is None:
            continue
        count = np.asarray(count[-1])[..., None]
        first = np.asarray(own[term.products.index(FIRST)])
        second = np.asarray(own[term.products.index(SECOND)])
        distance = _distance(first, np.diagonal(second, axis1=-2, axis2=-1), count)
        if distance**2 > 1 / np.sqrt(np.finfo(first.dtype).eps):
            name = term.site.name
            furthest[name] = max(furthest.get(name, 0.0), distance)
    return [endings.far_from_zero(name, distance) for name, distance in furthest.items()]


def _distance(first: np.ndarray, second: np.ndarray, count: np.ndarray) -> float:
    """Return the largest mean of a coordinate over its standard deviation.

    `first`, `second`: sums over elements, `count` their number; the last axis is of coordinates.
    """
    if first.ndim != count.ndim:
        return 0.0
    first, second, count = np.broadcast_arrays(first, second, count)
    counts = count > 0
    mean, square = first[counts] / count[counts], second[counts] / count[counts]
    # what is left may be rounding alone
    least = np.finfo(first.dtype).eps * square
    spread = np.sqrt(np.maximum(square - mean**2, least))
    is_known = np.isfinite(mean) & (spread > 0)
    return float((np.abs(mean[is_known]) / spread[is_known]).max(initial=0.0))
