"""Classes of a measurement model, related to covariates and outcomes in a step of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jax.scipy.special import gammaincc
from jaxtyping import Float

from emjax.classes.assignment import KINDS, Assignment
from emjax.classes.external import Covariates, Outcome, covariates_of, outcome_of
from emjax.classes.likelihood_step import Drawn, fitted, of_category, of_covariates, of_number
from emjax.classes.membership import Membership
from emjax.classes.weighted_step import Step, logits, means
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.refits.standard_errors import p_column
from emjax.refits.students_t import quantile_of, two_sided
from emjax.refits.survey_design import survey_design
from emjax.run.annotations import ParamsOrNone, Real
from emjax.run.columns import Column, Table, lines_of
from emjax.run.precision import in_double

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
        tests = []
        for term in self.terms[1:] if self.is_of_covariates else self.terms:
            statistic, degrees, p = self.wald(term)
            (probability,) = p_column([p]).written
            tests.append(f"{term}: χ² = {statistic:.2f} on {degrees}, p {probability}")
        return "\n".join(
            [
                *head,
                *(f"  {line}" for line in lines_of(self._columns())),
                "alike in all classes? " + "; ".join(tests),
                "standard errors take the measurement model as known",
            ]
        )

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
            Column("z", self.z.ravel(), ".2f", is_printed=is_tested),
            p_column(self.p_value.ravel(), is_tested),
            Column("low", low.ravel(), ".4f", f"{percent} from"),
            Column("high", high.ravel(), ".4f", "to"),
        ]


@of_a_fit
@in_double
def three_step(
    em: EM | Fit,
    params: ParamsOrNone = None,
    *args: Any,
    covariates: Any = None,
    outcome: Any = None,
    correction: str | None = None,
    assignment: str = "modal",
    latent: str | None = None,
    strata: Any = None,
    clusters: Any = None,
    population: Any = None,
    **kwargs: Any,
) -> ThreeStep:
    """Return how the classes of a measurement model are related to covariates, or to an outcome.

    Step one is the fit; step two assigns its samples to classes; step three relates these to what
    is outside the model, and makes up for how often samples are assigned wrongly, which the
    measurement model knows. So neither covariates nor outcomes have a say in what the classes are.

    `em`, `params`: an EM and an estimate, or a fit alone; `args`, `kwargs`: the model's own.
    `covariates`: (sample, covariate), a data frame, or {name: column}, numbers all; an intercept is
    added. `outcome`: a column of numbers, or of categories (labels, booleans, 0 and 1): its mean,
    or the share of each category, in each class. `correction`:

    - "ml": a latent class model whose one indicator is the assigned class, of known errors, fitted
      by EM (an outcome that is a number is taken for normal within classes). Source: Vermunt
      (2010).
    - "bch": weights (the inverse of the errors) that are right on average, some of them negative,
      in a logit or a mean; nothing is assumed of an outcome. Source: Bolck, Croon & Hagenaars
      (2004); Vermunt (2010).
    - "none": the assignment is taken for the class; associations are biased toward none.
    - None: "ml" for covariates, "bch" for an outcome (Bakk & Vermunt, 2016).

    `assignment`: "modal", to the most probable class, or "proportional", to each class as its
    probability is. `latent`: whose values are the classes; default: the only one. Sampling weights
    are those of the program (`weighted(kind="sampling")`); `strata`, `clusters`, `population`: as
    `standard_errors` takes them.

    Standard errors are those of a sandwich over samples or clusters; they take the measurement
    model as known, and are somewhat too small where it is not (Bakk, Oberski & Vermunt, 2014).

    Errors: `ValueError` for both covariates and an outcome, or neither; for columns that are no
    numbers, missing, or of another length; for rows that are several samples.

    ```python
    fit = EM(coins).run(jax.random.key(0), heads)
    print(emjax.three_step(fit, outcome=heads))
    ```
    """
    if (covariates is None) == (outcome is None):
        raise ValueError(
            "three_step takes covariates=..., which explain the classes, or outcome=..., which "
            "they explain: one of them."
        )
    correction = correction or ("ml" if outcome is None else "bch")
    if correction not in CORRECTIONS or assignment not in KINDS:
        raise ValueError(
            f"correction must be one of {', '.join(map(repr, CORRECTIONS))}, not {correction!r}, "
            f"and assignment one of {', '.join(map(repr, KINDS))}, not {assignment!r}."
        )
    bound = asked_of(em, params, args, kwargs)
    membership = Membership.of(bound, params, latent)
    _check_single(bound, membership.latent)
    multiplicity, size = membership.multiplicity, len(membership.multiplicity)
    assigned = Assignment.of(membership, assignment)
    design = survey_design(size, multiplicity > 0, strata, clusters, population)
    external = covariates_of(covariates, size) if outcome is None else outcome_of(outcome, size)
    step_of: Callable = _of_covariates if outcome is None else _of_outcome
    drawn = Drawn(strata, clusters, population)
    step: Step = step_of(external, assigned, multiplicity, correction, design, drawn)
    is_drawn = any(given is not None for given in (strata, clusters, population))
    return ThreeStep(
        latent=membership.latent,
        values=tuple(membership.values.tolist()),
        terms=external.terms,
        estimate=step.estimate,
        covariance=step.covariance,
        errors=assigned.errors,
        num_samples=int((multiplicity > 0).sum()),
        degrees_of_freedom=float(design.degrees_of_freedom) if is_drawn else math.inf,
        correction=correction,
        assignment=assignment,
    )


def _check_single(bound: Any, latent: str) -> None:
    for term in bound.compiled.graph.terms:
        if term.site.name == latent and term.site.counts_copies:
            raise ValueError(
                f"Latent '{latent}' counts copies (handlers.scale, frequency weights), and each "
                "sample has covariates of its own. Pass the rows one by one, np.repeat(rows, "
                "count); weights of a survey are weighted(model, plate, kind='sampling')."
            )


def _weights(assigned: Assignment, multiplicity: np.ndarray, correction: str) -> np.ndarray:
    weights = assigned.corrected if correction == "bch" else assigned.weights
    return weights * multiplicity[:, None]


def _of_covariates(
    covariates: Covariates,
    assigned: Assignment,
    multiplicity: np.ndarray,
    correction: str,
    design: Any,
    drawn: Drawn,
) -> Step:
    weights = _weights(assigned, multiplicity, correction)
    if correction != "ml":
        return logits(weights, covariates.values, design)
    start = {"coefficients": logits(weights, covariates.values, design).estimate}
    structure = (covariates.values,)
    return fitted(of_covariates, "coefficients", assigned, multiplicity, structure, start, drawn)


def _of_outcome(
    outcome: Outcome,
    assigned: Assignment,
    multiplicity: np.ndarray,
    correction: str,
    design: Any,
    drawn: Drawn,
) -> Step:
    weights = _weights(assigned, multiplicity, correction)
    step = means(weights, outcome.indicators, design)
    if correction != "ml":
        return step
    sizes = {"sizes": weights.sum(0) / weights.sum()}
    if outcome.categories:
        num_categories = len(outcome.categories)
        # a category that no sample of a class was assigned to may be there all the same
        share = 0.9 * step.estimate + 0.1 / num_categories
        structure, start = (outcome.values, num_categories), {"share": share, **sizes}
        return fitted(of_category, "share", assigned, multiplicity, structure, start, drawn)
    deviation = outcome.values.std()
    start = {
        "mean": step.estimate[:, 0],
        "scale": np.full(weights.shape[1], deviation if deviation else 1.0),
        **sizes,
    }
    return fitted(of_number, "mean", assigned, multiplicity, (outcome.values,), start, drawn)
