"""Covariates and outcomes of samples, as numbers with names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from emjax.refits.survey_design import missing_in


class Covariates(NamedTuple):
    """What classes are explained by: (sample, term), and what the terms are called."""

    values: np.ndarray
    terms: tuple[str, ...]


class Outcome(NamedTuple):
    """What classes are to explain, one number or category for each sample.

    - `values`: numbers, or the numbers of the categories, (sample,).
    - `name`: what it is called.
    - `categories`: their names; none of a number. Of 0 and 1 there is one, that of 1.
    """

    values: np.ndarray
    name: str
    categories: tuple[str, ...]

    @property
    def num_categories(self) -> int:
        """How many values it has; 0 of a number."""
        return 2 if len(self.categories) == 1 else len(self.categories)

    @property
    def indicators(self) -> np.ndarray:
        """The number, or an indicator of each category, (sample, term)."""
        if len(self.categories) < 2:
            return self.values[:, None].astype(float)
        return np.eye(len(self.categories))[self.values]

    @property
    def terms(self) -> tuple[str, ...]:
        """What is estimated in each class, in words."""
        if not self.categories:
            return (f"mean of {self.name}",)
        return tuple(f"share of {category}" for category in self.categories)


def covariates_of(given: Any, size: int) -> Covariates:
    """Return covariates with an intercept in front.

    `given`: (sample,) or (sample, covariate), a data frame or series, or {name: (sample,)}. Errors:
    `ValueError` for what are no numbers, are missing, or another number of samples.
    """
    if isinstance(given, Mapping):
        names, columns = [str(name) for name in given], list(given.values())
    elif hasattr(given, "columns"):
        names, columns = [str(name) for name in given.columns], [given[c] for c in given.columns]
    else:
        array = np.asarray(given)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise ValueError(
                f"covariates have shape {np.shape(given)}. Pass a column for each covariate: "
                "(samples, covariates)."
            )
        of_series = getattr(given, "name", None)
        names = [str(of_series)] if of_series is not None else []
        names = names or [f"x{number}" for number in range(array.shape[1])]
        columns = list(array.T)
    values = np.ones((size, 1 + len(columns)))
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        values[:, number + 1] = _numbers(f"Covariate '{name}'", column, size)
    if np.linalg.matrix_rank(values) < values.shape[1]:
        raise ValueError(
            f"The covariates {', '.join(names)} say the same, together with the intercept, which "
            "is there without being given. Leave out one: the indicator of one category, say."
        )
    return Covariates(values, ("intercept", *names))


def outcome_of(given: Any, size: int) -> Outcome:
    """Return an outcome: of numbers, of labels, or of booleans or numbers that are all 0 or 1.

    Errors: `ValueError` for another number of samples, and what is missing.
    """
    name = str(getattr(given, "name", None) or "outcome")
    array = np.asarray(given)
    if array.shape != (size,):
        raise ValueError(
            f"The outcome has shape {array.shape}, and there are {size} samples. Pass one value "
            "for each, one outcome at a time."
        )
    if array.dtype.kind in "biuf" and set(np.unique(array).tolist()) <= {0, 1}:
        return Outcome(array.astype(int), name, (name,))
    if array.dtype.kind in "iuf":
        return Outcome(_numbers(f"Outcome '{name}'", array, size), name, ())
    num_missing = int(missing_in(array).sum())
    if num_missing:
        raise ValueError(_missing(f"Outcome '{name}'", num_missing))
    labels, number = np.unique(array.astype(str), return_inverse=True)
    return Outcome(number.reshape(-1), name, tuple(labels.tolist()))


def _numbers(what: str, column: Any, size: int) -> np.ndarray:
    array = np.asarray(column)
    if array.shape != (size,):
        raise ValueError(
            f"{what} has shape {array.shape}, and there are {size} samples. Pass one value for "
            "each."
        )
    num_missing = int(missing_in(array).sum())
    if num_missing:
        raise ValueError(_missing(what, num_missing))
    try:
        numbers = array.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} is not of numbers. Pass an indicator for each of its categories but one: "
            "pandas.get_dummies(column, drop_first=True, dtype=float)."
        ) from error
    if np.isinf(numbers).any():
        number = int(np.isinf(numbers).argmax())
        raise ValueError(f"{what} is infinite for sample {number}, and has no mean or slope there.")
    return numbers


def _missing(what: str, count: int) -> str:
    samples = "1 sample" if count == 1 else f"{count} samples"
    return (
        f"{what} is missing for {samples}. Fit the measurement model to all samples, and pass "
        "three_step those that are complete: three_step(fit, *complete_rows, ...)."
    )
