"""The optimality gap of parameters: what Q still gains where their maximizer has left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.objective import along_unconstrained
from emjax.m_step.promise import negligible_gain, promise
from emjax.m_step.search import search

# what has more coordinates is not searched one coordinate after another
LARGEST_SEARCH = 200


class Gap(eqx.Module):
    """How far some parameters are from where Q has its maximum.

    **Attributes:**

    - `slope`: the norm of the derivative of Q by their unconstrained coordinates; NaN where Q has
      none.
    - `gain`: by how many nats Q is known to be larger elsewhere, the others held; zero if that is
      rounding, or beyond what a function of the user's keeps to.
    """

    slope: Float[Array, ""]
    gain: Float[Array, ""]

    @staticmethod
    def unknown() -> Gap:
        """Return that nobody has asked: all NaN."""
        nan = jnp.full((), jnp.nan, jnp.result_type(float))
        return Gap(nan, nan)


def gap_of(
    graph: FactorGraph,
    names: Sequence[str],
    terms: Sequence[int],
    params: Mapping[str, Any],
    constants: Sequence,
    statistics: Sequence,
    is_wanted: Any = True,
) -> Gap:
    """Return the optimality gap of some parameters, at expected statistics.

    `terms`: the numbers of those that depend on the parameters; `is_wanted`: whether to search for
    a gain that is promised, which one of several runs side by side may not need.
    """
    start, _, objective = along_unconstrained(graph, names, params, constants, statistics, terms)
    value = objective(start)
    slope, promised = promise(objective, start, value)
    gain = promised
    if start.size <= LARGEST_SEARCH:
        # a promise is not kept at a kink, where the derivative is not zero at a maximum
        is_promising = ~(promised <= negligible_gain(value))
        _, reached = search(objective, start, is_promising & is_wanted)
        gain = reached - value
    is_rounding = gain <= negligible_gain(value)
    dtype = jnp.result_type(float)
    return Gap(slope.astype(dtype), jnp.where(is_rounding, 0, gain).astype(dtype))
