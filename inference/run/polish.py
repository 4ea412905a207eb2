"""The last digits: from where EM ends, climb the exact objective by Newton's method or L-BFGS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from emjax.e_step.e_step import log_partition_of
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.ascent import ascend
from emjax.m_step.newton import newton
from emjax.m_step.unconstrained import Unconstrained

LBFGS_STEPS = 100


def lbfgs(objective, start):
    """Return where L-BFGS arrives in 100 steps, none of which goes down."""
    solver = optax.lbfgs()
    return ascend(solver, solver.init(start), objective, start, LBFGS_STEPS)[0]


POLISHERS = {"newton": newton, "lbfgs": lbfgs}


def polished(graph: FactorGraph, names, params: Mapping[str, Any], constants, method: str) -> dict:
    """Return params after climbing log p(x | θ) + log p(θ) along the unconstrained coordinates of
    `names`, by `method`.

    Parameters on the boundary stay there. No step goes down; if the end is not finite, params are
    returned as they are. Source: Nocedal & Wright (2006); after EM: Jamshidian & Jennrich (1997),
    JRSS B 59(3).
    """
    start, back = Unconstrained(graph.parameters, names).around(params)

    def objective(vector):
        return log_partition_of(graph, graph.arrays({**params, **back(vector)}, constants))

    end = POLISHERS[method](objective, start)
    is_better = objective(end) >= objective(start)
    return {
        **params,
        **{name: jnp.where(is_better, value, params[name]) for name, value in back(end).items()},
    }
