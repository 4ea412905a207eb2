"""The third step by weights: each sample counts for each class, some for less than nothing.

With weights ω_it that sum to that of the sample, ω_i, over classes t, estimating equations are sums
over samples, and so are their derivatives; none of them knows a latent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emjax.refits.survey_design import SurveyDesign

# Newton's method on a concave function: a dozen steps, if there is a maximum
MOST_STEPS = 100
ROUNDING = 1e-16
# curvature along a direction, relative to that of even odds, that tells no maximum from none
LEAST_CURVATURE = 1e-9


class Step(NamedTuple):
    """What a third step found.

    - `estimate`: (class, term).
    - `covariance`: of its entries, in their order.
    """

    estimate: np.ndarray
    covariance: np.ndarray

    def last(self, num_terms: int) -> Step:
        """Return the last terms of each class."""
        entries = np.arange(self.estimate.size).reshape(self.estimate.shape)[:, -num_terms:].ravel()
        covariance = self.covariance[np.ix_(entries, entries)]
        return Step(self.estimate[:, -num_terms:], covariance)


def means(weights: np.ndarray, outcome: np.ndarray, design: SurveyDesign) -> Step:
    """Return the mean of an outcome (sample, term) in each class: Σ_i ω_it y_i / Σ_i ω_it."""
    totals = weights.sum(0)
    mean = weights.T @ outcome / totals[:, None]
    scores = weights[:, :, None] * (outcome[:, None, :] - mean)
    influence = (scores / totals[:, None]).reshape(len(outcome), -1)
    return Step(mean, design.variance_of_total(influence.T))


def logits(weights: np.ndarray, covariates: np.ndarray, design: SurveyDesign) -> Step:
    """Return the coefficients of covariates (sample, term) on the logits of classes.

    Those of the first class are zero, and the coefficients are those of the others. They maximize
    Σ_it ω_it log p(t | covariates_i), which is linear less a convex function, also where weights
    are negative. Errors: `ValueError` where there is no maximum.
    """
    num_terms, num_classes = covariates.shape[1], weights.shape[1]
    coefficients = np.zeros((num_classes - 1, num_terms))
    of_samples = weights.sum(1)
    value = _log_likelihood(coefficients, weights, covariates)
    for _ in range(MOST_STEPS):
        probabilities = _probabilities(coefficients, covariates)
        residual = (weights - of_samples[:, None] * probabilities)[:, 1:]
        gradient = (residual.T @ covariates).ravel()
        information = _information(of_samples, probabilities[:, 1:], covariates)
        step = np.linalg.lstsq(information, gradient, rcond=None)[0]
        # half of what a step gains, which is what rounding leaves
        if gradient @ step <= ROUNDING * of_samples.sum():
            if _is_flat(information, of_samples, covariates):
                break
            scores = (residual[:, :, None] * covariates[:, None, :]).reshape(len(covariates), -1)
            influence = np.linalg.lstsq(information, scores.T, rcond=None)[0]
            return Step(coefficients, design.variance_of_total(influence))
        coefficients, value = _searched(coefficients, step, value, weights, covariates)
    raise ValueError(
        "The logits of classes have no maximum in the covariates: a covariate tells a class from "
        "the others for certain, or, with a correction, more than for certain. Leave it out, or "
        "use fewer classes."
    )


def _is_flat(information: np.ndarray, of_samples: np.ndarray, covariates: np.ndarray) -> bool:
    """Whether the maximum is at infinity, where logits are so large that nothing has a slope."""
    of_terms = np.sqrt(of_samples @ covariates**2)
    unit = np.tile(of_terms, len(information) // len(of_terms))
    return bool(np.linalg.eigvalsh(information / np.outer(unit, unit))[0] < LEAST_CURVATURE)


def _searched(
    coefficients: np.ndarray,
    step: np.ndarray,
    value: float,
    weights: np.ndarray,
    covariates: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return the coefficients after a step that does not go too far, and the objective there."""
    share = 1.0
    while True:
        there = coefficients + share * step.reshape(coefficients.shape)
        reached = _log_likelihood(there, weights, covariates)
        # the last step gains less than what is lost in rounding
        if reached >= value - 1e-12 * abs(value) or share < 1e-6:
            return there, max(value, reached)
        share /= 2


def _logits(coefficients: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(covariates), 1)), covariates @ coefficients.T], axis=1)


def _probabilities(coefficients: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    logits = _logits(coefficients, covariates)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def _log_likelihood(coefficients: np.ndarray, weights: np.ndarray, covariates: np.ndarray) -> float:
    logits = _logits(coefficients, covariates)
    return float((weights * (logits - np.logaddexp.reduce(logits, 1)[:, None])).sum())


def _information(
    of_samples: np.ndarray, probabilities: np.ndarray, covariates: np.ndarray
) -> np.ndarray:
    """Return minus the second derivatives, (entry, entry): Σ_i ω_i (diag p − p pᵀ) ⊗ x xᵀ."""
    num_classes = probabilities.shape[1]
    spread = -probabilities[:, :, None] * probabilities[:, None, :]
    spread[:, np.arange(num_classes), np.arange(num_classes)] += probabilities
    spread *= of_samples[:, None, None]
    blocks = np.einsum("nst,np,nq->sptq", spread, covariates, covariates)
    size = num_classes * covariates.shape[1]
    return blocks.reshape(size, size)
