"""What classes have to do with covariates or an outcome: a record that prints as a table."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import numpy as np
from jax.scipy.special import gammaincc
from jaxtyping import Float

from emjax.refits.standard_errors import p_column
from emjax.refits.students_t import quantile_of, two_sided
from emjax.run.annotations import Real
from emjax.run.columns import Column, Table, lines_of

CORRECTIONS = {
    "ml": "corrected by maximum likelihood (Vermunt, 2010)",
    "bch": "corrected by weights (Bolck, Croon & Hagenaars, 2004)",
    "none": "not corrected: associations are biased toward none",
}


class ThreeStep(eqx.Module, Table):
    """What classes have to do with covariates or an outcome; it prints as a table.

    Of covariates, the entries are the coefficients of a multinomial logit, log p(class k) / p(first
    class) per unit of the covariate; of an outcome, its mean, or the share of each category, in
    each class.

    **Attributes:**

    - `latent`: the latent whose values are the classes.
    - `values`: its values, in the order of the rows of `estimate`; the first class, against which
      logits are, has none there.
    - `terms`: the covariates, or the outcome's mean or categories.
    - `estimate`: (class, term).
    - `covariance`: of the entries of `estimate`, in their order; NaN on the boundary.
    - `errors`: p(assigned | class) of the measurement model, (class, assigned).
    - `num_samples`: how many samples there are.
    - `degrees_of_freedom`: those of t, clusters less strata, where samples were drawn so.
    - `correction`, `assignment`: how it was done.
    - `level`: that of the intervals in print and in a data frame.

    Source: Vermunt (2010), Political Analysis 18.
    """

    latent: str = eqx.field(static=True)
    values: tuple[Any, ...] = eqx.field(static=True)
    terms: tuple[str, ...] = eqx.field(static=True)
    estimate: Float[np.ndarray, "class term"]
    covariance: Float[np.ndarray, "entry entry"]
    errors: Float[np.ndarray, "true assigned"]
    num_samples: int
    degrees_of_freedom: float
    correction: str = eqx.field(static=True)
    assignment: str = eqx.field(static=True)
    level: float = eqx.field(static=True, default=0.95)

    @property
    def is_of_covariates(self) -> bool:
        """Whether classes are explained, and do not explain."""
        return len(self.estimate) < len(self.errors)

    @property
    def standard_error(self) -> Float[np.ndarray, "class term"]:
        """The standard error of each entry, the measurement model taken as known."""
        return np.sqrt(np.diag(self.covariance)).reshape(self.estimate.shape)

    @property
    def z(self) -> Float[np.ndarray, "class term"]:
        """Estimate / standard error of a coefficient; NaN of an outcome, where 0 is no question."""
        if not self.is_of_covariates:
            return np.full(self.estimate.shape, np.nan)
        return self.estimate / self.standard_error

    @property
    def p_value(self) -> Float[np.ndarray, "class term"]:
        """How probable so large a |z| is if the coefficient is 0."""
        return two_sided(self.z, self.degrees_of_freedom)

    def interval(
        self, level: Real = 0.95
    ) -> tuple[Float[np.ndarray, "class term"], Float[np.ndarray, "class term"]]:
        """Return the ends of estimate ± quantile × standard error."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}.")
        half = quantile_of((1 + level) / 2, self.degrees_of_freedom) * self.standard_error
        return self.estimate - half, self.estimate + half

    def wald(self, term: str) -> tuple[float, int, float]:
        """Return Wald's test that a term is alike in all classes: χ², degrees of freedom, p.

        Of a covariate, that it has nothing to do with the class. Errors: `ValueError` for a term
        that there is not.
        """
        if term not in self.terms:
            raise ValueError(f"There is no {term!r}; terms are {', '.join(map(repr, self.terms))}.")
        num_rows, num_terms = self.estimate.shape
        entries = np.arange(num_rows) * num_terms + self.terms.index(term)
        values = self.estimate.ravel()[entries]
        covariance = self.covariance[np.ix_(entries, entries)]
        if not self.is_of_covariates:
            # differences from the first class
            contrasts = np.eye(num_rows)[1:] - np.eye(num_rows)[:1]
            values, covariance = contrasts @ values, contrasts @ covariance @ contrasts.T
        if not np.isfinite(covariance).all():
            return math.nan, len(values), math.nan
        statistic = float(values @ np.linalg.lstsq(covariance, values, rcond=None)[0])
        return statistic, len(values), float(gammaincc(len(values) / 2, statistic / 2))

    def __str__(self) -> str:
        what = f"logits against class {self.values[0]}"
        head = [
            f"{what if self.is_of_covariates else 'outcome'} of '{self.latent}', "
            f"{self.num_samples} samples, {self.assignment} assignment, "
            f"{CORRECTIONS[self.correction]}"
        ]
        # of two shares, one says what the other does
        is_first_told = self.is_of_covariates or len(self.terms) == 2
        tests = []
        for term in self.terms[1:] if is_first_told else self.terms:
            statistic, degrees, p = self.wald(term)
            (probability,) = p_column([p]).written
            tests.append(f"{term}: χ² = {statistic:.2f} on {degrees}, p {probability}")
        return "\n".join(
            [
                *head,
                *(f"  {line}" for line in lines_of(self._columns())),
                "alike in all classes? " + "; ".join(tests),
                "standard errors take the measurement model as known",
                *self._caveats(),
            ]
        )

    def _caveats(self) -> list[str]:
        are_shares = self.terms[0].startswith("share of ") and not self.is_of_covariates
        if not are_shares or ((self.estimate >= 0) & (self.estimate <= 1)).all():
            return []
        return [
            "some shares are not between 0 and 1: weights are right on average alone; "
            "correction='ml' keeps them within"
        ]

    def _columns(self) -> list[Column]:
        num_rows, num_terms = self.estimate.shape
        values = [str(value) for value in self.values[-num_rows:]]
        low, high = self.interval(self.level)
        is_tested, percent = self.is_of_covariates, f"{100 * self.level:g} %"
        return [
            Column("class", np.repeat(values, num_terms).tolist(), title=self.latent),
            Column("term", list(self.terms) * num_rows, title=""),
            Column("estimate", self.estimate.ravel(), ".4f"),
            Column("standard_error", self.standard_error.ravel(), ".4f"),
            Column("z_value", self.z.ravel(), ".2f", "z", is_printed=is_tested),
            p_column(self.p_value.ravel(), is_tested),
            Column("low", low.ravel(), ".4f", f"{percent} from"),
            Column("high", high.ravel(), ".4f", "to"),
        ]
