"""Standard errors as a record: intervals, and a table that prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from emjax.certificates.bases import SMALLEST
from emjax.certificates.charts import POSITIVE_DEFINITE
from emjax.certificates.estimate import Estimate
from emjax.families.limits import entry_constraint, entry_limits, limits_of
from emjax.naming.entries import Entries, columns_of_entries
from emjax.program.records import Parameter
from emjax.refits.students_t import quantile_of, two_sided
from emjax.run.annotations import Real
from emjax.run.columns import NO_NUMBER, Column, Table, lines_of

# lines of the table that are printed: more than a screen is no overview; the record has all
MOST_ROWS = 60
CORRELATIONS = type(constraints.corr_matrix)


class StandardErrors(eqx.Module, Table):
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
    - `tested`: the parameters whose entries are compared with 0: real numbers without bounds,
      estimated by maximum likelihood.
    - `turned`: {site: which entries a change of the basis of Gaussian latents moves}; they have no
      standard error, and what is made of them may have (`of_function`).
    - `directions`: {site: its derivative by each coordinate, (coordinate, …)}.
    - `bases`: along which coordinates a basis changes, (coordinate, direction).
    - `entries`: {site: what its entries are called}.
    - `level`: that of the intervals in print and in a data frame.
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
    tested: tuple[str, ...] = eqx.field(static=True, default=())
    turned: dict[str, Any] = eqx.field(default_factory=dict)
    directions: dict[str, Any] = eqx.field(default_factory=dict)
    bases: Any = None
    entries: Mapping[str, Entries] = eqx.field(static=True, default_factory=dict)
    level: float = eqx.field(static=True, default=0.95)

    @property
    def z(self) -> dict[str, np.ndarray]:
        """{site: estimate / standard error}, of what is `tested`; NaN of all others.

        Wald's statistic of the hypothesis that the entry is 0: that a coefficient, or a contrast,
        has no effect. None is given where 0 is no hypothesis of interest or the boundary of what is
        allowed, where it is not standard normal (Self & Liang, 1987): of probabilities, scales,
        entries of matrices; nor of an estimate that a prior pulls to where it is.
        """
        values = {}
        for name, error in self.standard_error.items():
            values[name] = np.full(error.shape, np.nan)
            if name in self.tested:
                values[name] = np.asarray(np.asarray(self.params[name]) / error)
        return values

    @property
    def p_value(self) -> dict[str, np.ndarray]:
        """{site: 2 Φ(−|z|)}: how probable so large a |z| is if the entry is 0, two-sided.

        Of a survey, of Student's t. Source: Wald (1943).
        """
        return {name: two_sided(z, self.degrees_of_freedom) for name, z in self.z.items()}

    def interval(self, level: Real = 0.95) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return {site: (low, high)}, each of the site's shape; NaN without a standard error.

        From second derivatives: estimate ± z standard errors on the scale on which the entry has no
        bounds, mapped back, so that it stays within them: the logarithm of what is positive, such
        as a variance on the diagonal of a matrix, the log-odds of a probability, Fisher's
        transformation of a correlation. From refits: quantiles of the draws. Errors: `ValueError`
        for a level that is not between 0 and 1. Source: Meeker & Escobar (1995), section 4.
        """
        level = checked_level(level)
        if self.draws is not None:
            return {name: self._quantiles(name, level) for name in self.draws}
        z = quantile_of((1 + level) / 2, self.degrees_of_freedom)
        intervals = {}
        for name, error in self.standard_error.items():
            value = np.asarray(self.params[name])
            intervals[name] = interval_within(value, error, *self.limits[name], z)
        return intervals

    def of_function(
        self, function: Callable[[Mapping[str, Any]], Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what a function of the parameters is, an array, and its standard errors.

        By the delta method. Of factors that may be rotated, loadings have no standard errors, and
        the covariance that they make has: `of_function(lambda p: p["loadings"] @ p["loadings"].T)`.
        An entry that a change of basis moves has none, NaN. Errors: `ValueError` for standard
        errors that are not from second derivatives.
        """
        if not self.directions:
            raise ValueError(
                "Functions of parameters have standard errors from second derivatives: "
                "method='information' or 'sandwich'. Of refits, compute the function of each of "
                "`draws`."
            )
        along = {name: jnp.asarray(rows) for name, rows in self.directions.items()}
        here = {name: jnp.asarray(value) for name, value in self.params.items()}
        moving = {name: here[name] for name in along}

        def change(rows):
            tangent = {n: row.astype(moving[n].dtype) for n, row in rows.items()}
            return jax.jvp(lambda there: function({**here, **there}), (moving,), (tangent,))

        values, slopes = map(np.asarray, jax.vmap(change)(along))
        variance = (slopes * np.tensordot(self.covariance, slopes, 1)).sum(0)
        error = np.sqrt(variance)
        if self.bases is not None and np.size(self.bases):
            moved = np.abs(np.tensordot(np.transpose(self.bases), slopes, 1)).max(0)
            error = np.where(moved > SMALLEST * np.abs(slopes).max(0), np.nan, error)
        return values[0], error

    def _quantiles(self, name: str, level: float) -> tuple[np.ndarray, np.ndarray]:
        assert self.draws is not None
        # of an entry on the boundary, the quantiles would be those of a constant
        tails = [(1 - level) / 2, (1 + level) / 2]
        is_known = ~np.isnan(self.standard_error[name])
        low, high = np.quantile(self.draws[name], tails, axis=0)
        return np.where(is_known, low, np.nan), np.where(is_known, high, np.nan)

    def __str__(self) -> str:
        table = lines_of(self._columns(), most=MOST_ROWS)
        return "\n".join([self.what, *(f"  {line}" for line in table)])

    def _columns(self) -> list[Column]:
        """Return a row for each entry."""
        intervals = self.interval(self.level)
        lows = {name: low for name, (low, _) in intervals.items()}
        highs = {name: high for name, (_, high) in intervals.items()}
        has_tests = bool(self.tested)
        percent = f"{100 * self.level:g} %"
        return [
            *columns_of_entries(self.entries),
            Column("estimate", self._listed(self.params), ".5g"),
            Column("standard_error", self._listed(self.standard_error), ".5g"),
            Column("z_value", self._listed(self.z), ".2f", "z", is_printed=has_tests),
            p_column(self._listed(self.p_value), has_tests),
            Column("low", self._listed(lows), ".5g", f"{percent} from"),
            Column("high", self._listed(highs), ".5g", "to"),
            Column("note", self._notes(), title=""),
        ]

    def _listed(self, arrays: Mapping[str, Any]) -> np.ndarray:
        """Return the entries that are listed, of all parameters."""
        listed = [np.zeros(0)]
        for name, each in self.entries.items():
            listed.append(each.listed(arrays[name]))
        return np.concatenate(listed)

    def _notes(self) -> list[str]:
        notes = []
        for name, each in self.entries.items():
            errors = each.listed(self.standard_error[name])
            is_boundary = each.listed(self.on_boundary[name])
            turned = each.listed(self.turned.get(name, np.zeros(np.shape(self.params[name]), bool)))
            for at_boundary, is_turned, error in zip(is_boundary, turned, errors, strict=True):
                notes.append(self._note(name, at_boundary, is_turned, error))
        return notes

    def _note(self, name: str, is_boundary: Any, is_turned: Any, error: Any) -> str:
        """Return why an entry has no standard error, in words."""
        if is_boundary:
            return "on the boundary"
        if is_turned:
            return "depends on the basis"
        # before what is NaN for want of movement: what is held does not move, either
        if name in self.held:
            return "held"
        return "never moved" if np.isnan(error) else ""


def checked_level(level: Any) -> float:
    """Return the level of an interval. Errors: `ValueError` where it is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}.")
    return float(level)


def p_column(values: Sequence[float] | np.ndarray, is_printed: bool = True) -> Column:
    """Return the column of p values; in print, none is smaller than 0.0001."""
    cells = []
    for value in values:
        cells.append(NO_NUMBER if np.isnan(value) else f"{value:.4f}")
    written = ["<0.0001" if cell == "0.0000" else cell for cell in cells]
    return Column("p_value", values, written, "p", is_printed)


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
    chart, parameters = estimate.chart, estimate.graph.parameters
    return StandardErrors(
        params=dict(estimate.params),
        coordinates=chart.names,
        on_boundary=dict(chart.on_boundary),
        limits={name: _limits(parameter) for name, parameter in parameters.items()},
        held=chart.held,
        tested=tuple(name for name in chart.charts if _is_tested(parameters[name])),
        entries=estimate.entries,
        **fields,
    )


def _is_tested(parameter: Parameter) -> bool:
    """Whether a parameter's entries are numbers that may as well be 0, and have no prior."""
    limits = limits_of(parameter.constraint)
    return limits is not None and limits.is_unbounded and not parameter.is_prior


def _limits(parameter: Parameter) -> tuple[np.ndarray, np.ndarray]:
    """Return between which numbers single entries lie, those of covariances included."""
    low, high = entry_limits(parameter.constraint, parameter.shape)
    kind = type(entry_constraint(parameter.constraint))
    if kind is CORRELATIONS:
        return np.full(parameter.shape, -1.0), np.full(parameter.shape, 1.0)
    if kind in POSITIVE_DEFINITE:
        low = np.where(np.eye(parameter.shape[-1], dtype=bool), 0.0, low)
    return low, high
