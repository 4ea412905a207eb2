"""Classes of a measurement model, related to covariates and outcomes in a step of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from emjax.classes.assignment import KINDS, Assignment
from emjax.classes.associations import CORRECTIONS, ThreeStep
from emjax.classes.external import Covariates, Outcome, covariates_of, outcome_of
from emjax.classes.likelihood_step import Drawn, fitted, of_category, of_covariates, of_number
from emjax.classes.membership import Membership
from emjax.classes.weighted_step import Step, logits, means
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.refits.survey_design import survey_design
from emjax.run.annotations import ParamsOrNone
from emjax.run.precision import in_double


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
    added. `outcome`: a column of numbers, of labels, or of booleans (0 and 1): its mean, the share
    of each label, or that of 1, in each class. `correction`:

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
    for name, given, known in (
        ("correction", correction, CORRECTIONS),
        ("assignment", assignment, KINDS),
    ):
        if given not in known:
            words = ", ".join(map(repr, known))
            raise ValueError(f"{name} must be one of {words}, not {given!r}.")
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
        num_terms, num_categories = len(outcome.terms), outcome.num_categories
        # a category that no sample of a class was assigned to may be there all the same
        observed = weights.T @ np.eye(num_categories)[outcome.values] / weights.sum(0)[:, None]
        start = {"share": 0.9 * observed + 0.1 / num_categories, **sizes}
        structure = (outcome.values, num_categories)
        step = fitted(of_category, "share", assigned, multiplicity, structure, start, drawn)
        return step.last(num_terms)
    deviation = outcome.values.std()
    start = {
        "mean": step.estimate[:, 0],
        "scale": np.full(weights.shape[1], deviation if deviation else 1.0),
        **sizes,
    }
    return fitted(of_number, "mean", assigned, multiplicity, (outcome.values,), start, drawn)
