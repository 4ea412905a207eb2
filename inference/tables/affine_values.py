"""Values that are affine in Gaussian latents: a constant, and a table of coefficients for each."""

from __future__ import annotations

from dataclasses import dataclass

from emjax.tables.named import Coordinates, Named


@dataclass(frozen=True, eq=False)
class AffineValue:
    """A value of the program, constant + Σ_l R_l f_l, where each f_l is an element of a latent.

    - `constant`: the value where all Gaussian latents are zero.
    - `coefficients`: the R_l, each of the value's shape, with one axis more among its named ones: a
      `Coordinates` that says which element of which latent every position reads.
    """

    constant: Named
    coefficients: tuple[Named, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.constant.shape


def coordinates_of(coefficients: Named) -> Coordinates:
    """Return the axis of coefficients that runs over a Gaussian latent's coordinates."""
    (axis,) = (axis for axis in coefficients.axes if isinstance(axis, Coordinates))
    return axis
