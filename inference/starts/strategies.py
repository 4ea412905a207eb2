"""Where EM starts, beside the program's own values: strategies for every program.

A strategy is a pure function (graph, maximizers, rng_key, params, constants) → params, where
`params` are the program's own values and `constants` what depends on data alone: it can be
compiled, and vmapped over keys.

Each chooses a posterior, and one M-step sets everything (`posteriors`). "responsibilities" and
"subsets" serve every program; those `BY_LOCATION` cluster the data about locations that latents
choose between (`Normal(loc[z], …)`, LogNormal, MultivariateNormal). Starts that differ
(`various_start`) are what "short-runs" chooses from, which are runs of EM and no strategy alone
(`run/runs.py`). EM is known to depend on its start: McLachlan & Peel (2000), section 2.12;
Biernacki, Celeux & Govaert (2003).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jax import Array
from jax.typing import ArrayLike

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.maximizer import Maximizer
from emjax.starts.clusters import maximum_of_clusters, various_clusters
from emjax.starts.locations import locations_of
from emjax.starts.responsibilities import random_responsibilities
from emjax.starts.seeding import FAR_APART, RANDOM, TIGHTEST, Scheme, clusters, split
from emjax.starts.subsets import SEEDS, random_subsets

SHORT_RUNS = "short-runs"
# of single elements for each value, runs differ most, and the best of them is higher than of four
SEEDS_OF_SHORT_RUNS = 1


def various_start(
    graph: FactorGraph,
    maximizers: Sequence[Maximizer],
    rng_key: Array,
    params: Mapping[str, Any],
    constants: Sequence,
    number: ArrayLike = 0,
    num_seeds: int = SEEDS,
) -> dict[str, Array]:
    """Return start `number` of several that are to differ.

    Where latents choose locations, each clusters the data in another way (`various_clusters`);
    elsewhere each is a random subset of `num_seeds` elements for each value.
    """
    if locations_of(graph)[0]:
        return various_clusters(graph, maximizers, rng_key, params, constants, number)
    return random_subsets(graph, maximizers, rng_key, params, constants, num_seeds)


def _by_scheme(name: str, scheme: Scheme) -> Callable:
    """Return the strategy that clusters points in one way."""
    return partial(maximum_of_clusters, name, partial(clusters, scheme=scheme))


def _splits(rng_key: Array, points: Array, weights: Array, num: int) -> Array:
    """Return the cluster of each point by splitting, the same for every key."""
    return split(points, weights, num)


# Seeds are random points (Forgy, 1965; McLachlan & Peel, 2000, section 2.12.2), or far from one
# another (Arthur & Vassilvitskii, 2007), or lead by Lloyd's iterations (1982) to clusters, of which
# the tightest are taken; a cluster is split into two, then three, … (Linde, Buzo & Gray, 1980).
BY_LOCATION: dict[str, Callable] = {
    "data": _by_scheme("data", RANDOM),
    "k-means++": _by_scheme("k-means++", FAR_APART),
    "k-means": _by_scheme("k-means", TIGHTEST),
    "splitting": partial(maximum_of_clusters, "splitting", _splits),
}
START_STRATEGIES: dict[str, Callable] = {
    "responsibilities": random_responsibilities,
    "subsets": random_subsets,
    SHORT_RUNS: various_start,
    **BY_LOCATION,
}


def stated_start(graph: FactorGraph) -> str | None:
    """Return the strategy that a program states, if it serves it: `infer={"start": …}` of a latent.

    Errors: `ValueError` for one that there is not.
    """
    stated = [latent for latent in graph.latents.values() if latent.start is not None]
    for latent in stated:
        if latent.start not in START_STRATEGIES:
            raise ValueError(
                f"Latent '{latent.name}' has infer={{'start': {latent.start!r}}}, which must be "
                f"one of {', '.join(map(repr, START_STRATEGIES))}."
            )
    if not stated:
        return None
    # of fewer elements than values, or locations that are no parameters, there are no clusters
    serves = stated[0].start not in BY_LOCATION or locations_of(graph)[0]
    return stated[0].start if serves else None


def varies(name: str | None, graph: FactorGraph) -> bool:
    """Whether `various_start` has better starts than several by a strategy; None: the program's."""
    return name == SHORT_RUNS or (name in (None, "k-means") and bool(locations_of(graph)[0]))
