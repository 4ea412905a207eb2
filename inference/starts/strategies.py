"""Where EM starts, beside the program's own values: strategies for every program.

A strategy is a pure function (graph, maximizers, rng_key, params, constants) → params, where
`params` are the program's own values and `constants` what depends on data alone: it can be
compiled, and vmapped over keys.

Each chooses a posterior, and one M-step sets everything (`posteriors`). "responsibilities",
"subsets" and "short-runs", which takes steps of EM, too, serve every program; the others cluster
the data about locations that latents choose between (`Normal(loc[z], …)`, LogNormal,
MultivariateNormal). EM is known to depend on its start: McLachlan & Peel (2000), section 2.12;
Biernacki, Celeux & Govaert (2003).
"""

from __future__ import annotations

from collections.abc import Callable

from emjax.graph.factor_graph import FactorGraph
from emjax.starts.clusters import (
    data_points,
    distant_points,
    k_means_clusters,
    split_clusters,
)
from emjax.starts.locations import locations_of
from emjax.starts.responsibilities import random_responsibilities
from emjax.starts.short_runs import short_runs
from emjax.starts.subsets import random_subsets

START_STRATEGIES: dict[str, Callable] = {
    "responsibilities": random_responsibilities,
    "subsets": random_subsets,
    "short-runs": short_runs,
    "data": data_points,
    "k-means++": distant_points,
    "k-means": k_means_clusters,
    "splitting": split_clusters,
}


def strategy_of(graph: FactorGraph) -> str:
    """Return the name of the strategy that serves a program best where none is asked for."""
    return "k-means" if locations_of(graph)[0] else "subsets"
