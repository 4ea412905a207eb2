"""Standard errors of an estimate.

They come from second derivatives of the log-likelihood, robust ones from single scores, or from
refits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
from jaxtyping import Array

from emjax.answers.relabeling import symmetries
from emjax.answers.reweighted import plates_of
from emjax.certificates.estimate import Estimate
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.refits.bootstrap import redrawn, resampled
from emjax.refits.cluster_draws import resampled_clusters, without_each_cluster
from emjax.refits.information import from_information, from_linearization, from_sandwich
from emjax.refits.sample_counts import SampleCounts, has_sampling_weights
from emjax.refits.scores import independent
from emjax.refits.spread import from_jackknife, from_refits, latents_of
from emjax.refits.standard_errors import StandardErrors, checked_level
from emjax.refits.survey_design import survey_design
from emjax.run import endings
from emjax.run.annotations import ParamsOrNone, Real, Whole
from emjax.run.bound import checked_key
from emjax.run.precision import in_double
from emjax.run.result import EMResult
from emjax.run.settings import is_whole_number
from emjax.run.state import has_failed

METHODS = (
    "information",
    "sandwich",
    "linearization",
    "jackknife",
    "bootstrap",
    "parametric bootstrap",
)
# those that know how a survey's sample was drawn
OF_DESIGNS = ("linearization", "jackknife", "bootstrap")
# A refit without one of n clusters is 1/√n standard errors away: it has to come closer to its
# maximum than a run of its own.
TOL_OF_JACKKNIFE = 1e-3


@of_a_fit
@in_double
def standard_errors(
    em: EM | Fit,
    params: ParamsOrNone = None,
    *args: Any,
    method: str | None = None,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    strata: Any = None,
    clusters: Any = None,
    population: Any = None,
    num_draws: Whole = 200,
    rng_key: Any = None,
    level: Real = 0.95,
    **kwargs: Any,
) -> StandardErrors:
    """Return standard errors of an estimate; they print as a table.

    `params`: the estimate, or the result of a run; `args`, `kwargs`: the model's own. `method`:

    - "information": √diag of I⁻¹, where I = −∇² log p(x | θ) is the observed information, by exact
      second derivatives with every latent summed out. Where the program states priors, of log p(x |
      θ) + log p(θ): the standard deviations of Laplace's approximation of the posterior. Source:
      Efron & Hinkley (1978).
    - "sandwich": I⁻¹ (Σ_n s_n s_nᵀ) I⁻¹ with s_n the scores of the elements of a plate, which are
      right for data from outside the model. Source: White (1982).
    - "bootstrap": the standard deviation over refits to the elements of a plate, drawn with
      replacement. Source: Efron (1979).
    - "parametric bootstrap": over refits to data that the program draws at `params`. What it takes
      as arguments other than observations stays as it is.

    None: "information", or "linearization" for a survey: sampling weights
    (`weighted(kind="sampling")`), `strata`, `clusters` or a `population`. Of a survey,

    - "linearization": the sandwich with the scores summed in clusters and centered in strata, Σ_h
      (1 − f_h) n_h / (n_h − 1) Σ_i (s_hi − s̄_h)(s_hi − s̄_h)ᵀ. Source: Binder (1983).
    - "jackknife": (1 − f_h) (n_h − 1) / n_h times squared distances of the refits without each
      cluster from their mean in the stratum (JKn). Source: Wolter (2007), section 4.5.
    - "bootstrap": n_h − 1 of n_h clusters drawn with replacement. Source: Rao & Wu (1988).

    `strata`, `clusters`: a label for each element of the plate, such as columns of the data; by
    default there is one stratum, and each element is a cluster. A cluster is in one stratum: equal
    labels in two strata are two clusters. `population`: how many clusters each stratum has in all,
    {stratum: number} or one number, where they were drawn without replacement. Intervals have
    clusters less strata degrees of freedom.

    Derivatives are in unconstrained coordinates, the standard errors of the constrained entries
    follow by the delta method. Refits start at `params`, are compiled together, and their labels
    are brought to those of the estimate. `plate`: whose elements are independent (the only
    outermost one, if not given); `rows`: {another plate: which element of `plate` each of its
    elements belongs to}, for long-form data: `plate="items", rows={"labels": item}`. `num_draws`,
    `rng_key`: for a bootstrap. `level`: of the intervals that are printed.

    Errors: `ValueError` for params that are no maximum (a direction of increase, or one that is not
    determined, is named), too far from one, or on which nothing depends smoothly (hard E-step); for
    a plate that does not hold all data; for elements with multiplicities in a sandwich or
    bootstrap; for sampling weights by a method that does not know of them; for a stratum of one
    cluster.
    """
    if method is not None and method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}.")
    # parameters alone do not say how they were found
    if isinstance(params, EMResult) and has_failed(params.status):
        why = endings.why_it_stopped(params.status.name, params.findings)
        raise ValueError(f"There is no estimate to judge: {why}.")
    estimate = Estimate.of(asked_of(em, params, args, kwargs), params)
    is_survey = has_sampling_weights(estimate.bound)
    is_survey |= any(given is not None for given in (strata, clusters, population))
    method = method or ("linearization" if is_survey else "information")
    if is_survey and method not in OF_DESIGNS:
        raise ValueError(
            f"method={method!r} takes elements for a simple random sample, and this one is a "
            f"survey's (sampling weights, strata or clusters). Use "
            f"{', '.join(map(repr, OF_DESIGNS))}."
        )
    keys = _keys_of_draws(num_draws, rng_key) if method.endswith("bootstrap") else None
    if method == "information":
        found = from_information(estimate)
    elif method == "sandwich":
        found = from_sandwich(estimate, plate, rows)
    elif is_survey or method in ("linearization", "jackknife"):
        found = _of_survey(estimate, method, plate, rows, (strata, clusters, population), keys)
    elif method == "bootstrap":
        found = _from_resampling(estimate, plate, rows, keys)
    else:
        found = _from_simulation(estimate, keys)
    return replace(found, level=checked_level(level))


# ── surveys ───────────────────────────────────────────────────────────────────────────────────────


def _of_survey(
    estimate: Estimate,
    method: str,
    plate: str | None,
    rows: Mapping[str, Any] | None,
    drawn: tuple[Any, Any, Any],
    keys: Any,
) -> StandardErrors:
    """Return standard errors of a survey's sample. `drawn`: strata, clusters, population."""
    bound, settings = estimate.bound, estimate.bound.compiler.settings
    closer = {"tol": settings.tol * TOL_OF_JACKKNIFE} if method == "jackknife" else {}
    weighted = independent(bound, plate, rows, **closer)
    units = weighted.units
    samples = SampleCounts.of(bound, plates_of(bound).plates[units.plate])
    design = survey_design(units.size, samples.has_data, *drawn)
    if method == "linearization":
        return from_linearization(estimate, weighted, design)
    weighted.check_sum(estimate.params)
    exchanges = symmetries(estimate)
    latents = latents_of(exchanges)
    of = f"of the sample's design, from {{}} refits to {units}"
    if method == "bootstrap":
        refitted = resampled_clusters(weighted, estimate, keys, latents, design)
        what = f"{of.format(len(keys))}, drawn with replacement; {design}"
        found = from_refits(estimate, method, f"standard errors {what}", exchanges, refitted)
    else:
        refitted = without_each_cluster(weighted, estimate, latents, design)
        what = f"{of.format(len(design.stratum))}, each without one of them; {design}"
        found = from_jackknife(estimate, f"standard errors {what}", exchanges, refitted, design)
    return replace(found, degrees_of_freedom=float(design.degrees_of_freedom))


# ── refits ────────────────────────────────────────────────────────────────────────────────────────


def _keys_of_draws(num_draws: Any, rng_key: Any) -> Array:
    """Return a random key for each draw. Errors: `ValueError` for no number, or no key."""
    # one draw has no spread
    if not is_whole_number(num_draws) or num_draws < 2:
        raise ValueError(f"num_draws must be a whole number of at least 2, not {num_draws!r}.")
    if rng_key is None:
        raise ValueError("A bootstrap draws at random: pass rng_key=jax.random.key(0).")
    call = "emjax.standard_errors(em, result, ..., rng_key=jax.random.key(0))"
    key = checked_key(rng_key, f"rng_key is a random key: {call}.")
    return jax.random.split(key, int(num_draws))


def _from_resampling(
    estimate: Estimate, plate: str | None, rows: Mapping[str, Any] | None, keys: Array
) -> StandardErrors:
    exchanges = symmetries(estimate)
    weighted = independent(estimate.bound, plate, rows)
    # refits maximize the sum over units, and would have no part of what is outside
    weighted.check_sum(estimate.params)
    unit = plates_of(estimate.bound).plates[weighted.units.plate]
    has_data = SampleCounts.of(estimate.bound, unit).has_data
    refitted = resampled(weighted, estimate, keys, latents_of(exchanges), has_data)
    what = (
        f"standard errors from {len(keys)} refits to the elements of {weighted.units}, drawn with "
        "replacement"
    )
    return from_refits(estimate, "bootstrap", what, exchanges, refitted)


def _from_simulation(estimate: Estimate, keys: Array) -> StandardErrors:
    exchanges = symmetries(estimate)
    refitted = redrawn(estimate, keys, latents_of(exchanges))
    what = f"standard errors from {len(keys)} refits to data drawn by the program at the estimate"
    return from_refits(estimate, "parametric bootstrap", what, exchanges, refitted)
