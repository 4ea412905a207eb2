"""Standard errors as a record: intervals, and a table that prints."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from emjax.certificates.charts import entry_names
from emjax.certificates.estimate import Estimate
from emjax.refits.students_t import quantile
from emjax.run.annotations import Real
from emjax.run.columns import in_columns

# lines of the table that are printed: more than a screen is no overview; the record has all
MOST_ROWS = 60


class StandardErrors(eqx.Module):
    """How precisely data determine the parameters.

    **Attributes:**

    - `params`: the estimate.
    - `standard_error`: {site: the standard error of each entry}; NaN for what has none: entries on
      the boundary, parameters that are held.
    - `covariance`: of the unconstrained coordinates, in the order of `coordinates`.
    - `coordinates`: their names: loc[0], log scale[1], log weights[0]/weights[2].
    - `on_boundary`: {site: whether each entry lies on the boundary of what its constraint allows}.
      The other entries' standard errors are those on the face that is left: the entries on the
      boundary are taken as known.
    - `limits`: {site: (low, high)}, between which single entries lie.
    - `method`: how they were found.
    - `what`: the same in words, with all that went wrong.
    - `distance`: how far params are from the maximum, in standard errors: √(gᵀ I⁻¹ g); NaN for
      refits.
    - `draws`: {site: (draw, …)}: the refits of a bootstrap, with the labels of the estimate; those
      that failed are left out.
    - `num_failed`: how many refits ended where the objective is not finite or decreased, or a
      component has collapsed; they are left out.
    - `num_unconverged`: how many ended before they had converged; they are kept.
    - `aligned`: the latents whose labels were aligned.
    - `not_aligned`: those whose values no exchange of whole rows of parameters exchanges (the
      program treats them unequally): their labels are as each refit, which started at `params`,
      left them.
    - `held`: the parameters that are not estimated.
    - `degrees_of_freedom`: of a survey's sample, clusters less strata; intervals are then those of
      Student's t. Infinite otherwise.
    """

    params: dict[str, Array]
    standard_error: dict[str, Float[np.ndarray, "..."]]
    covariance: Float[np.ndarray, "coordinate coordinate"]
    coordinates: tuple[str, ...] = eqx.field(static=True)
    on_boundary: dict[str, Bool[np.ndarray, "..."]]
    limits: dict[str, tuple[np.ndarray, np.ndarray]]
    method: str = eqx.field(static=True)
    what: str = eqx.field(static=True)
    distance: float = float("nan")
    draws: dict[str, Float[np.ndarray, "draw ..."]] | None = None
    num_failed: int = 0
    num_unconverged: int = 0
    aligned: tuple[str, ...] = eqx.field(static=True, default=())
    not_aligned: tuple[str, ...] = eqx.field(static=True, default=())
    held: tuple[str, ...] = eqx.field(static=True, default=())
    degrees_of_freedom: float = float("inf")

    def interval(self, level: Real = 0.95) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return {site: (low, high)}, each of the site's shape; NaN without a standard error.

        From second derivatives: estimate ± z standard errors on the scale on which the entry has no
        bounds (logarithm, log-odds), mapped back, so that it stays within them; of an entry of a
        matrix, on its own scale. From refits: quantiles of the draws. Errors: `ValueError` for a
        level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}.")
        if self.draws is not None:
            return {name: self._quantiles(name, level) for name in self.draws}
        z = self._quantile((1 + level) / 2)
        intervals = {}
        for name, error in self.standard_error.items():
            value = np.asarray(self.params[name])
            intervals[name] = interval_within(value, error, *self.limits[name], z)
        return intervals

    def _quantile(self, probability: float) -> float:
        """Return that quantile of an estimate's distance in standard errors."""
        if np.isinf(self.degrees_of_freedom):
            return float(norm.ppf(probability))
        # without degrees of freedom nothing is known of the standard errors themselves
        if self.degrees_of_freedom < 1:
            return float("nan")
        return quantile(probability, int(self.degrees_of_freedom))

    def _quantiles(self, name: str, level: float) -> tuple[np.ndarray, np.ndarray]:
        assert self.draws is not None
        # of an entry on the boundary, the quantiles would be those of a constant
        tails = [(1 - level) / 2, (1 + level) / 2]
        is_known = ~np.isnan(self.standard_error[name])
        low, high = np.quantile(self.draws[name], tails, axis=0)
        return np.where(is_known, low, np.nan), np.where(is_known, high, np.nan)

    def __str__(self) -> str:
        intervals, rows = self.interval(), []
        for name in self.standard_error:
            rows += self._rows(name, *intervals[name])
        head = ["parameter", "estimate", "standard error", "95 % from", "to", ""]
        table = in_columns([head, *rows[:MOST_ROWS]], "lrrrrl")
        lines = [self.what, *(f"  {line}" for line in table)]
        if len(rows) > MOST_ROWS:
            lines.append(f"  and {len(rows) - MOST_ROWS} more")
        return "\n".join(lines)

    def _rows(self, name: str, low: np.ndarray, high: np.ndarray) -> list[list[str]]:
        """Return a row of the table for each entry of a parameter."""
        value, error = np.asarray(self.params[name]), self.standard_error[name]
        columns = [np.ravel(array) for array in (value, error, low, high)]
        is_boundary = np.ravel(self.on_boundary[name])
        rows = []
        for index, entry in enumerate(entry_names(name, value.shape)):
            numbers = [column[index] for column in columns]
            note = self._note(name, is_boundary[index], numbers[1])
            rows.append([entry, *(f"{number:.5g}" for number in numbers), note])
        return rows

    def _note(self, name: str, is_boundary: Any, error: Any) -> str:
        """Return why an entry has no standard error, in words."""
        if is_boundary:
            return "on the boundary"
        # before what is NaN for want of movement: what is held does not move, either
        if name in self.held:
            return "held"
        return "never moved" if np.isnan(error) else ""


def interval_within(
    value: np.ndarray, error: np.ndarray, low: Any, high: Any, z: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of value ± z standard errors, between the limits `low` and `high`.

    The interval is symmetric on the scale g that has no bounds, log or log-odds, and mapped back;
    g' is the delta method's factor.
    """
    low, high = np.broadcast_to(low, value.shape), np.broadcast_to(high, value.shape)
    is_known, has_low, has_high = ~np.isnan(error), np.isfinite(low), np.isfinite(high)
    # the distances from the limits; where there is none, any number that can be divided by
    below = np.where(is_known & has_low, value - low, 1)
    above = np.where(is_known & has_high, high - value, 1)
    ends = []
    for step in (-z * error, z * error):
        # what is infinite or no number is of entries that another scale is for
        with np.errstate(over="ignore", invalid="ignore"):
            from_low = low + below * np.exp(step / below)
            from_high = high - above * np.exp(-step / above)
            odds = below / above * np.exp(step * (1 / below + 1 / above))
            between = low + (high - low) * odds / (1 + odds)
        scales = [has_low & has_high, has_low, has_high]
        end = np.select(scales, [between, from_low, from_high], value + step)
        ends.append(np.where(is_known, end, np.nan))
    return ends[0], ends[1]


def record_of(estimate: Estimate, **fields: Any) -> StandardErrors:
    """Return the record of an estimate's standard errors; `fields`: what depends on the method."""
    chart = estimate.chart
    return StandardErrors(
        params=dict(estimate.params),
        coordinates=chart.names,
        on_boundary=dict(chart.on_boundary),
        limits=dict(chart.limits),
        held=chart.held,
        **fields,
    )
