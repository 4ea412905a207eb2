"""What EM found, as a table: a line for each number that it estimated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.graph.factor_graph import FactorGraph
from emjax.report.dimensions import parameter_dimensions
from emjax.run.annotations import Real, ResultOrNone
from emjax.run.columns import in_columns
from emjax.run.result import check_is_result, how_it_ended, warnings_of

# entries of a parameter that are printed: a table of a thousand words is no summary; `rows` has all
SHOWN = 20


# by its form, so that whoever has standard errors by other means can show them
@runtime_checkable
class HasStandardErrors(Protocol):
    """Standard errors by site, and the intervals that they make, {site: (low, high)}."""

    standard_error: Mapping[str, Any]

    def interval(self, level: float) -> Mapping[str, Any]:
        """Return {site: (low, high)} at a level, such as 0.95."""
        ...


class Row(NamedTuple):
    """One number that EM estimated.

    - `site`: its parameter.
    - `name`: site and index.
    - `estimate`, `standard_error`: NaN without.
    - `low`, `high`: the ends of its interval; NaN without.
    - `method`: its M-step's.
    """

    site: str
    name: str
    estimate: float
    standard_error: float
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Summary:
    """What EM found; prints as a table.

    - `rows`: {site: a `Row` for each of its entries}.
    - `heading`: why EM stopped, and the log-likelihood in nats.
    - `level`: that of the intervals, None without standard errors.
    """

    rows: Mapping[str, list[Row]]
    heading: str
    level: float | None

    def __str__(self) -> str:
        errors = []
        if self.level is not None:
            errors = ["standard error", f"{100 * self.level:g}% interval"]
        head = ["", "estimate", *errors, "M-step"]
        lines = [head]
        for name, rows in self.rows.items():
            lines += [self._cells(row) for row in rows[:SHOWN]]
            if len(rows) > SHOWN:
                lines.append([f"{name}: {len(rows) - SHOWN} more entries", *[""] * (len(head) - 1)])
        sides = "l" + "r" * (len(head) - 2) + "l"
        return "\n".join([self.heading, *in_columns(lines, sides)])

    def _cells(self, row: Row) -> list[str]:
        errors = []
        if self.level is not None:
            errors = [f"{row.standard_error:.4g}", f"[{row.low:.5g}, {row.high:.5g}]"]
        return [row.name, f"{row.estimate:.5g}", *errors, row.method]


@of_a_fit
def summary(
    em: EM | Fit,
    result: ResultOrNone = None,
    *args: Any,
    standard_errors: HasStandardErrors | None = None,
    level: Real = 0.95,
    **kwargs: Any,
) -> Summary:
    """Return the estimates as a table: a line for each entry of each parameter.

    Its index is named by the latent whose values it lists. `args`, `kwargs`: the model's own.
    `standard_errors`: a record with `standard_error`, {site: array}, and `interval(level)`, {site:
    (low, high)}. Errors: `ValueError` for a result of another program, and for a level that is not
    between 0 and 1.

    ```python
    em = EM(coins)
    print(emjax.summary(em, em.run(jax.random.key(0), heads), heads))
    ```
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}.")
    check_is_result(result)
    bound = asked_of(em, result, args, kwargs)
    plan = em.plan(*args, **kwargs)
    graph = bound.compiled.graph
    # standard errors made by others may lack a parameter: it is shown without
    errors: Mapping[str, Any] = {}
    intervals: Mapping[str, Any] = {}
    if standard_errors is not None:
        errors, intervals = standard_errors.standard_error, standard_errors.interval(level)
    rows = {}
    for name, value in bound.checked(result.params).items():
        unknown = np.full(np.shape(value), np.nan)
        columns = [value, errors.get(name, unknown), *intervals.get(name, (unknown, unknown))]
        numbers = np.stack([np.asarray(column, float).ravel() for column in columns], axis=-1)
        rows[name] = []
        for entry, values in zip(_entries(graph, name), numbers, strict=True):
            estimate, error, low, high = map(float, values)
            rows[name].append(Row(name, entry, estimate, error, low, high, plan.method(name)))
    heading = "\n".join([*how_it_ended(result), *warnings_of(result)])
    return Summary(rows, heading, None if standard_errors is None else level)


def _entries(graph: FactorGraph, name: str) -> list[str]:
    """Return what each entry of a parameter is called, in order: loc[component=0, 1]."""
    dimensions, shape = parameter_dimensions(graph)[name], graph.parameters[name].shape
    if not shape:
        return [name]
    labels = []
    # an axis that no latent names is counted
    for latent, size in zip(dimensions, shape, strict=True):
        if latent is None:
            labels.append([str(number) for number in range(size)])
        else:
            labels.append([f"{latent}={value}" for value in support_values(graph, latent)])
    return [f"{name}[{', '.join(index)}]" for index in itertools.product(*labels)]


def support_values(graph: FactorGraph, dimension: str) -> np.ndarray:
    """Return the values of the latent that a dimension is named after: 0, 1, … for vectors."""
    # a latent may itself be called `next_…`: its own name goes first
    is_latent = dimension in graph.latents
    latent = graph.latents[dimension if is_latent else dimension.removeprefix("next_")]
    return latent.support if latent.support.ndim == 1 else np.arange(len(latent.support))
