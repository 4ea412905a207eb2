"""The objective along a line, evaluated: what a second derivative says is put to the proof."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from emjax.certificates.estimate import Estimate
from emjax.certificates.neighborhood import Neighborhood
from emjax.run.loop import ROUNDING_OF_A_SUM

# In units of the direction. Curvature is that of the point, and a hill may be smaller than a unit;
# a step too small drowns in rounding.
STEPS = 4.0 ** -np.arange(6)


@dataclass(frozen=True, eq=False)
class Line:
    """Lines through a point near an estimate.

    - `way`: from the estimate to the point, in the free coordinates.
    - `left`: what is left to gain there, in nats.
    """

    estimate: Estimate
    way: np.ndarray
    left: float = 0.0

    def rises(self, direction: np.ndarray) -> bool:
        """Return whether steps to both sides gain on average, by more than rounding and `left`.

        What a slope gains to one side it loses to the other: that is no curvature.
        """
        steps = np.concatenate([[0.0], STEPS, -STEPS])
        points = self.way + steps[:, None] * direction
        here, *there = map(float, self.estimate.function("objectives", _objectives)(points))
        ahead, behind = np.split(np.asarray(there), 2)
        eps = float(jnp.finfo(jnp.result_type(float)).eps)
        least = self.left + ROUNDING_OF_A_SUM * eps * (1 + abs(here))
        return bool(((ahead + behind) / 2 - here > least).any())


def _objectives(around: Neighborhood, points):
    # one after another: side by side, large data would not fit into memory
    def objective(way):
        return around.objective(around.at(around.vector + way))

    return jax.lax.map(objective, jnp.asarray(points))
