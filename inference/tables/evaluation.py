"""Equations on arrays: what is known before any data is seen stays known, a NumPy array."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import evaluate
from emjax.numerics.jaxprs import bind
from emjax.numerics.primitives import Equation, Kind, traits
from emjax.tables.moves import MOVES


def evaluated(eqn: Equation, *arrays: Any) -> Any:
    """Return what an equation's primitive makes of arrays; of known ones, a known array."""
    if all(isinstance(array, np.ndarray) for array in arrays):
        result = _by_numpy(eqn, arrays)
        if result is not None:
            return result
    # what is known is looked at where it is an index or a choice; a logarithm of a constant can
    # wait
    if jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact):
        return bind(eqn, *arrays)
    return evaluate(lambda *known: bind(eqn, *known), *arrays)


def _by_numpy(eqn: Equation, arrays) -> np.ndarray | None:
    """Return an equation's result without compiling anything, if that can be."""
    known, shape = traits(eqn), tuple(eqn.outvars[0].aval.shape)
    if known.by_numpy is not None:
        return known.by_numpy(eqn, *arrays)
    if known.kind is Kind.MOVES:
        on_array, _ = MOVES[eqn.primitive.name]
        moved = on_array(arrays[0], 0, arrays[0].shape, shape, eqn.params)
        return np.broadcast_to(moved, shape)
    return None
