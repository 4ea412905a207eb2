"""Figures of fits: each function draws what a fit holds onto axes, and returns these.

In: a `Fit`, or what functions of a fit return. Out: matplotlib's `Axes`. Read first: `style`,
`fits`. Nothing imports this room but those who ask for it: `import emjax.plot`, after
`pip install "emjax[plot]"`. Each file imports only those before it: style, fits, rows,
emissions, clusters, profile_values, profiles, objective, criteria, states, transitions, loadings,
match_weights, nodes, boxes, outside, layout, graph.
"""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("emjax.plot draws with matplotlib: pip install 'emjax[plot]'") from error

from emjax.plot.clusters import clusters
from emjax.plot.criteria import criteria
from emjax.plot.graph import graph
from emjax.plot.loadings import loadings
from emjax.plot.match_weights import match_weights
from emjax.plot.objective import objective, optima
from emjax.plot.profiles import profiles
from emjax.plot.states import states
from emjax.plot.transitions import transitions

__all__ = [
    "clusters",
    "criteria",
    "graph",
    "loadings",
    "match_weights",
    "objective",
    "optima",
    "profiles",
    "states",
    "transitions",
]
