"""What a Gaussian latent is drawn from, given others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp

from emjax.elimination.factors import Factor
from emjax.tables.named import Coordinates


@dataclass(frozen=True, eq=False)
class Conditional:
    """What a Gaussian latent f is drawn from, f ~ N(m + Σ R g, L Lᵀ), at some of its elements.

    All factors have the same elements, and each may vary with discrete latents, whose axes come
    first. They are never totals, whatever the multiplicity of f.

    - `own`: which element of f each element of the factors is, and that there are q coordinates.
    - `mean`: m, axes (…, own).
    - `scale`: L, axes (…, own) and one more axis of the array, of length q, that has no name.
    - `coefficients`: R for each Gaussian element g that it depends on, axes (…, own, that of g).
    """

    own: Coordinates
    mean: Factor
    scale: Factor
    coefficients: Sequence[Factor] = ()

    def as_arrays(self) -> Conditional:
        """Return the same with a mean that is JAX's, though it be known to be zero."""
        mean = self.mean.mapped(jnp.asarray, self.mean.axes, self.mean.shape)
        return replace(self, mean=mean)
