"""K-fold cross-validation: the log-likelihood of samples that the estimate has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emjax.answers.reweighted import (
    Reweighted,
    check_no_local_latents,
    checked_reweighted,
    plates_of,
)
from emjax.em import EM, bound_to
from emjax.fit import Fit, of_a_fit
from emjax.program.handlers.units import Units
from emjax.refits.sample_counts import SampleCounts
from emjax.run import verdicts
from emjax.run.annotations import InitParams, Whole
from emjax.run.bound import Bound, checked_key
from emjax.run.columns import Column, Table
from emjax.run.compilation import CompiledFunction
from emjax.run.findings import Finding
from emjax.run.precision import in_double
from emjax.run.settings import is_whole_number
from emjax.run.state import Status, has_failed, has_settled


class CrossValidation(eqx.Module, Table):
    """What estimates from the other folds say of each fold's samples.

    **Attributes:**

    - `pointwise`: log p(x_n | θ without n's fold) in nats, for each element n of the plate; NaN
      where the fold's EM failed, 0 of an element of which nothing is observed.
    - `fold`: which fold each element is held out in; −1 if nothing of it is observed.
    - `params`: the estimate without each fold, folds first.
    - `status`: why each fold's EM stopped, from the start that ended highest of those that did not
      fail.
    - `num_steps`: how many steps it took.
    - `plate`: the plate whose elements are the samples.
    - `multiplicity`: how many samples each element counts as; 0 if nothing of it is observed.
    """

    pointwise: Float[Array, "element"]
    fold: Int[np.ndarray, "element"]
    params: dict[str, Array]
    status: tuple[Status, ...] = eqx.field(static=True)
    num_steps: Int[np.ndarray, "fold"]
    plate: str = eqx.field(static=True)
    multiplicity: Float[np.ndarray, "element"]

    @property
    def log_likelihood(self) -> float:
        """Σ_n log p(x_n | θ without n's fold) in nats: what is compared, the higher the better."""
        return float(np.asarray(self.pointwise).sum())

    @property
    def num_samples(self) -> float:
        """How many samples are held out, multiplicities included."""
        return float(self.multiplicity.sum())

    @property
    def mean(self) -> float:
        """The held-out log-likelihood of a sample, on average, in nats."""
        return self.log_likelihood / self.num_samples

    @property
    def standard_error(self) -> float:
        """√(n · variance over the n samples): the standard error of `log_likelihood` in nats.

        An element of multiplicity s is s samples. Source: Vehtari, Gelman & Gabry (2017), (23).
        """
        return standard_error_of_sum(np.asarray(self.pointwise), self.multiplicity)

    @property
    def has_failed(self) -> bool:
        """Whether the EM of a fold failed, so that there is no sum over the folds."""
        return any(bool(has_failed(status)) for status in self.status)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be known of the held-out log-likelihood before it is compared."""
        count = self.num_impossible
        return (verdicts.impossible_held_out(count),) if count else ()

    @property
    def num_impossible(self) -> int:
        """How many elements have probability zero under the estimate from the other folds."""
        return int(np.isneginf(np.asarray(self.pointwise)).sum())

    def __str__(self) -> str:
        n, error = self.num_samples, self.standard_error
        lines = [
            f"held-out log-likelihood {self.log_likelihood:.4f} ± {error:.4f} nats "
            f"({n:g} elements of plate '{self.plate}', {len(self.status)} folds)",
            f"of an element           {self.mean:.4f} ± {error / n:.4f} nats",
        ]
        for i, (status, steps) in enumerate(zip(self.status, self.num_steps, strict=True)):
            # of folds that converged there is nothing to say
            if not has_settled(status):
                lines.append(f"fold {i}: {status.message} (after {steps} steps)")
        return "\n".join([*lines, *map(str, self.findings)])

    def _columns(self) -> list[Column]:
        """Return a row for each element of the plate."""
        return [
            Column(self.plate, range(len(self.fold))),
            Column("fold", self.fold),
            Column("log_likelihood", np.asarray(self.pointwise)),
            Column("multiplicity", self.multiplicity),
        ]


def standard_error_of_sum(totals: np.ndarray, multiplicity: np.ndarray) -> float:
    """Return the standard error of a sum over samples, of which an element is `multiplicity` many.

    `totals`: of each element, over its samples. Infinite or NaN totals have none: NaN.
    """
    n = multiplicity.sum()
    if not np.isfinite(totals).all() or n <= 1:
        return np.nan
    counts = multiplicity > 0
    totals, multiplicity = totals[counts], multiplicity[counts]
    deviations = totals / multiplicity - totals.sum() / n
    return float(np.sqrt(n * (multiplicity * deviations**2).sum() / (n - 1)))


@of_a_fit
@in_double
def cross_validate(
    em: EM | Fit,
    rng_key: Any,
    *args: Any,
    num_folds: Whole = 5,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    init_params: InitParams = None,
    **kwargs: Any,
) -> CrossValidation:
    """Return the held-out log-likelihood of the samples.

    Each is taken under the estimate from the folds that the sample is not in. A fold is a choice of
    weights, 0 for what is held out and 1 for the others, so that all folds, and all restarts of
    each, are runs of one compiled function. Which element is in which fold is drawn with `rng_key`:
    the same for the same key and size, so that models can be compared element by element.

    Each fold is a run as `EM.run` does it: of several starts, `short_steps` of each and the best to
    its end. An element of which nothing is observed is in no fold.

    `num_folds`: as many as there are elements is leave-one-out. `plate`: the plate whose elements
    are held out; default: the only outermost one. `rows`: {another plate: which element of `plate`
    each of its elements belongs to}, for long-form data: `plate="items", rows={"labels": item}`.
    `init_params`: as `EM.run` takes it.

    A start that the program computes from its data has seen the held-out elements, and parameters
    of single elements (one for each document) are not learned for those that are held out. An
    element of multiplicity s is held out with all its copies. Errors: `ValueError` for a plate that
    the program does not have, an impossible number of folds, elements that are not independent
    given the parameters, and continuous latents of single elements.
    """
    rng_key = checked_key(
        rng_key,
        "The second argument is a random key, the model's own arguments follow: "
        "emjax.cross_validate(em, jax.random.key(0), ...).",
    )
    bound = bound_to(em, args, kwargs)
    # one bar for each fold would be no progress
    quiet = {"progress_bar": False} if bound.compiler.settings.progress_bar else {}
    weighted = checked_reweighted(bound, plate, rows, **quiet)
    units = weighted.units
    multiplicity = _multiplicities(bound, units)
    _check_folds(num_folds, units, int((multiplicity > 0).sum()))
    check_no_local_latents(
        bound,
        units,
        "; that of a held-out element cannot be learned from the others. Cross-validate over a "
        "plate outside which it stands: cross_validate(..., plate=...).",
    )
    # what is no dictionary may have no truth value either
    some_params = {} if init_params is None else init_params
    some_params = weighted.bound.checked(some_params, complete=False)
    draws = _draws(int((multiplicity > 0).sum()), int(num_folds))
    drawn, started, keys = draws(rng_key)
    fold = np.full(units.size, -1)
    fold[multiplicity > 0] = drawn
    fits = [_fit(weighted, fold, number, key, some_params) for number, key in enumerate(keys)]
    if all(has_failed(fit.status) for fit in fits):
        # raises where the start is to blame
        bound.run(started, init_params=init_params)
    pointwise = np.zeros(fold.shape, jnp.result_type(float))
    for number, fit in enumerate(fits):
        pointwise[fold == number] = _held_out(weighted, fold == number, fit)
    return CrossValidation(
        jnp.asarray(pointwise),
        fold,
        jax.tree.map(_stacked, *(fit.params for fit in fits)),
        tuple(fit.status for fit in fits),
        np.asarray([fit.num_steps for fit in fits]),
        units.plate,
        multiplicity,
    )


def _stacked(*values: Any) -> Array:
    return jnp.asarray(np.stack(values))


def _multiplicities(bound: Bound, units: Units) -> np.ndarray:
    """Return how many samples each unit counts as, (unit,)."""
    counts = SampleCounts.of(bound, plates_of(bound).plates[units.plate])
    try:
        return counts.multiplicities
    # sites that count differently: a sample is held out all the same, with all that it counts
    except ValueError:
        return counts.has_data.astype(float)


@lru_cache(maxsize=64)
def _draws(size: int, num_folds: int) -> CompiledFunction:
    """Return the function of a random key that draws the fold of each of `size` elements.

    It also returns a key for what is started, and one for each fold.
    """

    def draws(rng_key):
        # folds do not depend on how many starts there are, nor the other way around
        drawn, started = jax.random.split(rng_key)
        fold = jax.random.permutation(drawn, jnp.arange(size) % num_folds)
        return fold, started, list(jax.random.split(started, num_folds))

    return CompiledFunction(draws, is_called_once=True)


class EndOfFold(NamedTuple):
    """How EM ended: the parameters, why it stopped, and after how many steps."""

    params: dict
    status: Status
    num_steps: int


def _fit(
    weighted: Reweighted, fold: np.ndarray, number: int, key: Any, given: Mapping
) -> EndOfFold:
    """Return the fit without a fold, as `EM.run` finds it."""
    # nothing is cut out: with weights of zero all folds have one shape, and one compilation
    weights = (fold != number).astype(jnp.result_type(float))
    try:
        found = weighted.at(weights).run(key, init_params=given)
    # a start that the data of this fold exclude: other folds may have better ones
    except ValueError:
        parameters = weighted.compiled.graph.parameters
        unknown = {name: np.full(each.shape, np.nan) for name, each in parameters.items()}
        return EndOfFold(unknown, Status.NOT_FINITE, 0)
    return EndOfFold(jax.device_get(found.params), found.status, found.num_steps)


def _held_out(weighted: Reweighted, is_out: np.ndarray, fit: EndOfFold) -> np.ndarray:
    """Return the log-likelihoods of the elements that a fit has not seen; NaN where it failed.

    Errors: `ValueError` where they are not independent given the parameters.
    """
    if has_failed(fit.status):
        return np.full(int(is_out.sum()), np.nan)
    contributions = weighted.contributions_at(fit.params, is_out)
    weighted.check_independent(contributions.nonlinearity)
    return np.asarray(contributions.log_likelihood)[is_out]


def _check_folds(num_folds: Any, units: Units, num_observed: int) -> None:
    if not is_whole_number(num_folds) or not 2 <= num_folds <= num_observed:
        observed = "" if num_observed == units.size else " of which anything is observed"
        raise ValueError(
            f"num_folds must be a whole number from 2 to {num_observed}, the number of elements of "
            f"plate '{units.plate}'{observed}, not {num_folds!r}."
        )
