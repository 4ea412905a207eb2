"""What EM found, as a table: a line for each number that it estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from emjax.em import EM, EMResult
from emjax.graph.factor_graph import FactorGraph
from emjax.report.dimensions import parameter_dimensions
from emjax.run import validation

SHOWN = 20


@runtime_checkable
class HasStandardErrors(Protocol):
    """Standard errors by site, and the intervals that they make, {site: (low, high)}."""

    standard_error: Mapping[str, Any]

    def interval(self, level: float) -> Mapping[str, Any]:
        """Return {site: (low, high)} at a level, such as 0.95."""
        ...


class Row(NamedTuple):
    """One number: its `name` (site and index), the `estimate`, its `standard_error` and the
    interval from `low` to `high` (NaN without), and its M-step's `method`.
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

    `rows`: {site: a `Row` for each of its entries}; `heading`: why EM stopped, and the
    log-likelihood in nats; `level`: that of the intervals, None without standard errors.
    """

    rows: Mapping[str, list[Row]]
    heading: str
    level: float | None

    def __str__(self) -> str:
        head = [
            "",
            "estimate",
            *(
                ["standard error", f"{100 * self.level:g}% interval"]
                if self.level is not None
                else []
            ),
            "M-step",
        ]
        lines = [head]
        for name, rows in self.rows.items():
            lines += [self._cells(row) for row in rows[:SHOWN]]
            if len(rows) > SHOWN:
                lines.append([f"{name}: {len(rows) - SHOWN} more entries", *[""] * (len(head) - 1)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        sides = [str.ljust, *[str.rjust] * (len(head) - 2), str.ljust]
        return "\n".join(
            [
                self.heading,
                *(
                    "  ".join(
                        side(cell, w) for side, cell, w in zip(sides, line, widths, strict=True)
                    ).rstrip()
                    for line in lines
                ),
            ]
        )

    def _cells(self, row: Row) -> list[str]:
        errors = (
            [f"{row.standard_error:.4g}", f"[{row.low:.5g}, {row.high:.5g}]"]
            if self.level is not None
            else []
        )
        return [row.name, f"{row.estimate:.5g}", *errors, row.method]


def summary(
    em: EM,
    result: EMResult,
    *args: Any,
    standard_errors: HasStandardErrors | None = None,
    level: float = 0.95,
    **kwargs: Any,
) -> Summary:
    """Return the estimates as a table: a line for each entry of each parameter, its index named by
    the latent whose values it lists.

    `args`, `kwargs`: the model's own. `standard_errors`: a record with `standard_error`, {site:
    array}, and `interval(level)`, {site: (low, high)}. Errors: `ValueError` for a result of another
    program, and for a level that is not between 0 and 1.

    ```python
    em = EM(coins)
    print(emjax.summary(em, em.run(jax.random.key(0), heads), heads))
    ```
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}.")
    compiled = em.on(*args, **kwargs).compiled
    params, plan = (
        validation.checked_params(compiled.graph, result.params, complete=True),
        em.plan(*args, **kwargs),
    )
    errors = {} if standard_errors is None else standard_errors.standard_error
    intervals = {} if standard_errors is None else standard_errors.interval(level)
    rows = {}
    for name, value in params.items():
        value, unknown = np.asarray(value), np.full(np.shape(value), np.nan)
        error = np.asarray(errors.get(name, unknown))
        low, high = (np.asarray(bound) for bound in intervals.get(name, (unknown, unknown)))
        labels = _labels(compiled.graph, name)
        rows[name] = [
            Row(
                name,
                f"{name}[{', '.join(labels[d][i] for d, i in enumerate(index))}]"
                if index
                else name,
                float(value[index]),
                float(error[index]),
                float(low[index]),
                float(high[index]),
                plan.method(name),
            )
            for index in np.ndindex(value.shape)
        ]
    heading = (
        f"{result.status.message} (after {result.num_steps} steps)\nlog-likelihood "
        f"{float(result.log_likelihood):.6f} nats"
    )
    heading = "\n".join([heading, *(f"warning: {text}" for text in result.warnings)])
    return Summary(rows, heading, None if standard_errors is None else level)


def _labels(graph: FactorGraph, name: str) -> list[list[str]]:
    """Return what each index along each axis of a parameter is called."""
    dimensions, shape = parameter_dimensions(graph)[name], graph.parameters[name].shape
    labels = []
    for source, size in zip(dimensions, shape, strict=True):
        values = range(size) if source is None else support_values(graph, source)
        labels.append([str(value) if source is None else f"{source}={value}" for value in values])
    return labels


def support_values(graph: FactorGraph, dimension: str) -> np.ndarray:
    """Return the values of the latent that a dimension is named after: 0, 1, … for vectors."""
    support = graph.latents[
        dimension if dimension in graph.latents else dimension.removeprefix("next_")
    ].support
    return support if support.ndim == 1 else np.arange(len(support))
