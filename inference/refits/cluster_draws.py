"""Refits of a program to a survey's clusters: drawn again, or without each of them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from emjax.answers.reweighted import Reweighted
from emjax.certificates.estimate import Estimate
from emjax.refits.bootstrap import Redrawing, Refits, refits
from emjax.refits.survey_design import SurveyDesign


def resampled_clusters(
    weighted: Reweighted,
    estimate: Estimate,
    keys: Array,
    latents: Sequence[str],
    design: SurveyDesign,
) -> Refits:
    """Return a program refitted to a survey's clusters, drawn with replacement in each stratum.

    n − 1 of n are drawn, and count so that the variance of a mean is right: 1 − λ + λ n / (n − 1)
    times the number of draws, λ = √(1 − f). Source: Rao & Wu (1988), Journal of the American
    Statistical Association 83; as weights, Rao, Wu & Yue (1992), Survey Methodology 18.
    """
    sizes = design.sizes
    first = np.cumsum(sizes) - sizes
    # of a cluster that was certain to be drawn, none is drawn: it counts once
    of_draw = np.repeat(np.arange(len(sizes)), sizes - 1)
    share = np.sqrt(1 - design.fractions)
    times = share * sizes / np.maximum(sizes - 1, 1)
    least = np.where(sizes == 1, 1, 1 - share)

    def weights(key, cluster, stratum, first, sizes, of_draw, least, times):
        uniform = jax.random.uniform(key, of_draw.shape)
        within = jnp.minimum((uniform * sizes[of_draw]).astype(int), sizes[of_draw] - 1)
        counts = jnp.bincount(first[of_draw] + within, length=len(stratum))
        return (least[stratum] + times[stratum] * counts)[cluster].astype(jnp.result_type(float))

    sources = (design.cluster, design.stratum, first, sizes, of_draw, least, times)
    redrawing = Redrawing(weighted.compiled, weights, sources, weighted.data, "clusters")
    return refits(redrawing, estimate, keys, latents)


def without_each_cluster(
    weighted: Reweighted, estimate: Estimate, latents: Sequence[str], design: SurveyDesign
) -> Refits:
    """Return a program refitted without each of a survey's clusters in turn.

    The others of its stratum count n / (n − 1) times.
    """

    def weights(number, cluster, stratum, sizes):
        size = sizes[stratum[number]]
        of_others = size / jnp.maximum(size - 1, 1)
        # what was certain to be drawn cannot be missing
        of_own = jnp.where(size == 1, 1.0, 0.0)
        in_stratum = jnp.where(cluster == number, of_own, of_others)
        is_near = stratum[cluster] == stratum[number]
        return jnp.where(is_near, in_stratum, 1.0).astype(jnp.result_type(float))

    sources = (design.cluster, design.stratum, design.sizes)
    redrawing = Redrawing(weighted.compiled, weights, sources, weighted.data, "jackknife")
    return refits(redrawing, estimate, np.arange(len(design.stratum)), latents)
