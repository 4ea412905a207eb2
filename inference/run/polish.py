"""The last digits: from where EM ends, climb the exact objective by Newton's method or L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax.e_step.e_step import log_partition_of
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.ascent import lbfgs
from emjax.m_step.newton import newton
from emjax.m_step.unconstrained import Unconstrained

LBFGS_STEPS = 100
POLISHERS: dict[str, Callable] = {"newton": newton, "lbfgs": partial(lbfgs, num_steps=LBFGS_STEPS)}


def polished(
    graph: FactorGraph,
    names: Sequence[str],
    params: Mapping[str, Any],
    constants: Sequence,
    method: str,
) -> dict[str, Array]:
    """Return params after climbing log p(x | θ) + log p(θ) along some of them, by `method`.

    It climbs along the unconstrained coordinates of `names`. Parameters on the boundary stay there.
    No step goes down; if the end is not finite, params are returned as they are. Source: Nocedal &
    Wright (2006); after EM: Jamshidian & Jennrich (1997), JRSS B 59(3).
    """
    start, back = Unconstrained(graph.parameters, names).around(params)

    def objective(vector):
        return log_partition_of(graph, graph.arrays({**params, **back(vector)}, constants))

    end, _ = POLISHERS[method](objective, start)
    # false of NaN, too
    is_better = objective(end) >= objective(start)
    climbed = {name: jnp.where(is_better, v, params[name]) for name, v in back(end).items()}
    return {**params, **climbed}
