"""How often each element counts (`handlers.scale`), and whether its latents count as often."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from emjax.graph.sites import Outputs
from emjax.program.records import Site
from emjax.tables.indices import Affine
from emjax.tables.lifting import lift
from emjax.tables.named import Axis, Named, constant, without_rows


class Multiplicities:
    """The multiplicities of a program's sites, each at least `floor`; equal ones are one value, so
    that they are known to be equal.
    """

    def __init__(self, outputs: Outputs, floor):
        self.outputs, self.floor = outputs, floor
        self.distinct: dict = {}

    def of(self, site: Site) -> Named:
        """Return how often each element of a site counts."""
        number = site.outputs.multiplicity
        if number is None:
            return constant(np.ones((1,) * len(site.elements)))
        value = self.outputs.values[number]
        if self.outputs.depends[number] or value.latent_axes:
            raise ValueError(
                f"Site '{site.name}': its multiplicity depends on a parameter or a latent. Give "
                "`handlers.scale` numbers or data."
            )
        multiplicity = without_rows(value).padded(len(site.elements))
        key = (multiplicity.content, tuple(size for size in multiplicity.compact if size != 1))
        if key not in self.distinct:
            self.distinct[key] = lift(
                lambda s: _at_least(jnp.asarray(s, jnp.result_type(float)), self.floor),
                [multiplicity],
                multiplicity.shape,
            )
        found = self.distinct[key]
        return Named(
            found.array.reshape(multiplicity.compact), multiplicity.shape, (), found.content
        )

    def is_that_of_latents(self, multiplicity: Named, axes: Sequence[Axis]) -> bool:
        """Whether a multiplicity is that of every latent that its site reads, element by element.

        The latents then count for the site, and its term is that of an element that counts once.
        """
        program = self.outputs.program
        varying = [d for d, size in enumerate(multiplicity.compact) if size != 1]
        for axis in axes:
            latent = program.latents[axis.source] if isinstance(axis.source, str) else None
            if latent is None or not isinstance(axis.index, Affine):
                return False
            own = self.of(next(site for site in program.sites if site.name == axis.source)).padded(
                len(latent.shape)
            )
            distinct = [d for d, size in enumerate(own.compact) if size != 1]
            strides = [Affine.identity(latent.shape).strides[d] for d in distinct]
            if (
                own.content != multiplicity.content
                or [axis.index.strides[d] for d in varying] != strides
            ):
                return False
            # all else, a step in time for one, must move along axes of the latent that its
            # multiplicity does not vary along
            moves = [
                axis.index.offset,
                *(s for d, s in enumerate(axis.index.strides) if d not in varying),
            ]
            if distinct and any(move % math.prod(latent.shape[distinct[0] :]) for move in moves):
                return False
        return bool(axes) and bool(varying)


def _at_least(multiplicity, floor):
    """Return max(multiplicity, floor), with derivative 1 at the floor.

    The derivative of log Z with respect to a multiplicity of 0 is what the row would add.
    """
    return jnp.where(multiplicity < floor, floor, multiplicity)
