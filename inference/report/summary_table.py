"""What EM found, as a table: a line for each number that it estimated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.naming.entries import Entries, columns_of_entries, entries_of
from emjax.refits.standard_errors import checked_level, p_column
from emjax.run.annotations import Real, ResultOrNone
from emjax.run.columns import Column, Table, lines_of
from emjax.run.result import check_is_result, how_it_ended, warnings_of

# entries of a parameter that are printed: a table of a thousand words is no summary; `rows` has all
SHOWN = 20


# those of a row, in the order in which they are put together
NUMBERS = ("estimate", "standard_error", "z", "p_value", "low", "high")


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
    - `name`: what the entry is called.
    - `estimate`, `standard_error`: NaN without.
    - `z`, `p_value`: of the hypothesis that it is 0; NaN where that is none.
    - `low`, `high`: the ends of its interval; NaN without.
    - `method`: its M-step's.
    """

    site: str
    name: str
    estimate: float
    standard_error: float
    z: float
    p_value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Summary(Table):
    """What EM found; prints as a table.

    - `rows`: {site: a `Row` for each of its entries}, of a symmetric matrix for each once.
    - `heading`: why EM stopped, and the log-likelihood in nats.
    - `level`: that of the intervals, None without standard errors.
    - `entries`: {site: what its entries are called}.
    """

    rows: Mapping[str, list[Row]]
    heading: str
    level: float | None
    entries: Mapping[str, Entries]

    def __str__(self) -> str:
        # a table of a thousand words is no summary
        shown, more = {}, []
        for name, rows in self.rows.items():
            shown[name] = rows[:SHOWN]
            if len(rows) > SHOWN:
                more.append(f"{name}: {len(rows) - SHOWN} more entries")
        lines = lines_of(self._columns_of(shown))
        return "\n".join([self.heading, *lines, *more])

    def _columns(self) -> list[Column]:
        """Return a row for each entry."""
        return [*columns_of_entries(self.entries), *self._columns_of(self.rows)[1:]]

    def _columns_of(self, shown: Mapping[str, list[Row]]) -> list[Column]:
        rows = list(itertools.chain.from_iterable(shown.values()))

        def values(name: str) -> list[Any]:
            return [getattr(row, name) for row in rows]

        def column(name: str, *others: Any) -> Column:
            return Column(name, values(name), *others)

        columns = [column("name", "", ""), column("estimate", ".5g")]
        if self.level is not None:
            columns.append(column("standard_error", ".4g"))
            if any(not np.isnan(row.z) for row in itertools.chain(*self.rows.values())):
                columns += [Column("z_value", values("z"), ".2f", "z"), p_column(values("p_value"))]
            percent = f"{100 * self.level:g} % from"
            columns += [column("low", ".5g", percent), column("high", ".5g", "to")]
        return [*columns, column("method", "", "M-step")]


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

    Entries are named by the latents whose values an axis lists, by plates, and by the columns of a
    data frame: loc[component=0, petal_width]; those of a symmetric matrix are listed once. `args`,
    `kwargs`: the model's own. `standard_errors`: what `emjax.standard_errors` returns, or a record
    with `standard_error`, {site: array}, and `interval(level)`, {site: (low, high)}. Errors:
    `ValueError` for a result of another program, and for a level that is not between 0 and 1.

    ```python
    em = EM(coins)
    print(emjax.summary(em, em.run(jax.random.key(0), heads), heads))
    ```
    """
    level = checked_level(level)
    check_is_result(result)
    bound = asked_of(em, result, args, kwargs)
    plan = em.plan(*args, **kwargs)
    entries, known = entries_of(bound), _columns_by_site(standard_errors, level)
    params, rows = bound.checked(result.params), {}
    # in the program's own order
    for name in entries:
        value = params[name]
        columns = [entries[name].listed(value)]
        for by_site in known:
            # standard errors made by others may lack a parameter: it is shown without
            array = by_site.get(name, np.full(np.shape(value), np.nan))
            columns.append(entries[name].listed(array))
        rows[name] = []
        numbers = np.stack(columns, axis=-1).astype(float).tolist()
        for entry, values in zip(entries[name].names, numbers, strict=True):
            row = dict(zip(NUMBERS, values, strict=True))
            rows[name].append(Row(site=name, name=entry, method=plan.method(name), **row))
    heading = "\n".join([*how_it_ended(result), *warnings_of(result)])
    return Summary(rows, heading, None if standard_errors is None else level, entries)


def _columns_by_site(found: HasStandardErrors | None, level: Real) -> list[Mapping[str, Any]]:
    """Return standard errors, z, p, and the ends of intervals, each {site: array}."""
    if found is None:
        return [{}] * 5
    if not hasattr(found, "interval"):
        raise ValueError(
            f"standard_errors is what emjax.standard_errors(fit) returns, not {found!r}: "
            "emjax.summary(fit, standard_errors=emjax.standard_errors(fit))."
        )
    intervals = found.interval(level)
    lows = {name: low for name, (low, _) in intervals.items()}
    highs = {name: high for name, (_, high) in intervals.items()}
    # others may know of no tests
    tests = getattr(found, "z", {}), getattr(found, "p_value", {})
    return [found.standard_error, *tests, lows, highs]
