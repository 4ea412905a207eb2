"""How often each element counts (`handlers.scale`), and whether its latents count as often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.graph.outputs import Outputs
from emjax.program.records import Site
from emjax.tables.indices import Affine
from emjax.tables.lifting import lift
from emjax.tables.named import Axis, Named, constant, without_rows


class Multiplicities:
    """The multiplicities of a program's sites, each at least `floor`.

    `distinct`: those found so far; equal ones are one value, and so known to be equal.
    """

    def __init__(self, outputs: Outputs, floor: Any):
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
        value = without_rows(value).padded(len(site.elements))
        # equal content along equal axes, wherever these stand
        key = (value.content, tuple(size for size in value.compact if size != 1))
        if key not in self.distinct:
            self.distinct[key] = lift(self._at_least_floor, [value], value.shape)
        at_least = self.distinct[key]
        return Named(at_least.array.reshape(value.compact), value.shape, (), at_least.content)

    def is_that_of_latents(self, multiplicity: Named, axes: Sequence[Axis]) -> bool:
        """Whether a multiplicity is that of every latent that its site reads, element by element.

        The latents then count for the site, and its term is that of an element that counts once.
        `axes`: those of the latents.
        """
        varies = any(size != 1 for size in multiplicity.compact)
        return bool(axes) and varies and all(self._is_that_of(multiplicity, axis) for axis in axes)

    def of_elements(self, site: Site) -> Named:
        """Return how often each element of the latent of a site counts.

        Errors: `ValueError` where that differs among the coordinates of one Gaussian element.
        """
        gaussian = self.outputs.program.gaussians.get(site.name)
        if gaussian is None:
            return self.of(site)
        value = self.of(site).padded(len(site.elements))
        if any(value.compact[d] != 1 for d in gaussian.coordinate_axes if d < len(site.elements)):
            raise ValueError(
                f"Site '{site.name}': the multiplicities of coordinates that the program mixes "
                "differ. Give `handlers.scale` one number for all of them."
            )
        return value.placed(gaussian.element_axes)

    def _is_that_of(self, multiplicity: Named, axis: Axis) -> bool:
        """Whether a multiplicity is at every position that of the latent's element read there."""
        if not isinstance(axis.source, str) or not isinstance(axis.index, Affine):
            return False
        shape = self._elements(axis.source)
        # a latent's own statement says how often it counts
        site = next(site for site in self.outputs.program.sites if site.name == axis.source)
        of_latent = self.of_elements(site).padded(len(shape))
        identity, strides = Affine.identity(shape).strides, axis.index.strides
        along_latent = [d for d, size in enumerate(of_latent.compact) if size != 1]
        along = [d for d, size in enumerate(multiplicity.compact) if size != 1]
        if of_latent.content != multiplicity.content:
            return False
        if [strides[d] for d in along] != [identity[d] for d in along_latent]:
            return False
        # all else, a step in time for one, must move along axes of the latent that its
        # multiplicity does not vary along
        moves = [axis.index.offset, *(s for d, s in enumerate(strides) if d not in along)]
        if not along_latent:
            return True
        period = math.prod(shape[along_latent[0] :])
        return not any(move % period for move in moves)

    def _elements(self, name: str) -> tuple[int, ...]:
        """Return the shape of a latent's elements."""
        program = self.outputs.program
        if name in program.gaussians:
            return program.gaussians[name].elements
        return program.latents[name].shape

    def _at_least_floor(self, multiplicity):
        multiplicity = jnp.asarray(multiplicity, jnp.result_type(float))
        # a maximum whose derivative is 1 at the floor: that of log Z with respect to a
        # multiplicity of 0 is what the row would add
        return jnp.where(multiplicity < self.floor, self.floor, multiplicity)
