"""What one E-step yields."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


class Expected(eqx.Module):
    """What one E-step yields of some data. Of several parts of the data, it adds up.

    - `log_partition`: log Z in nats, every latent summed out. (Of a part, at each value of latents
      that bridge parts, as the statistics then are; see `parts`.)
    - `statistics`: ∂ log Z / ∂ η, the expected sufficient statistics: arrays of the shapes of the
      natural-parameter tables.
    """

    log_partition: Float[Array, "*value"]
    statistics: Any

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.log_partition + other.log_partition,
            jax.tree.map(jnp.add, self.statistics, other.statistics),
        )
