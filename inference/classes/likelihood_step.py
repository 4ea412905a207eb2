"""The third step by maximum likelihood: the class is latent, what it was taken for is observed.

How often a class is taken for another is known from the measurement model, so that step three is a
latent class model with one indicator, whose errors are fixed. It is a NumPyro program, and EM fits
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints

from emjax.certificates.estimate import Estimate
from emjax.certificates.tangent_space import TangentSpace
from emjax.classes.assignment import Assignment
from emjax.classes.weighted_step import Step
from emjax.em import EM
from emjax.program.handlers.weights import weighted
from emjax.refits.uncertainty import standard_errors


class Drawn(NamedTuple):
    """How samples were drawn: a label for each sample, and how many there are; None: not said."""

    strata: Any
    clusters: Any
    population: Any


def of_covariates(assigned: Array, errors: Array, covariates: Array) -> None:
    """z_i ~ Categorical(softmax(0, β x_i)); what it was taken for is of known errors."""
    num_others = errors.shape[0] - 1
    coefficients: Any = numpyro.param("coefficients", jnp.zeros((num_others, covariates.shape[1])))
    with numpyro.plate("rows", len(assigned)):
        others = covariates @ coefficients.T
        logits = jnp.concatenate([jnp.zeros((len(assigned), 1)), others], axis=1)
        z: Any = numpyro.sample("class", dist.Categorical(logits=logits))
        numpyro.sample("assigned", dist.Categorical(errors[z]), obs=assigned)


def _of_outcome(assigned: Array, errors: Array, outcome: Array, density: Callable) -> None:
    sizes = jnp.full(len(errors), 1 / len(errors))
    sizes: Any = numpyro.param("sizes", sizes, constraint=constraints.simplex)
    with numpyro.plate("rows", len(assigned)):
        z: Any = numpyro.sample("class", dist.Categorical(sizes))
        numpyro.sample("assigned", dist.Categorical(errors[z]), obs=assigned)
        numpyro.sample("outcome", density(z), obs=outcome)


def of_number(assigned: Array, errors: Array, outcome: Array) -> None:
    """y_i ~ Normal(mean[z_i], scale[z_i])."""
    mean: Any = numpyro.param("mean", jnp.zeros(len(errors)))
    scale: Any = numpyro.param("scale", jnp.ones(len(errors)), constraint=constraints.positive)
    _of_outcome(assigned, errors, outcome, lambda z: dist.Normal(mean[z], scale[z]))


def of_category(assigned: Array, errors: Array, outcome: Array, num_categories: int) -> None:
    """y_i ~ Categorical(share[z_i])."""
    share = jnp.full((len(errors), num_categories), 1 / num_categories)
    share: Any = numpyro.param("share", share, constraint=constraints.simplex)
    _of_outcome(assigned, errors, outcome, lambda z: dist.Categorical(share[z]))


@cache
def _em_of(program: Callable) -> EM:
    # rows are few numbers each: hundreds of steps cost nothing, and the last digits count
    sampled = weighted(program, "rows", kind="sampling")
    return EM(sampled, tol=1e-12, max_steps=5000)


def fitted(
    program: Callable,
    reported: str,
    assignment: Assignment,
    multiplicity: np.ndarray,
    structure: tuple,
    start: Mapping[str, Any],
    drawn: Drawn,
) -> Step:
    """Return what EM finds of a program of (assigned, errors, *structure), and its covariance.

    The log-likelihood is Σ_is w_is log Σ_t p(t) p(assigned to s | t) p(y_i | t), of samples i that
    are w_is of s. `reported`: the parameter that is asked for. Source: Vermunt (2010), Political
    Analysis 18, (9).
    """
    num_samples, num_classes = assignment.weights.shape
    sample, assigned = np.nonzero(np.ones((num_samples, num_classes)))
    weights = (assignment.weights * multiplicity[:, None]).ravel()
    # of what is assigned to one class, the others are no rows
    if assignment.weights.max(1).min() == 1:
        rows = assignment.weights.ravel() == 1
        sample, assigned, weights = sample[rows], assigned[rows], weights[rows]
    in_rows = [part[sample] if np.ndim(part) else part for part in structure]
    em, data = _em_of(program), (weights, assigned, assignment.errors, *in_rows)
    result = em.run(jax.random.key(0), *data, init_params=dict(start))
    # rows of one sample are no samples: they are a cluster, if they are not part of a larger one
    clusters = np.arange(num_samples) if drawn.clusters is None else np.asarray(drawn.clusters)
    strata = None if drawn.strata is None else np.asarray(drawn.strata)[sample]
    design = {"clusters": clusters[sample], "strata": strata, "population": drawn.population}
    try:
        errors = standard_errors(em, result, *data, **design)
    except ValueError as error:
        raise ValueError(
            f"The third step has no standard errors: {error}\nFewer covariates, fewer classes or "
            "correction='bch' ask less of the data."
        ) from error
    estimate = Estimate.of(em.on(*data), result)
    directions = TangentSpace.of(estimate).directions(estimate.params)[reported]
    slopes = directions.reshape(len(directions), -1)
    covariance = slopes.T @ errors.covariance @ slopes
    is_known = np.isnan(errors.standard_error[reported]).ravel()
    covariance[is_known], covariance[:, is_known] = np.nan, np.nan
    value = np.asarray(result.params[reported], float)
    return Step(value.reshape(value.shape[0], -1), covariance)
