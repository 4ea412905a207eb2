"""What EM arrived at, as a record that prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from emjax.naming.entries import Entries
from emjax.run.columns import Column, Table

# what a data frame has a row for, beside eigenvalues and counts
CERTIFICATES = ("objective", "gradient_norm", "distance", "fisher_residual", "rate")


class Diagnosis(eqx.Module, Table):
    """Certificates of what EM arrived at.

    Derivatives are in unconstrained coordinates, of what is free: entries on the boundary and
    parameters that are held stay.

    **Attributes:**

    - `verdict`: "local maximum", "saddle", "ridge", "not stationary", or "degenerate" where a
      component has collapsed or a prior has no finite mode.
    - `reason`: what the verdict rests on, in words.
    - `objective`: log p(x | params) + log p(params) in nats.
    - `gradient_norm`: the largest derivative of the objective, in absolute value, in nats per unit
      of its coordinate.
    - `distance`: how far params are from the maximum, in standard errors: √(gᵀ I⁻¹ g) with I the
      observed information. Where this is no maximum, how far the next EM step goes, in standard
      errors of the complete data.
    - `fisher_residual`: max |∇ log p − ∇Q|, which is zero but for rounding (Fisher's identity): the
      E-step and the M-step are of one and the same likelihood.
    - `rate`: the largest eigenvalue of the EM map's derivative: the part of the distance to the
      maximum that a step leaves (NaN where a maximizer has no derivative, as one step of an optax
      optimizer). Dempster, Laird & Rubin (1977).
    - `eigenvalues`: of the objective's Hessian, ascending; where `is_dense` is false, those that
      Lanczos's method sees, of which the outermost are right.
    - `undetermined`: on a ridge, {parameter: its coordinates along which the objective is flat}.
    - `is_dense`: whether all second derivatives were formed (up to 200 coordinates). Otherwise
      nothing was found that contradicts the verdict.
    - `coordinates`: the names of the coordinates.
    - `counts`: {latent: the expected number of elements of each of its values}.
    - `empty`: {latent: values that explain less than one element}.
    - `duplicates`: {latent: pairs of values that give all that depends on them the same
      distribution}.
    - `on_boundary`: {parameter: which of its entries lie on the boundary of what its constraint
      allows}.
    - `inward`: {parameter: which of these the objective would increase from, were they moved
      inward}: EM never moves a probability of zero.
    - `entries`: {parameter: what its entries are called}.
    """

    verdict: str = eqx.field(static=True)
    reason: str = eqx.field(static=True)
    objective: float
    gradient_norm: float
    distance: float
    fisher_residual: float
    rate: float
    eigenvalues: Float[np.ndarray, "eigenvalue"]
    undetermined: dict[str, tuple[str, ...]] = eqx.field(static=True)
    is_dense: bool
    coordinates: tuple[str, ...] = eqx.field(static=True)
    counts: dict[str, Float[np.ndarray, "value"]]
    empty: dict[str, tuple[int, ...]]
    duplicates: dict[str, tuple[tuple[int, int], ...]]
    on_boundary: dict[str, Bool[np.ndarray, "..."]]
    inward: dict[str, Bool[np.ndarray, "..."]]
    entries: Mapping[str, Entries] = eqx.field(static=True)

    @property
    def is_local_maximum(self) -> bool:
        """Whether the verdict is "local maximum"."""
        return self.verdict == "local maximum"

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.reason}", *self._derivatives()]
        # what concerns the whole estimate goes first, what concerns one latent last
        for name in self.on_boundary:
            lines += self._boundary(name)
        for name in self.counts:
            lines += self._values(name)
        return "\n".join(lines)

    def _columns(self) -> list[Column]:
        """Return a row for each certificate, then one for each value of a latent."""
        numbers = {name: float(getattr(self, name)) for name in CERTIFICATES}
        # a program without free coordinates has none
        if len(self.eigenvalues):
            numbers["smallest eigenvalue"] = float(self.eigenvalues[0])
            numbers["largest eigenvalue"] = float(self.eigenvalues[-1])
        for latent, counts in self.counts.items():
            for value, count in enumerate(counts):
                numbers[f"expected count of {latent}={value}"] = float(count)
        return [Column("certificate", list(numbers)), Column("value", list(numbers.values()))]

    def _derivatives(self) -> list[str]:
        """Return the lines on what derivatives say."""
        # elsewhere there is no maximum to be away from
        of_what = "standard errors from the maximum" if self.is_local_maximum else "standard errors"
        lines = [
            f"  objective            {self.objective:.6f} nats",
            f"  gradient             at most {self.gradient_norm:.1e} nats per unit of "
            "a coordinate",
            f"  distance             {self.distance:.1e} {of_what}",
            f"  Fisher's identity    |∇ log p − ∇Q| at most {self.fisher_residual:.1e}",
            f"  rate of convergence  {self.rate:.4f}{_rate_in_words(self.rate)}",
        ]
        # a program without free coordinates has none
        if len(self.eigenvalues):
            some = "" if self.is_dense else ", of those that Lanczos's method sees"
            lines.append(
                f"  Hessian              eigenvalues from {self.eigenvalues[0]:.3g} to "
                f"{self.eigenvalues[-1]:.3g} ({len(self.coordinates)} coordinates{some})"
            )
        return lines

    def _boundary(self, name: str) -> list[str]:
        """Return the lines on the entries of a parameter that lie on the boundary."""
        entries, lines = self.entries[name], []
        if self.on_boundary[name].any():
            names = _listed(entries.at(self.on_boundary[name]))
            lines.append(f"  on the boundary      {names}")
        if self.inward[name].any():
            lines.append(
                "    the objective would increase inward from "
                f"{_listed(entries.at(self.inward[name]))}: unless they are meant, start inside"
            )
        return lines

    def _values(self, name: str) -> list[str]:
        """Return the lines on what the values of a latent explain."""
        counts = np.array2string(self.counts[name], precision=1, threshold=12, suppress_small=True)
        lines = [f"  {name}: expected counts {counts}"]
        if self.empty[name]:
            lines.append(
                f"    empty (less than one element): {_listed(map(str, self.empty[name]))}"
            )
        if self.duplicates[name]:
            pairs = [f"{first} and {second}" for first, second in self.duplicates[name]]
            lines.append(f"    duplicates: {_listed(pairs)}")
        return lines


def _rate_in_words(rate: float) -> str:
    # at one or beyond, a step leaves no part of the distance
    return f": each step leaves {100 * rate:.3g} % of the distance" if 0 <= rate < 1 else ""


def _listed(items: Iterable[str], most: int = 8) -> str:
    """Return items in a row, or the first of them and how many there are more."""
    listed = list(items)
    if len(listed) > most:
        listed = [*listed[:most], f"{len(listed) - most} more"]
    return ", ".join(listed)
